// How many guesses are worth their cost, for all sequences of a step: the closed loop of speculation. What it knows is
// measured: how often guesses came true, of the sequence and of all; what a step of so many rows costs, and what a drafter's
// guesses. Pure arithmetic: times are told to it. It decides what is tried, never what is drawn.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <span>
#include <vector>

#include "engine/batch.h"
#include "engine/runner/row_cost.h"

namespace serval {

// Guesses that cost nothing to make.
constexpr bool looks_up(DrafterKind kind) {
  return kind == DrafterKind::kPrediction || kind == DrafterKind::kNgram || kind == DrafterKind::kDatastore;
}

class DraftPolicy {
  static constexpr int kDepths = 8;

 public:
  explicit DraftPolicy(int max_seqs);
  static size_t planned_bytes(int max_seqs);

  // replays: a guess that comes true is computed a second time, for a state that did not take it in.
  void start(bool replays) { replays_ = replays; }
  // A sequence comes. Some are believed to be like none before, as far as a drafter's allowance goes: who is no longer asked has a chance.
  void admit(SlotId slot);
  // A step of so many rows, in which all decode; without what drafters took.
  void learn_step(int rows, double ms);
  // A drafter was asked for so many sequences at once, and made so many guesses behind each other of one, at most: what it did
  // without any is paid by the next.
  void learn_cost(DrafterKind kind, int num_seqs, int depth, double ms);
  // Of a chain of `tried` guesses of a sequence the first `came_true` did.
  void learn(SlotId slot, DrafterKind kind, int tried, int came_true);

  // What one drafter can do for one sequence of a step.
  struct Wish {
    SlotId slot = 0;
    DrafterKind kind = DrafterKind::kNgram;
    int most = 0;           // guesses behind each other, at most
    int width = 1;          // rows for each of them
    bool is_made = false;   // they are there: only their rows cost
    bool decodes = true;    // a step verifies them; false: the prompt goes on, the drafter is only told whether to follow it
    // What choose() says: guesses behind each other that are verified, none of another drafter; and whether they would be worth
    // their cost if nobody else's were.
    int depth = 0;
    bool is_worth = false;
    // Between its lines.
    std::array<double, kDepths> rates{};        // of a guess behind so many that came true
    double chance = 0, guess_ms = 0, gain = 0;  // that the next guess comes true, and all before it
    double rate(int depth) const { return rates[std::min(depth, kDepths - 1)]; }
  };
  // Of a step in which so many decode. The wishes of a sequence stand together.
  void choose(std::span<Wish> wishes, int num_decoding);

 private:
  static constexpr int kLengths = 4;
  // Guesses that could come true (those behind a wrong one could not), the newest counting most.
  struct Acceptance {
    float tried = 0, came_true = 0;
    void learn(bool is_right, float kept) {
      tried = tried * kept + 1;
      came_true = came_true * kept + is_right;
    }
  };
  // Of the first guess of a chain, of one behind one that came true, behind two, and so on; the last is of all that are deeper. Who
  // copies a text is seldom wrong twice in a row, who has just begun may be.
  using Depths = std::array<Acceptance, kDepths>;
  // Of a drafter: what is looked up is the more often right the longer it is (as much is guessed as was repeated), so by octaves
  // of its length.
  struct OfDrafter {
    std::array<Depths, kLengths> by_length;
    int all_right = 0;  // guesses of the last chain, if all came true: then the first of the next one is behind them, too
    void learn(DrafterKind kind, int tried, int came_true, float kept);
    static size_t index_of(DrafterKind kind, int length) {
      return looks_up(kind) ? std::min<size_t>(std::bit_width(static_cast<unsigned>(length)), kLengths) - 1 : 0;
    }
  };
  // Of a guess of one sequence, of late: with what its drafter does beside, and without; of the times without guesses. And what may
  // be spent on trying it where it does not seem worth it: a small share of all time, and what its guesses save; less what they took.
  struct Cost {
    double ms = 0, least_ms = 0, unpaid_ms = 0, allowance_ms = 0;
  };
  struct Slot {
    std::array<OfDrafter, kNumDrafters> of;
    uint32_t explored = 0;  // drafters of which this sequence is believed to be like none before
  };

  static std::span<Wish> of_sequence(std::span<Wish> wishes, size_t begin);
  void set_rates(Wish& wish) const;
  double level_ms(DrafterKind kind, int num_seqs) const;
  void value(std::span<Wish> wishes, int num_decoding, std::array<int, kNumDrafters>& sharing);
  void grant(std::span<Wish> wishes, int num_decoding);
  void probe(std::span<Wish> wishes);
  double row_ms(const Wish& wish, double rows) const;

  std::vector<Slot> slots_;
  std::vector<Wish*> open_;  // of grant(), a heap
  std::array<OfDrafter, kNumDrafters> of_all_;
  std::array<Cost, kNumDrafters> costs_;
  bool replays_ = false;
  double token_ms_ = 0, row_ms_ = 0;  // of the last step: of a token without guesses, of a row more
  RowCost cost_;
};

}  // namespace serval
