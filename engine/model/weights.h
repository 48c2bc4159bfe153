// The weights of a model in typed slots, in the backend's memory. Shapes follow the ModelSpec; who fills them
// is weight_loader.cc.
#pragma once

#include <variant>
#include <vector>

#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace serval {

struct GqaWeights {
  LinearWeight qkv;     // [q_size + 2 * kv_size, hidden]: q, k, v rows in this order
  LinearWeight output;  // [hidden, q_size]
  Buffer q_norm;        // f32 [head_dim]; empty without qk_norm
  Buffer k_norm;
};

struct DenseFfnWeights {
  LinearWeight gate_up;  // [2 * intermediate, hidden]: gate rows, then up rows
  LinearWeight down;     // [hidden, intermediate]
};

struct LayerWeights {
  Buffer attention_norm;  // f32 [hidden]
  std::variant<GqaWeights> attention;
  Buffer ffn_norm;  // f32 [hidden]
  std::variant<DenseFfnWeights> ffn;
};

struct ModelWeights {
  LinearWeight embedding;  // [vocab, hidden]
  std::vector<LayerWeights> layers;
  Buffer final_norm;     // f32 [hidden]
  LinearWeight lm_head;  // [vocab, hidden]; empty when tied to the embedding

  const LinearWeight& head() const { return lm_head.n == 0 ? embedding : lm_head; }
};

}  // namespace serval
