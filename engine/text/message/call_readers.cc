// Calls as JSON, as a name with JSON, and as tags.
#include <boost/json.hpp>
#include <string>

#include "engine/json/json_reader.h"
#include "engine/text/message/message_reader.h"

namespace serval {
namespace {

namespace json = boost::json;

std::string trimmed(std::string_view text) {
  while (!text.empty() && is_space(static_cast<unsigned char>(text.front()))) text.remove_prefix(1);
  while (!text.empty() && is_space(static_cast<unsigned char>(text.back()))) text.remove_suffix(1);
  return std::string(text);
}

bool is_name(std::string_view name) {
  return !name.empty() && name.find_first_of(" \n\t\r<>{}\"") == std::string_view::npos;
}

std::string json_quoted(std::string_view text) {
  std::string out = "\"";
  for (const char byte : text) append_json_byte(out, byte);
  return out += '"';
}

bool allows_text(const json::value& schema) {
  const json::object* const object = schema.if_object();
  if (object == nullptr) return false;
  if (const json::value* const type = object->if_contains("type")) {
    if (type->is_string()) return *type == "string";
    if (const json::array* const types = type->if_array()) {
      for (const json::value& one : *types) {
        if (one == "string") return true;
      }
    }
    return false;
  }
  for (const char* const list : {"enum", "anyOf", "oneOf"}) {
    const json::value* const found = object->if_contains(list);
    const json::array* const options = found != nullptr ? found->if_array() : nullptr;
    if (options == nullptr) continue;
    for (const json::value& option : *options) {
      if (option.is_string() || allows_text(option)) return true;
    }
  }
  return false;
}

// What models write behind a call's JSON before they end it.
bool is_left_over(int byte) {
  return is_space(byte) || byte == '}' || byte == ']' || byte == '`' || byte == ';' || byte == ',';
}

}  // namespace

TextArguments text_arguments(const std::vector<std::string>& tools) {
  TextArguments result;
  for (const std::string& text : tools) {
    const Result<json::object> tool = read_json_object(text);
    if (!tool) continue;
    const json::value* const inner = tool->if_contains("function");
    const json::object& function = inner != nullptr && inner->is_object() ? inner->get_object() : *tool;
    const json::value* const name = function.if_contains("name");
    if (name == nullptr || !name->is_string()) continue;
    auto& arguments = result[std::string(name->get_string())];
    const json::value* const parameters = function.if_contains("parameters");
    const json::object* const schema = parameters != nullptr ? parameters->if_object() : nullptr;
    const json::value* const properties = schema != nullptr ? schema->if_contains("properties") : nullptr;
    if (properties == nullptr || !properties->is_object()) continue;
    for (const auto& [key, value] : properties->get_object()) arguments[std::string(key)] = allows_text(value);
  }
  return result;
}

bool MessageParser::Reader::may_call(const CallShape& shape, std::string_view name) const {
  if (!is_name(name)) return false;
  return !shape.only_first || (rules.text_arguments != nullptr && rules.text_arguments->contains(name));
}

int MessageParser::Reader::is_text_argument(std::string_view tool, std::string_view argument) const {
  if (rules.text_arguments == nullptr) return -1;
  const auto known = rules.text_arguments->find(tool);
  if (known == rules.text_arguments->end()) return -1;
  const auto found = known->second.find(argument);
  return found == known->second.end() ? -1 : int{found->second};
}

Task<bool> MessageParser::Reader::read_call(const CallShape& shape) {
  if (!co_await skip_space()) co_return false;
  const int first = co_await in_.peek();
  const bool is_json = first == '{' || first == '[';
  if (shape.body == CallBody::kPythonic) {
    co_await read_python_calls(shape);
  } else if (shape.body == CallBody::kNamed && !is_json) {
    co_await read_named_call(shape);
  } else if (shape.body == CallBody::kTags && !is_json) {
    co_await read_tags(shape);
  } else {
    co_await read_json_calls(shape);
  }
  if (!has_begun_ || shape.end.empty()) co_return has_begun_;
  while (is_left_over(co_await in_.peek())) in_.take();
  co_await accept(shape.end);
  co_return true;
}

// One object, several one after the other, or a list of them.
Task<bool> MessageParser::Reader::read_json_calls(const CallShape& shape) {
  const bool is_list = co_await accept("[");
  for (;;) {
    if (has_begun_ && rules.only_one_call) co_return true;
    if (!co_await skip_space()) co_return has_begun_;
    const int byte = co_await in_.peek();
    if (has_begun_ && (byte == ',' || byte == ';')) {
      in_.take();
    } else if (byte != '{' || !co_await read_json_call(shape)) {
      if (has_begun_ && is_list && byte == ']') in_.take();
      co_return has_begun_;
    }
  }
}

Task<bool> MessageParser::Reader::read_json_call(const CallShape& shape) {
  std::string name, id, kept;
  bool has_begun = false, has_arguments = false;
  co_await accept("{");
  for (;;) {
    std::string key;
    if (!co_await skip_space() || !co_await read_json_string(key)) break;
    if (!co_await skip_space() || !co_await accept(":") || !co_await skip_space()) break;
    const bool is_name_key = key == "name" || key == "tool_name";
    if (is_name_key || key == "id" || key == "tool_call_id") {
      std::string& text = is_name_key ? name : id;
      if (co_await in_.peek() != '"' ? !co_await read_json_value(&text) : !co_await read_json_string(text)) break;
      if (is_name_key && !may_call(shape, name)) co_return false;
      if (is_name_key && !shape.id_comes_last && kept.empty()) {
        begin_call(name, id);
        has_begun = true;
      }
    } else if (key == "arguments" || key == "parameters") {
      // Some write the object as a text.
      const bool is_text = co_await in_.peek() == '"';
      std::string text;
      if (is_text && !co_await read_json_string(text)) break;
      if (is_text && has_begun) emit(PartKind::kArguments, text);
      if (is_text && !has_begun) kept = text;
      if (!is_text && !co_await read_json_value(has_begun ? nullptr : &kept)) break;
      has_arguments = true;
    } else {
      std::string passed_over;
      if (!co_await read_json_value(&passed_over)) break;
    }
    if (!co_await skip_space()) break;
    if (co_await accept(",")) continue;
    if (co_await accept("}") && !name.empty()) {
      if (!has_begun) begin_call(name, id);
      emit(PartKind::kArguments, has_arguments ? kept : "{}");
      co_return true;
    }
    break;
  }
  co_return has_begun;
}

// What it says, without quotes; at its first.
Task<bool> MessageParser::Reader::read_json_string(std::string& text) {
  if (co_await in_.peek() != '"') co_return false;
  std::string written;
  if (!co_await read_json_value(&written)) co_return false;
  const Result<json::value> value = read_json(written);
  if (!value || !value->is_string()) co_return false;
  text = std::string(value->get_string());
  co_return true;
}

Task<bool> MessageParser::Reader::read_json_value(std::string* kept) {
  int depth = 0;
  bool in_string = false, is_escaped = false, has_any = false;
  for (;;) {
    const int byte = co_await in_.peek();
    if (byte == ByteStream::kEnd) co_return false;
    const bool ends_scalar = is_space(byte) || byte == ',' || byte == '}' || byte == ']';
    if (depth == 0 && !in_string && ends_scalar) co_return has_any;
    has_any = true;
    in_.take();
    const char taken = static_cast<char>(byte);
    if (kept != nullptr) {
      *kept += taken;
    } else {
      emit(PartKind::kArguments, std::string_view(&taken, 1));
      in_.forget();
    }
    if (in_string) {
      if (!is_escaped && byte == '"') in_string = false;
      is_escaped = !is_escaped && byte == '\\';
    } else if (byte == '"') {
      in_string = true;
    } else if (byte == '{' || byte == '[') {
      ++depth;
    } else if (byte == '}' || byte == ']') {
      --depth;
    }
    if (depth == 0 && !in_string && (byte == '"' || byte == '}' || byte == ']')) co_return true;
  }
}

// NAME name_end JSON. In the name: Mistral's id, "[CALL_ID]"; Kimi's, which is all of it, "functions.NAME:0". DeepSeek
// V3 writes the kind in its place and the name behind it, and fences the JSON.
Task<bool> MessageParser::Reader::read_named_call(const CallShape& shape) {
  constexpr std::string_view kIdMark = "[CALL_ID]", kKimi = "functions.", kFence = "```";
  std::string name, id;
  if (!co_await read_name(shape.name_end, name)) co_return false;
  if (const size_t at = name.find(kIdMark); at != std::string::npos) {
    id = name.substr(at + kIdMark.size());
    name.resize(at);
  }
  name = trimmed(name);
  if (name.starts_with(kKimi) && name.find(':') != std::string::npos) {
    id = name;
    name = name.substr(kKimi.size(), name.find(':') - kKimi.size());
  }
  if (!co_await skip_space()) co_return false;
  if (co_await in_.peek() != '{') {
    if (!co_await read_name("\n", name)) co_return false;
    if (co_await accept("```json")) co_await skip_space();
  }
  if (!may_call(shape, name) || co_await in_.peek() != '{') co_return false;
  begin_call(name, id);
  if (!co_await read_json_value(nullptr)) co_return true;
  co_await skip_space();
  co_await accept(kFence);
  co_return true;
}

Task<bool> MessageParser::Reader::read_tags(const CallShape& shape) {
  const Tags& tags = *shape.tags;
  bool is_named = shape.begin == tags.call;
  for (;;) {
    if (!is_named && !tags.call.empty() && !co_await accept(tags.call)) co_return has_begun_;
    if (!is_named && tags.call.empty() && has_begun_) co_return true;
    is_named = false;
    std::string name;
    for (;;) {
      const int byte = co_await in_.peek();
      if (byte == ByteStream::kEnd) co_return has_begun_;
      if (is_space(byte) || byte == '<' || byte == '>' || byte == '"') break;
      name += static_cast<char>(byte);
      in_.take();
    }
    if (!co_await accept(tags.name_end) || !may_call(shape, name)) co_return has_begun_;
    begin_call(name);
    bool has_arguments = false;
    for (;;) {
      if (!co_await skip_space()) co_return true;
      if (!co_await accept(tags.argument)) break;
      std::string key;
      if (!co_await read_name(tags.key_end, key)) co_return true;
      if (!tags.value.empty() && !(co_await skip_space() && co_await accept(tags.value))) co_return true;
      emit(PartKind::kArguments, std::string(has_arguments ? ", " : "{") + json_quoted(trimmed(key)) + ": ");
      has_arguments = true;
      if (const int is_text = is_text_argument(name, trimmed(key)); !co_await read_tag_value(tags, is_text == 1)) co_return true;
    }
    emit(PartKind::kArguments, has_arguments ? "}" : "{}");
    co_await accept(tags.call_end);
    if (rules.only_one_call || !co_await skip_space()) co_return true;
  }
}

// Up to its end tag, without one line break at either end. What is no text is JSON, or a text after all.
Task<bool> MessageParser::Reader::read_tag_value(const Tags& tags, bool is_text) {
  std::string held;
  if (is_text) emit(PartKind::kArguments, "\"");
  bool is_start = true;
  for (;;) {
    if (is_text) in_.forget();
    const int byte = co_await in_.peek();
    if (byte == ByteStream::kEnd) co_return false;
    if (byte == static_cast<unsigned char>(tags.argument_end.front()) && co_await accept(tags.argument_end)) break;
    in_.take();
    if (std::exchange(is_start, false) && byte == '\n') continue;
    if (is_text) {
      std::string escaped;
      for (const char before : std::exchange(held, {})) append_json_byte(escaped, before);
      if (byte == '\n') {
        held = '\n';
      } else {
        append_json_byte(escaped, static_cast<char>(byte));
      }
      emit(PartKind::kArguments, escaped);
    } else {
      held += static_cast<char>(byte);
    }
  }
  if (is_text) {
    emit(PartKind::kArguments, "\"");
    co_return true;
  }
  const std::string value = trimmed(held);
  if (held.ends_with('\n')) held.pop_back();
  emit(PartKind::kArguments, read_json(value).ok() ? value : json_quoted(held));
  co_return true;
}

}  // namespace serval
