#include "engine/runner/draft_policy.h"

#include <algorithm>
#include <utility>

namespace serval {
namespace {

// A drafter of which nothing is known is believed this much, as if this many guesses had been seen; a sequence is
// believed to be like all others, as if so many of its own had.
constexpr double kFirstRate = 0.6, kFirstWeight = 4, kOthersWeight = 3;
// A guess must be worth so much more than it costs: what is measured is not exact, and plain steps are sure.
constexpr double kMargin = 1.15;
constexpr double kKeptOfSlot = 0.95, kKeptOfAll = 0.995, kKeptOfCost = 0.95;

}  // namespace

size_t DraftPolicy::planned_bytes(int max_seqs) {
  return max_seqs * sizeof(Slot);
}

// Until steps of several sizes were seen a row is taken to cost little beside reading the weights.
void DraftPolicy::learn_step(int rows, double ms) {
  constexpr double kFirstShare = 0.1;
  cost_.learn(rows, ms);
  if (const auto line = cost_.line()) {
    line_ = *line;
  } else if (line_.base_ms == 0) {
    line_ = {ms, kFirstShare * ms / rows};
  }
}

void DraftPolicy::admit(SlotId slot) {
  slots_[slot] = {};
  slots_[slot].explores = ++num_admitted_ % kExploring == 0;
}

void DraftPolicy::learn_cost(DrafterKind kind, int num_guesses, double ms) {
  double &known = guess_ms_[static_cast<int>(kind)], &unpaid = unpaid_ms_[static_cast<int>(kind)];
  unpaid += ms;
  if (num_guesses == 0) return;
  const double of_one = std::exchange(unpaid, 0) / num_guesses;
  known = known == 0 ? of_one : known * kKeptOfCost + of_one * (1 - kKeptOfCost);
}

void DraftPolicy::learn_verified(SlotId slot, DrafterKind kind, int tried, int came_true) {
  const int could = std::min(tried, came_true + 1);
  slots_[slot].of[static_cast<int>(kind)].learn(could, came_true, kKeptOfSlot);
  of_all_[static_cast<int>(kind)].learn(could, came_true, kKeptOfAll);
}

// A guess at depth d comes true with those before it, p^d, and is then a token more. It costs a row and its making.
// Without guesses a step gives num_decoding tokens in its time: more tokens for a time than that raise the rate of all.
DraftPolicy::Choice DraftPolicy::choose(SlotId slot, DrafterKind kind, int num_decoding, int most) {
  const int k = static_cast<int>(kind);
  const Acceptance &of_all = of_all_[k], &own = slots_[slot].of[k];
  const double all = slots_[slot].explores ? kFirstRate : (of_all.came_true + kFirstRate * kFirstWeight) / (of_all.tried + kFirstWeight);
  const double p = (own.came_true + all * kOthersWeight) / (own.tried + kOthersWeight);
  const double plain_ms = line_.base_ms + line_.per_row_ms * num_decoding;
  const double rows = replays_ ? 1 + p : 1;
  const double price = plain_ms > 0 ? num_decoding / plain_ms * (rows * line_.per_row_ms + guess_ms_[k]) * kMargin : 0;  // in tokens
  Choice choice;
  for (double chance = p; choice.depth < most && chance > price; chance *= p) {
    ++choice.depth;
    choice.gain += chance - price;
  }
  int32_t& idle = slots_[slot].idle[k];
  if (choice.depth > 0) {
    idle = 0;
  } else if (most > 0 && ++idle >= kProbeSteps) {
    idle = 0;
    choice.depth = 1;
  }
  return choice;
}

}  // namespace serval
