#include "engine/text/message/call_format.h"

#include <algorithm>
#include <boost/json.hpp>
#include <string_view>
#include <utility>

#include "engine/json/json_reader.h"
#include "engine/text/message/message_parser.h"

namespace serval {
namespace {

namespace json = boost::json;
using std::string_view;

constexpr const char* kSpace = R"([ \n]{0,8})";  // of what the reader passes over
// gpt-oss names a channel, and may name the kind of what follows.
constexpr const char* kChannel = "(analysis|commentary|final)";
constexpr const char* kKind = R"(( ?<\|constrain\|>json| json)?)";
constexpr string_view kRecipient = " to=functions.";

// --- formats ---

json::object constant(string_view text) {
  return {{"type", "const_string"}, {"value", text}};
}
json::object pattern(string_view regex) {
  return {{"type", "regex"}, {"pattern", regex}};
}
json::object sequence(json::array elements) {
  return {{"type", "sequence"}, {"elements", std::move(elements)}};
}
json::object either(json::array elements) {
  return {{"type", "or"}, {"elements", std::move(elements)}};
}
json::object repeated(const char* kind, json::object content) {
  return {{"type", kind}, {"content", std::move(content)}};
}
json::object value_of(json::value schema) {
  return {{"type", "json_schema"}, {"json_schema", std::move(schema)}};
}
json::object tag(string_view begin, json::object content, json::array ends) {
  return {{"type", "tag"}, {"begin", begin}, {"content", std::move(content)}, {"end", std::move(ends)}};
}
// What is written once among the definitions.
json::object defined(string_view name) {
  return {{"type", "defined"}, {"name", name}};
}
// Free text but for the tags, which begin with one of the triggers.
json::object text_with(const json::array& triggers, const json::array& tags, bool once = false) {
  if (tags.empty()) return {{"type", "any_text"}};
  return {{"type", "triggered_tags"}, {"triggers", triggers}, {"tags", tags}, {"stop_after_first", once}};
}
json::array ends_of(string_view end) {
  return {end, "\n" + std::string(end)};
}

// --- arguments ---

json::object arguments_in_json(const CallableTool& tool) {
  return value_of(tool.is_strict ? json::value(tool.parameters) : json::value{{"type", "object"}});
}

// Between tags, or as Python has them, up to `end`.
json::object arguments_in(const char* style, const CallableTool& tool, string_view end) {
  if (!tool.is_strict) return {{"type", "any_text"}, {"excludes", {end}}};
  json::object out = value_of(tool.parameters);
  out["style"] = style;
  if (string_view(style) == "python") return out;
  // The reader takes the same for texts.
  json::array texts;
  const TextArguments known = text_arguments({json::serialize(json::object{{"name", tool.name}, {"parameters", tool.parameters}})});
  if (const auto of_tool = known.find(tool.name); of_tool != known.end())
    for (const auto& [name, is_text] : of_tool->second)
      if (is_text) texts.emplace_back(name);
  out["texts"] = std::move(texts);
  return out;
}

// --- calls ---

const char* style_of(const Tags& tags) {
  return tags.argument == "<arg_key>" ? "glm_xml" : tags.argument == "<parameter=" ? "qwen_xml" : "minimax_xml";
}

// What stands between a shape's marks.
json::object calls_in_json(const MessageFormat& format, const std::vector<CallableTool>& tools) {
  json::value one = call_schema(format, tools);
  json::object call{{"$ref", "#/$defs/call"}};
  return value_of({{"$defs", {{"call", std::move(one)}}}, {"anyOf", {call, {{"type", "array"}, {"items", call}, {"minItems", 1}}}}});
}

json::object named_calls(const MessageFormat& format, const CallShape& shape, const std::vector<CallableTool>& tools) {
  json::array calls;
  for (const CallableTool& tool : tools) {
    json::array heads{constant(tool.name)};
    if (format.name == "kimi") heads.push_back(sequence({constant("functions."), constant(tool.name), pattern(":[0-9]{1,4}")}));
    if (shape.id_comes_last) heads.push_back(sequence({constant(tool.name), constant("[CALL_ID]"), pattern("[a-zA-Z0-9]{9}")}));
    calls.push_back(sequence({either(std::move(heads)), constant(shape.name_end), arguments_in_json(tool)}));
    // DeepSeek's first form.
    if (format.name == "deepseek")
      calls.push_back(sequence({constant("function"), constant(shape.name_end), constant(tool.name), constant("\n```json\n"), arguments_in_json(tool), pattern("\n?```")}));
  }
  calls.push_back(calls_in_json(format, tools));
  return either(std::move(calls));
}

json::object tagged_calls(const CallShape& shape, const std::vector<CallableTool>& tools) {
  const Tags& tags = *shape.tags;
  const string_view end = tags.call_end.empty() ? shape.end : tags.call_end;
  const bool is_begun = shape.begin == tags.call;
  json::array firsts, others;
  for (const CallableTool& tool : tools) {
    const json::object rest = sequence({constant(tool.name), constant(tags.name_end), pattern(kSpace), arguments_in(style_of(tags), tool, end), constant(tags.call_end), pattern(kSpace)});
    firsts.push_back(sequence({pattern(is_begun ? "" : kSpace), constant(is_begun ? "" : tags.call), rest}));
    others.push_back(sequence({constant(tags.call), rest}));
  }
  if (tags.call.empty()) return either(std::move(firsts));
  return sequence({either(std::move(firsts)), repeated("star", either(std::move(others)))});
}

json::object python_calls(const std::vector<CallableTool>& tools, bool only_one = false) {
  json::array calls;
  for (const CallableTool& tool : tools) calls.push_back(sequence({constant(tool.name), constant("("), arguments_in("python", tool, ")]"), constant(")")}));
  const json::object one = either(std::move(calls));
  if (only_one) return sequence({constant("["), one, constant("]")});
  return sequence({constant("["), one, repeated("star", sequence({pattern(", ?"), one})), constant("]")});
}

json::object calls_of(const MessageFormat& format, const CallShape& shape, const std::vector<CallableTool>& tools) {
  switch (shape.body) {
    case CallBody::kJson:
      return calls_in_json(format, tools);
    case CallBody::kNamed:
      return named_calls(format, shape, tools);
    case CallBody::kTags:
      return tagged_calls(shape, tools);
    case CallBody::kPythonic:
      return python_calls(tools);
  }
  return {};
}

// --- gpt-oss ---

// Behind a call's recipient, but for the channel where it comes last.
json::object harmony_call(const CallableTool& tool, bool names_channel) {
  return sequence({constant(tool.name), names_channel ? sequence({constant("<|channel|>"), pattern(kChannel)}) : constant(""), pattern(kKind), constant("<|message|>"), arguments_in_json(tool)});
}
json::object harmony_calls(const std::vector<CallableTool>& tools, bool names_channel) {
  json::array calls;
  for (const CallableTool& tool : tools) calls.push_back(harmony_call(tool, names_channel));
  return either(std::move(calls));
}

json::object harmony_answer(const std::vector<CallableTool>& tools, bool only_one) {
  json::array triggers, tags, last_tags;
  const auto add = [&](const std::string& begin, string_view calls) {
    triggers.push_back(json::string(begin));
    tags.push_back(tag(begin, defined(calls), {"<|call|>", "<|end|>"}));
    last_tags.push_back(tag(begin, defined(calls), {""}));
  };
  for (const char* const channel : {"analysis", "commentary", "final"}) add("<|channel|>" + std::string(channel) + std::string(kRecipient), "calls");
  add("<|start|>assistant" + std::string(kRecipient), "calls_first");
  // Further messages, and as the last perhaps a call without its mark.
  const json::object last = sequence({text_with(triggers, last_tags, true), pattern(R"((<\|call\|>)?)")});
  json::object others = text_with(triggers, tags);
  others["ends_with_tag"] = true;
  const json::object more = only_one ? last : sequence({std::move(others), last});
  const json::object behind_call = repeated("optional", sequence({pattern(R"(<\|(call|end)\|>)"), only_one ? constant("") : defined("more")}));
  const json::object behind_channel =
      either({sequence({constant(kRecipient), defined("calls"), behind_call}), sequence({pattern(R"(( ?<\|constrain\|>[a-z]{1,20})?<\|message\|>)"), defined("more")})});
  json::object answer = repeated("optional", either({sequence({constant("<|channel|>"), pattern(kChannel), behind_channel}),
                                                     sequence({constant(kRecipient), defined("calls_first"), behind_call}), sequence({pattern("[^ <]"), defined("more")})}));
  return {{"type", "structural_tag"},
          {"definitions", {{"calls", harmony_calls(tools, false)}, {"calls_first", harmony_calls(tools, true)}, {"more", more}}},
          {"format", std::move(answer)}};
}

}  // namespace

std::vector<CallableTool> callable_tools(const std::vector<std::string>& tools) {
  std::vector<CallableTool> out;
  for (const std::string& text : tools) {
    const Result<json::object> tool = read_json_object(text);
    if (!tool) continue;
    const json::value* const inner = tool->if_contains("function");
    const json::object* const function = inner != nullptr ? inner->if_object() : &*tool;
    const json::value* const name = function != nullptr ? function->if_contains("name") : nullptr;
    if (name == nullptr || !name->is_string()) continue;
    CallableTool& callable = out.emplace_back();
    callable.name = std::string(name->get_string());
    callable.parameters = {{"type", "object"}};
    if (const json::value* const parameters = function->if_contains("parameters"); parameters && parameters->is_object()) callable.parameters = parameters->get_object();
    const json::value* const strict = function->if_contains("strict");
    callable.is_strict = strict != nullptr && *strict == true;
    if (json::serialize(callable.parameters).find("\"$ref\"") != std::string::npos && !callable.parameters.contains("$id"))
      callable.parameters["$id"] = "tool:" + std::to_string(out.size() - 1);
  }
  return out;
}

json::value call_schema(const MessageFormat& format, const std::vector<CallableTool>& tools) {
  json::array calls;
  for (const CallableTool& tool : tools) {
    json::object properties{{format.name_key, {{"const", tool.name}}}, {format.arguments_key, tool.is_strict ? tool.parameters : json::object{{"type", "object"}}}};
    if (format.name_key == "tool_name") properties["tool_call_id"] = {{"type", "string"}, {"maxLength", 16}};
    if (format.has_short_ids) properties["id"] = {{"type", "string"}, {"pattern", "^[a-zA-Z0-9]{9}$"}};
    calls.push_back({{"type", "object"}, {"properties", std::move(properties)}, {"required", {format.name_key, format.arguments_key}}, {"additionalProperties", false}});
  }
  return calls.size() == 1 ? calls[0] : json::value{{"anyOf", std::move(calls)}};
}

json::object answer_with_calls(const MessageFormat& format, const std::vector<CallableTool>& tools, bool only_one) {
  if (format.is_harmony) return harmony_answer(tools, only_one);
  json::array triggers, tags, firsts;
  json::object definitions;
  bool all_end = true;
  for (const CallShape& shape : format.calls) {
    const std::string name = "calls" + std::to_string(definitions.size());
    definitions[name] = calls_of(format, shape, tools);
    if (shape.only_first) {
      firsts.push_back(defined(name));
      continue;
    }
    triggers.push_back(json::string(shape.begin));
    tags.push_back(tag(shape.begin, defined(name), shape.end.empty() ? json::array{""} : ends_of(shape.end)));
    all_end &= !shape.end.empty();
  }
  // Where a call has no mark at its end, nothing but another is behind it.
  const json::object further = only_one ? pattern(kSpace) : repeated("star", sequence({pattern(kSpace), either(tags)}));
  json::object answer = all_end && !only_one ? text_with(triggers, tags) : sequence({text_with(triggers, tags, true), further});
  if (!firsts.empty()) {
    // What begins like a call is one.
    const json::object first = sequence({pattern(R"([ \n]{0,8}(<\|python_start\|>)?[ \n]{0,8})"), either(std::move(firsts)), pattern(R"((<\|python_end\|>)?)")});
    answer = repeated("optional", either({first, sequence({pattern(kSpace), either(tags), further}), sequence({pattern(R"([ \n]{0,8}([^\s<{\[]|<[^|]))"), std::move(answer)})}));
  }
  return {{"type", "structural_tag"}, {"definitions", std::move(definitions)}, {"format", std::move(answer)}};
}

std::optional<ForcedCall> forced_call(const MessageFormat& format, const std::vector<CallableTool>& tools) {
  if (format.is_harmony) {
    return ForcedCall{"<|channel|>commentary" + std::string(kRecipient), harmony_calls(tools, false)};
  }
  for (const CallShape& shape : format.calls) {
    if (shape.body != CallBody::kPythonic || shape.only_first) continue;
    return ForcedCall{std::string(shape.begin), tag("", python_calls(tools, /*only_one=*/true), {shape.end, ""})};
  }
  return std::nullopt;
}

}  // namespace serval
