#include "engine/model/norm.h"

namespace serval {

Tensor add_norm(Backend& backend, const NormSpec& spec, const NormWeights& weights, const Tensor& residual,
              const Tensor& x, const Tensor& out) {
  const auto vector = [&](const Buffer& of) {
    return of.bytes == 0 ? Tensor() : Tensor(of.data(), DType::kF32, {residual.dim(1)});
  };
  switch (spec.kind) {
    case NormSpec::Kind::kNone:
      if (x.data != nullptr) backend.scaled_add(x, 1, residual, residual);
      return residual;
    case NormSpec::Kind::kRms:
      backend.add_rms_norm(residual, x, vector(weights.weight), spec.eps, out);
      break;
    case NormSpec::Kind::kLayer:
      backend.add_layer_norm(residual, x, vector(weights.weight), vector(weights.bias), spec.eps, out);
      break;
  }
  return out;
}

}  // namespace serval
