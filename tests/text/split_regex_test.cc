#include "engine/text/split_regex.h"

#include <gtest/gtest.h>

#include <stdexcept>

#include "engine/text/pretokenizer.h"

namespace serval::test {
namespace {

std::vector<std::string> matches_of(std::string_view pattern, const std::string& text) {
  std::vector<Span> spans;
  SplitRegex(pattern).find_all(text, spans);
  std::vector<std::string> matches;
  for (const Span& span : spans) matches.push_back(text.substr(span.begin, span.end - span.begin));
  return matches;
}

using Strings = std::vector<std::string>;

TEST(SplitRegex, FindsLeftmostMatchesThatDoNotOverlap) {
  EXPECT_EQ(matches_of("aa|a", "aaab"), (Strings{"aa", "a"}));
  EXPECT_EQ(matches_of("x", "abc"), Strings{});
  EXPECT_EQ(matches_of("\\p{Han}+", "日本 x 語"), (Strings{"日本", "語"}));
}

TEST(SplitRegex, FindsAnEmptyMatchOncePerPlace) {
  std::vector<Span> spans;
  SplitRegex("(?=b)").find_all("abcb", spans);
  EXPECT_EQ(spans, (std::vector<Span>{{1, 1}, {3, 3}}));
}

TEST(SplitRegex, DoesNotTakeTheMongolianVowelSeparatorForASpace) {
  EXPECT_EQ(matches_of("\\s", "a\u180e\u00a0\u2003"), (Strings{"\u00a0", "\u2003"}));
}

TEST(SplitRegex, MatchesBeyondItsFirstWindow) {
  const std::string word(100'000, 'w');
  EXPECT_EQ(matches_of("\\p{L}+", "x! " + word), (Strings{"x", word}));
  // The decision hangs on the very last character.
  const std::string spaces(100'000, ' ');
  EXPECT_EQ(matches_of("\\s+(?!\\S)", spaces + "x"), (Strings{spaces.substr(1)}));
  EXPECT_EQ(matches_of("\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+", spaces + "\n" + spaces + "x"),
            (Strings{spaces + "\n", spaces.substr(1), " "}));
}

TEST(SplitRegex, TreatsLiteralTextLiterally) {
  const std::string text = "a.b*c[d]{1}(x)^$\\|?+ é#-";
  EXPECT_EQ(matches_of(escape_regex(text), "<" + text + ">"), Strings{text});
}

TEST(SplitRegex, RefusesWhatItCannotTranslate) {
  for (const char* pattern : {"[a[bc]]",
                              "[\\p{L}&&\\p{Lu}]",
                              "(a)\\1",
                              "a{1,2}+",
                              "a{2}?",
                              "(?m)a",
                              "(?<name>a)",
                              "[[:alpha:]]",
                              "\\K",
                              "[^\\W]",
                              "\\xe9",
                              "\\p",
                              "a(?i)b",
                              "[a",
                              "(a",
                              "\\",
                              "\\p{NoSuchProperty}",
                              "*a",
                              "(?P<x>a)",
                              "\\R",
                              "\\x{110000}",
                              "\\x{}"}) {
    EXPECT_THROW(SplitRegex{pattern}, std::runtime_error) << pattern;
  }
  EXPECT_THROW(SplitRegex{std::string(100'000, 'a')}, std::runtime_error);
  EXPECT_THROW(SplitRegex{std::string(5'000, '(')}, std::runtime_error);
}

// The measure of work is the text that attempts saw beyond their first window. A search that is quadratic in
// these 64 KiB would count 2 billion bytes.
uint64_t work_of(const char* pattern, const char* unit, size_t& num_bytes) {
  std::string text;
  while (text.size() < 65'536) text += unit;
  text += "z";
  num_bytes = text.size();
  std::vector<Span> spans;
  return SplitRegex(pattern).find_all(text, spans);
}

constexpr const char* kUnits[] = {" ", "a", "1", "!", "\n", " \n", "é", " a", "\u3000"};

TEST(SplitRegex, LooksAtEveryByteAFewTimesWithPublishedPatterns) {
  for (
      const char* pattern :
      {R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
       R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}) {
    for (const char* unit : kUnits) {
      size_t num_bytes = 0;
      const uint64_t work = work_of(pattern, unit, num_bytes);
      EXPECT_LE(work, 8 * num_bytes) << pattern << " on '" << unit << "'";
    }
  }
}

TEST(SplitRegex, GivesUpOnAPatternThatIsItselfQuadraticOrWorse) {
  for (const char* pattern : {R"(\s+$)", R"((?:a+)+b)", R"(\s*x)", R"((?:a|a)*b)", R"((?:.*)*x)"}) {
    for (const char* unit : kUnits) {
      size_t num_bytes = 0;
      const uint64_t work = work_of(pattern, unit, num_bytes);
      EXPECT_LE(work, 36 * num_bytes + (18 << 20)) << pattern << " on '" << unit << "'";
    }
  }
}

TEST(SplitAt, DropsEmptyPieces) {
  EXPECT_EQ(split_at("ab", {{0, 0}, {1, 1}, {2, 2}}, SplitBehavior::kIsolated, false),
            (std::vector<Span>{{0, 1}, {1, 2}}));
}

}  // namespace
}  // namespace serval::test
