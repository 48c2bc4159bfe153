// The steps that a drafter with keys and values of its own goes through behind the target: what some of the target's layers
// read in each step, kept until it is known what was drawn, and which positions of each slot it has seen. What the target
// computed is gone afterwards: a sequence of which one step was not followed is left for good.
#pragma once

#include <vector>

#include "engine/runner/speculators/draft_host.h"
#include "engine/runner/speculators/kept_rows.h"
#include "engine/runner/speculators/speculator.h"

namespace serval {

class FollowedSteps {
 public:
  // num_layers: of the target's, of which it has what they read; 0: what the output head reads. steps: the target's,
  // whose rows and numbers `model` has.
  static size_t planned_bytes(size_t num_layers, const ModelSpec& model, const StepLimits& steps, const Backend& backend);
  void start(const DraftHost& host, const std::vector<int>& read_layers);

  void admit(SlotId slot) { next_pos_[slot] = kFromTheStart; }
  // Speculator::keep(), lag()
  void keep(const Tensor& hidden);
  int lag(const DraftTask& task) const;

  // The oldest step that was not gone through: its tasks come next.
  void begin();
  // Adds what the step computed of the task's sequence to the batch and to the rows, if the sequence is still followed.
  // Returns whether guesses are wanted and can be made of it.
  bool follow(const DraftTask& task);

  // Of the tasks that were followed.
  const Batch& batch() const { return batch_; }
  // [parts * ..., hidden], in which places().row_of(part, row) is a row of the step; and the rows that were followed.
  const Tensor& kept() const { return kept_now_; }
  const KeptRows& places() const { return kept_; }
  std::span<const int32_t> rows() const { return rows_; }

 private:
  static constexpr int kFromTheStart = -1;

  KeptRows kept_;
  Buffer tap_memory_;
  std::vector<Tensor> taps_;   // [max_rows, hidden]: what the target's layers read in this step
  std::vector<int> next_pos_;  // by slot: the first position that was not followed
  Tensor kept_now_;
  Batch batch_;
  std::vector<int32_t> rows_;
};

}  // namespace serval
