// The activations of one forward pass: planned by arithmetic, allocated once, reused every step. Tensors are
// views of one buffer.
#pragma once

#include "engine/model/model_spec.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace serval {

class Workspace {
 public:
  // max_rows: most rows of one forward. max_logit_rows: most rows of one Transformer::logits call.
  Workspace(const ModelSpec& spec, int max_rows, int max_logit_rows, Backend& backend);

  // What the constructor allocates.
  static size_t planned_bytes(const ModelSpec& spec, int max_rows, int max_logit_rows, DType activation);

  // Sets the row dimension of the activations, or of `last` and `logits`; no memory moves.
  void start(int num_rows);
  void start_logits(int num_rows);

  int max_rows() const { return max_rows_; }
  int max_logit_rows() const { return max_logit_rows_; }

  // Of the backend's activation type; logits f32.
  Tensor residual, x, h;  // [num_rows, hidden]
  Tensor layer_inputs;    // [num_rows, of all layers], where the model has them
  // Where it has several residual streams: [count * num_rows, hidden], of which the first is `residual`; and two more
  // [num_rows, hidden].
  Tensor streams, before, low_rank;
  // Where it mixes residuals: [num_rows, count * hidden], and f32 [num_rows, MixedResidualsSpec::mixes_width()].
  Tensor residuals, mixes;
  Tensor embedded, aside;  // [num_rows, hidden]: ModelSpec::keeps_embedding, LayerSpec::is_aside
  Tensor first_values;     // [num_rows, hidden]: ModelSpec::keeps_first_values
  Tensor last;            // [num_logit_rows, hidden]
  Tensor logits;          // [num_logit_rows, vocab]
  Tensor scratch;         // [elements] of the part that runs, which cuts it as it likes

 private:
  int max_rows_ = 0, num_streams_ = 0;
  int max_logit_rows_ = 0;
  Buffer buffer_;
};

}  // namespace serval
