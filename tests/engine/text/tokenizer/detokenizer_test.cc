#include "engine/text/tokenizer/detokenizer.h"

#include <gtest/gtest.h>

#include <random>

#include "kernels/base/utf8.h"

namespace serval::test {
namespace {

// Any bytes as a token: ids in the order of the strings, those listed in `special` special.
class FakeTokenizer final : public Tokenizer {
 public:
  explicit FakeTokenizer(std::vector<std::string> tokens, std::vector<TokenId> special = {},
                         bool strips = false)
      : tokens_(std::move(tokens)), special_(std::move(special)), strips_(strips) {}

  std::vector<TokenId> encode(std::string_view, bool, bool, std::string_view) const override { return {}; }
  std::vector<std::string> special_names() const override { return {}; }
  size_t least_tokens(std::string_view) const override { return 0; }
  std::string_view token_bytes(TokenId id) const override {
    return id >= 0 && id < vocab_size() ? std::string_view(tokens_[id]) : std::string_view();
  }
  bool is_special(TokenId id) const override {
    return std::find(special_.begin(), special_.end(), id) != special_.end();
  }
  bool strips_leading_space() const override { return strips_; }
  int vocab_size() const override { return static_cast<int>(tokens_.size()); }
  TokenId token_to_id(std::string_view) const override { return -1; }
  TokenId bos_id() const override { return -1; }
  TokenId eos_id() const override { return -1; }

 private:
  std::vector<std::string> tokens_;
  std::vector<TokenId> special_;
  bool strips_;
};

struct Outcome {
  std::vector<std::string> parts;  // what each token released, then what finish did
  std::string text;
  bool stopped = false;
  std::string matched;
};

// Runs all tokens, in order, as a sequence of ids 0, 1, 2, ...
Outcome run(const FakeTokenizer& tokenizer, DetokenizerOptions options) {
  Detokenizer detokenizer(tokenizer, std::move(options));
  Outcome outcome;
  for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) {
    detokenizer.push(id, outcome.parts.emplace_back());
  }
  detokenizer.finish(outcome.parts.emplace_back());
  for (const std::string& part : outcome.parts) outcome.text += part;
  outcome.stopped = detokenizer.stopped();
  outcome.matched = detokenizer.matched_stop();
  return outcome;
}

using Parts = std::vector<std::string>;

TEST(Detokenizer, HoldsAnIncompleteCharacterBack) {
  const Outcome outcome = run(FakeTokenizer({"a\xE6", "\x97", "\xA5", "b\xF0\x9F", "\x98\x80"}), {});
  EXPECT_EQ(outcome.parts, (Parts{"a", "", "日", "b", "😀", ""}));
}

TEST(Detokenizer, TurnsBrokenBytesIntoReplacementCharactersAsSoonAsTheyAreKnown) {
  EXPECT_EQ(run(FakeTokenizer({"\xE6\x97", "x", "\xFF", "\xC3"}), {}).parts,
            (Parts{"", "\uFFFDx", "\uFFFD", "", "\uFFFD"}));
}

TEST(Detokenizer, SkipsSpecialTokensOrGivesTheirNames) {
  const FakeTokenizer tokenizer({"<s>", "a", "<e>"}, {0, 2});
  EXPECT_EQ(run(tokenizer, {}).text, "a");
  EXPECT_EQ(run(tokenizer, {.skip_special = false}).text, "<s>a<e>");
}

TEST(Detokenizer, DropsOneLeadingSpaceOfATextThatBeginsHere) {
  const FakeTokenizer tokenizer({"<s>", " ", " a", " b"}, {0}, /*strips=*/true);
  EXPECT_EQ(run(tokenizer, {}).text, " a b");
  EXPECT_EQ(run(tokenizer, {.continues_text = true}).text, "  a b");
  EXPECT_EQ(run(tokenizer, {.skip_special = false}).text, "<s>  a b");
  EXPECT_EQ(run(FakeTokenizer({" a"}), {}).text, " a");
}

TEST(Detokenizer, IgnoresIdsOutsideTheVocabulary) {
  const FakeTokenizer tokenizer({"a"});
  Detokenizer detokenizer(tokenizer, {});
  std::string out;
  for (const TokenId id : {-1, 0, 1, INT32_MAX, INT32_MIN}) EXPECT_TRUE(detokenizer.push(id, out));
  detokenizer.finish(out);
  EXPECT_EQ(out, "a");
}

TEST(Detokenizer, FindsAStopStringAcrossTokens) {
  const Outcome outcome = run(FakeTokenizer({"one S", "TO", "P two", " three"}), {.stop = {"STOP"}});
  EXPECT_EQ(outcome.parts, (Parts{"one ", "", "", "", ""}));
  EXPECT_TRUE(outcome.stopped);
  EXPECT_EQ(outcome.matched, "STOP");
  EXPECT_EQ(
      run(FakeTokenizer({"one S", "TO", "P two", " three"}), {.stop = {"STOP"}, .include_stop = true}).text,
      "one STOP");
}

TEST(Detokenizer, HoldsBackNoMoreThanAStopStringCouldNeed) {
  // After "ababa" only "aba" can still begin "abac".
  EXPECT_EQ(run(FakeTokenizer({"x", "ab", "aba", "b", "c"}), {.stop = {"abac"}}).parts,
            (Parts{"x", "", "ab", "ab", "abc", ""}));
}

TEST(Detokenizer, GivesWhatItHeldBackWhenTheSequenceEnds) {
  EXPECT_EQ(run(FakeTokenizer({"a S", "TO"}), {.stop = {"STOP"}}).parts, (Parts{"a ", "", "STO"}));
}

TEST(Detokenizer, TakesTheStopStringThatEndsFirstAndOfSeveralTheLongest) {
  EXPECT_EQ(run(FakeTokenizer({"xabcd"}), {.stop = {"abcd", "bc"}}).text, "xa");
  EXPECT_EQ(run(FakeTokenizer({"xabc"}), {.stop = {"bc", "abc", "c"}}).matched, "abc");
}

TEST(Detokenizer, IgnoresStopStringsBeforeTheLeastNumberOfTokens) {
  const FakeTokenizer tokenizer({"a.", "b", ".", "c."});
  EXPECT_EQ(run(tokenizer, {.stop = {"."}, .min_tokens = 2}).text, "a.b");
  EXPECT_EQ(run(tokenizer, {.stop = {"."}, .min_tokens = 3}).text, "a.b");
  EXPECT_EQ(run(tokenizer, {.stop = {"."}, .min_tokens = 4}).text, "a.b.c");
  EXPECT_EQ(run(tokenizer, {.stop = {"."}, .min_tokens = 5}).text, "a.b.c.");
  // A stop string may begin before and end after.
  EXPECT_EQ(run(FakeTokenizer({"xA", "B", "y"}), {.stop = {"AB"}, .min_tokens = 2}).text, "x");
}

TEST(Detokenizer, AppendsNothingAfterAStop) {
  const FakeTokenizer tokenizer({"stop!", "more"});
  Detokenizer detokenizer(tokenizer, {.stop = {"!"}});
  std::string out;
  EXPECT_FALSE(detokenizer.push(0, out));
  EXPECT_FALSE(detokenizer.push(1, out));
  detokenizer.finish(out);
  EXPECT_EQ(out, "stop");
}

TEST(Detokenizer, FindsAStopStringInAReplacementCharacterAtTheEnd) {
  const Outcome outcome = run(FakeTokenizer({"a", "\xE6"}), {.stop = {"\uFFFD"}});
  EXPECT_TRUE(outcome.stopped);
  EXPECT_EQ(outcome.text, "a");
}

// Law: for bytes of any kind, cut anywhere, parts are valid UTF-8 and join to the repaired whole; with stop
// strings the text is what a search in the whole text gives, whatever the cuts.
TEST(Detokenizer, GivesTheSameTextHoweverTokensCutIt) {
  std::mt19937 random(11);
  const std::vector<std::string> units = {"a",    "b",    "ab",       "é",    "日", "😀",
                                          "\xE6", "\x97", "\xF0\x9F", "\xFF", " ",  "\uFFFD"};
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes;
    for (int n = static_cast<int>(random() % 20); n > 0; --n) bytes += units[random() % units.size()];
    std::vector<std::string> stops;
    for (int n = static_cast<int>(random() % 3); n > 0; --n) {
      std::string stop;
      for (int m = 1 + static_cast<int>(random() % 3); m > 0; --m) stop += units[random() % 6];
      stops.push_back(stop);
    }
    std::string expected = repair_utf8(bytes);
    size_t first_end = std::string::npos, longest = 0;
    for (const std::string& stop : stops) {
      const size_t at = expected.find(stop);
      if (at == std::string::npos) continue;
      const size_t end = at + stop.size();
      if (end < first_end || (end == first_end && stop.size() > longest)) {
        first_end = end;
        longest = stop.size();
      }
    }
    if (first_end != std::string::npos) expected.resize(first_end - longest);

    std::vector<std::string> tokens;
    for (size_t pos = 0; pos < bytes.size();) {
      const size_t length = 1 + random() % 4;
      tokens.push_back(bytes.substr(pos, length));
      pos += tokens.back().size();
    }
    const Outcome outcome = run(FakeTokenizer(tokens), {.stop = stops});
    ASSERT_EQ(outcome.text, expected) << testing::PrintToString(tokens) << testing::PrintToString(stops);
    ASSERT_EQ(outcome.stopped, first_end != std::string::npos);
    for (const std::string& part : outcome.parts) ASSERT_TRUE(is_valid_utf8(part));
  }
}

}  // namespace
}  // namespace serval::test
