#include "engine/model/layer_inputs.h"

#include <cmath>

namespace serval {

void LayerInputsSpec::list_slots(int64_t hidden, LayerInputsWeights& w, SlotList& frame) const {
  if (table_rows == 0) {
    frame.linear(w.table, {{"embed_tokens_per_layer", vocab_size}}, row_width(), false);
  } else {
    frame.some_rows(w.table, "embed_tokens_per_layer", {{0, table_rows}, {0, vocab_size - table_rows, 0}}, table_rows,
                    row_width());
  }
  frame.linear(w.projection, {{"per_layer_model_projection", row_width()}}, hidden, false);
  frame.norm(w.norm, "per_layer_projection_norm", width, norm);
}

void LayerInputsSpec::list_layer_slots(int64_t hidden, LayerInputWeights& w, SlotList& layer) const {
  layer.linear(w.gate, {{"per_layer_input_gate", width}}, hidden, false);
  layer.linear(w.projection, {{"per_layer_projection", hidden}}, width, false);
  layer.norm(w.post_norm, "post_per_layer_input_norm", hidden, norm);
}

void LayerInputsSpec::compute(Backend& backend, const LayerInputsWeights& w, std::span<const int32_t> ids,
                              const Tensor& embedded, const Tensor& scratch, const Tensor& out) const {
  const auto root = [](double of) { return static_cast<float>(std::sqrt(of)); };
  backend.linear(embedded, w.projection, scratch);
  backend.scaled_add(scratch, 1 / root(static_cast<double>(embedded.dim(1))), {}, scratch);
  backend.head_rms_norm(Tensor(scratch.data, scratch.dtype, {scratch.dim(0), num_layers, width}), row_width(),
                        Tensor(w.norm.weight.data(), DType::kF32, {width}), norm.eps);
  backend.embed(w.table, ids, root(width), out);
  backend.scaled_add(scratch, 1, out, out);
  backend.scaled_add(out, root(0.5), {}, out);
}

void LayerInputsSpec::run(Backend& backend, const LayerInputWeights& w, int index, const Tensor& inputs,
                          const Tensor& x, const Tensor& scratch, const Tensor& out) const {
  const int64_t rows = x.dim(0);
  const Tensor gate(scratch.data, scratch.dtype, {rows, width});
  const Tensor own(inputs.at(int64_t{index} * width), inputs.dtype, {rows, width});
  backend.linear(x, w.gate, gate);
  backend.gate(activation, gate, width, own, row_width(), gate);
  backend.linear(gate, w.projection, out);
  add_norm(backend, norm, w.post_norm, out, {}, out);
}

}  // namespace serval
