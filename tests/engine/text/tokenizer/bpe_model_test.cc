#include "engine/text/tokenizer/bpe_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <stdexcept>

namespace serval::test {
namespace {

// Tokens a, b, c, d and every pair that a merge makes, in rank order.
struct Tiny {
  std::vector<std::pair<std::string, TokenId>> entries;
  std::vector<std::pair<TokenId, TokenId>> merges;

  explicit Tiny(std::string_view letters) {
    for (const char c : letters) add(std::string(1, c));
  }
  TokenId add(const std::string& name) {
    entries.emplace_back(name, static_cast<TokenId>(entries.size()));
    return entries.back().second;
  }
  TokenId merge(TokenId left, TokenId right) {
    merges.emplace_back(left, right);
    const std::string name = entries[left].first + entries[right].first;
    for (const auto& [known, id] : entries) {
      if (known == name) return id;
    }
    return add(name);
  }
  BpeModel model(const BpeOptions& options = {}) const {
    return BpeModel(Vocabulary(entries), merges, options);
  }
};

std::vector<TokenId> encode(const BpeModel& model, std::string_view piece) {
  BpeModel::Scratch scratch;
  std::vector<TokenId> ids;
  model.encode(piece, scratch, ids);
  return ids;
}

// Section 3.2 of the paper, word for word: find the best pair anywhere, merge its leftmost occurrence, start
// again.
std::vector<TokenId> encode_slowly(const Tiny& tiny, std::string_view piece) {
  std::vector<TokenId> ids;
  for (const char c : piece) {
    for (const auto& [name, id] : tiny.entries) {
      if (name == std::string(1, c)) ids.push_back(id);
    }
  }
  while (true) {
    size_t best_rank = tiny.merges.size(), best_at = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto it = std::find(tiny.merges.begin(), tiny.merges.end(), std::pair(ids[i], ids[i + 1]));
      const auto rank = static_cast<size_t>(it - tiny.merges.begin());
      if (rank < best_rank) {
        best_rank = rank;
        best_at = i;
      }
    }
    if (best_rank == tiny.merges.size()) return ids;
    const std::string name = tiny.entries[ids[best_at]].first + tiny.entries[ids[best_at + 1]].first;
    for (const auto& [known, id] : tiny.entries) {
      if (known == name) ids[best_at] = id;
    }
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(best_at) + 1);
  }
}

TEST(BpeModel, AppliesTheLowestRankFirstAndTheLeftmostOfEqualOnes) {
  Tiny tiny("abcd");
  const TokenId bc = tiny.merge(1, 2);
  const TokenId ab = tiny.merge(0, 1);
  const TokenId aa = tiny.merge(0, 0);
  const BpeModel model = tiny.model();
  EXPECT_EQ(encode(model, "abc"), (std::vector<TokenId>{0, bc}));
  EXPECT_EQ(encode(model, "abd"), (std::vector<TokenId>{ab, 3}));
  EXPECT_EQ(encode(model, "aaa"), (std::vector<TokenId>{aa, 0}));
  EXPECT_EQ(encode(model, ""), std::vector<TokenId>{});
}

TEST(BpeModel, EqualsThePlainAlgorithmOnRandomVocabulariesAndPieces) {
  std::mt19937 random(7);
  for (int round = 0; round < 300; ++round) {
    Tiny tiny("abcd");
    const int num_merges = 1 + static_cast<int>(random() % 30);
    for (int i = 0; i < num_merges; ++i) {
      const auto left = static_cast<TokenId>(random() % tiny.entries.size());
      const auto right = static_cast<TokenId>(random() % tiny.entries.size());
      if (std::find(tiny.merges.begin(), tiny.merges.end(), std::pair(left, right)) == tiny.merges.end())
        tiny.merge(left, right);
    }
    const BpeModel model = tiny.model();
    for (int i = 0; i < 20; ++i) {
      std::string piece;
      for (int n = static_cast<int>(random() % 40); n > 0; --n) piece += "abcd"[random() % 4];
      ASSERT_EQ(encode(model, piece), encode_slowly(tiny, piece)) << piece;
    }
  }
}

TEST(BpeModel, QueuesAtMostThreeCandidatesPerCharacterOfOneGiganticWord) {
  Tiny tiny("ab");
  TokenId run = 0;
  for (int i = 0; i < 16; ++i)
    run = tiny.merge(run, run);  // a, aa, aaaa, ...: every symbol takes part in every round
  tiny.merge(0, 1);
  const BpeModel model = tiny.model();
  for (const size_t size : {1000u, 10'000u, 1'000'000u}) {
    BpeModel::Scratch scratch;
    std::vector<TokenId> ids;
    model.encode(std::string(size, 'a'), scratch, ids);
    EXPECT_LE(scratch.num_steps, 3 * size);
    EXPECT_GE(scratch.num_steps, size - 1);
    size_t length = 0;
    for (const TokenId id : ids) length += model.vocabulary().name(id).size();
    EXPECT_EQ(length, size);
  }
}

TEST(BpeModel, FallsBackToBytesOrTheUnknownToken) {
  std::vector<std::pair<std::string, TokenId>> entries = {{"<unk>", 0}, {"a", 1}};
  BpeOptions options{.unk_id = 0, .fuse_unk = false, .byte_fallback = true};
  EXPECT_EQ(encode(BpeModel(Vocabulary(entries), {}, options), "éaé"), (std::vector<TokenId>{0, 1, 0}));
  entries.emplace_back("<0xC3>", 2);
  entries.emplace_back("<0xA9>", 3);
  EXPECT_EQ(encode(BpeModel(Vocabulary(entries), {}, options), "éaè"), (std::vector<TokenId>{2, 3, 1, 0}));
  options.byte_fallback = false;
  options.fuse_unk = true;
  EXPECT_EQ(encode(BpeModel(Vocabulary(entries), {}, options), "éèaé"), (std::vector<TokenId>{0, 1, 0}));
  EXPECT_EQ(encode(BpeModel(Vocabulary(entries), {}, {}), "éa"), (std::vector<TokenId>{1}));
}

TEST(BpeModel, RefusesAMergeWhoseResultIsMissing) {
  EXPECT_THROW(BpeModel(Vocabulary({{"a", 0}, {"b", 1}}), {{0, 1}}, {}), std::runtime_error);
}

TEST(Vocabulary, RefusesIdsThatAreSharedNegativeOrFarAway) {
  EXPECT_THROW(Vocabulary({{"a", 0}, {"b", 0}}), std::runtime_error);
  EXPECT_THROW(Vocabulary({{"a", -1}}), std::runtime_error);
  EXPECT_THROW(Vocabulary({{"a", 2'000'000'000}}), std::runtime_error);
  EXPECT_THROW(Vocabulary({{"a", 0}, {"a", 1}}), std::runtime_error);
  const Vocabulary with_hole({{"a", 0}, {"b", 2}});
  EXPECT_EQ(with_hole.size(), 3);
  EXPECT_EQ(with_hole.name(1), "");
  EXPECT_EQ(with_hole.name(7), "");
  EXPECT_EQ(with_hole.find("b"), 2);
  EXPECT_EQ(with_hole.find(""), -1);
}

}  // namespace
}  // namespace serval::test
