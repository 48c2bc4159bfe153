// Texts as tokens, with all places of them in order, so that what stands behind the last tokens anywhere in the texts is a
// range of places: a suffix array (Manber and Myers 1990). In memory as in its file, whose head is followed by the tokens
// (int32, -1 behind each text) and the places (uint32).
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "engine/request.h"

namespace serval {

class TokenStore {
 public:
  // Places whose tokens begin alike.
  struct Range {
    uint32_t begin = 0, end = 0;
    uint32_t size() const { return end - begin; }
  };
  // Tokens that order two places; what is alike for longer stands in the order of the texts.
  static constexpr int kMaxOrdered = 96;

  // Throws std::runtime_error with a sentence where the file cannot be written, or the texts are too long together.
  static void write(const std::filesystem::path& path, std::span<const std::vector<TokenId>> texts);
  // Of memory. Throws where there is no such file.
  static size_t planned_bytes(const std::filesystem::path& path);

  TokenStore() = default;
  // Throws std::runtime_error with a sentence where the file is not one that write() made.
  explicit TokenStore(const std::filesystem::path& path);

  // The places where these tokens stand, at most kMaxOrdered of them.
  Range find(std::span<const TokenId> tokens) const;
  // The token so many behind the i-th place of the order; -1: the text ends before.
  TokenId token(uint32_t i, int depth) const {
    const size_t place = size_t{order_[i]} + depth;
    return place < tokens_.size() ? tokens_[place] : kTextEnd;
  }
  // Those of a range, whose places are alike in the first `depth` tokens, that have the token of its i-th place behind
  // them, too.
  Range alike(Range range, uint32_t i, int depth) const;

 private:
  static constexpr TokenId kTextEnd = -1;

  std::vector<TokenId> tokens_;
  std::vector<uint32_t> order_;
};

}  // namespace serval
