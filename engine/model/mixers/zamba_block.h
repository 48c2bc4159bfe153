// Zamba's block that several layers share (Glorioso et al. 2024, section 2): attention and a feed-forward part, one behind
// the other without a residual, over the hidden state beside the embedding it began with. Each layer that uses it adds
// what is its own: adapters of low rank and a last projection.
#pragma once

#include <vector>

#include "engine/model/mixers/mixer.h"
#include "engine/model/norm.h"

namespace serval {

struct ZambaBlockWeights {
  NormWeights norm;      // [2 * hidden]
  LinearWeight qkv;      // [3 * 2 * hidden, 2 * hidden]
  LinearWeight output;   // [hidden, 2 * hidden]
  NormWeights ffn_norm;  // [hidden]
  LinearWeight gate_up;  // [2 * intermediate, hidden]
  LinearWeight down;     // [hidden, intermediate]
  // A product of two matrices that is added to one; without rows: nothing is.
  struct Adapter {
    LinearWeight down, up;
  };
  struct Use {
    Adapter q, k, v, gate_up;
    LinearWeight projection;  // [hidden, hidden]
  };
  std::vector<Use> uses;
};

struct ZambaBlockSpec {
  using Weights = ZambaBlockWeights;

  int hidden = 0;
  int num_heads = 0;
  int intermediate_size = 0;
  int adapter_rank = 0;  // 0: there are none
  bool has_attention_adapters = false;
  bool has_ffn_bias = false;
  Activation activation = Activation::kGelu;
  NormSpec norm;
  // The layers that use the block: where each lies in the checkpoint, its adapters' number there, and which of them this
  // layer is. The first has the weights of all (LayerSpec::weights_of).
  struct User {
    int stored_layer, number;
  };
  std::vector<User> users;
  int user = 0;

  int width() const { return 2 * hidden; }
  int head_dim() const { return width() / num_heads; }

  void list_slots(int64_t hidden, ZambaBlockWeights& weights, SlotList& slots) const;
  int64_t scratch_width() const;
  void shape_kv(KvLayer& kv) const;
  void raise_limits(StepLimits& limits) const;
  void run(Backend& backend, const ZambaBlockWeights& weights, const MixerInput& input) const;
};

}  // namespace serval
