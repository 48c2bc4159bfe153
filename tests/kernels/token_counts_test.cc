// Counts of tokens by slot, and what a step costs with a long history.
#include "kernels/cpu/token_counts.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <vector>

namespace serval {
namespace {

std::vector<int64_t> blocks_of(const TokenCounts& counts, int slot) {
  std::vector<int64_t> blocks;
  counts.for_blocks(slot, [&](int64_t b) { blocks.push_back(b); });
  return blocks;
}

TEST(TokenCounts, CountsWhatJoinsAndForgetsItForAnotherSequence) {
  constexpr int kVocab = 10'007, kSlots = 3;
  TokenCounts counts;
  counts.reserve(kSlots, kVocab);
  std::mt19937_64 rng(1);
  std::vector<std::map<int32_t, uint32_t>> expected(kSlots);
  for (int round = 0; round < 200; ++round) {
    const auto slot = static_cast<int>(rng() % kSlots);
    const bool restart = rng() % 4 == 0;
    if (restart) expected[slot].clear();
    std::vector<int32_t> tokens(rng() % 40);
    for (int32_t& t : tokens) t = static_cast<int32_t>(rng() % (rng() % 2 ? 50 : kVocab));
    const auto num_prompt = static_cast<int>(restart ? rng() % (tokens.size() + 1) : 0);
    counts.add({.slot = slot,
                .restart = restart,
                .tokens = tokens.data(),
                .num_tokens = static_cast<int>(tokens.size()),
                .num_prompt = num_prompt});
    for (int i = 0; i < static_cast<int>(tokens.size()); ++i) {
      uint32_t& count = expected[slot][tokens[i]];
      count = (count | kSeenToken) + (i >= num_prompt ? 1 : 0);
    }
    for (int s = 0; s < kSlots; ++s) {
      std::set<int64_t> blocks;
      for (const auto& [token, count] : expected[s]) blocks.insert(token / TokenCounts::kBlock);
      ASSERT_EQ(blocks_of(counts, s), (std::vector<int64_t>(blocks.begin(), blocks.end())));
      for (int32_t t = 0; t < kVocab; ++t) {
        const auto found = expected[s].find(t);
        ASSERT_EQ(counts.of(s)[t], found == expected[s].end() ? 0 : found->second) << s << " " << t;
      }
    }
  }
}

// A draw walks these blocks and nothing else of the history.
TEST(TokenCounts, GivesADrawNoMoreToWalkWhenTheHistoryGetsLonger) {
  constexpr int kVocab = 150'000;
  TokenCounts counts;
  counts.reserve(1, kVocab);
  std::vector<int32_t> text(1000);
  std::mt19937_64 rng(2);
  for (int32_t& t : text) t = static_cast<int32_t>(rng() % kVocab);
  const CountedTokens again{.slot = 0, .tokens = text.data(), .num_tokens = 1000};
  counts.add(again);
  const size_t after_one = blocks_of(counts, 0).size();
  for (int i = 0; i < 100; ++i) counts.add(again);
  EXPECT_EQ(blocks_of(counts, 0).size(), after_one);

  std::vector<int32_t> every(kVocab);
  for (int32_t t = 0; t < kVocab; ++t) every[t] = t;
  counts.add({.slot = 0, .tokens = every.data(), .num_tokens = kVocab});
  EXPECT_EQ(blocks_of(counts, 0).size(), (kVocab + 63) / 64u) << "at most the vocabulary, once";
}

}  // namespace
}  // namespace serval
