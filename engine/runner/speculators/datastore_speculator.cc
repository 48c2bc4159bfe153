#include "engine/runner/speculators/datastore_speculator.h"

#include <algorithm>
#include <utility>

namespace serval {

DatastoreSpeculator::DatastoreSpeculator(TokenStore store, int vocab) : store_(std::move(store)), vocab_(vocab) {
  open_.reserve(kMaxOpen);
}

void DatastoreSpeculator::propose(std::span<DraftTask> tasks) {
  for (DraftTask& task : tasks)
    if (task.wants_more()) guess(task);
}

void DatastoreSpeculator::guess(DraftTask& task) {
  // Where more tokens match fewer do not match less: the longest match is between what does and what does not.
  const auto places_of = [&](int match) { return store_.find(task.known.last(match)); };
  int match = 0, beyond = static_cast<int>(std::min<size_t>(kMaxMatch, task.known.size())) + 1;
  TokenStore::Range places;
  while (match + 1 < beyond) {
    const int middle = match + (beyond - match) / 2;
    const TokenStore::Range found = places_of(middle);
    if (found.size() > 0) {
      match = middle;
      places = found;
    } else {
      beyond = middle;
    }
  }
  if (match < kLeastMatch) return;
  open_.clear();
  open(places, match, -1, 1, task.width);
  while (task.wants_more() && !open_.empty()) {
    const auto best = std::ranges::max_element(open_, {}, [](const Open& next) { return next.places.size(); });
    const Open next = *best;
    open_.erase(best);
    const int place = task.add(next.token, next.parent, kind());
    if (next.depth < std::min(task.depth, match)) open(next.places, match + next.depth, place, next.depth + 1, task.width);
  }
}

// The most frequent tokens behind places that are alike for `match`.
void DatastoreSpeculator::open(TokenStore::Range places, int match, int parent, int depth, int width) {
  const size_t first = open_.size();
  const uint32_t tried = std::min<uint32_t>(places.size(), kMaxTried);
  uint32_t seen = places.begin;  // places before it belong to a token that is there
  for (uint32_t i = 0; i < tried && open_.size() < open_.capacity(); ++i) {
    const auto at = places.begin + static_cast<uint32_t>(uint64_t{places.size()} * i / tried);
    if (at < seen) continue;
    const TokenId token = store_.token(at, match);
    const TokenStore::Range alike = store_.alike(places, at, match);
    seen = alike.end;
    if (token >= 0 && token < vocab_) open_.push_back({alike, token, parent, depth});
  }
  const auto added = std::ranges::subrange(open_.begin() + static_cast<std::ptrdiff_t>(first), open_.end());
  std::ranges::sort(added, [](const Open& a, const Open& b) {
    return a.places.size() != b.places.size() ? a.places.size() > b.places.size() : a.places.begin < b.places.begin;
  });
  open_.resize(std::min(open_.size(), first + width));
}

}  // namespace serval
