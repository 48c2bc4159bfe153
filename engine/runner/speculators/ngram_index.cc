#include "engine/runner/speculators/ngram_index.h"

#include <algorithm>
#include <bit>

namespace serval {

int NgramIndex::num_buckets(int max_model_len) {
  return static_cast<int>(std::bit_ceil(static_cast<unsigned>(max_model_len)));
}

size_t NgramIndex::planned_bytes(int num_slots, int max_model_len) {
  return num_slots * ((size_t{1} * num_buckets(max_model_len) + max_model_len) * sizeof(int32_t) + sizeof(Places));
}

void NgramIndex::start(int num_slots, int max_model_len) {
  num_buckets_ = num_buckets(max_model_len);
  const size_t of_slot = size_t{1} * num_buckets_ + max_model_len;
  memory_.assign(num_slots * of_slot, -1);
  slots_.resize(num_slots);
  for (int i = 0; i < num_slots; ++i) slots_[i] = {&memory_[i * of_slot], &memory_[i * of_slot + num_buckets_]};
}

void NgramIndex::clear(SlotId slot) {
  std::fill_n(slots_[slot].latest, num_buckets_, -1);
  slots_[slot].size = 0;
}

int NgramIndex::bucket(std::span<const TokenId> text, int last) const {
  const uint64_t pair = uint64_t{static_cast<uint32_t>(text[last - 1])} << 32 | static_cast<uint32_t>(text[last]);
  return static_cast<int>(pair * 0x9e3779b97f4a7c15ull >> 32 & (num_buckets_ - 1));
}

void NgramIndex::read(SlotId slot, std::span<const TokenId> text) {
  Places& places = slots_[slot];
  for (; places.size < std::ssize(text); ++places.size) {
    if (places.size == 0) continue;
    int32_t& latest = places.latest[bucket(text, places.size)];
    places.before[places.size] = latest;
    latest = places.size;
  }
}

int NgramIndex::guess(SlotId slot, std::span<const TokenId> text, std::span<TokenId> guesses) const {
  const Places& places = slots_[slot];
  if (std::ssize(text) < kLeastMatch) return 0;
  const int last = static_cast<int>(text.size()) - 1, most = static_cast<int>(guesses.size());
  const int longest = std::max(most, kLeastMatch);
  int match = kLeastMatch - 1, match_end = 0;  // tokens [match_end - match, match_end) are the last ones
  int place = last < places.size ? places.before[last] : places.latest[bucket(text, last)];
  for (int tried = 0; place >= 0 && match < longest && tried < kMaxTried; ++tried) {
    int length = 0;
    while (length < std::min(longest, place + 1) && text[place - length] == text[last - length]) ++length;
    if (length > match) {
      match = length;
      match_end = place + 1;
    }
    place = places.before[place];
  }
  if (match < kLeastMatch) return 0;
  // What follows may reach the last tokens themselves: then it goes on as they would again.
  const int period = last + 1 - match_end, count = std::min(match, most);
  for (int i = 0; i < count; ++i) guesses[i] = i < period ? text[match_end + i] : guesses[i - period];
  return count;
}

}  // namespace serval
