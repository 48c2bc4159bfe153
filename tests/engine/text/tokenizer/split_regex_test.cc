#include "engine/text/tokenizer/split_regex.h"

#include <gtest/gtest.h>

#include <stdexcept>

#include "engine/text/tokenizer/pretokenizer.h"

namespace serval::test {
namespace {

std::vector<std::string> matches_of(std::string_view pattern, const std::string& text) {
  std::vector<Span> spans;
  SplitBudget budget(text.size());
  SplitRegex(pattern).find_all(text, spans, budget);
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
  SplitBudget budget(4);
  SplitRegex("(?=b)").find_all("abcb", spans, budget);
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

TEST(SplitRegex, TakesClassesInsideClassesAndTheirIntersections) {
  EXPECT_EQ(matches_of("[a[bc]]+", "xabcx"), Strings{"abc"});
  EXPECT_EQ(matches_of("[\\p{L}&&[^\\p{Han}]]+", "ab日c"), (Strings{"ab", "c"}));
  EXPECT_EQ(matches_of("[^\\p{L}&&\\p{Lu}]+", "aBc1"), (Strings{"a", "c1"}));
  EXPECT_EQ(matches_of(" ?[^(\\s|[.,!?])]+", "a.b (c"), (Strings{"a", "b", "c"}));
  EXPECT_EQ(matches_of("[a[^b]&&[b-d]]+", "abcdx"), Strings{"cd"});
}

TEST(SplitRegex, TreatsLiteralTextLiterally) {
  const std::string text = "a.b*c[d]{1}(x)^$\\|?+ é#-";
  EXPECT_EQ(matches_of(escape_regex(text), "<" + text + ">"), Strings{text});
}

TEST(SplitRegex, RefusesWhatItCannotTranslate) {
  for (const char* pattern : {"(a)\\1",      "a{1,2}+",  "a{2}?",  "(?m)a",       "(?<name>a)",
                              "[[:alpha:]]", "\\K",      "[^\\W]", "\\xe9",       "\\p",
                              "a(?i)b",      "[a",       "(a",     "\\",          "\\p{NoSuchProperty}",
                              "*a",          "(?P<x>a)", "\\R",    "\\x{110000}", "\\x{}"}) {
    EXPECT_THROW(SplitRegex{pattern}, std::runtime_error) << pattern;
  }
  EXPECT_THROW(SplitRegex{std::string(100'000, 'a')}, std::runtime_error);
  EXPECT_THROW(SplitRegex{std::string(5'000, '(')}, std::runtime_error);
}

// The measure of work is what the budget was charged: text that attempts saw beyond their first window and
// steps they took beyond the first rung. A search that is quadratic in these 64 KiB would count 2 billion.
uint64_t work_of(const char* pattern, const char* unit, size_t& num_bytes) {
  std::string text;
  while (text.size() < 65'536) text += unit;
  text += "z";
  num_bytes = text.size();
  std::vector<Span> spans;
  SplitBudget budget(text.size());
  SplitRegex(pattern).find_all(text, spans, budget);
  return budget.spent();
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
      EXPECT_LE(work, 10 * num_bytes) << pattern << " on '" << unit << "'";
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

// Each of these takes minutes or years of steps that PCRE2's own limit lets pass, attempt by attempt.
TEST(SplitRegex, ChargesTheStepsOfEveryAttempt) {
  std::string runs;  // no attempt sees more than its first window
  while (runs.size() < 65'536) runs += std::string(200, 'a') + "c";
  const std::string one_run(65'536, 'a');
  for (const char* pattern :
       {"a*a*a*b", "(?:a*)*b", "(?:a|aa)+b", "(?:a?){30}a{30}b", "a*(?=a*+c)a*b", "(?:a+a+)+[bd]"}) {
    for (const std::string& text : {runs, one_run}) {
      std::vector<Span> spans;
      SplitBudget budget(text.size());
      SplitRegex(pattern).find_all(text, spans, budget);
      EXPECT_GT(budget.spent(), text.size()) << pattern;
      // The last charge, which ends the work before it begins, may go far beyond the limit; the last but one
      // may not.
      EXPECT_TRUE(budget.is_spent()) << pattern;
      EXPECT_TRUE(spans.empty()) << pattern;
    }
  }
}

// A second split of the same text in pieces has no budget of its own for each of them.
TEST(SplitRegex, HasOneBudgetForAllPiecesOfAText) {
  std::string runs;
  while (runs.size() < 65'536) runs += std::string(200, 'a') + "c";
  SplitBudget budget(runs.size());
  const SplitRegex pattern("(?:a+)+[bd]");
  std::vector<Span> spans;
  for (size_t at = 0; at < runs.size(); at += 201)
    pattern.find_all(std::string_view(runs).substr(at, 201), spans, budget);
  EXPECT_TRUE(budget.is_spent());
  const uint64_t spent = budget.spent();
  pattern.find_all(runs, spans, budget);
  EXPECT_EQ(budget.spent(), spent) << "nothing more is tried";
  EXPECT_TRUE(spans.empty());
}

// A step that may read everything before it costs accordingly; published patterns have no such steps, though
// some have loops that give nothing back.
TEST(SplitRegex, ChargesMoreForStepsThatMayReadTheWindowAgain) {
  const std::string spaces = std::string(65'536, ' ') + "x";
  const auto spent = [&](const char* pattern) {
    std::vector<Span> spans;
    SplitBudget budget(spaces.size());
    SplitRegex(pattern).find_all(spaces, spans, budget);
    return budget.is_spent() ? UINT64_MAX : budget.spent();
  };
  for (
      const char* pattern :
      {R"(\s*[\r\n]+|\s+(?!\S)|\s+|\S)",
       R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s)"}) {
    EXPECT_LT(spent(pattern), 12 * spaces.size()) << pattern;
  }
  for (const char* pattern : {R"(\s*(?=\s*+a)\d)", R"(\s*\s*+a)", R"(\s*(?>\s*)a)", R"((?:\s(?=\s*b))*a)",
                              R"((?:\s?\s++a?)*b)", R"(\s*(?<!a)(?:(?:\s++)b)a)"}) {
    EXPECT_EQ(spent(pattern), UINT64_MAX) << pattern;
  }
}

// What needs many steps and gets somewhere is matched all the same.
TEST(SplitRegex, LetsALongRunHaveTheStepsItNeeds) {
  const std::string run(50'000, 'A');
  std::vector<Span> spans;
  SplitBudget budget(run.size());
  SplitRegex(R"([\p{Lu}\p{Lo}]*[\p{Ll}\p{Lo}]+|[\p{Lu}\p{Lo}]+[\p{Ll}\p{Lo}]*)").find_all(run, spans, budget);
  EXPECT_EQ(spans, (std::vector<Span>{{0, 50'000}}));
  EXPECT_FALSE(budget.is_spent());
}

TEST(SplitAt, DropsEmptyPieces) {
  EXPECT_EQ(split_at("ab", {{0, 0}, {1, 1}, {2, 2}}, SplitBehavior::kIsolated, false),
            (std::vector<Span>{{0, 1}, {1, 2}}));
}

}  // namespace
}  // namespace serval::test
