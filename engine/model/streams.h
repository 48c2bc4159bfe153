// Several residual streams of which layers work on the first alone (AltUp; Baykal et al. 2023), as Gemma 3n has them,
// with its residual of low rank beside the mixer (LAuReL; Menghani et al. 2024). Knows no other part.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/model/norm.h"
#include "engine/model/weight_slots.h"
#include "kernels/backend.h"

namespace serval {

// Of the model: the streams are made of the embedding by a matrix each but the first, and go back by another.
struct StreamsWeights {
  std::vector<LinearWeight> in, out;  // count - 1 of [hidden, hidden]
};
// Of a layer.
struct StreamLayerWeights {
  NormWeights mode_norm;      // [hidden], divided by hidden
  LinearWeight modes;         // [count, hidden]
  Buffer mixing, correcting;  // f32 [count * count, count], [count, count]
  Buffer scale;               // f32 [hidden]: of the first stream, where the layer's own input reads it
  LinearWeight left, right;   // [rank, hidden], [hidden, rank]
  NormWeights low_rank_norm;  // [hidden]
};

// What of a step belongs to the streams: the first is the residual.
struct StreamRows {
  Tensor streams;   // [count * num_rows, hidden]
  Tensor before;    // [num_rows, hidden]: the first, as a layer found it
  Tensor low_rank;  // [num_rows, hidden]
  Tensor residual;  // the first of the streams
  Tensor x;         // [num_rows, hidden], free for use
  Tensor scratch;   // scratch_width() elements a row, free for use
};

struct StreamsSpec {
  int count = 0;  // 0: there is the residual alone
  int rank = 0;   // of the low-rank residual
  NormSpec norm;

  bool is_there() const { return count > 0; }
  int64_t scratch_width() const { return is_there() ? count + rank : 0; }

  void list_slots(int64_t hidden, StreamsWeights& weights, SlotList& frame) const;
  void list_layer_slots(int64_t hidden, StreamLayerWeights& weights, SlotList& layer) const;

  // The streams of a step, of the embedding in the first.
  void begin(Backend& backend, const StreamsWeights& weights, const StreamRows& rows) const;
  // What the layer expects of every stream.
  void begin_layer(Backend& backend, const StreamLayerWeights& weights, const StreamRows& rows) const;
  // h: what the mixer reads.
  void read(Backend& backend, const StreamLayerWeights& weights, const Tensor& h, const StreamRows& rows) const;
  // The residual has what the mixer gave: the two are added and halved in power.
  void add_low_rank(Backend& backend, const StreamRows& rows) const;
  // What the layer made of the first stream goes into all; leaves the first, scaled, in `low_rank`.
  void end_layer(Backend& backend, const StreamLayerWeights& weights, const StreamRows& rows) const;
  // x is added to all but the first.
  void add_to_others(Backend& backend, const StreamRows& rows) const;
  // The streams' mean in the residual.
  void end(Backend& backend, const StreamsWeights& weights, const StreamRows& rows) const;

 private:
  Tensor stream(const StreamRows& rows, int index) const;
  Tensor modes(Backend& backend, const StreamLayerWeights& weights, const StreamRows& rows) const;
};

}  // namespace serval
