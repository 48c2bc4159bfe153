// A decoder as data: what every layer is made of, how rows are rotated, which layers share KV block tables.
// Built from a ModelConfig by a function of architectures.cc, executed by Transformer. It knows no checkpoint
// names and holds no weights.
//
// The guard against a soup of flags: a field may switch one line of one block; whatever changes structure
// (latent attention, experts) is a new alternative of AttentionSpec or FfnSpec with its own block function.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "engine/model/model_config.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace serval {

// Grouped-query attention (Ainslie et al. 2023); num_kv_heads == num_heads is plain multi-head attention.
struct GqaSpec {
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  bool qkv_bias = false;
  bool output_bias = false;
  bool qk_norm = false;  // RMS norm over each head of q and k, before the rotation (Qwen3)
  float scale = 1;       // of the scores: 1 / sqrt(head_dim)
  int kv_group = 0;      // into ModelSpec::kv_groups

  int64_t q_size() const { return int64_t{num_heads} * head_dim; }
  int64_t kv_size() const { return int64_t{num_kv_heads} * head_dim; }
  int64_t qkv_size() const { return q_size() + 2 * kv_size(); }
};
using AttentionSpec = std::variant<GqaSpec>;

// down(activation(gate(x)) * up(x)) (Shazeer 2020, GLU variants).
struct DenseFfnSpec {
  int intermediate_size = 0;
  Activation activation = Activation::kSilu;
  bool bias = false;  // on gate, up and down
};
using FfnSpec = std::variant<DenseFfnSpec>;

// Pre-norm residual layer: x += attention(norm(x)); x += ffn(norm(x)).
struct LayerSpec {
  AttentionSpec attention;
  FfnSpec ffn;
};

// Layers that share block tables because they forget the same positions.
struct KvGroupSpec {
  int window = 0;           // 0: every position stays visible; w: a row at position p sees positions > p - w
  std::vector<int> layers;  // ascending
};

struct RopeSpec {
  double theta = 10000;
  RopeScaling scaling;
  int rotary_dim = 0;  // dimensions of a head that rotate
};

struct ModelSpec {
  std::string architecture;
  int vocab_size = 0;
  int hidden_size = 0;
  int max_positions = 0;
  float norm_eps = 1e-6f;
  bool tied_embeddings = false;       // the output head is the embedding table
  DType weight_dtype = DType::kBF16;  // of the matrices; norms and biases are f32
  RopeSpec rope;
  std::vector<LayerSpec> layers;
  std::vector<KvGroupSpec> kv_groups;  // 1..kMaxKvGroups; every layer is in exactly one

  int num_layers() const { return static_cast<int>(layers.size()); }
};

// The row of the architecture table (architectures.h) applied to a configuration. Throws std::runtime_error
// with a sentence when the architecture is not in the table.
ModelSpec make_model_spec(const ModelConfig& config);

}  // namespace serval
