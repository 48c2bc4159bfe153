// [name(key=value, …), …] with the literals of Python, as LFM2 and Llama 3.2 and 4 write them.
#include <string>

#include "engine/text/message/message_reader.h"

namespace serval {
namespace {

constexpr int kMaxDepth = 64;

bool is_word_byte(int byte) {
  return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || (byte >= '0' && byte <= '9') || byte == '_' ||
         byte == '.' || byte == '-' || byte == '+';
}

std::string json_word(std::string_view word) {
  if (word == "True" || word == "true") return "true";
  if (word == "False" || word == "false") return "false";
  if (word == "None" || word == "null") return "null";
  const bool is_number = !word.empty() && word.find_first_not_of("0123456789+-.eE_") == std::string_view::npos;
  std::string out;
  for (const char byte : word) {
    if (!is_number || (byte != '_' && byte != '+')) out += byte;
  }
  return is_number ? out : '"' + out + '"';
}

}  // namespace

Task<bool> MessageParser::Reader::read_word(std::string& word) {
  word.clear();
  for (;;) {
    const int byte = co_await in_.peek();
    if (!is_word_byte(byte)) co_return byte != ByteStream::kEnd && !word.empty();
    word += static_cast<char>(byte);
    in_.take();
  }
}

Task<bool> MessageParser::Reader::read_python_calls(const CallShape& shape) {
  co_await accept("[");
  for (;;) {
    std::string name;
    if (!co_await skip_space() || !co_await read_word(name)) co_return has_begun_;
    if (!may_call(shape, name) || !co_await accept("(")) co_return has_begun_;
    begin_call(name);
    if (!co_await read_python_arguments() || !co_await skip_space()) co_return true;
    if (!rules.only_one_call && co_await accept(",")) continue;
    co_await accept("]");
    co_return true;
  }
}

Task<bool> MessageParser::Reader::read_python_arguments() {
  bool has_any = false;
  for (;;) {
    if (!co_await skip_space()) co_return false;
    if (co_await accept(")")) {
      emit(PartKind::kArguments, has_any ? "}" : "{}");
      co_return true;
    }
    std::string key;
    if (!co_await read_word(key) || !co_await skip_space() || !co_await accept("=")) co_return false;
    emit(PartKind::kArguments, (has_any ? ", \"" : "{\"") + key + "\": ");
    has_any = true;
    if (!co_await skip_space() || !co_await read_python_value(0) || !co_await skip_space()) co_return false;
    co_await accept(",");
  }
}

Task<bool> MessageParser::Reader::read_python_value(int depth) {
  const int byte = co_await in_.peek();
  if (depth == kMaxDepth) co_return false;
  if (byte == '"' || byte == '\'') co_return co_await read_python_string();
  if (byte == '[' || byte == '(') co_return co_await read_python_items(byte == '[' ? ']' : ')', depth);
  if (byte == '{') co_return co_await read_python_items('}', depth);
  std::string word;
  if (!co_await read_word(word)) co_return false;
  emit(PartKind::kArguments, json_word(word));
  co_return true;
}

Task<bool> MessageParser::Reader::read_python_items(char end, int depth) {
  const bool is_dictionary = end == '}';
  in_.take();
  emit(PartKind::kArguments, is_dictionary ? "{" : "[");
  for (bool has_any = false;; has_any = true) {
    if (!co_await skip_space()) co_return false;
    if (co_await accept(std::string_view(&end, 1))) break;
    if (has_any) emit(PartKind::kArguments, ", ");
    if (!co_await read_python_value(depth + 1) || !co_await skip_space()) co_return false;
    if (is_dictionary) {
      if (!co_await accept(":") || !co_await skip_space()) co_return false;
      emit(PartKind::kArguments, ": ");
      if (!co_await read_python_value(depth + 1) || !co_await skip_space()) co_return false;
    }
    co_await accept(",");
  }
  emit(PartKind::kArguments, is_dictionary ? "}" : "]");
  co_return true;
}

Task<bool> MessageParser::Reader::read_python_string() {
  const int quote = co_await in_.peek();
  in_.take();
  emit(PartKind::kArguments, "\"");
  for (;;) {
    in_.forget();
    int byte = co_await in_.peek();
    if (byte == ByteStream::kEnd) co_return false;
    in_.take();
    if (byte == quote) break;
    std::string escaped;
    if (byte == '\\') {
      byte = co_await in_.peek();
      if (byte == ByteStream::kEnd) co_return false;
      in_.take();
      constexpr std::string_view kNames = "ntr\\'\"", kBytes = "\n\t\r\\'\"";
      const size_t known = kNames.find(static_cast<char>(byte));
      // JSON's and Python's \uXXXX are the same.
      if (byte == 'u') {
        escaped = "\\u";
      } else if (known == std::string_view::npos) {
        escaped = "\\\\";
        append_json_byte(escaped, static_cast<char>(byte));
      } else {
        append_json_byte(escaped, kBytes[known]);
      }
    } else {
      append_json_byte(escaped, static_cast<char>(byte));
    }
    emit(PartKind::kArguments, escaped);
  }
  emit(PartKind::kArguments, "\"");
  co_return true;
}

}  // namespace serval
