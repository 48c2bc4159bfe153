// Residuals side by side that every part reads a mixture of and gives back to by another (manifold-constrained
// hyper-connections; Xie et al. 2026; DeepSeek-V4, section 2.2). Knows no other part.
#pragma once

#include <cstdint>
#include <string>

#include "engine/model/norm.h"
#include "engine/model/weight_slots.h"
#include "kernels/backend.h"

namespace serval {

// Of a part; of the head, which reads alone, the first rows.
struct MixtureWeights {
  LinearWeight mix;    // [(2 + count) * count, count * hidden], or [count, count * hidden]
  Buffer base, scale;  // f32, as many as rows; [3], or [1]
};

// What of a step belongs to the residuals.
struct MixedRows {
  Tensor residuals;  // [num_rows, count * hidden]
  Tensor mixes;      // f32 [num_rows, (2 + count) * count]
  Tensor read;       // [num_rows, hidden]: what a part reads
  Tensor scratch;    // scratch_width() elements a row, free for use
};

struct MixedResidualsSpec {
  int count = 0;  // 0: there is one
  int rounds = 0;
  float eps = 0, norm_eps = 0;

  bool is_there() const { return count > 0; }
  int64_t scratch_width(int64_t hidden) const { return count * hidden; }
  int64_t mixes_width() const { return int64_t{2 + count} * count; }

  // `name`: what the tensors' names begin with ("attn_hc").
  void list_slots(int64_t hidden, const std::string& name, MixtureWeights& weights, SlotList& slots) const;
  void list_head_slots(int64_t hidden, MixtureWeights& weights, SlotList& frame) const;
  void raise_limits(int64_t hidden, StepLimits& limits) const;

  // All of them are what `read` has.
  void begin(Backend& backend, const MixedRows& rows) const;
  // The mixture that a part reads.
  void collapse(Backend& backend, const MixtureWeights& weights, const MixedRows& rows) const;
  // x: what the part gives.
  void expand(Backend& backend, const MixedRows& rows, const Tensor& x) const;
  // The mixture that the head reads.
  void end(Backend& backend, const MixtureWeights& weights, const MixedRows& rows) const;

 private:
  void list(int64_t hidden, int64_t width, int64_t scales, const std::string& name, MixtureWeights& weights, SlotList& slots) const;
  void mix(Backend& backend, const MixtureWeights& weights, const MixedRows& rows, int64_t width) const;
};

}  // namespace serval
