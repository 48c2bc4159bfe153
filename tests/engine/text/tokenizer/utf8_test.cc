#include "kernels/base/utf8.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace serval::test {
namespace {

// The examples of the Unicode Standard 15.0, section 3.9, tables 3-8 to 3-11, which Python's errors="replace"
// follows.
TEST(Utf8, ReplacesEveryMaximalSubpartOnce) {
  const std::string r(kReplacementCharacter);
  EXPECT_EQ(repair_utf8("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(repair_utf8("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(repair_utf8("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42"), r + r + r + r + r + "A" + r + r + "B");
  EXPECT_EQ(repair_utf8("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), r + r + r + r + "A");
  EXPECT_EQ(repair_utf8("a\xE2\x82"), "a" + r);
  EXPECT_EQ(repair_utf8("\xC3"), r);
}

TEST(Utf8, ReadsBackEveryCodePointItWrites) {
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    std::string text;
    append_utf8(c, text);
    const Utf8Step step = next_utf8(text);
    ASSERT_EQ(step.kind, Utf8Kind::kCharacter);
    ASSERT_EQ(step.length, static_cast<int>(text.size()));
    ASSERT_EQ(step.codepoint, c);
    size_t pos = 0;
    ASSERT_EQ(read_utf8(text, pos), c);
    ASSERT_EQ(pos, text.size());
    for (size_t cut = 1; cut < text.size(); ++cut) {
      ASSERT_EQ(next_utf8(std::string_view(text).substr(0, cut)).kind, Utf8Kind::kIncomplete);
    }
  }
}

TEST(Utf8, KnowsValidTextFromBroken) {
  EXPECT_TRUE(is_valid_utf8(""));
  EXPECT_TRUE(is_valid_utf8("añ語😀"));
  for (const char* broken : {"\x80", "\xC1\x81", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF4\x90\x80\x80",
                             "\xF8\x88\x80\x80\x80", "a\xE2\x82"}) {
    EXPECT_FALSE(is_valid_utf8(broken)) << broken;
  }
}

}  // namespace
}  // namespace serval::test
