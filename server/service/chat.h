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

// What a template may read beside the messages: nothing that could nest.
using TemplateValue = std::variant<std::nullptr_t, bool, int64_t, double, std::string>;
using TemplateFields = std::vector<std::pair<std::string, TemplateValue>>;

// A call that an assistant made earlier.
struct ToolCall {
  std::string id;
  std::string name;
  // The JSON of an object, or what a model wrote instead of one.
  std::string arguments;
};

struct ChatMessage {
  // system, developer, user, assistant, tool or function.
  std::string role;
  // Absent: an assistant that only called tools, a function without an answer.
  std::optional<std::string> content;
  std::vector<ToolCall> tool_calls;
  // What else a template may read of it: name, tool_call_id, reasoning_content.
  TemplateFields fields;
};

struct Chat {
  std::vector<ChatMessage> messages;
  // chat_template_kwargs: which are allowed is the service's to say.
  TemplateFields template_variables;
  // Ends with the beginning of an assistant's message.
  bool add_generation_prompt = true;
};

}  // namespace serval
