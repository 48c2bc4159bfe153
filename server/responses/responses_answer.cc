#include "server/responses/responses_answer.h"

#include <boost/json/serialize.hpp>
#include <utility>
#include <vector>

#include "server/answers/dialect.h"
#include "server/http/error_response.h"
#include "server/unique_id.h"

namespace serval {
namespace {

namespace json = boost::json;

// A part of the answer, as the dialect lists them: `text` is a call's arguments.
struct Item {
  PartKind kind = PartKind::kContent;
  std::string id, text, name, call_id;

  json::object part() const {
    if (kind == PartKind::kReasoning) return {{"type", "reasoning_text"}, {"text", text}};
    return {{"type", "output_text"}, {"text", text}, {"annotations", json::array()}, {"logprobs", json::array()}};
  }
  // `is_empty`: as it is announced, before anything of it is there.
  json::object write(const char* status, bool is_empty = false) const {
    if (kind == PartKind::kCall) {
      return {{"id", id}, {"type", "function_call"}, {"status", status}, {"call_id", call_id}, {"name", name},
              {"arguments", is_empty ? std::string() : text.empty() ? "{}" : text}};
    }
    const json::array content = is_empty ? json::array() : json::array{part()};
    if (kind == PartKind::kReasoning) return {{"id", id}, {"type", "reasoning"}, {"summary", json::array()}, {"content", content}, {"status", status}};
    return {{"id", id}, {"type", "message"}, {"status", status}, {"role", "assistant"}, {"content", content}};
  }
};

const char* id_prefix(PartKind kind) {
  if (kind == PartKind::kReasoning) return "rs_";
  return kind == PartKind::kCall ? "fc_" : "msg_";
}

json::object usage_json(const Usage& usage) {
  return {{"input_tokens", usage.prompt_tokens},
          {"input_tokens_details", {{"cached_tokens", usage.cached_tokens}}},
          {"output_tokens", usage.completion_tokens},
          {"output_tokens_details", {{"reasoning_tokens", usage.reasoning_tokens}}},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens}};
}

class ResponsesAnswer : public AnswerWriter {
 public:
  explicit ResponsesAnswer(ResponseContext context) : context_(std::move(context)) {}
  void begin(const Generation&) override {}

 protected:
  // The item that `part` is of; a new one where it begins one.
  Item& item_of(const MessagePart& part) {
    const PartKind kind = part.kind == PartKind::kArguments ? PartKind::kCall : part.kind;
    if (items_.empty() || items_.back().kind != kind || part.kind == PartKind::kCall) {
      items_.push_back({.kind = kind, .id = id_prefix(kind) + unique_id()});
      if (kind == PartKind::kCall) items_.back().name = part.text, items_.back().call_id = part.id;
    }
    if (part.kind != PartKind::kCall) items_.back().text += part.text;
    return items_.back();
  }

  json::object response(const char* status, const Usage* usage, const Error* error = nullptr) const {
    json::object out{{"id", context_.id}, {"object", "response"}, {"created_at", context_.created}, {"status", status}, {"background", false},
                     {"error", nullptr}, {"incomplete_details", nullptr}, {"model", context_.model}};
    if (error != nullptr) out["error"] = {{"code", "server_error"}, {"message", error->message}};
    if (std::string_view(status) == "incomplete") out["incomplete_details"] = {{"reason", "max_output_tokens"}};
    json::array output;
    if (usage != nullptr) {
      for (const Item& item : items_) output.push_back(item.write(&item == &items_.back() ? status : "completed"));
    }
    out["output"] = std::move(output);
    for (const auto& [name, value] : context_.repeated) out[name] = value;
    out["usage"] = usage != nullptr ? json::value(usage_json(*usage)) : nullptr;
    return out;
  }

  const char* status() const { return finish_ == FinishReason::kLength ? "incomplete" : "completed"; }

  void keep(const json::object& response) {
    if (context_.store == nullptr) return;
    auto stored = std::make_shared<StoredResponse>(std::move(context_.stored));
    ChatMessage said{.role = "assistant"};
    for (const Item& item : items_) {
      if (item.kind == PartKind::kContent) said.content = said.content.value_or("") + item.text;
      if (item.kind == PartKind::kReasoning) said.fields.emplace_back("reasoning_content", item.text);
      if (item.kind == PartKind::kCall) said.tool_calls.push_back({item.call_id, item.name, item.text.empty() ? "{}" : item.text});
    }
    stored->conversation.push_back(std::move(said));
    stored->response = response;
    context_.store->put(context_.id, std::move(stored));
  }

  ResponseContext context_;
  std::vector<Item> items_;
  FinishReason finish_ = FinishReason::kNone;
};

class WholeResponse final : public ResponsesAnswer {
 public:
  using ResponsesAnswer::ResponsesAnswer;
  void delta(Delta&& delta, AnswerSink&) override {
    for (const MessagePart& part : take_parts(delta)) item_of(part);
    finish_ = delta.finish;
  }
  void end(const Usage& usage, AnswerSink& sink) override {
    const json::object answer = response(status(), &usage);
    keep(answer);
    HttpResponse response;
    response.body = json::serialize(answer);
    sink.respond(std::move(response));
  }
  void error(const Error& error, AnswerSink& sink) override { sink.respond(error_response(error)); }
};

class StreamedResponse final : public ResponsesAnswer {
 public:
  using ResponsesAnswer::ResponsesAnswer;

  void delta(Delta&& delta, AnswerSink& sink) override {
    std::string& out = sink.events();
    begin_response(out);
    for (const MessagePart& part : take_parts(delta)) {
      const size_t before = items_.size();
      if (before > 0 && begins_item(part)) close_item(out);
      const Item& item = item_of(part);
      if (items_.size() > before) open_item(out, item);
      if (part.kind != PartKind::kCall) fill_item(out, item, part.text);
    }
    finish_ = delta.finish;
  }

  void end(const Usage& usage, AnswerSink& sink) override {
    std::string& out = sink.events();
    begin_response(out);
    if (!items_.empty()) close_item(out);
    const json::object answer = response(status(), &usage);
    keep(answer);
    event(out, finish_ == FinishReason::kLength ? "response.incomplete" : "response.completed", {{"response", answer}});
  }

  void error(const Error& error, AnswerSink& sink) override {
    if (!sink.has_begun()) {
      sink.respond(error_response(error));
      return;
    }
    event(sink.events(), "response.failed", {{"response", response("failed", nullptr, &error)}});
  }

 private:
  void event(std::string& out, std::string_view type, json::object fields) {
    json::object data{{"type", type}, {"sequence_number", sequence_++}};
    for (auto& [name, value] : fields) data[name] = std::move(value);
    ((out += "event: ") += type) += "\ndata: ";
    (out += json::serialize(data)) += "\n\n";
  }

  bool begins_item(const MessagePart& part) const {
    const PartKind kind = part.kind == PartKind::kArguments ? PartKind::kCall : part.kind;
    return part.kind == PartKind::kCall || items_.back().kind != kind;
  }

  void begin_response(std::string& out) {
    if (std::exchange(has_begun_, true)) return;
    const json::object begun = response("in_progress", nullptr);
    event(out, "response.created", {{"response", begun}});
    event(out, "response.in_progress", {{"response", begun}});
  }

  // Where the last item stands, for events about it.
  json::object about(const Item& item, bool has_part) const {
    json::object fields{{"item_id", item.id}, {"output_index", static_cast<int64_t>(items_.size()) - 1}};
    if (has_part) fields["content_index"] = 0;
    return fields;
  }

  void open_item(std::string& out, const Item& item) {
    event(out, "response.output_item.added", {{"output_index", static_cast<int64_t>(items_.size()) - 1}, {"item", item.write("in_progress", true)}});
    if (item.kind == PartKind::kCall) return;
    json::object fields = about(item, true);
    fields["part"] = Item{.kind = item.kind}.part();
    event(out, "response.content_part.added", std::move(fields));
  }

  void fill_item(std::string& out, const Item& item, const std::string& text) {
    json::object fields = about(item, item.kind != PartKind::kCall);
    fields["delta"] = text;
    if (item.kind == PartKind::kContent) fields["logprobs"] = json::array();
    event(out, std::string(name_of(item.kind)) + ".delta", std::move(fields));
  }

  void close_item(std::string& out) {
    const Item& item = items_.back();
    json::object fields = about(item, item.kind != PartKind::kCall);
    if (item.kind == PartKind::kCall) {
      fields["name"] = item.name;
      fields["arguments"] = item.text.empty() ? "{}" : item.text;
    } else {
      fields["text"] = item.text;
      if (item.kind == PartKind::kContent) fields["logprobs"] = json::array();
    }
    event(out, std::string(name_of(item.kind)) + ".done", std::move(fields));
    if (item.kind != PartKind::kCall) {
      json::object part = about(item, true);
      part["part"] = item.part();
      event(out, "response.content_part.done", std::move(part));
    }
    const bool is_cut = finish_ == FinishReason::kLength;
    event(out, "response.output_item.done",
          {{"output_index", static_cast<int64_t>(items_.size()) - 1}, {"item", item.write(is_cut ? "incomplete" : "completed")}});
  }

  static const char* name_of(PartKind kind) {
    if (kind == PartKind::kReasoning) return "response.reasoning_text";
    return kind == PartKind::kCall ? "response.function_call_arguments" : "response.output_text";
  }

  bool has_begun_ = false;
  int64_t sequence_ = 0;
};

}  // namespace

std::unique_ptr<AnswerWriter> responses_writer(ResponseContext context, bool stream) {
  if (stream) return std::make_unique<StreamedResponse>(std::move(context));
  return std::make_unique<WholeResponse>(std::move(context));
}

}  // namespace serval
