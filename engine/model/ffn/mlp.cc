#include "engine/model/ffn/mlp.h"

#include <algorithm>

namespace serval {

void MlpFfnSpec::list_slots(int64_t hidden, MlpFfnWeights& w, SlotList& slots) const {
  slots.linear(w.up, {{"mlp.up_proj", intermediate_size}}, hidden, bias);
  slots.linear(w.down, {{"mlp.down_proj", hidden}}, intermediate_size, bias);
}

void MlpFfnSpec::raise_limits(StepLimits& limits) const {
  limits.max_k = std::max(limits.max_k, int64_t{intermediate_size});
}

void MlpFfnSpec::run(Backend& backend, const MlpFfnWeights& w, const FfnInput& in) const {
  const Tensor wide(in.scratch.data, in.scratch.dtype, {in.h.dim(0), intermediate_size});
  backend.linear(in.h, w.up, wide);
  backend.activation(activation, wide, wide);
  backend.linear(wide, w.down, in.out);
}

}  // namespace serval
