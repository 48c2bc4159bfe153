#include "engine/model/ffn/mlp.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace serval {

void MlpFfnSpec::list_slots(int64_t hidden, MlpFfnWeights& w, SlotList& slots) const {
  slots.linear(w.up, {{"mlp.up_proj", intermediate_size}}, hidden, bias);
  slots.linear(w.down, {{"mlp.down_proj", hidden}}, intermediate_size, bias);
  if (!has_xielu) return;
  // Stored as what softplus makes the factors of; the second lies 1/2 lower.
  slots.vectors(w.alphas, {{"mlp.act_fn.alpha_p", {1}}, {"mlp.act_fn.alpha_n", {1}}},
                [](std::vector<float>& values, const std::vector<int64_t>&) {
                  for (float& value : values) value = std::log1p(std::exp(value));
                  values[1] += 0.5f;
                });
}

void MlpFfnSpec::raise_limits(StepLimits& limits) const {
  limits.max_k = std::max(limits.max_k, int64_t{intermediate_size});
}

void MlpFfnSpec::run(Backend& backend, const MlpFfnWeights& w, const FfnInput& in) const {
  const Tensor wide(in.scratch.data, in.scratch.dtype, {in.h.dim(0), intermediate_size});
  backend.linear(in.h, w.up, wide);
  if (has_xielu) backend.xielu(wide, Tensor(w.alphas.data(), DType::kF32, {2}), wide);
  else backend.activation(activation, wide, wide);
  backend.linear(wide, w.down, in.out);
}

}  // namespace serval
