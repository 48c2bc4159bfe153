#include "engine/text/tokenizer/bpe_model.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <stdexcept>

#include "kernels/base/shown.h"
#include "kernels/base/utf8.h"

namespace serval {

BpeModel::BpeModel(Vocabulary vocabulary, const BpeOptions& options)
    : vocabulary_(std::move(vocabulary)), options_(options) {
  if (options.byte_fallback) byte_tokens_ = vocabulary_.byte_tokens();
  if (!options.continuing_prefix.empty() || !options.end_suffix.empty()) return;
  std::string name;
  direct_.resize(kNumDirect);
  for (char32_t c = 0; c < kNumDirect; ++c) {
    name.clear();
    append_utf8(c, name);
    direct_[c] = vocabulary_.find(name);
  }
}

BpeModel::BpeModel(Vocabulary vocabulary, const std::vector<std::pair<TokenId, TokenId>>& merges,
                   const BpeOptions& options)
    : BpeModel(std::move(vocabulary), options) {
  std::vector<Merge> found;
  found.reserve(merges.size());
  std::string name;
  for (const auto& [left, right] : merges) {
    name = vocabulary_.name(left);
    const std::string_view continued = vocabulary_.name(right);
    name += continued.substr(std::min(continued.size(), options_.continuing_prefix.size()));
    const TokenId result = vocabulary_.find(name);
    if (result < 0) {
      throw std::runtime_error("merge " + std::to_string(found.size()) + " makes " + in_quotes(name) +
                               ", which is not in the vocabulary");
    }
    found.push_back({pair_key(left, right), static_cast<uint32_t>(found.size()), result});
  }
  set_merges(found);
}

BpeModel BpeModel::from_ranks(Vocabulary vocabulary) {
  BpeModel model(std::move(vocabulary), BpeOptions{.ignore_merges = true});
  std::vector<Merge> found;
  for (TokenId id = 0; id < model.vocabulary_.size(); ++id) {
    const std::string_view name = model.vocabulary_.name(id);
    for (size_t pos = 0; pos < name.size();) {
      read_utf8(name, pos);
      const TokenId left = pos == name.size() ? -1 : model.vocabulary_.find(name.substr(0, pos));
      const TokenId right = left < 0 ? -1 : model.vocabulary_.find(name.substr(pos));
      if (right >= 0) found.push_back({pair_key(left, right), static_cast<uint32_t>(id), id});
    }
  }
  model.set_merges(found);
  return model;
}

void BpeModel::set_merges(const std::vector<Merge>& merges) {
  const size_t num_slots = std::bit_ceil(2 * merges.size() + 2);
  hash_shift_ = 64 - std::countr_zero(num_slots);
  merges_.resize(num_slots);
  for (const Merge& merge : merges) {
    size_t slot = slot_of(merge.pair);
    while (merges_[slot].pair != kNoPair && merges_[slot].pair != merge.pair)
      slot = (slot + 1) & (num_slots - 1);
    merges_[slot] = merge;
  }
}

const BpeModel::Merge* BpeModel::find_merge(TokenId left, TokenId right) const {
  const uint64_t pair = pair_key(left, right);
  for (size_t slot = slot_of(pair);; slot = (slot + 1) & (merges_.size() - 1)) {
    if (merges_[slot].pair == pair) return &merges_[slot];
    if (merges_[slot].pair == kNoPair) return nullptr;
  }
}

// `name`: memory.
TokenId BpeModel::find_character(std::string_view character, bool is_first, bool is_last,
                                 std::string& name) const {
  name.clear();
  if (!is_first) name += options_.continuing_prefix;
  name += character;
  if (is_last) name += options_.end_suffix;
  return vocabulary_.find(name);
}

void BpeModel::start_symbols(std::string_view piece, Scratch& scratch) const {
  auto& symbols = scratch.symbols;
  symbols.clear();
  bool after_unk = false;
  const auto add = [&](TokenId id) {
    const auto index = static_cast<int32_t>(symbols.size());
    symbols.push_back({id, index - 1, index + 1});
  };
  for (size_t pos = 0; pos < piece.size();) {
    const size_t begin = pos;
    const char32_t c = read_utf8(piece, pos);
    const std::string_view character = piece.substr(begin, pos - begin);
    const TokenId id = c < direct_.size() ? direct_[c]
                       : direct_.empty()
                           ? find_character(character, begin == 0, pos == piece.size(), scratch.name)
                           : vocabulary_.find(character);
    const auto has_byte = [&](char byte) { return byte_tokens_[static_cast<unsigned char>(byte)] >= 0; };
    if (id >= 0) {
      add(id);
      after_unk = false;
    } else if (options_.byte_fallback && std::all_of(character.begin(), character.end(), has_byte)) {
      for (const char byte : character) add(byte_tokens_[static_cast<unsigned char>(byte)]);
      after_unk = false;
    } else if (options_.unk_id >= 0) {
      if (!after_unk || !options_.fuse_unk) add(options_.unk_id);
      after_unk = true;
    }
  }
  if (!symbols.empty()) symbols.back().next = -1;
}

void BpeModel::queue_pair(Scratch& scratch, int32_t left) const {
  const int32_t right = scratch.symbols[left].next;
  if (right < 0) return;
  const Merge* merge = find_merge(scratch.symbols[left].id, scratch.symbols[right].id);
  if (merge == nullptr) return;
  scratch.queue.push_back(static_cast<uint64_t>(merge->rank) << 32 | static_cast<uint32_t>(left));
  std::push_heap(scratch.queue.begin(), scratch.queue.end(), std::greater<>());
  ++scratch.num_steps;
}

// Every merge shortens the piece by one symbol and makes at most two new candidates, so the heap sees at most
// 3n of them. A candidate whose symbols have changed since it was queued is known by its rank, which belongs
// to pairs of one result only.
void BpeModel::encode(std::string_view piece, Scratch& scratch, std::vector<TokenId>& ids) const {
  if (options_.ignore_merges) {
    const TokenId id = vocabulary_.find(piece);
    if (id >= 0) {
      ids.push_back(id);
      return;
    }
  }
  start_symbols(piece, scratch);
  auto& symbols = scratch.symbols;
  auto& queue = scratch.queue;
  queue.clear();
  for (size_t i = 0; i + 1 < symbols.size(); ++i) queue_pair(scratch, static_cast<int32_t>(i));
  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end(), std::greater<>());
    const uint64_t best = queue.back();
    queue.pop_back();
    const auto left = static_cast<int32_t>(best & 0xFFFFFFFFu);
    const int32_t right = symbols[left].next;
    if (symbols[left].id < 0 || right < 0) continue;
    const Merge* merge = find_merge(symbols[left].id, symbols[right].id);
    if (merge == nullptr || merge->rank != best >> 32) continue;

    symbols[left].id = merge->result;
    symbols[left].next = symbols[right].next;
    if (symbols[right].next >= 0) symbols[symbols[right].next].previous = left;
    symbols[right].id = -1;
    if (symbols[left].previous >= 0) queue_pair(scratch, symbols[left].previous);
    queue_pair(scratch, left);
  }
  for (int32_t i = symbols.empty() ? -1 : 0; i >= 0; i = symbols[i].next) ids.push_back(symbols[i].id);
}

Loss BpeModel::loss(bool byte_pieces) const {
  const auto is_there = [](TokenId id) { return id >= 0; };
  const bool covers =
      !byte_tokens_.empty() && std::all_of(byte_tokens_.begin(), byte_tokens_.end(), is_there);
  const bool has_alphabet = byte_pieces && !direct_.empty() && vocabulary_.has_byte_alphabet();
  const bool one_unk_each = options_.unk_id >= 0 && !options_.fuse_unk;
  return covers || has_alphabet || one_unk_each ? Loss::kNothing : Loss::kAnything;
}

}  // namespace serval
