#include "engine/text/tokenizer/unigram_model.h"

#include <gtest/gtest.h>

#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace serval::test {
namespace {

struct Scored {
  std::string name;
  double score;
};

UnigramModel model_of(const std::vector<Scored>& tokens, TokenId unk_id, bool byte_fallback = false) {
  std::vector<std::pair<std::string, TokenId>> entries;
  std::vector<double> scores;
  for (const Scored& token : tokens) {
    entries.emplace_back(token.name, static_cast<TokenId>(scores.size()));
    scores.push_back(token.score);
  }
  return UnigramModel(Vocabulary(std::move(entries)), std::move(scores), unk_id, byte_fallback);
}

std::vector<TokenId> encode(const UnigramModel& model, std::string_view piece) {
  UnigramModel::Scratch scratch;
  std::vector<TokenId> ids;
  model.encode(piece, scratch, ids);
  return ids;
}

// The best of all ways to cut `piece`, by trying them.
double best_score(const std::vector<Scored>& tokens, std::string_view piece) {
  if (piece.empty()) return 0;
  double best = -1e9;
  for (const Scored& token : tokens) {
    if (piece.starts_with(token.name))
      best = std::max(best, token.score + best_score(tokens, piece.substr(token.name.size())));
  }
  return best;
}

TEST(UnigramModel, TakesTheLikeliestOfAllWaysToCut) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    std::vector<Scored> tokens = {{"a", -3}, {"b", -3}, {"c", -4}};
    for (int i = 0; i < 12; ++i) {
      std::string name;
      for (int n = 2 + static_cast<int>(random() % 3); n > 0; --n) name += "abc"[random() % 3];
      const bool is_new =
          std::none_of(tokens.begin(), tokens.end(), [&](const Scored& t) { return t.name == name; });
      if (is_new) tokens.push_back({name, -1 - static_cast<double>(random() % 800) / 100});
    }
    const UnigramModel model = model_of(tokens, -1);
    std::string piece;
    for (int n = static_cast<int>(random() % 12); n > 0; --n) piece += "abc"[random() % 3];
    double score = 0;
    std::string joined;
    for (const TokenId id : encode(model, piece)) {
      score += tokens[id].score;
      joined += tokens[id].name;
    }
    EXPECT_EQ(joined, piece);
    EXPECT_NEAR(score, best_score(tokens, piece), 1e-9) << piece;
  }
}

TEST(UnigramModel, JoinsUnknownNeighboursOrFallsBackToBytes) {
  std::vector<Scored> tokens = {{"<unk>", 0}, {"a", -1}};
  EXPECT_EQ(encode(model_of(tokens, 0), "aéßa日"), (std::vector<TokenId>{1, 0, 1, 0}));
  EXPECT_EQ(encode(model_of(tokens, -1), "aéa"), (std::vector<TokenId>{1, 1}));
  tokens.insert(tokens.end(), {{"<0xC3>", -2}, {"<0xA9>", -2}});
  EXPECT_EQ(encode(model_of(tokens, 0, true), "aéa"), (std::vector<TokenId>{1, 2, 3, 1}));
  // One byte of the run is missing.
  EXPECT_EQ(encode(model_of(tokens, 0, true), "aéßa"), (std::vector<TokenId>{1, 0, 1}));
}

TEST(UnigramModel, LooksAtNoMoreBytesThanTheLongestTokenForEachCharacter) {
  std::vector<Scored> tokens = {{"<unk>", 0}};
  for (size_t length = 1; length <= 16; ++length) tokens.push_back({std::string(length, 'a'), -1.0});
  const UnigramModel model = model_of(tokens, 0);
  for (const size_t size : {1000u, 10'000u, 1'000'000u}) {
    UnigramModel::Scratch scratch;
    std::vector<TokenId> ids;
    model.encode(std::string(size, 'a'), scratch, ids);
    EXPECT_EQ(ids.size(), (size + 15) / 16);
    EXPECT_LE(scratch.num_steps, 17 * size);
  }
  EXPECT_THROW(model_of({{std::string(2000, 'a'), 0}}, -1), std::runtime_error);
}

}  // namespace
}  // namespace serval::test
