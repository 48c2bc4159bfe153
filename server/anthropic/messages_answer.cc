#include "server/anthropic/messages_answer.h"

#include <algorithm>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <utility>
#include <variant>
#include <vector>

#include "engine/json/json_reader.h"
#include "engine/json/json_writer.h"
#include "server/answers/dialect.h"
#include "server/answers/long_json.h"
#include "server/http/error_response.h"
#include "server/unique_id.h"

namespace serval {
namespace {

// A piece of the answer that one block holds: a call has its arguments.
struct Block {
  PartKind kind = PartKind::kContent;
  std::string text, name, id;
};

const char* block_type(PartKind kind) {
  if (kind == PartKind::kReasoning) return "thinking";
  return kind == PartKind::kContent ? "text" : "tool_use";
}

// The arguments of a call, which the dialect wants as an object: what a model wrote instead of one is named as such.
std::string as_object(const std::string& arguments) {
  if (arguments.empty()) return "{}";
  const Result<boost::json::object> object = read_json_object(arguments);
  return boost::json::serialize(object ? *object : boost::json::object{{"raw_arguments", arguments}});
}

void write_usage(JsonWriter& json, const Usage& usage) {
  json.key("usage").begin_object();
  json.member("input_tokens", usage.prompt_tokens - usage.cached_tokens);
  json.member("cache_creation_input_tokens", 0).member("cache_read_input_tokens", usage.cached_tokens);
  json.member("output_tokens", usage.completion_tokens).end_object();
}

// Of the answer so far: why it ended, and where.
void write_stop(JsonWriter& json, const Delta& delta, bool has_calls) {
  const auto* const sequence = std::get_if<std::string>(&delta.stop_reason);
  json.key("stop_reason");
  if (delta.finish == FinishReason::kNone) {
    json.null();
  } else if (delta.finish == FinishReason::kLength) {
    json.string("max_tokens");
  } else if (sequence != nullptr) {
    json.string("stop_sequence");
  } else {
    json.string(has_calls ? "tool_use" : "end_turn");
  }
  json.key("stop_sequence");
  sequence != nullptr ? json.string(*sequence) : json.null();
}

std::string error_json(const Error& error) {
  std::string body;
  JsonWriter json(body);
  const int status = http_status(error.kind);
  json.begin_object().member("type", "error").key("error").begin_object();
  json.member("type", status == 503 || status == 429 ? "overloaded_error" : status == 500 ? "api_error" : error_type(status));
  json.member("message", error.message);
  json.end_object().end_object();
  return body;
}

class Message {
 public:
  explicit Message(std::string model) : id_("msg_" + unique_id()), model_(std::move(model)) {}

  // What every form of it begins with; the object stays open.
  void begin(JsonWriter& json) const {
    json.begin_object().member("id", id_).member("type", "message").member("role", "assistant").member("model", model_);
  }

 private:
  const std::string id_, model_;
};

class WholeMessage final : public AnswerWriter {
 public:
  explicit WholeMessage(std::string model) : message_(std::move(model)) {}

  void begin(const Generation&) override {}
  void delta(Delta&& delta, AnswerSink&) override {
    for (MessagePart& part : take_parts(delta)) {
      if (part.kind == PartKind::kCall) {
        blocks_.push_back({PartKind::kCall, {}, std::move(part.text), std::move(part.id)});
      } else if (part.kind == PartKind::kArguments) {
        blocks_.back().text += part.text;
      } else {
        blocks_.push_back({part.kind, std::move(part.text), {}, {}});
      }
    }
    last_ = std::move(delta);
  }
  void end(const Usage& usage, AnswerSink& sink) override {
    sink.respond_in_pieces([this, usage](std::string& out) { return write(out, usage); });
  }
  void error(const Error& error, AnswerSink& sink) override { sink.respond(messages_error(error)); }

 private:
  Pieces write(std::string& out, Usage usage) const {
    JsonWriter json(out);
    message_.begin(json);
    json.key("content").begin_array();
    bool has_calls = false;
    for (const Block& block : blocks_) {
      json.begin_object().member("type", block_type(block.kind));
      if (block.kind == PartKind::kCall) {
        has_calls = true;
        json.member("id", block.id).member("name", block.name).key("input");
        json.raw(as_object(block.text));
      } else {
        json.key(block_type(block.kind));
        SERVAL_WRITE_ALL(write_text(out, json, block.text));
        if (block.kind == PartKind::kReasoning) json.member("signature", "");
      }
      json.end_object();
    }
    json.end_array();
    write_stop(json, last_, has_calls);
    write_usage(json, usage);
    json.end_object();
  }

  const Message message_;
  std::vector<Block> blocks_;
  Delta last_;
};

class StreamedMessage final : public AnswerWriter {
 public:
  explicit StreamedMessage(std::string model) : message_(std::move(model)) {}

  void begin(const Generation& generation) override {
    for (const PromptInfo& prompt : generation.prompts()) prompt_tokens_ += static_cast<int64_t>(prompt.token_ids.size());
  }

  void delta(Delta&& delta, AnswerSink& sink) override {
    std::string& out = sink.events();
    begin_message(out);
    for (MessagePart& part : take_parts(delta)) {
      if (part.kind == PartKind::kCall || block_type(part.kind) != open_type_) open_block(out, part);
      if (part.kind != PartKind::kCall) fill_block(out, part);
    }
    last_ = std::move(delta);
  }

  void end(const Usage& usage, AnswerSink& sink) override {
    std::string& out = sink.events();
    begin_message(out);
    close_block(out);
    event(out, "message_delta", [&](JsonWriter& json) {
      json.key("delta").begin_object();
      write_stop(json, last_, has_calls_);
      json.end_object();
      write_usage(json, usage);
    });
    event(out, "message_stop", [](JsonWriter&) {});
  }

  void error(const Error& error, AnswerSink& sink) override {
    if (!sink.has_begun()) {
      sink.respond(messages_error(error));
      return;
    }
    sink.events() += "event: error\ndata: " + error_json(error) + "\n\n";
  }

 private:
  template <class Write>
  static void event(std::string& out, std::string_view name, Write write) {
    ((out += "event: ") += name) += "\ndata: ";
    JsonWriter json(out);
    json.begin_object().member("type", name);
    write(json);
    json.end_object();
    out += "\n\n";
  }

  void begin_message(std::string& out) {
    if (std::exchange(has_begun_, true)) return;
    event(out, "message_start", [&](JsonWriter& json) {
      json.key("message");
      std::string message;
      JsonWriter inner(message);
      message_.begin(inner);
      inner.key("content").begin_array().end_array();
      write_stop(inner, {}, false);
      write_usage(inner, {.prompt_tokens = prompt_tokens_});
      inner.end_object();
      json.raw(message);
    });
  }

  void open_block(std::string& out, const MessagePart& part) {
    close_block(out);
    open_type_ = block_type(part.kind);
    event(out, "content_block_start", [&](JsonWriter& json) {
      json.member("index", ++index_).key("content_block").begin_object().member("type", open_type_);
      if (part.kind == PartKind::kCall) {
        has_calls_ = true;
        json.member("id", part.id).member("name", part.text).key("input").begin_object().end_object();
      } else {
        json.member(open_type_, "");
        if (part.kind == PartKind::kReasoning) json.member("signature", "");
      }
      json.end_object();
    });
  }

  void fill_block(std::string& out, const MessagePart& part) {
    event(out, "content_block_delta", [&](JsonWriter& json) {
      json.member("index", index_).key("delta").begin_object();
      if (part.kind == PartKind::kArguments) json.member("type", "input_json_delta").member("partial_json", part.text);
      if (part.kind == PartKind::kReasoning) json.member("type", "thinking_delta").member("thinking", part.text);
      if (part.kind == PartKind::kContent) json.member("type", "text_delta").member("text", part.text);
      json.end_object();
    });
  }

  void close_block(std::string& out) {
    if (open_type_.empty()) return;
    event(out, "content_block_stop", [&](JsonWriter& json) { json.member("index", index_); });
    open_type_ = {};
  }

  const Message message_;
  int64_t prompt_tokens_ = 0, index_ = -1;
  bool has_begun_ = false, has_calls_ = false;
  // Of the block that is open; empty: none is.
  std::string_view open_type_;
  Delta last_;
};

}  // namespace

std::unique_ptr<AnswerWriter> messages_writer(std::string model, bool stream) {
  if (stream) return std::make_unique<StreamedMessage>(std::move(model));
  return std::make_unique<WholeMessage>(std::move(model));
}

HttpResponse messages_error(const Error& error) {
  HttpResponse response = error_response(error);
  response.body = error_json(error);
  return response;
}

}  // namespace serval
