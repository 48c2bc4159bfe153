#include "engine/model/norm.h"

#include "kernels/base/check.h"

namespace serval {

void add_norm(Backend& backend, const NormSpec& spec, const NormWeights& weights, const Tensor& residual,
              const Tensor& x, const Tensor& out) {
  const Tensor weight(weights.weight.data(), DType::kF32, {residual.dim(1)});
  switch (spec.kind) {
    case NormSpec::Kind::kNone:
      SERVAL_CHECK(false, "a norm that is not there was asked to run");
      break;
    case NormSpec::Kind::kRms:
      backend.add_rms_norm(residual, x, weight, spec.eps, out);
      break;
    case NormSpec::Kind::kLayer:
      backend.add_layer_norm(residual, x, weight, Tensor(weights.bias.data(), DType::kF32, {residual.dim(1)}),
                             spec.eps, out);
      break;
  }
}

}  // namespace serval
