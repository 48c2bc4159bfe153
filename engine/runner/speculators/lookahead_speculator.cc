#include "engine/runner/speculators/lookahead_speculator.h"

#include <algorithm>

#include "engine/runner/speculators/draft_host.h"

namespace serval {

size_t LookaheadSpeculator::planned_bytes(int num_slots) {
  return num_slots * sizeof(Slot);
}

void LookaheadSpeculator::start(const DraftHost& host) {
  start(host.steps.max_seqs);
}

void LookaheadSpeculator::start(int num_slots) {
  slots_.resize(num_slots);
}

void LookaheadSpeculator::admit(const Admission& newcomer) {
  Slot& slot = slots_[newcomer.slot];
  slot.width = 0;
  slot.was_given = false;
  slot.pool.fill({});
  slot.next.fill(0);
}

void LookaheadSpeculator::propose(std::span<DraftTask> tasks) {
  for (DraftTask& task : tasks) {
    Slot& slot = slots_[task.slot];
    if (slot.was_given) learn(slot, task);
    slot.was_given = false;
    const int width = std::min(task.most / kLevels / 2, kMaxWidth);
    if (!task.wants_more() || width == 0) continue;
    if (slot.width != width) begin_window(slot, task.known, width);
    add_known(slot, task.most - width * kLevels, task);
    add_window(slot, task);
  }
}

// What was drawn behind the window's last level ends an n-gram of each column and is the next window's last level.
void LookaheadSpeculator::learn(Slot& slot, const DraftTask& task) {
  const auto tried = [&](int level, int column) {
    const int place = slot.place[level][column];
    return place < std::ssize(task.tried) && task.tried[place].token == slot.window[level][column];
  };
  for (int level = 0; level < kLevels; ++level)
    for (int j = 0; j < slot.width; ++j)
      if (!tried(level, j)) return;  // not all of it had room in the step
  for (int j = 0; j < slot.width; ++j) {
    const SampleResult& draw = task.draws[1 + slot.place[kLevels - 1][j]];
    if (!draw.finite) return;
    Ngram ngram;
    for (int level = 0; level < kLevels; ++level) ngram.tokens[level] = slot.window[level][j];
    ngram.tokens[kLevels] = draw.token;
    remember(slot, ngram);
    for (int level = 0; level + 1 < kLevels; ++level) slot.window[level][j] = slot.window[level + 1][j];
    slot.window[kLevels - 1][j] = draw.token;
  }
}

void LookaheadSpeculator::remember(Slot& slot, const Ngram& ngram) {
  const int bucket = ngram.tokens[0] % kBuckets;
  Ngram* const begin = &slot.pool[bucket * kOfBucket];
  const bool is_there = std::any_of(begin, begin + kOfBucket, [&](const Ngram& known) {
    return std::ranges::equal(known.tokens, ngram.tokens);
  });
  if (!is_there) begin[slot.next[bucket]++ % kOfBucket] = ngram;
}

// Any tokens will do: soon the window is the target's own.
void LookaheadSpeculator::begin_window(Slot& slot, std::span<const TokenId> known, int width) {
  slot.width = width;
  size_t at = 0;
  for (auto& level : slot.window)
    for (int j = 0; j < width; ++j) level[j] = known[(at += 7919) % known.size()];
}

// Branches that begin alike are one up to where they part.
void LookaheadSpeculator::add_known(const Slot& slot, int most, DraftTask& task) const {
  const TokenId last = task.known.back();
  const int bucket = last % kBuckets;
  for (int age = 1; age <= kOfBucket; ++age) {
    const Ngram& ngram = slot.pool[bucket * kOfBucket + (slot.next[bucket] + kOfBucket - age) % kOfBucket];
    if (ngram.tokens[0] != last) continue;
    int parent = -1;
    for (int i = 1; i < kLength; ++i) {
      int place = 0;
      while (place < task.num_drafts && (task.drafts[place].parent != parent || task.drafts[place].token != ngram.tokens[i]))
        ++place;
      if (place == task.num_drafts && place == most) return;
      parent = place < task.num_drafts ? place : task.add(ngram.tokens[i], parent, kind());
    }
  }
}

void LookaheadSpeculator::add_window(Slot& slot, DraftTask& task) const {
  for (int level = 0; level < kLevels; ++level) {
    for (int j = 0; j < slot.width; ++j) {
      const int parent = level > 0 ? slot.place[level - 1][j] : j > 0 ? slot.place[0][j - 1] : -1;
      slot.place[level][j] = task.add(slot.window[level][j], parent, kind());
    }
  }
  slot.was_given = true;
}

}  // namespace serval
