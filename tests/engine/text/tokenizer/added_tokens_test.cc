#include "engine/text/tokenizer/added_tokens.h"

#include <gtest/gtest.h>

#include <stdexcept>

namespace serval::test {
namespace {

std::string cut(const AddedTokenMatcher& matcher, std::string_view text, bool match_special = true) {
  std::vector<TextSegment> segments;
  matcher.split(text, match_special, segments);
  std::string out;
  for (const TextSegment& segment : segments) {
    out += segment.id < 0 ? "(" + std::string(segment.text) + ")" : "[" + std::to_string(segment.id) + "]";
  }
  return out;
}

AddedToken token(std::string content, TokenId id) {
  return {.content = std::move(content), .id = id, .special = true};
}

TEST(AddedTokens, TakesTheLongestAtTheLeftmostPlace) {
  const AddedTokenMatcher matcher({token("<a>", 1), token("<a><b>", 2), token("><", 3), token("a", 4)});
  EXPECT_EQ(cut(matcher, "x<a><b>y<a><c"), "(x)[2](y)[1](<c)");
  EXPECT_EQ(cut(matcher, "<a"), "(<)[4]");
  EXPECT_EQ(cut(matcher, ""), "");
  EXPECT_EQ(cut(AddedTokenMatcher(), "text"), "(text)");
}

TEST(AddedTokens, LeavesSpecialNamesInPlainTextButFindsOthers) {
  AddedToken tool = token("<tool>", 9);
  tool.special = false;
  const AddedTokenMatcher matcher({token("<|im_end|>", 7), tool});
  EXPECT_EQ(cut(matcher, "a<|im_end|><tool>", true), "(a)[7][9]");
  EXPECT_EQ(cut(matcher, "a<|im_end|><tool>", false), "(a<|im_end|>)[9]");
}

TEST(AddedTokens, TakesTheSpaceAroundWhenToldTo) {
  AddedToken left = token("<l>", 1), right = token("<r>", 2);
  left.lstrip = true;
  right.rstrip = true;
  const AddedTokenMatcher matcher({left, right});
  EXPECT_EQ(cut(matcher, "a \u3000<l> b"), "(a)[1]( b)");
  EXPECT_EQ(cut(matcher, "a <r>\n\t b"), "(a )[2](b)");
  EXPECT_EQ(cut(matcher, "<r>  <l>  <r>"), "[2][1](  )[2]");
}

TEST(AddedTokens, RespectsWordBoundariesWhenToldTo) {
  AddedToken word = token("cat", 1);
  word.single_word = true;
  const AddedTokenMatcher matcher({word});
  EXPECT_EQ(cut(matcher, "cat, concat cats écat cat"), "[1](, concat cats écat )[1]");
}

TEST(AddedTokens, RefusesEmptyAndEndlessNames) {
  EXPECT_THROW(AddedTokenMatcher({token("", 1)}), std::runtime_error);
  EXPECT_THROW(AddedTokenMatcher({token(std::string(2000, 'x'), 1)}), std::runtime_error);
}

}  // namespace
}  // namespace serval::test
