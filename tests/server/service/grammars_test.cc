// Masks of what may be drawn, by hand: forms, lists of tokens, reasoning before a form, and ends with nothing left.
#include "server/service/grammars.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <set>

#include "engine/batch.h"
#include "engine/text/tokenizer/load_tokenizer.h"
#include "server/service/metrics.h"

namespace serval {
namespace {

constexpr int kVocab = 264;
constexpr TokenId kEnd = 256;

// Tokens are bytes, and an end.
class GrammarsTest : public ::testing::Test {
 protected:
  GrammarsTest()
      : grammars_(load_tokenizer(std::filesystem::path(SERVAL_SOURCE_DIR) / "tests/fixtures/pooling/qwen3-reranker", kVocab), kVocab, {kEnd}, metrics_,
                  [this](RequestId, int, int num_masks, uint64_t drafts, std::span<const TokenId> forced) {
                    drafts_ = drafts;
                    forced_.assign(forced.begin(), forced.end());
                    tell(num_masks, "");
                  },
                  [this](RequestId, const Error& why) { tell(-1, why.code); }) {}

  void tell(int num_masks, std::string code) {
    const std::lock_guard lock(mutex_);
    num_masks_ = num_masks;
    code_ = std::move(code);
    told_.notify_all();
  }

  void begin(const OutputFormat* format, const TokenLists& lists, const FreeText& before = {}) {
    std::shared_ptr<Grammars::Compiled> compiled;
    if (format) compiled = *grammars_.compile(*format);
    auto made = grammars_.constraint(compiled, before, lists, 1, 1, most_forced_);
    refusal_ = made ? "" : made.error().code;
    if (made) constraint_ = *made;
  }
  std::set<int> allowed(int draft = -1) const {
    std::set<int> tokens;
    for (int id = 0; id < kVocab; ++id)
      if (constraint_->mask(0, draft)[id / 32] >> id % 32 & 1) tokens.insert(id);
    return tokens;
  }
  // Draws the bytes in turn, each of which must be allowed. The code of a dead end; else nothing.
  std::string draw(std::string_view bytes) {
    for (const char c : bytes) {
      const TokenId token = static_cast<unsigned char>(c);
      EXPECT_TRUE(allowed().contains(token)) << c;
      const std::string code = step({token}, {});
      if (!code.empty()) return code;
    }
    return "";
  }
  // A step draws the tokens and has guesses of what follows.
  std::string step(const std::vector<TokenId>& tokens, const std::vector<Draft>& guesses) {
    std::unique_lock lock(mutex_);
    num_masks_ = 0;
    lock.unlock();
    constraint_->drew(0, tokens, place_, guesses);
    place_ += static_cast<int>(tokens.size());
    lock.lock();
    told_.wait(lock, [&] { return num_masks_ != 0; });
    EXPECT_TRUE(num_masks_ < 0 || num_masks_ == place_ + 1) << num_masks_;
    return num_masks_ < 0 ? code_ : "";
  }

  ServiceMetrics metrics_{"model"};
  std::mutex mutex_;
  std::condition_variable told_;
  int num_masks_ = 0, place_ = 0, most_forced_ = 0;
  std::string forced_;  // a byte a token
  uint64_t drafts_ = 0;
  std::string code_, refusal_;
  Grammars grammars_;
  std::shared_ptr<TokenConstraint> constraint_;
};

TEST_F(GrammarsTest, ListsAloneAllowWhatTheySay) {
  begin(nullptr, {.allowed = {'a', 'b', kEnd}, .banned = {{'a', 'b'}, {'b', 'a', 'a'}}});
  EXPECT_EQ(allowed(), (std::set<int>{'a', 'b', kEnd}));
  draw("a");
  EXPECT_EQ(allowed(), (std::set<int>{'a', kEnd}));
  begin(nullptr, {.banned = {{'x'}}});
  EXPECT_EQ(allowed().size(), kVocab - 1u);
  EXPECT_FALSE(allowed().contains('x'));
}

TEST_F(GrammarsTest, BannedTextsAreTheirWholeLength) {
  begin(nullptr, {.allowed = {'a', 'b'}, .banned = {{'b', 'a', 'a'}}});
  draw("ba");
  EXPECT_EQ(allowed(), (std::set<int>{'b'}));
  draw("bba");
  EXPECT_EQ(allowed(), (std::set<int>{'b'}));
}

TEST_F(GrammarsTest, FormsAndListsHoldTogether) {
  const OutputFormat format{.kind = OutputFormat::Kind::kRegex, .text = "[abc]{2}"};
  begin(&format, {.allowed = {'a', 'b', kEnd}, .banned = {{'a', 'a'}}});
  EXPECT_EQ(allowed(), (std::set<int>{'a', 'b'}));
  draw("a");
  EXPECT_EQ(allowed(), (std::set<int>{'b'}));
  draw("b");
  EXPECT_EQ(allowed(), (std::set<int>{kEnd}));
}

TEST_F(GrammarsTest, WhereNothingIsLeftTheRequestEndsAndSaysWhy) {
  const OutputFormat format{.kind = OutputFormat::Kind::kRegex, .text = "ab"};
  begin(&format, {.allowed = {'b'}});
  EXPECT_EQ(refusal_, "no_token_allowed");
  begin(&format, {.allowed = {'a'}});
  EXPECT_EQ(refusal_, "");
  EXPECT_EQ(draw("a"), "no_token_allowed");
}

TEST_F(GrammarsTest, MasksStandBehindGuessesThatMayBeDrawn) {
  const OutputFormat format{.kind = OutputFormat::Kind::kRegex, .text = "ab*c|ax[yz]"};
  begin(&format, {.banned = {{'b', 'b'}}});
  EXPECT_EQ(step({'a'}, {{'b', -1}, {'d', -1}, {'b', 0}, {'c', 0}, {'y', 1}, {'x', -1}, {'z', 5}, {kEnd, 6}}), "");
  EXPECT_EQ(drafts_, 0b1101001u) << "neither what may not be drawn, nor what stands behind it, nor ends";
  EXPECT_EQ(allowed(), (std::set<int>{'b', 'c', 'x'}));
  EXPECT_EQ(allowed(0), (std::set<int>{'c'})) << "behind b";
  EXPECT_EQ(allowed(1), (std::set<int>{kEnd})) << "behind bc";
  EXPECT_EQ(allowed(2), (std::set<int>{'y', 'z'})) << "behind x";
  EXPECT_EQ(allowed(3), (std::set<int>{kEnd})) << "behind xz";
  EXPECT_EQ(step({'x', 'y'}, {}), "") << "a step may draw several";
  EXPECT_EQ(allowed(), (std::set<int>{kEnd}));
}

TEST_F(GrammarsTest, WhereOneTextAloneMayFollowItIsTheGuess) {
  most_forced_ = 5;
  const OutputFormat format{.kind = OutputFormat::Kind::kRegex, .text = "(kilo|milli)grammes of (salt|sugar)"};
  begin(&format, {});
  EXPECT_EQ(step({'k'}, {}), "");
  EXPECT_EQ(forced_, "ilogr") << "so many at most";
  EXPECT_EQ(drafts_, 0u);
  EXPECT_EQ(allowed(0), (std::set<int>{'l'}));
  EXPECT_EQ(allowed(4), (std::set<int>{'a'})) << "a mask behind each";
  EXPECT_EQ(step({'i', 'l', 'o', 'g', 'r', 'a'}, {{'m', -1}}), "");
  EXPECT_EQ(forced_, "") << "another's guess is left";
  EXPECT_EQ(drafts_, 1u);
  EXPECT_EQ(step({'m', 'm', 'e', 's', ' ', 'o'}, {{'x', -1}}), "");
  EXPECT_EQ(forced_, "f s") << "the other's was cut; then there is a choice";
  EXPECT_EQ(allowed(2), (std::set<int>{'a', 'u'}));
  EXPECT_EQ(step({'f', ' ', 's'}, {}), "");
  EXPECT_EQ(forced_, "");
  EXPECT_EQ(step({'a'}, {}), "");
  EXPECT_EQ(forced_, "lt") << "an end is no guess";
  EXPECT_EQ(allowed(1), (std::set<int>{kEnd}));
  most_forced_ = 0;
  place_ = 0;
  begin(&format, {});
  EXPECT_EQ(step({'k'}, {}), "");
  EXPECT_EQ(forced_, "") << "nobody wants any";
}

TEST_F(GrammarsTest, NoGuessIsLeftBehindWhichNothingMayBeDrawn) {
  const OutputFormat format{.kind = OutputFormat::Kind::kRegex, .text = "aab|aca"};
  begin(&format, {.allowed = {'a', 'c', kEnd}});
  EXPECT_EQ(step({'a'}, {{'a', -1}, {'b', 0}, {'c', -1}, {'a', 2}}), "");
  EXPECT_EQ(drafts_, 0b1100u);
  EXPECT_EQ(allowed(1), (std::set<int>{kEnd}));
  EXPECT_EQ(step({'a'}, {{'b', -1}}), "no_token_allowed");
}

TEST_F(GrammarsTest, TheFormBeginsBehindReasoning) {
  const OutputFormat format{.kind = OutputFormat::Kind::kChoice, .choices = {"yes"}};
  begin(&format, {}, {.begin = "<think>", .end = "</think>", .is_open = true});
  EXPECT_EQ(allowed().size(), kVocab - 1u) << "all but the end";
  EXPECT_EQ(draw("so </thin, </think>"), "");
  EXPECT_EQ(allowed(), (std::set<int>{'y'}));
  EXPECT_EQ(draw("yes"), "");
  EXPECT_EQ(allowed(), (std::set<int>{kEnd}));
}

TEST_F(GrammarsTest, AModelMayReasonFirstOrNot) {
  // A mark that is a token: any will do here.
  const OutputFormat format{.kind = OutputFormat::Kind::kChoice, .choices = {"yes"}};
  const FreeText before{.begin = "T", .end = "E"};
  begin(&format, {}, before);
  EXPECT_EQ(allowed(), (std::set<int>{'T', 'y'}));
  draw("yes");
  EXPECT_EQ(allowed(), (std::set<int>{kEnd}));
  place_ = 0;
  begin(&format, {}, before);
  draw("Tno, yE");
  EXPECT_EQ(allowed(), (std::set<int>{'y'}));
  begin(&format, {}, {.begin = "no such token", .end = "E"});
  EXPECT_EQ(allowed(), (std::set<int>{'y'}));
}

}  // namespace
}  // namespace serval
