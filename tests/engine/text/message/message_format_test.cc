#include "engine/text/message/message_format.h"

#include <gtest/gtest.h>

#include <set>

namespace serval {
namespace {

TEST(MessageFormat, IsFoundByItsNameAndHasOneOfItsOwn) {
  std::set<std::string_view> names;
  for (const MessageFormat& format : message_formats()) {
    EXPECT_TRUE(names.insert(format.name).second) << format.name;
    EXPECT_EQ(message_format_named(format.name), &format);
    EXPECT_FALSE(format.signs.empty()) << format.name;
  }
  EXPECT_EQ(message_format_named("none of them"), nullptr);
}

TEST(MessageFormat, IsTheMostParticularThatTheTemplateSpeaksOf) {
  const auto name_of = [](std::string_view source) {
    const MessageFormat* const format = find_message_format(source);
    return format != nullptr ? format->name : "";
  };
  EXPECT_EQ(name_of("<tool_call>{{ call | tojson }}</tool_call>"), "hermes");
  EXPECT_EQ(name_of("<tool_call><function=..."), "qwen3_coder");
  EXPECT_EQ(name_of("<tool_call>name<arg_key>"), "glm");
  EXPECT_EQ(name_of("[TOOL_CALLS]"), "mistral");
  EXPECT_EQ(name_of("<|channel|>analysis<|message|>"), "harmony");
  EXPECT_EQ(name_of("plain"), "");
}

TEST(MessageFormat, KnowsAPromptThatOpensReasoning) {
  const ReasoningMarks marks = reasoning_marks(nullptr, "...</think>...");
  EXPECT_EQ(marks.begin, "<think>");
  EXPECT_EQ(opened_reasoning(marks, "assistant\n<think>\n"), "<think>\n");
  EXPECT_EQ(opened_reasoning(marks, "assistant\n<think>\n</think>"), "");
  EXPECT_EQ(opened_reasoning(marks, "assistant\n"), "");
  EXPECT_EQ(opened_reasoning({}, "assistant\n<think>"), "");
}

}  // namespace
}  // namespace serval
