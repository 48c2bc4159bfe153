#include "server/ollama/ollama_answer.h"

#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <chrono>
#include <ctime>
#include <utility>
#include <vector>

#include "engine/json/json_reader.h"
#include "engine/json/json_writer.h"
#include "server/answers/dialect.h"
#include "server/answers/long_json.h"
#include "server/http/error_response.h"

namespace serval {
namespace {

using Clock = std::chrono::steady_clock;

int64_t nanoseconds(Clock::duration time) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time).count();
}

struct Call {
  std::string name, arguments;
};

// What one line, or the whole, says.
struct Said {
  std::string content, thinking;
  std::vector<Call> calls;
  bool empty() const { return content.empty() && thinking.empty() && calls.empty(); }
};

// The arguments of a call are an object here; what a model wrote instead of one is named as such.
std::string as_object(const std::string& arguments) {
  if (arguments.empty()) return "{}";
  const Result<boost::json::object> object = read_json_object(arguments);
  return boost::json::serialize(object ? *object : boost::json::object{{"raw_arguments", arguments}});
}

// The object stays open.
void begin_answer(JsonWriter& json, const OllamaContext& context) {
  json.begin_object().member("model", context.model).member("created_at", ollama_time(std::time(nullptr)));
}

void write_said(JsonWriter& json, OllamaKind kind, const Said& said) {
  if (kind == OllamaKind::kGenerate) {
    json.member("response", said.content);
    if (!said.thinking.empty()) json.member("thinking", said.thinking);
    return;
  }
  json.key("message").begin_object().member("role", "assistant").member("content", said.content);
  if (!said.thinking.empty()) json.member("thinking", said.thinking);
  if (!said.calls.empty()) {
    json.key("tool_calls").begin_array();
    for (const Call& call : said.calls) {
      json.begin_object().key("function").begin_object().member("name", call.name).key("arguments");
      json.raw(as_object(call.arguments)).end_object().end_object();
    }
    json.end_array();
  }
  json.end_object();
}

class OllamaAnswer final : public AnswerWriter {
 public:
  explicit OllamaAnswer(OllamaContext context) : context_(std::move(context)) {}

  void begin(const Generation& generation) override { vectors_.resize(generation.num_choices()); }

  void delta(Delta&& delta, AnswerSink& sink) override {
    if (first_ == Clock::time_point()) first_ = Clock::now();
    if (delta.finish == FinishReason::kLength) ended_by_length_ = true;
    if (!delta.numbers.empty()) {
      vectors_[delta.index] = std::move(delta.numbers);
      return;
    }
    for (MessagePart& part : take_parts(delta)) {
      if (part.kind == PartKind::kCall) {
        calls_.push_back({std::move(part.text), {}});
      } else if (part.kind == PartKind::kArguments) {
        calls_.back().arguments += part.text;
      } else {
        (part.kind == PartKind::kReasoning ? said_.thinking : said_.content) += part.text;
      }
    }
    if (!context_.stream) return;
    // A call is told whole: when the next begins, or at the end.
    while (calls_.size() > 1 || (delta.finish != FinishReason::kNone && !calls_.empty())) {
      said_.calls.push_back(std::move(calls_.front()));
      calls_.erase(calls_.begin());
    }
    if (!said_.empty()) line(sink);
  }

  void end(const Usage& usage, AnswerSink& sink) override {
    usage_ = usage;
    const bool is_vector = context_.kind == OllamaKind::kEmbed || context_.kind == OllamaKind::kOldEmbedding;
    if (is_vector) {
      sink.respond_in_pieces([this](std::string& out) { return write_vectors(out); });
    } else if (context_.stream) {
      std::string& out = sink.events();
      JsonWriter json(out);
      write_end(json, Said{});
      out += '\n';
    } else {
      said_.calls = std::move(calls_);
      HttpResponse response;
      JsonWriter json(response.body);
      write_end(json, said_);
      sink.respond(std::move(response));
    }
  }

  void error(const Error& error, AnswerSink& sink) override {
    if (!sink.has_begun()) {
      sink.respond(ollama_error(error));
      return;
    }
    std::string& out = sink.events();
    JsonWriter(out).begin_object().member("error", error.message).end_object();
    out += '\n';
  }

 private:
  void line(AnswerSink& sink) {
    std::string& out = sink.events();
    JsonWriter json(out);
    begin_answer(json, context_);
    write_said(json, context_.kind, said_);
    json.key("done").boolean(false).end_object();
    out += '\n';
    said_ = {};
  }

  void write_times(JsonWriter& json) const {
    const Clock::time_point now = Clock::now();
    const Clock::time_point first = first_ == Clock::time_point() ? now : first_;
    json.member("total_duration", nanoseconds(now - begun_)).member("load_duration", 0);
    json.member("prompt_eval_count", usage_.prompt_tokens);
    if (context_.kind == OllamaKind::kEmbed) return;
    json.member("prompt_eval_duration", nanoseconds(first - begun_));
    json.member("eval_count", usage_.completion_tokens).member("eval_duration", nanoseconds(now - first));
  }

  void write_end(JsonWriter& json, const Said& said) const {
    begin_answer(json, context_);
    write_said(json, context_.kind, said);
    json.key("done").boolean(true).member("done_reason", ended_by_length_ ? "length" : "stop");
    write_times(json);
    json.end_object();
  }

  Pieces write_vectors(std::string& out) const {
    JsonWriter json(out);
    const bool is_old = context_.kind == OllamaKind::kOldEmbedding;
    json.begin_object();
    if (!is_old) json.member("model", context_.model).key("embeddings").begin_array();
    if (is_old) json.key("embedding");
    for (const std::vector<float>& vector : vectors_) {
      json.begin_array();
      for (const float number : vector) json.number(number);
      json.end_array();
      if (is_piece(out)) co_yield PieceEnd{};
      if (is_old) break;
    }
    if (!is_old) {
      json.end_array();
      write_times(json);
    }
    json.end_object();
  }

  const OllamaContext context_;
  const Clock::time_point begun_ = Clock::now();
  Clock::time_point first_;
  Said said_;                 // and not told
  std::vector<Call> calls_;   // whose arguments may go on
  std::vector<std::vector<float>> vectors_;
  bool ended_by_length_ = false;
  Usage usage_;
};

}  // namespace

std::unique_ptr<AnswerWriter> ollama_writer(OllamaContext context) {
  return std::make_unique<OllamaAnswer>(std::move(context));
}

HttpResponse ollama_error(const Error& error) {
  HttpResponse response = error_response(error);  // for its status and fields
  response.body.clear();
  JsonWriter(response.body).begin_object().member("error", error.message).end_object();
  return response;
}

HttpResponse ollama_loaded(const OllamaContext& context) {
  HttpResponse response;
  JsonWriter json(response.body);
  begin_answer(json, context);
  write_said(json, context.kind, Said{});
  json.key("done").boolean(true).member("done_reason", "load").end_object();
  if (context.stream) response.body += '\n';
  return response;
}

std::string ollama_time(int64_t unix_seconds) {
  const auto time = static_cast<std::time_t>(unix_seconds);
  std::tm parts{};
  gmtime_r(&time, &parts);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

}  // namespace serval
