// How many guesses are worth their cost, for all sequences of a step: the closed loop of speculation. What it knows is
// measured: how often guesses came true, of the sequence and of all; what a step of so many rows costs, and what a drafter's
// guesses. Pure arithmetic: times are told to it. It decides what is tried, never what is drawn.
#pragma once

#include <array>
#include <span>
#include <vector>

#include "engine/batch.h"
#include "engine/runner/row_cost.h"

namespace serval {

class DraftPolicy {
 public:
  explicit DraftPolicy(int max_seqs);
  static size_t planned_bytes(int max_seqs);

  // replays: a guess that comes true is computed a second time, for a state that did not take it in.
  void start(bool replays) { replays_ = replays; }
  // A sequence comes. Each of kExploring-th is believed to be like none before: who is no longer asked has a chance.
  void admit(SlotId slot);
  void learn_step(int rows, double ms) { cost_.learn(rows, ms); }
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
    double first = 0, behind = 0, chance = 0;  // of the first guess, of one behind one that came true; of the next one
    double guess_ms = 0, gain = 0;
  };
  // Of a step in which so many decode. The wishes of a sequence stand together.
  void choose(std::span<Wish> wishes, int num_decoding);

 private:
  static constexpr int kExploring = 16;
  // Guesses that could come true (those behind a wrong one could not), the newest counting most.
  struct Acceptance {
    double tried = 0, came_true = 0;
    void learn(int more_tried, int more_came_true, double kept) {
      tried = tried * kept + more_tried;
      came_true = came_true * kept + more_came_true;
    }
  };
  // Of the first guess, and of those behind one that came true: who copies a text is seldom wrong twice in a row.
  struct OfDrafter {
    Acceptance first, behind;
    bool was_right = false;  // all of the last chain: then the next one's first guess is behind one that came true, too
    void learn(int tried, int came_true, double kept);
  };
  // Of a guess of one sequence, of late: with what its drafter does beside, and without; of the times without guesses.
  struct Cost {
    double ms = 0, least_ms = 0, unpaid_ms = 0;
  };
  struct Slot {
    std::array<OfDrafter, kNumDrafters> of;
    std::array<int32_t, kNumDrafters> idle{};  // times that nothing was worth it, since it was asked last
    bool explores = false;
  };

  static std::span<Wish> of_sequence(std::span<Wish> wishes, size_t begin);
  double rate(const Wish& wish, Acceptance OfDrafter::* of) const;
  double level_ms(DrafterKind kind, int num_seqs) const;
  void value(std::span<Wish> wishes, int num_decoding);
  void grant(std::span<Wish> wishes, int num_decoding);
  void probe(std::span<Wish> wishes, int num_decoding);
  double row_ms(const Wish& wish, double rows) const;

  std::vector<Slot> slots_;
  std::vector<Wish*> open_;  // of grant(), a heap
  std::array<OfDrafter, kNumDrafters> of_all_;
  std::array<Cost, kNumDrafters> costs_;
  bool replays_ = false;
  int num_admitted_ = 0;
  RowCost cost_;
};

}  // namespace serval
