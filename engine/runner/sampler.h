// From the hidden rows of a step to its ModelOutput: which rows need logits and why, the parameters each is
// sampled with, which drafts the draws confirm. Logits are computed and sampled a bounded number of rows at a
// time.
//
// Verifying drafts: the row of every draft is sampled as if the draft were the true token, each with the
// noise of its own position. A draw that equals the draft behind it makes the next row's draw real; the first
// that differs is the last real one. So the tokens are those that one step each would have drawn.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/batch.h"
#include "engine/model/transformer.h"
#include "engine/runner/slot_table.h"

namespace serval {

class Sampler {
 public:
  // max_rows: most rows of one step; any of them may need logits (prompt log-probabilities).
  explicit Sampler(int max_rows);

  static size_t planned_bytes(int max_rows);

  // After transformer.forward() of this batch: fills `output`, in the order of batch.seqs.
  void run(const Batch& batch, const SlotTable& slots, Transformer& transformer, Workspace& ws,
           Backend& backend, ModelOutput& output);

 private:
  void want_rows(const Batch& batch, const SlotTable& slots, int vocab);
  void sample_rows(Transformer& transformer, Workspace& ws, Backend& backend);
  void collect(const Batch& batch, const SlotTable& slots, ModelOutput& output);
  TokenOutput emit(int index, ModelOutput& output) const;

  // Parallel: the rows that need logits, prompt rows of a sequence before its sampled ones.
  std::vector<int32_t> rows_;
  std::vector<SampleRow> params_;
  std::vector<SampleResult> results_;
  std::vector<TopLogprob> top_;  // [rows, top_stride_]
  int top_stride_ = 0;
};

}  // namespace serval
