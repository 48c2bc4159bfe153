// What models of eighteen families wrote, and what a server must return for it, from another implementation's public tests.
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <filesystem>
#include <map>
#include <regex>

#include "engine/grammar/grammar.h"
#include "engine/text/message/call_format.h"
#include "tests/engine/text/message/parts.h"
#include "tests/engine/text/template/template_cases.h"

namespace serval {
namespace {

namespace json = boost::json;

std::filesystem::path shared_data() {
  return std::filesystem::path(SERVAL_SOURCE_DIR) / ".." / "shared" / "data";
}

std::string text_of(const json::object& object, const char* name) {
  const json::value* const value = object.if_contains(name);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : std::string();
}

// A tool as a client sends it; the cases have the inner object, or name, description and the schema's text.
json::object tool_of(const json::value& given) {
  if (given.is_object()) return {{"type", "function"}, {"function", given}};
  const json::array& parts = given.get_array();
  return {{"type", "function"},
          {"function", {{"name", parts[0]}, {"description", parts[1]}, {"parameters", json::parse(parts[2].as_string())}}}};
}

MessageRules rules_of(const json::object& row) {
  const std::string name = text_of(row, "template");
  const std::optional<std::string> source = read_file(shared_data() / "chat-templates" / "templates" / name);
  json::object context = {{"messages", {{{"role", "user"}, {"content", "Hello"}}}},
                          {"documents", nullptr},
                          {"add_generation_prompt", true},
                          {"bos_token", ""},
                          {"eos_token", ""},
                          {"tools", nullptr}};
  std::vector<std::string> tools;
  json::array listed;
  if (const json::value* const given = row.if_contains("tools")) {
    for (const json::value& tool : given->get_array()) listed.push_back(tool_of(tool));
    for (const json::value& tool : listed) tools.push_back(json::serialize(tool));
    context["tools"] = listed;
  }
  const std::string reasoning = text_of(row, "reasoning_format");
  const bool splits_reasoning = !reasoning.empty() && reasoning != "COMMON_REASONING_FORMAT_NONE";
  // Where a case does not say, its model thinks if somebody wants to see it.
  const json::value* const thinks = row.if_contains("enable_thinking");
  context["enable_thinking"] = context["thinking"] = thinks != nullptr ? thinks->get_bool() : splits_reasoning;

  MessageRules rules;
  std::string prompt = "<|im_start|>assistant\n<think>\n";  // of QwQ, whose template is not there
  if (source) {
    const Result<std::string> rendered = render_once(*source, context);
    EXPECT_TRUE(rendered.ok()) << name;
    if (rendered.ok()) prompt = *rendered;
  }
  rules.format = find_message_format(source.value_or(""));
  rules.reasoning = reasoning_marks(rules.format, source.value_or("</think>"));
  rules.opened_reasoning = std::string(opened_reasoning(rules.reasoning, prompt));
  rules.splits_reasoning = splits_reasoning;
  rules.has_tools = !tools.empty();
  rules.text_arguments = std::make_shared<TextArguments>(text_arguments(tools));
  return rules;
}

// The cases keep a line break at the end of some reasoning that they take off in others, and in one leave an escape of Python's as it is.
// Neither is what a client wants.
std::string without_space_at_end(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text;
}

TEST(SharedToolCalls, GiveWhatIsExpectedInOnePieceAndInAnyOther) {
  const std::optional<std::string> lines = read_file(shared_data() / "tool-call-parsing" / "cases.jsonl");
  if (!lines) GTEST_SKIP() << "there is no " << shared_data() / "tool-call-parsing";
  int num_cases = 0;
  for (const json::object& row : json_lines(*lines)) {
    const std::string input = text_of(row, "input");
    SCOPED_TRACE("case " + std::to_string(num_cases) + ", " + text_of(row, "template") + ": " + input.substr(0, 300));
    ++num_cases;
    const MessageRules rules = rules_of(row);
    const Parsed whole = parse_message(rules, input);
    for (const std::vector<size_t>& cuts : all_cuts(input.size())) ASSERT_EQ(parse_message(rules, input, cuts), whole);

    const json::object& expected = row.at("expect").as_object();
    const bool is_python_escape = input.find("python(code=\"def hello():\\n") != std::string::npos;
    EXPECT_EQ(whole.content, text_of(expected, "content"));
    EXPECT_EQ(without_space_at_end(whole.reasoning), without_space_at_end(text_of(expected, "reasoning_content")));
    const json::array& calls = expected.at("tool_calls").as_array();
    ASSERT_EQ(whole.calls.size(), calls.size());
    for (size_t i = 0; i < calls.size(); ++i) {
      const json::object& call = calls[i].as_object();
      EXPECT_EQ(whole.calls[i].name, text_of(call, "name"));
      EXPECT_EQ(whole.calls[i].id, text_of(call, "id"));
      const std::string arguments = text_of(call, "arguments");
      if (row.at("is_partial").as_bool()) {
        EXPECT_EQ(whole.calls[i].arguments, arguments);
      } else if (is_python_escape) {
        EXPECT_EQ(json::parse(whole.calls[i].arguments), json::parse("{\"code\": \"def hello():\\n    print('hey')\"}"));
      } else {
        EXPECT_EQ(json::parse(whole.calls[i].arguments), json::parse(arguments));
      }
    }
  }
  EXPECT_EQ(num_cases, 92);
}

// What a model wrote is what the form of its family lets it write, and what its tools do not allow is not.
TEST(SharedToolCalls, AreWhatAnAnswerWithStrictToolsMayBe) {
  const std::optional<std::string> lines = read_file(shared_data() / "tool-call-parsing" / "cases.jsonl");
  if (!lines) GTEST_SKIP() << "there is no " << shared_data() / "tool-call-parsing";
  std::map<std::string, std::shared_ptr<const Grammar>> grammars;
  int num_accepted = 0, num_changed = 0;
  for (const json::object& row : json_lines(*lines)) {
    if (!row.contains("tools") || row.at("is_partial").as_bool()) continue;
    const MessageRules rules = rules_of(row);
    if (rules.format == nullptr) continue;
    std::string input = text_of(row, "input");
    SCOPED_TRACE(text_of(row, "template") + ": " + input.substr(0, 400));
    std::vector<std::string> texts;
    for (const json::value& tool : row.at("tools").as_array()) texts.push_back(json::serialize(tool_of(tool)));
    std::vector<CallableTool> tools = callable_tools(texts);
    for (CallableTool& tool : tools) tool.is_strict = true;
    const std::string tag = json::serialize(answer_with_calls(*rules.format, tools));
    std::shared_ptr<const Grammar>& grammar = grammars[tag];
    if (!grammar) {
      const auto compiled = Grammar::structural_tag(tag, {.max_bytes = size_t{128} << 10, .max_steps = 1'500'000});
      ASSERT_TRUE(compiled.ok()) << compiled.error().message << " " << tag;
      grammar = compiled.value();
    }
    const auto accepts = [&](const std::string& text) {
      GrammarMatcher matcher(grammar);
      return matcher.advance(text) && matcher.accepting();
    };
    // The form begins behind reasoning.
    if (!rules.reasoning.end.empty() && !rules.format->is_harmony) {
      const size_t end = input.find(rules.reasoning.end);
      if (end != input.npos) input.erase(0, input.find_first_not_of(" \n", end + rules.reasoning.end.size()));
    }
    if (!accepts(input)) {
      ADD_FAILURE() << "refused: " << input;
      continue;
    }
    ++num_accepted;
    const std::string changed = std::regex_replace(input, std::regex(R"((arg1[^0-9]{0,30})1)"), "$1[]");
    if (changed == input) continue;
    EXPECT_FALSE(accepts(changed)) << changed;
    ++num_changed;
  }
  EXPECT_GE(num_accepted, 50);
  EXPECT_GE(num_changed, 30);
}

}  // namespace
}  // namespace serval
