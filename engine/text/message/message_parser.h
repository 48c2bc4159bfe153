// From a model's text to the parts of a message: what it thought, what it says, what it calls. Takes the text in any pieces; the
// parts, joined, are those of the whole text. One instance per answer, one thread at a time.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/message/message_format.h"

namespace serval {

// kCall begins a call, `text` is its name; kArguments is JSON that belongs to the last call.
enum class PartKind : uint8_t { kReasoning, kContent, kCall, kArguments };

struct MessagePart {
  PartKind kind = PartKind::kContent;
  std::string text;
  // Of a call, where the model gives it one.
  std::string id;
  bool operator==(const MessagePart&) const = default;
};

// Which arguments of which tools are texts: models that write arguments between tags do not say. Names to names.
using TextArguments = std::map<std::string, std::map<std::string, bool, std::less<>>, std::less<>>;
// `tools`: JSON of the objects that a client describes its tools with, {"type": "function", "function": {…}} or the inner one. What is none
// is passed over.
TextArguments text_arguments(const std::vector<std::string>& tools);

struct MessageRules {
  const MessageFormat* format = nullptr;  // null: no calls
  ReasoningMarks reasoning;               // empty: none
  // reasoning.begin and what else the prompt ends with, when the answer begins within reasoning.
  std::string opened_reasoning;
  // Else reasoning stays in the text, marks and all.
  bool splits_reasoning = true;
  // Else calls are text.
  bool has_tools = false;
  // What comes after the first call is dropped.
  bool only_one_call = false;
  std::shared_ptr<const TextArguments> text_arguments;
};

class MessageParser {
 public:
  explicit MessageParser(MessageRules rules);
  ~MessageParser();
  MessageParser(MessageParser&&) noexcept;
  MessageParser& operator=(MessageParser&&) noexcept;

  // Appends what is certain to `out`; a part that goes on where the last of `out` ended is added to that.
  void push(std::string_view text, std::vector<MessagePart>& out);
  // No more text comes.
  void finish(std::vector<MessagePart>& out);

 private:
  class Reader;
  std::unique_ptr<Reader> reader_;
};

}  // namespace serval
