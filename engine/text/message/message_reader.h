// The readers behind MessageParser. Private to this folder.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/text/message/message_parser.h"
#include "engine/text/message/task.h"

namespace serval {

// A reader's result says whether what it was to read was there; at the text's end each returns as it is.
class MessageParser::Reader {
 public:
  explicit Reader(MessageRules message_rules) : rules(std::move(message_rules)), all_(read()) { begin(); }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  void push(std::string_view text, std::vector<MessagePart>& out);
  void finish(std::vector<MessagePart>& out);

 private:
  // message_reader.cc: texts
  void begin();
  Task<bool> read();
  Task<bool> read_reasoning(std::string_view before);
  Task<bool> read_content();
  Task<bool> accept(std::string_view mark);
  Task<bool> skip_space();
  // Up to `end`, which is taken; false where it does not come, or not within what a name may be long.
  Task<bool> read_name(std::string_view end, std::string& name);
  void emit(PartKind kind, std::string_view text);
  void emit_text(PartKind kind, char byte);
  void drop_space();
  void begin_call(std::string name, std::string id = {});

  // call_readers.cc: what stands behind a call's mark. True once a call has begun.
  Task<bool> read_call(const CallShape& shape);
  Task<bool> read_json_calls(const CallShape& shape);
  Task<bool> read_json_call(const CallShape& shape);
  Task<bool> read_named_call(const CallShape& shape);
  Task<bool> read_tags(const CallShape& shape);
  Task<bool> read_tag_value(const Tags& tags, bool is_text);
  // The bytes of one JSON value, into `kept` or as arguments.
  Task<bool> read_json_value(std::string* kept);
  Task<bool> read_json_string(std::string& text);
  bool may_call(const CallShape& shape, std::string_view name) const;
  // 1: text, 0: none, -1: the tools do not say.
  int is_text_argument(std::string_view tool, std::string_view argument) const;

  // python_calls.cc
  Task<bool> read_python_calls(const CallShape& shape);
  Task<bool> read_python_arguments();
  Task<bool> read_python_value(int depth);
  Task<bool> read_python_string();
  Task<bool> read_python_items(char end, int depth);
  Task<bool> read_word(std::string& word);

  // harmony.cc: messages of channels.
  Task<bool> read_harmony();
  Task<bool> read_harmony_body(PartKind kind, bool is_dropped);

  const MessageRules rules;
  ByteStream in_;
  std::vector<MessagePart>* out_ = nullptr;
  // White space that belongs to the text only if more text follows.
  std::string space_;
  // Nothing but space since the last reasoning or call: that is dropped.
  bool after_block_ = false;
  // Nothing but calls so far.
  bool is_first_ = true;
  // Of the call that is read.
  bool has_begun_ = false;
  Task<bool> all_;
};

// A byte of a text as JSON writes it within quotes.
void append_json_byte(std::string& out, char byte);

inline bool is_space(int byte) {
  return byte == ' ' || byte == '\n' || byte == '\t' || byte == '\r';
}

}  // namespace serval
