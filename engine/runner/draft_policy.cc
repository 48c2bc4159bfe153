#include "engine/runner/draft_policy.h"

#include <algorithm>
#include <utility>

namespace serval {
namespace {

// A drafter of which nothing is known is believed this much, as if this many guesses had been seen; a sequence is
// believed to be like all others, as if so many of its own had.
constexpr double kFirstRate = 0.6, kFirstWeight = 4, kOthersWeight = 8;
// A guess must be worth so much more than it costs: what is measured is not exact, and plain steps are sure.
constexpr double kMargin = 1.06;
// Of what is seen of all sequences: a look-up is judged at each step, what has to be made only where it was.
constexpr double kKeptOfLookUps = 0.98, kKeptOfMade = 0.9;
constexpr double kKeptOfSlot = 0.98, kKeptOfCost = 0.95;
// A guess that took so much longer than others waited for a core.
constexpr double kMostCost = 3;
// Of the least that a guess takes: it goes to the low ones. Where nobody asks, what prompts cost is forgotten.
constexpr double kDown = 0.2, kUp = 0.03, kKeptOfUnasked = 0.995;
// A further sequence beside one that is guessed for costs so much of what that one does: a drafter's weights are read once.
constexpr double kBesideShare = 0.1;
// So much of the time may be spent on trying a drafter that does not seem worth it, for what comes may be easier than what was; no
// more than a few steps' time at once, and no debt is larger than many.
constexpr double kTriedShare = 0.01, kMostSaved = 2, kMostDebt = 100;
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
  slots_[slot] = {};
  for (int k = 0; k < kNumDrafters; ++k) {
    Cost& cost = costs_[k];
    if (cost.ms == 0 || cost.allowance_ms <= 0) continue;
    slots_[slot].explored |= uint32_t{1} << k;
    cost.allowance_ms = 0;  // of those who come together one
  }
}

void DraftPolicy::learn_step(int rows, double ms) {
  if (ms <= 0) return;  // a clock's doing
  cost_.learn(rows, ms);
  for (Cost& cost : costs_) cost.allowance_ms = std::clamp(cost.allowance_ms + kTriedShare * ms, -kMostDebt * ms, kMostSaved * ms);
}

void DraftPolicy::learn_cost(DrafterKind kind, int num_seqs, int depth, double ms) {
  Cost& cost = costs_[static_cast<int>(kind)];
  cost.unpaid_ms += ms;
  cost.allowance_ms -= ms;
  if (num_seqs == 0) return;
  const double share = depth * (1 + kBesideShare * (num_seqs - 1));
  const double whole = std::exchange(cost.unpaid_ms, 0) / share, alone = ms / share;
  if (cost.ms == 0) {
    cost.ms = whole;
    cost.least_ms = alone;
  }
  cost.ms += (1 - kKeptOfCost) * (std::min(whole, kMostCost * cost.ms) - cost.ms);
  cost.least_ms += (alone < cost.least_ms ? kDown : kUp) * (std::min(alone, kMostCost * cost.least_ms) - cost.least_ms);
}

// A guess of each of so many sequences.
double DraftPolicy::level_ms(DrafterKind kind, int num_seqs) const {
  return costs_[static_cast<int>(kind)].ms * (1 + kBesideShare * (num_seqs - 1));
}

void DraftPolicy::OfDrafter::learn(DrafterKind kind, int tried, int came_true, float kept) {
  if (tried == 0) return;
  Depths& at = by_length[index_of(kind, tried)];
  const auto learn_at = [&](int depth, bool is_right) { at[std::min(depth, kDepths - 1)].learn(is_right, kept); };
  for (int depth = 0; depth < std::min(tried, came_true + 1); ++depth) learn_at(depth, depth < came_true);
  // Else who makes one guess at a time would never hear that two are worth it.
  if (all_right > 0 && !looks_up(kind)) learn_at(all_right, came_true > 0);
  all_right = came_true == tried ? tried : 0;
}

void DraftPolicy::learn(SlotId slot, DrafterKind kind, int tried, int came_true) {
  slots_[slot].of[static_cast<int>(kind)].learn(kind, tried, came_true, kKeptOfSlot);
  of_all_[static_cast<int>(kind)].learn(kind, tried, came_true, looks_up(kind) ? kKeptOfLookUps : kKeptOfMade);
  costs_[static_cast<int>(kind)].allowance_ms += came_true * token_ms_ - tried * row_ms_;
}

// Where little is known of a depth it is taken to be like the one before.
void DraftPolicy::set_rates(Wish& wish) const {
  const int k = static_cast<int>(wish.kind);
  const size_t length = OfDrafter::index_of(wish.kind, wish.most);
  const Depths &all = of_all_[k].by_length[length], &mine = slots_[wish.slot].of[k].by_length[length];
  const bool explores = (slots_[wish.slot].explored >> k & 1) != 0;
  double others = kFirstRate;
  for (int depth = 0; depth < kDepths; ++depth) {
    others = (all[depth].came_true + others * kFirstWeight) / (all[depth].tried + kFirstWeight);
    const double believed = explores ? std::max(others, kFirstRate) : others;
    wish.rates[depth] = (mine[depth].came_true + believed * kOthersWeight) / (mine[depth].tried + kOthersWeight);
  }
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
    if (wish.most > 0) set_rates(wish);
  }
  std::array<int, kNumDrafters> sharing{};
  for (const Wish& wish : wishes) sharing[static_cast<int>(wish.kind)] += wish.most > 0;
  for (bool again = true; again;) {
    value(wishes, num_decoding, sharing);
    grant(wishes, num_decoding);
    // Those who got rows pay for all that their drafter does.
    std::array<int, kNumDrafters> asking{};
    for (const Wish& wish : wishes) asking[static_cast<int>(wish.kind)] += wish.depth > 0 || (wish.is_worth && !wish.decodes);
    again = false;
    for (int k = 0; k < kNumDrafters; ++k) {
      if (asking[k] >= sharing[k] || looks_up(static_cast<DrafterKind>(k))) continue;
      sharing[k] = asking[k];
      again = true;
    }
  }
  probe(wishes);
  token_ms_ = cost_.ms(num_decoding) / num_decoding;
  row_ms_ = cost_.ms(num_decoding + 1) - cost_.ms(num_decoding);
}

// What each would be worth if no other had rows. All who are worth a drafter's time share it, no more of them than are told: who
// would not pay a part is left out, and the parts of the others grow.
void DraftPolicy::value(std::span<Wish> wishes, int num_decoding, std::array<int, kNumDrafters>& sharing) {
  const double plain_ms = cost_.ms(num_decoding), token_value = plain_ms > 0 ? kMargin * num_decoding / plain_ms : 0;
  for (bool again = true; again;) {
    std::array<int, kNumDrafters> left{};
    for (Wish& wish : wishes) {
      const int k = static_cast<int>(wish.kind), num_seqs = std::max(1, sharing[k]);
      wish.chance = wish.rate(0);
      wish.guess_ms = wish.is_made ? 0 : level_ms(wish.kind, num_seqs) / num_seqs;
      const double price = token_value * (row_ms(wish, num_decoding) + wish.guess_ms);  // in tokens
      wish.gain = 0;
      double chance = wish.chance;
      for (int depth = 0; depth < wish.most && chance > price; chance *= wish.rate(++depth)) wish.gain += chance - price;
      wish.is_worth = wish.gain > 0;
      left[k] += wish.is_worth;
    }
    again = false;
    for (int k = 0; k < kNumDrafters; ++k) {
      again |= left[k] < sharing[k];
      sharing[k] = std::min(left[k], sharing[k]);
    }
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
  for (Wish& wish : wishes) wish.depth = 0;
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
      wish.chance *= wish.rate(++wish.depth);
      if (wish.depth == wish.most) {
        open_.pop_back();
        continue;
      }
      wish.gain = of_time(wish);
    }
    std::push_heap(open_.begin(), open_.end(), is_less);
  }
}

// One sequence at a time for which nobody guesses. Only of what has to be made: the rest is known to come true or not whether it is
// verified or not.
void DraftPolicy::probe(std::span<Wish> wishes) {
  for (size_t begin = 0; begin < wishes.size();) {
    const std::span<Wish> of_seq = of_sequence(wishes, begin);
    begin += of_seq.size();
    if (std::any_of(of_seq.begin(), of_seq.end(), [](const Wish& wish) { return wish.depth > 0; })) continue;
    for (Wish& wish : of_seq) {
      Cost& cost = costs_[static_cast<int>(wish.kind)];
      if (wish.is_made || wish.most == 0 || wish.is_worth || cost.allowance_ms <= 0) continue;
      cost.allowance_ms = 0;
      wish.is_worth = true;
      wish.depth = wish.decodes ? 1 : 0;
      break;
    }
  }
}

}  // namespace serval
