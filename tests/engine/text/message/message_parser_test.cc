#include "engine/text/message/message_parser.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <random>

#include "tests/engine/text/message/parts.h"

namespace serval {
namespace {

MessageRules rules_of(const char* format) {
  MessageRules rules;
  rules.format = message_format_named(format);
  rules.reasoning = {"<think>", "</think>"};
  rules.has_tools = true;
  rules.text_arguments = std::make_shared<TextArguments>(text_arguments(
      {R"({"type": "function", "function": {"name": "f", "parameters": {"properties":
           {"text": {"type": "string"}, "number": {"type": "integer"}, "list": {"type": "array"}, "unit": {"enum": ["1", "2"]}}}}})"}));
  return rules;
}

struct Family {
  const char* format;
  std::string text;
  Parsed expected;
};

// A call of every row, as its models write it.
class EveryFamily : public ::testing::TestWithParam<Family> {};

INSTANTIATE_TEST_SUITE_P(
    All, EveryFamily,
    ::testing::Values(
        Family{"hermes", "Wait.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"number\": 1}}\n</tool_call>\n<tool_call>\n{\"name\": \"g\"}\n</tool_call>",
               {"", "Wait.", {{"f", "{\"number\": 1}", ""}, {"g", "{}", ""}}}},
        Family{"hermes", "<tool_call>{\"arguments\": {\"a\": \"}\\\"\"}, \"name\": \"f\"}</tool_call>", {"", "", {{"f", "{\"a\": \"}\\\"\"}", ""}}}},
        Family{"hermes", "<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\"}</tool_call>", {"", "", {{"f", "{\"a\": 1}", ""}}}},
        Family{"hermes", "<think>\nHm.\n</think>\n\nYes.\n", {"Hm.", "Yes.\n", {}}},
        Family{"hermes", "<think>\nHm.\n", {"Hm.\n", "", {}}},  // cut
        Family{"qwen3_coder",
               "<tool_call>\n<function=f>\n<parameter=text>\na \"b\"\n\nc\n</parameter>\n<parameter=number>\n7\n</parameter>\n<parameter=unit>\n1\n</parameter>\n"
               "</function>\n</tool_call>",
               {"", "", {{"f", "{\"text\": \"a \\\"b\\\"\\n\\nc\", \"number\": 7, \"unit\": \"1\"}", ""}}}},
        Family{"qwen3_coder", "<function=f>\n<parameter=list>\n[1, 2]\n</parameter>\n</function>\n</tool_call>", {"", "", {{"f", "{\"list\": [1, 2]}", ""}}}},
        Family{"glm", "<tool_call>f\n<arg_key>text</arg_key>\n<arg_value>12</arg_value>\n<arg_key>number</arg_key>\n<arg_value>12</arg_value>\n</tool_call>",
               {"", "", {{"f", "{\"text\": \"12\", \"number\": 12}", ""}}}},
        Family{"glm", "<tool_call>f</tool_call>", {"", "", {{"f", "{}", ""}}}},
        Family{"minimax",
               "<minimax:tool_call>\n<invoke name=\"f\">\n<parameter name=\"number\">3</parameter>\n</invoke>\n<invoke name=\"g\">\n</invoke>\n</minimax:tool_call>",
               {"", "", {{"f", "{\"number\": 3}", ""}, {"g", "{}", ""}}}},
        Family{"kimi",
               "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{\"number\": 1}<|tool_call_end|><|tool_calls_section_end|>",
               {"", "", {{"f", "{\"number\": 1}", "functions.f:0"}}}},
        Family{"mistral", "[TOOL_CALLS]f[ARGS]{\"number\": 1}", {"", "", {{"f", "{\"number\": 1}", ""}}}},
        Family{"mistral", "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {}}, {\"name\": \"g\", \"arguments\": {}}]", {"", "", {{"f", "{}", ""}, {"g", "{}", ""}}}},
        Family{"list", "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"number\": 1}}]<|/tool_call|>", {"", "", {{"f", "{\"number\": 1}", ""}}}},
        Family{"nemotron", "<TOOLCALL>[{\"name\": \"f\", \"arguments\": {}}]</TOOLCALL>", {"", "", {{"f", "{}", ""}}}},
        Family{"functionary", "Yes.<function=f>{\"number\": 1}</function>", {"", "Yes.", {{"f", "{\"number\": 1}", ""}}}},
        Family{"llama", "{\"name\": \"f\", \"parameters\": {\"number\": 1}}", {"", "", {{"f", "{\"number\": 1}", ""}}}},
        Family{"llama", "<|python_tag|>{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"f\", \"parameters\": {}}", {"", "", {{"f", "{}", ""}, {"f", "{}", ""}}}},
        Family{"llama", "[f(text='it\\'s', number=-1.5, list=[True, None, {'a': (1, 2)}])]",
               {"", "", {{"f", "{\"text\": \"it's\", \"number\": -1.5, \"list\": [true, null, {\"a\": [1, 2]}]}", ""}}}},
        // JSON that names none of the tools is an answer.
        Family{"llama", "{\"name\": \"Bob\", \"age\": 3}", {"", "{\"name\": \"Bob\", \"age\": 3}", {}}},
        Family{"llama", "[1, 2]", {"", "[1, 2]", {}}},
        // What only looks like a call is text, to the byte.
        Family{"hermes", "a <tool_call> b </tool_call> c", {"", "a <tool_call> b </tool_call> c", {}}},
        Family{"hermes", "<tool_call>{\"nome\": 1}</tool_call>", {"", "<tool_call>{\"nome\": 1}</tool_call>", {}}},
        Family{"hermes", " 1 < 2 <tool_", {"", " 1 < 2 <tool_", {}}},
        Family{"kimi", "<|tool_call_begin|> nothing", {"", "<|tool_call_begin|> nothing", {}}},
        Family{"harmony", "no channels at all", {"", "no channels at all", {}}}));

TEST_P(EveryFamily, IsReadAlikeHoweverItIsCut) {
  const Family& family = GetParam();
  const MessageRules rules = rules_of(family.format);
  const Parsed whole = parse_message(rules, family.text);
  EXPECT_EQ(whole.reasoning, family.expected.reasoning);
  EXPECT_EQ(whole.content, family.expected.content);
  ASSERT_EQ(whole.calls.size(), family.expected.calls.size()) << whole.content;
  for (size_t i = 0; i < whole.calls.size(); ++i) {
    EXPECT_EQ(whole.calls[i], family.expected.calls[i]) << whole.calls[i].name << whole.calls[i].arguments << whole.calls[i].id;
  }
  for (const std::vector<size_t>& cuts : all_cuts(family.text.size())) ASSERT_EQ(parse_message(rules, family.text, cuts), whole);
}

TEST(MessageParser, LeavesCallsInTheTextOfARequestWithoutTools) {
  MessageRules rules = rules_of("hermes");
  rules.has_tools = false;
  const std::string text = "<tool_call>{\"name\": \"f\"}</tool_call>";
  EXPECT_EQ(parse_message(rules, text).content, text);
}

TEST(MessageParser, TellsACallBeforeItsArgumentsHaveCome) {
  MessageParser parser(rules_of("hermes"));
  std::vector<MessagePart> parts;
  parser.push("<tool_call>{\"name\": \"f\", \"argum", parts);
  ASSERT_EQ(parts.size(), 1u);
  EXPECT_EQ(parts[0], (MessagePart{PartKind::kCall, "f", ""}));
  parts.clear();
  parser.push("ents\": {\"text\": \"long", parts);
  ASSERT_EQ(parts.size(), 1u);
  EXPECT_EQ(parts[0], (MessagePart{PartKind::kArguments, "{\"text\": \"long", ""}));
}

// Any bytes: nothing is thrown, and no cut changes what comes out.
TEST(MessageParser, TakesAnyTextInAnyPieces) {
  const char* const words[] = {"<tool_call>", "</tool_call>", "{\"name\": \"f\"", "\"arguments\": ", "{", "}", "[", "]", "\"", "\\", ",", ":", "f", "(", ")", "=",
                               "<function=", "<parameter=", ">", "</parameter>", "</function>", "<arg_key>", "</arg_key>", "<arg_value>", "[TOOL_CALLS]", "[ARGS]",
                               "<|channel|>", "<|message|>", "<|end|>", "<|start|>", "to=functions.f", "analysis", "<think>", "</think>", "\n", " ", "text", "'", "-1"};
  std::mt19937 random(7);
  for (int i = 0; i < 3000; ++i) {
    const std::span<const MessageFormat> formats = message_formats();
    const MessageRules rules = rules_of(formats[random() % formats.size()].name.data());
    std::string text;
    if (!rules.format->is_harmony && !rules.format->calls.empty() && random() % 2) text = rules.format->calls[0].begin;
    for (unsigned n = random() % 25; n > 0; --n) text += words[random() % std::size(words)];
    std::vector<size_t> cuts;
    for (size_t at = 1; at < text.size(); ++at) {
      if (random() % 3 == 0) cuts.push_back(at);
    }
    ASSERT_EQ(parse_message(rules, text, cuts), parse_message(rules, text)) << rules.format->name << ": " << text;
  }
}

}  // namespace
}  // namespace serval
