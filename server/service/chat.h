// A chat as the service takes it, whatever spoke of it: messages and template variables as plain values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace serval {

// The text of a JSON object or array.
struct JsonText {
  std::string text;
  bool operator==(const JsonText&) const = default;
};

// What a template may read beside the messages.
using TemplateValue = std::variant<std::nullptr_t, bool, int64_t, double, std::string, JsonText>;
using TemplateFields = std::vector<std::pair<std::string, TemplateValue>>;

// A call that an assistant made earlier.
struct ToolCall {
  std::string id;
  std::string name;
  // The JSON of an object, or what a model wrote instead of one.
  std::string arguments;
  bool operator==(const ToolCall&) const = default;
};

struct ChatMessage {
  // Small letters and underscores; which of them there are is the template's to say.
  std::string role;
  // Absent: an assistant that only called tools, a function without an answer.
  std::optional<std::string> content;
  std::vector<ToolCall> tool_calls;
  // What else a template may read of it: name, tool_call_id, reasoning_content.
  TemplateFields fields;
};

struct Chat {
  std::vector<ChatMessage> messages;
  // What the model may call and what it may quote, an object each; as a template reads it.
  std::vector<JsonText> tools;
  std::vector<JsonText> documents;
  // The one of the model's templates; empty: the default, or tool_use where there are tools.
  std::string template_name;
  // The answer is told in parts (Delta::parts): reasoning, texts, and calls where there are tools. Else it is the model's text.
  bool in_parts = false;
  // ... its reasoning too; else that stays in the text.
  bool splits_reasoning = true;
  // The answer is one call, of this tool or, where it is empty, of any.
  bool must_call = false;
  std::string tool_to_call;
  // Of several calls the first is told.
  bool only_one_call = false;
  // chat_template_kwargs: which are allowed is the service's to say.
  TemplateFields template_variables;
  // Ends with the beginning of an assistant's message.
  bool add_generation_prompt = true;
  // Ends within the last message, with what it says so far: the answer goes on from there. Not with
  // add_generation_prompt.
  bool continue_final_message = false;
};

}  // namespace serval
