// The norms of a decoder: what kind, what it is made of, and how it runs. Knows nothing of where one stands;
// that is the layer's.
#pragma once

#include <cstdint>

#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace serval {

struct NormSpec {
  enum class Kind : uint8_t {
    kNone,   // there is no norm at this place
    kRms,    // x / rms(x) * weight (Zhang and Sennrich 2019)
    kLayer,  // (x - mean(x)) / deviation(x) * weight + bias (Ba et al. 2016)
  };
  Kind kind = Kind::kNone;
  float eps = 1e-6f;
  // Added to every weight of the checkpoint: 1 where it stores what is above 1 (Gemma).
  float offset = 0;
  bool has_weight = true;  // else ones (OLMo)
  bool has_bias = true;    // of kLayer: else zeros (Cohere)

  bool is_there() const { return kind != Kind::kNone; }
};

struct NormWeights {
  Buffer weight;  // f32 [dim], offset included; empty where there is no norm or it has none
  Buffer bias;    // f32 [dim]; empty but for kLayer
};

// residual += x (x may be absent: data null); out = norm(residual). residual, x, out: [rows, dim]. Without x,
// out may be residual itself. Returns out; where there is no norm, out is left alone and residual is returned.
Tensor add_norm(Backend& backend, const NormSpec& spec, const NormWeights& weights, const Tensor& residual,
              const Tensor& x, const Tensor& out);

}  // namespace serval
