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
constexpr double kKeptOfSlot = 0.95, kKeptOfAll = 0.98, kKeptOfCost = 0.95;
// A guess that took so much longer than others waited for a core.
constexpr double kMostCost = 3;
// Of the least that a guess takes: it goes to the low ones. Where nobody asks, what prompts cost is forgotten.
constexpr double kDown = 0.2, kUp = 0.03, kKeptOfUnasked = 0.995;
// A further sequence beside one that is guessed for costs so much of what that one does: a drafter's weights are read once.
constexpr double kBesideShare = 0.1;
// A sequence for which nothing is worth it is guessed for once all the same, every so many steps at most, and so seldom that
// it costs no more than this of its tokens: what comes may be easier than what was.
constexpr int kProbeSteps = 16;
constexpr double kProbeShare = 0.005;
// A row costs at least so much of what one costs with all that a step has to do.
constexpr double kLeastShare = 0.02;

}  // namespace

DraftPolicy::DraftPolicy(int max_seqs) : slots_(max_seqs) {
  open_.reserve(max_seqs);
}

size_t DraftPolicy::planned_bytes(int max_seqs) {
  return max_seqs * (sizeof(Slot) + sizeof(Wish*));
}

void DraftPolicy::admit(SlotId slot) {
  slots_[slot] = {.of = {}, .idle = slots_[slot].idle};  // short answers are tried now and then, too
  slots_[slot].explores = ++num_admitted_ % kExploring == 0;
}

void DraftPolicy::learn_cost(DrafterKind kind, int num_seqs, int depth, double ms) {
  Cost& cost = costs_[static_cast<int>(kind)];
  cost.unpaid_ms += ms;
  if (num_seqs == 0) return;
  const double share = depth * (1 + kBesideShare * (num_seqs - 1));
  const double whole = std::exchange(cost.unpaid_ms, 0) / share, alone = ms / share;
  if (cost.ms == 0) cost = {.ms = whole, .least_ms = alone};
  cost.ms += (1 - kKeptOfCost) * (std::min(whole, kMostCost * cost.ms) - cost.ms);
  cost.least_ms += (alone < cost.least_ms ? kDown : kUp) * (std::min(alone, kMostCost * cost.least_ms) - cost.least_ms);
}

// A guess of each of so many sequences.
double DraftPolicy::level_ms(DrafterKind kind, int num_seqs) const {
  return costs_[static_cast<int>(kind)].ms * (1 + kBesideShare * (num_seqs - 1));
}

void DraftPolicy::OfDrafter::learn(int tried, int came_true, double kept) {
  if (tried == 0) return;
  first.learn(1, std::min(came_true, 1), kept);
  if (tried > 1 && came_true > 0) behind.learn(std::min(tried, came_true + 1) - 1, came_true - 1, kept);
  if (was_right) behind.learn(1, std::min(came_true, 1), kept);
  was_right = came_true == tried;
}

void DraftPolicy::learn(SlotId slot, DrafterKind kind, int tried, int came_true) {
  slots_[slot].of[static_cast<int>(kind)].learn(tried, came_true, kKeptOfSlot);
  of_all_[static_cast<int>(kind)].learn(tried, came_true, kKeptOfAll);
}

double DraftPolicy::rate(const Wish& wish, Acceptance OfDrafter::* of) const {
  const Acceptance &all = of_all_[static_cast<int>(wish.kind)].*of, &mine = slots_[wish.slot].of[static_cast<int>(wish.kind)].*of;
  const bool explores = slots_[wish.slot].explores && !wish.is_made;
  const double others = explores ? kFirstRate : (all.came_true + kFirstRate * kFirstWeight) / (all.tried + kFirstWeight);
  return (mine.came_true + others * kOthersWeight) / (mine.tried + kOthersWeight);
}

// Of the rows of one more guess, in a step that has so many.
double DraftPolicy::row_ms(const Wish& wish, double rows) const {
  const double more = wish.width * (replays_ ? 1 + wish.chance : 1);
  const double ms = cost_.ms(rows);
  return std::max(cost_.ms(rows + more) - ms, kLeastShare * more * ms / rows);
}

std::span<DraftPolicy::Wish> DraftPolicy::of_sequence(std::span<Wish> wishes, size_t begin) {
  size_t end = begin + 1;
  while (end < wishes.size() && wishes[end].slot == wishes[begin].slot) ++end;
  return wishes.subspan(begin, end - begin);
}

void DraftPolicy::choose(std::span<Wish> wishes, int num_decoding) {
  for (Wish& wish : wishes) {
    wish.first = wish.chance = rate(wish, &OfDrafter::first);
    wish.behind = rate(wish, &OfDrafter::behind);
  }
  value(wishes, num_decoding);
  grant(wishes, num_decoding);
  probe(wishes, num_decoding);
}

// What each would be worth if no other had rows. All who are worth a drafter's time share it: who would not pay a part is
// left out, and the parts of the others grow.
void DraftPolicy::value(std::span<Wish> wishes, int num_decoding) {
  const double plain_ms = cost_.ms(num_decoding), token_value = plain_ms > 0 ? kMargin * num_decoding / plain_ms : 0;
  std::array<int, kNumDrafters> sharing{};
  for (const Wish& wish : wishes) sharing[static_cast<int>(wish.kind)] += wish.most > 0;
  for (bool again = true; again;) {
    std::array<int, kNumDrafters> left{};
    for (Wish& wish : wishes) {
      const int k = static_cast<int>(wish.kind), num_seqs = std::max(1, sharing[k]);
      wish.guess_ms = wish.is_made ? 0 : level_ms(wish.kind, num_seqs) / num_seqs;
      const double price = token_value * (row_ms(wish, num_decoding) + wish.guess_ms);  // in tokens
      wish.gain = 0;
      double chance = wish.first;
      for (int depth = 0; depth < wish.most && chance > price; ++depth, chance *= wish.behind) wish.gain += chance - price;
      wish.is_worth = wish.gain > 0;
      left[k] += wish.is_worth;
    }
    again = left != sharing;
    sharing = left;
  }
  for (int k = 0; k < kNumDrafters; ++k) {
    if (sharing[k] == 0) costs_[k].ms += (1 - kKeptOfUnasked) * (costs_[k].least_ms - costs_[k].ms);
  }
}

// The best drafter of each sequence, then guess by guess the one that gives most for its time, as long as it raises the tokens
// of the step for its time. A guess comes true with those before it, and is then a token more. (What the others' rows leave
// makes no guess better, so the best of those looked at before stays on top: Minoux 1978.)
void DraftPolicy::grant(std::span<Wish> wishes, int num_decoding) {
  double rows = num_decoding, tokens = num_decoding, ms = cost_.ms(num_decoding);
  const double most_rows = cost_.most_rows(num_decoding);
  open_.clear();
  for (size_t begin = 0; begin < wishes.size();) {
    const std::span<Wish> of_seq = of_sequence(wishes, begin);
    begin += of_seq.size();
    Wish& best = *std::max_element(of_seq.begin(), of_seq.end(), [](const Wish& a, const Wish& b) { return a.gain < b.gain; });
    if (best.is_worth && best.decodes) open_.push_back(&best);
  }
  const auto of_time = [&](Wish& wish) { return wish.chance / std::max(row_ms(wish, rows) + wish.guess_ms, 1e-9); };
  for (Wish* wish : open_) wish->gain = of_time(*wish);
  const auto is_less = [](const Wish* a, const Wish* b) { return a->gain < b->gain; };
  std::make_heap(open_.begin(), open_.end(), is_less);
  while (!open_.empty()) {
    std::pop_heap(open_.begin(), open_.end(), is_less);
    Wish& wish = *open_.back();
    const double gain = of_time(wish);
    if (rows + wish.width > most_rows || gain * ms <= kMargin * tokens) {
      open_.pop_back();
      continue;
    }
    if (gain < wish.gain) {
      wish.gain = gain;
    } else {
      tokens += wish.chance;
      ms += row_ms(wish, rows) + wish.guess_ms;
      rows += wish.width * (replays_ ? 1 + wish.chance : 1);
      wish.chance *= wish.behind;
      if (++wish.depth == wish.most) {
        open_.pop_back();
        continue;
      }
      wish.gain = of_time(wish);
    }
    std::push_heap(open_.begin(), open_.end(), is_less);
  }
}

// Only of what has to be made: the rest is known to come true or not whether it is verified or not.
void DraftPolicy::probe(std::span<Wish> wishes, int num_decoding) {
  const double plain_ms = cost_.ms(num_decoding);
  for (size_t begin = 0; begin < wishes.size();) {
    const std::span<Wish> of_seq = of_sequence(wishes, begin);
    begin += of_seq.size();
    const bool has_any = std::any_of(of_seq.begin(), of_seq.end(), [](const Wish& wish) { return wish.depth > 0; });
    for (Wish& wish : of_seq) {
      if (wish.is_made || wish.most == 0) continue;
      int32_t& idle = slots_[wish.slot].idle[static_cast<int>(wish.kind)];
      if (wish.is_worth) {
        idle = 0;
        continue;
      }
      const double price = plain_ms > 0 ? num_decoding / plain_ms * (row_ms(wish, num_decoding) + level_ms(wish.kind, 1)) : 0;
      if (++idle < std::max<double>(kProbeSteps, price / kProbeShare) || has_any) continue;
      idle = 0;
      wish.is_worth = true;
      wish.depth = wish.decodes ? 1 : 0;
    }
  }
}

}  // namespace serval
