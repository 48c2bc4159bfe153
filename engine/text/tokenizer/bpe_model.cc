#include "engine/text/tokenizer/bpe_model.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <functional>
#include <stdexcept>

#include "engine/text/tokenizer/byte_alphabet.h"
#include "kernels/base/shown.h"
#include "kernels/base/utf8.h"

namespace serval {

BpeModel::BpeModel(Vocabulary vocabulary, const std::vector<std::pair<TokenId, TokenId>>& merges,
                   const BpeOptions& options)
    : vocabulary_(std::move(vocabulary)), options_(options), direct_(kNumDirect, -1) {
  std::string name;
  for (char32_t c = 0; c < kNumDirect; ++c) {
    name.clear();
    append_utf8(c, name);
    direct_[c] = vocabulary_.find(name);
  }
  if (options.byte_fallback) {
    for (int byte = 0; byte < 256; ++byte) {
      char byte_name[8];
      std::snprintf(byte_name, sizeof byte_name, "<0x%02X>", byte);
      byte_tokens_.push_back(vocabulary_.find(byte_name));
    }
  }

  const size_t num_slots = std::bit_ceil(2 * merges.size() + 2);
  hash_shift_ = 64 - std::countr_zero(num_slots);
  merges_.resize(num_slots);
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const auto [left, right] = merges[rank];
    name = vocabulary_.name(left);
    name += vocabulary_.name(right);
    const TokenId result = vocabulary_.find(name);
    if (result < 0) {
      throw std::runtime_error("merge " + std::to_string(rank) + " makes " + in_quotes(name) +
                               ", which is not in the vocabulary");
    }
    const uint64_t pair = pair_key(left, right);
    size_t slot = slot_of(pair);
    while (merges_[slot].pair != kNoPair && merges_[slot].pair != pair) slot = (slot + 1) & (num_slots - 1);
    merges_[slot] = {pair, static_cast<uint32_t>(rank), result};
  }
}

const BpeModel::Merge* BpeModel::find_merge(TokenId left, TokenId right) const {
  const uint64_t pair = pair_key(left, right);
  for (size_t slot = slot_of(pair);; slot = (slot + 1) & (merges_.size() - 1)) {
    if (merges_[slot].pair == pair) return &merges_[slot];
    if (merges_[slot].pair == kNoPair) return nullptr;
  }
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
    const TokenId id = c < kNumDirect ? direct_[c] : vocabulary_.find(character);
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
  ++scratch.num_queued;
}

// Every merge shortens the piece by one symbol and makes at most two new candidates, so the heap sees at most
// 3n of them. A candidate whose symbols have changed since it was queued is known by its rank, which belongs
// to one pair only.
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
  bool covers = !byte_tokens_.empty() && std::all_of(byte_tokens_.begin(), byte_tokens_.end(), is_there);
  if (byte_pieces && !covers) {
    covers = true;
    for (int byte = 0; byte < 0xF5; ++byte) {
      const bool in_utf8 = byte != 0xC0 && byte != 0xC1;  // nor are 0xF5 to 0xFF
      covers &= !in_utf8 || vocabulary_.find(byte_character(static_cast<unsigned char>(byte))) >= 0;
    }
  }
  const bool one_unk_each = options_.unk_id >= 0 && !options_.fuse_unk;
  return covers || one_unk_each ? Loss::kNothing : Loss::kAnything;
}

size_t BpeModel::longest_token(bool byte_pieces) const {
  size_t longest = 4;  // one character, as the unknown token
  for (TokenId id = 0; id < vocabulary_.size(); ++id) {
    const std::string_view name = vocabulary_.name(id);
    const auto starts_character = [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; };
    longest = std::max(
        longest, byte_pieces ? static_cast<size_t>(std::count_if(name.begin(), name.end(), starts_character))
                             : name.size());
  }
  return longest;
}

}  // namespace serval
