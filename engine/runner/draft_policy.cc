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
// A guess that took so much longer than others waited for a core.
constexpr double kMostCost = 3;

}  // namespace

size_t DraftPolicy::planned_bytes(int max_seqs) {
  return max_seqs * sizeof(Slot);
}

void DraftPolicy::admit(SlotId slot) {
  slots_[slot] = {.of = {}, .idle = slots_[slot].idle};  // short answers are tried now and then, too
  slots_[slot].explores = ++num_admitted_ % kExploring == 0;
}

void DraftPolicy::learn_cost(DrafterKind kind, int num_guesses, double ms) {
  double &known = guess_ms_[static_cast<int>(kind)], &unpaid = unpaid_ms_[static_cast<int>(kind)];
  unpaid += ms;
  if (num_guesses == 0) return;
  const double of_one = std::exchange(unpaid, 0) / num_guesses;
  known = known == 0 ? of_one : known * kKeptOfCost + std::min(of_one, kMostCost * known) * (1 - kKeptOfCost);
}

void DraftPolicy::OfDrafter::learn(int tried, int came_true, double kept) {
  if (tried == 0) return;
  first.learn(1, std::min(came_true, 1), kept);
  if (tried > 1 && came_true > 0) behind.learn(std::min(tried, came_true + 1) - 1, came_true - 1, kept);
}

void DraftPolicy::learn_verified(SlotId slot, DrafterKind kind, int tried, int came_true) {
  slots_[slot].of[static_cast<int>(kind)].learn(tried, came_true, kKeptOfSlot);
  of_all_[static_cast<int>(kind)].learn(tried, came_true, kKeptOfAll);
}

// A guess comes true with those before it, and is then a token more. It costs a row and its making. Without guesses a step
// gives num_decoding tokens in its time: more tokens for a time than that raise the rate of all.
DraftPolicy::Choice DraftPolicy::choose(SlotId slot, DrafterKind kind, int num_decoding, int most) {
  const int k = static_cast<int>(kind);
  const OfDrafter &of_all = of_all_[k], &own = slots_[slot].of[k];
  const bool explores = slots_[slot].explores;
  const auto rate = [&](Acceptance OfDrafter::* of) {
    const Acceptance &all = of_all.*of, &mine = own.*of;
    const double others = explores ? kFirstRate : (all.came_true + kFirstRate * kFirstWeight) / (all.tried + kFirstWeight);
    return (mine.came_true + others * kOthersWeight) / (mine.tried + kOthersWeight);
  };
  const double p = rate(&OfDrafter::first), p_behind = rate(&OfDrafter::behind);
  const double plain_ms = line_.base_ms + line_.per_row_ms * num_decoding;
  const double rows = replays_ ? 1 + p : 1;
  const double price = plain_ms > 0 ? num_decoding / plain_ms * (rows * line_.per_row_ms + guess_ms_[k]) * kMargin : 0;  // in tokens
  Choice choice;
  for (double chance = p; choice.depth < most && chance > price; chance *= p_behind) {
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
