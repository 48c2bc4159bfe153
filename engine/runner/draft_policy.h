// How many guesses are worth their cost, for each sequence and drafter: the closed loop of speculation. What it knows is
// measured: how often guesses came true, of the sequence and of all; what a row of a step costs, and what a guess. Pure
// arithmetic: times are told to it. It decides what is tried, never what is drawn.
#pragma once

#include <array>
#include <vector>

#include "engine/batch.h"
#include "engine/runner/row_cost.h"

namespace serval {

class DraftPolicy {
 public:
  explicit DraftPolicy(int max_seqs) : slots_(max_seqs) {}
  static size_t planned_bytes(int max_seqs);

  // A sequence comes. Each of kExploring-th is believed to be like none before: who is no longer asked has a chance.
  // replays: a guess that comes true is computed a second time, for a state that did not take it in.
  void start(bool replays) { replays_ = replays; }
  void admit(SlotId slot);
  void learn_step(int rows, double ms) {
    cost_.learn(rows, ms);
    line_ = cost_.line();
  }
  // A drafter was asked, and made so many guesses: what it did without any is paid by the next.
  void learn_cost(DrafterKind kind, int num_guesses, double ms);
  // Of a chain of `tried` guesses of a sequence the first `came_true` did.
  void learn_verified(SlotId slot, DrafterKind kind, int tried, int came_true);

  struct Choice {
    int depth = 0;    // guesses behind each other; 0: none is worth it
    double gain = 0;  // tokens more than their time gives without them
  };
  // For a sequence of a step in which so many decode. Where nothing is worth it, every kProbeSteps-th time one guess all
  // the same: what comes may be easier than what was.
  Choice choose(SlotId slot, DrafterKind kind, int num_decoding, int most);

 private:
  static constexpr int kProbeSteps = 48, kExploring = 16;
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
    void learn(int tried, int came_true, double kept);
  };
  struct Slot {
    std::array<OfDrafter, kNumDrafters> of;
    std::array<int32_t, kNumDrafters> idle{};  // times that nothing was worth it, since the last probe
    bool explores = false;
  };

  std::vector<Slot> slots_;
  std::array<OfDrafter, kNumDrafters> of_all_;
  std::array<double, kNumDrafters> guess_ms_{};   // of one guess, at the batches of late
  std::array<double, kNumDrafters> unpaid_ms_{};  // of the times without guesses
  bool replays_ = false;
  int num_admitted_ = 0;
  RowCost cost_;
  RowCost::Line line_;  // what the steps so far tell
};

}  // namespace serval
