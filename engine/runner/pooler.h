// Vectors of prompts: reads the hidden rows of those that pool, step by step, and tells each vector with the step
// that ends its prompt. A row's part in a vector depends on nothing but the row, and rows come in the order of their
// positions, whatever the steps.
#pragma once

#include <span>
#include <vector>

#include "engine/batch.h"
#include "engine/runner/sampler.h"
#include "engine/runner/slot_table.h"
#include "kernels/backend.h"

namespace serval {

class Pooler {
 public:
  Pooler(int max_seqs, int hidden_size);
  static size_t planned_bytes(int max_seqs, int hidden_size);

  // After the forward pass of this batch. hidden: the rows behind the final norm, [rows, hidden_size] of the
  // backend's activation type. Waits for the step where one of its sequences pools.
  void read(const Batch& batch, const SlotTable& slots, const Tensor& hidden, Backend& backend);
  // Adds the vectors to a step's output; drawn: of output.seqs. A sequence whose vector is not finite has failed.
  void tell(const SlotTable& slots, std::span<const Sampler::Drawn> drawn, ModelOutput& output) const;

 private:
  const int hidden_size_;
  std::vector<double> sums_;  // [max_seqs, hidden_size]
  std::vector<float> rows_, stored_rows_;  // some of a step, [rows, hidden_size]; as the backend stores them
};

}  // namespace serval
