// Feed-forward of one layer: gate and up in one product, activate, project down.
#include "engine/model/transformer.h"

namespace serval {

void Transformer::ffn_block(const DenseFfnSpec& spec, const DenseFfnWeights& w, Workspace& ws) {
  const int64_t rows = ws.h.dim(0);
  const int64_t width = spec.intermediate_size;
  const Tensor gate_up(ws.scratch.data, ws.scratch.dtype, {rows, 2 * width});
  const Tensor activated(ws.scratch.at(rows * 2 * width), ws.scratch.dtype, {rows, width});
  backend_.linear(ws.h, w.gate_up, gate_up);
  backend_.gated_activation(spec.activation, gate_up, activated);
  backend_.linear(activated, w.down, ws.x);
}

}  // namespace serval
