// Embeddings of each layer (Gemma 3n, Gemma 4 E): beside the model's own, a token has a narrow vector for every layer,
// and each layer adds what its state lets through of it: x += norm(project(activation(gate(x)) * vector)). Knows
// no other part.
#pragma once

#include <cstdint>
#include <span>

#include "engine/model/norm.h"
#include "engine/model/weight_slots.h"
#include "kernels/backend.h"

namespace serval {

// Of the model: the vectors of all layers, from a table and from the embedding.
struct LayerInputsWeights {
  LinearWeight table;       // [vocab, num_layers * width]
  LinearWeight projection;  // [num_layers * width, hidden]
  NormWeights norm;         // [width]
};
// Of a layer.
struct LayerInputWeights {
  LinearWeight gate;        // [width, hidden]
  LinearWeight projection;  // [hidden, width]
  NormWeights post_norm;    // [hidden]
};

struct LayerInputsSpec {
  int width = 0;  // of a layer's vector; 0: there are none
  int vocab_size = 0;
  int table_rows = 0;  // of the checkpoint's table, where there are fewer: ids behind them have the first (Gemma 3n)
  int num_layers = 0;
  Activation activation = Activation::kGeluTanh;
  NormSpec norm;

  bool is_there() const { return width > 0; }
  int64_t row_width() const { return int64_t{num_layers} * width; }

  // `frame` has the prefix of the names outside the layers, `layer` that of one.
  void list_slots(int64_t hidden, LayerInputsWeights& weights, SlotList& frame) const;
  void list_layer_slots(int64_t hidden, LayerInputWeights& weights, SlotList& layer) const;

  // The vectors of all layers: (norm(project(embedded) / sqrt(hidden)) + sqrt(width) * table[id]) / sqrt(2).
  // embedded: [rows, hidden]; scratch, out: [rows, row_width()].
  void compute(Backend& backend, const LayerInputsWeights& weights, std::span<const int32_t> ids,
               const Tensor& embedded, const Tensor& scratch, const Tensor& out) const;
  // What layer `index` adds to x [rows, hidden], to out [rows, hidden]. inputs: what compute() made. scratch: width
  // elements a row.
  void run(Backend& backend, const LayerInputWeights& weights, int index, const Tensor& inputs, const Tensor& x,
           const Tensor& scratch, const Tensor& out) const;
};

}  // namespace serval
