#include "engine/text/tokenizer/unigram_model.h"

#include <algorithm>
#include <stdexcept>

#include "kernels/base/utf8.h"

namespace serval {
namespace {

constexpr double kUnknownPenalty = 10;  // of sentencepiece: below the least likely token

}  // namespace

UnigramModel::UnigramModel(Vocabulary vocabulary, std::vector<double> scores, TokenId unk_id,
                           bool byte_fallback)
    : vocabulary_(std::move(vocabulary)), scores_(std::move(scores)), unk_id_(unk_id) {
  if (vocabulary_.longest_name(/*in_characters=*/false) > kMaxTokenBytes)
    throw std::runtime_error("a token has more than " + std::to_string(kMaxTokenBytes) + " bytes");
  if (!scores_.empty()) unk_score_ = *std::min_element(scores_.begin(), scores_.end()) - kUnknownPenalty;
  if (byte_fallback) byte_tokens_ = vocabulary_.byte_tokens();
  std::vector<std::pair<std::string_view, int32_t>> names;
  for (TokenId id = 0; id < vocabulary_.size(); ++id) names.emplace_back(vocabulary_.name(id), id);
  trie_ = PrefixTrie(std::move(names));
}

void UnigramModel::encode(std::string_view piece, Scratch& scratch, std::vector<TokenId>& ids) const {
  auto& cuts = scratch.cuts;
  cuts.assign(piece.size() + 1, {});
  const auto offer = [&](size_t begin, size_t end, TokenId id, double score) {
    const double total = cuts[begin].score + score;
    if (cuts[end].begin < 0 || total > cuts[end].score) cuts[end] = {total, id, static_cast<int64_t>(begin)};
  };
  for (size_t begin = 0; begin < piece.size();) {
    size_t next = begin;
    read_utf8(piece, next);
    bool is_known = false;
    int32_t node = PrefixTrie::kRoot;
    for (size_t end = begin; end < piece.size();) {
      ++scratch.num_steps;
      node = trie_.child(node, piece[end++]);
      if (node < 0) break;
      const TokenId id = trie_.value(node);
      if (id < 0) continue;
      offer(begin, end, id, scores_[id]);
      is_known |= end == next;
    }
    if (!is_known) offer(begin, next, unk_id_, unk_score_);
    begin = next;
  }

  // Backwards; neighbours that are unknown are one token.
  auto& tokens = scratch.tokens;
  tokens.clear();
  bool after_unk = false;
  for (size_t end = piece.size(); end > 0;) {
    const auto begin = static_cast<size_t>(cuts[end].begin);
    const bool is_unk = cuts[end].id == unk_id_;
    if (is_unk && after_unk) {
      tokens.back() = piece.substr(begin, end - begin + tokens.back().size());
    } else {
      tokens.push_back(piece.substr(begin, end - begin));
    }
    after_unk = is_unk;
    end = begin;
  }
  for (size_t i = tokens.size(); i-- > 0;) append(tokens[i], ids);
}

void UnigramModel::append(std::string_view token, std::vector<TokenId>& ids) const {
  const TokenId id = vocabulary_.find(token);
  const auto has_byte = [&](char byte) { return byte_tokens_[static_cast<unsigned char>(byte)] >= 0; };
  if (id >= 0) {
    ids.push_back(id);
  } else if (!byte_tokens_.empty() && std::all_of(token.begin(), token.end(), has_byte)) {
    for (const char byte : token) ids.push_back(byte_tokens_[static_cast<unsigned char>(byte)]);
  } else if (unk_id_ >= 0) {
    ids.push_back(unk_id_);
  }
}

Loss UnigramModel::loss(bool byte_pieces) const {
  const auto is_there = [](TokenId id) { return id >= 0; };
  const bool covers =
      !byte_tokens_.empty() && std::all_of(byte_tokens_.begin(), byte_tokens_.end(), is_there);
  return covers || (byte_pieces && vocabulary_.has_byte_alphabet()) ? Loss::kNothing : Loss::kAnything;
}

}  // namespace serval
