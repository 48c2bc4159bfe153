#include "engine/model/ffn/dense.h"

#include <algorithm>
#include <vector>

namespace serval {

void DenseFfnSpec::list_slots(int64_t hidden, DenseFfnWeights& w, SlotList& slots) const {
  if (stored_size > intermediate_size) {
    const std::vector<RowRange> first = {{0, intermediate_size}};
    slots.linear(w.gate_up, {{"mlp.gate_proj", stored_size, first}, {"mlp.up_proj", stored_size, first}}, hidden, bias);
    slots.some_columns(w.down, "mlp.down_proj", first, stored_size, hidden);
    return;
  }
  slots.linear(w.gate_up, {{"mlp.gate_proj", intermediate_size}, {"mlp.up_proj", intermediate_size}}, hidden,
               bias);
  slots.linear(w.down, {{"mlp.down_proj", hidden}}, intermediate_size, bias);
}

void DenseFfnSpec::raise_limits(StepLimits& limits) const {
  limits.max_k = std::max(limits.max_k, int64_t{intermediate_size});
  if (gate_cut) limits.need(RareOp::kStreams);
}

// Gate and up in one product, activate, project down.
void DenseFfnSpec::run(Backend& backend, const DenseFfnWeights& w, const FfnInput& in) const {
  const int64_t rows = in.h.dim(0), width = intermediate_size;
  const Tensor gate_up(in.scratch.data, in.scratch.dtype, {rows, 2 * width});
  const Tensor activated(in.scratch.at(rows * 2 * width), in.scratch.dtype, {rows, width});
  backend.linear(in.h, w.gate_up, gate_up);
  if (gate_cut) backend.cut_rows(Tensor(gate_up.data, gate_up.dtype, {rows, width}), 2 * width, *gate_cut);
  if (gate_limit > 0) backend.clamp_gate_up(gate_up, gate_limit, up_offset);
  // What scales the gate scales up with it, which is taken back.
  if (gate_scale != 1) backend.scaled_add(gate_up, gate_scale, {}, gate_up);
  backend.gated_activation(activation, gate_up, activated);
  if (gate_scale != 1) backend.scaled_add(activated, 1 / gate_scale, {}, activated);
  backend.linear(activated, w.down, in.out);
}

}  // namespace serval
