// Grouped-query attention with rotary positions over paged keys and values (Ainslie et al. 2023); as many
// key-value heads as heads is plain multi-head attention.
#pragma once

#include <optional>
#include <vector>

#include "engine/model/mixers/indexer.h"
#include "engine/model/mixers/mixer.h"

namespace serval {

// What of q and k is normalised, and when.
enum class HeadNormPlace : uint8_t {
  kEachHead,         // each head, before the rotation (Qwen3; by a LayerNorm: Persimmon)
  kAllHeads,         // all heads as one, before the rotation (OLMo 2)
  kHeadByHead,       // each head by a weight of its own, before the rotation (Cohere, StableLM 2): LayerNorm
  kEachRotatedHead,  // each head, after the rotation (Hunyuan)
};

// Keys that a second query of each row meets (AttentionArgs::far_q): those `near` or more positions away, of them the
// first num_far positions alone (0: all).
struct FarKeysSpec {
  int near = 0;
  int num_far = 0;
  // They are kept rotated another way beside the keys that are near.
  bool has_own_keys = false;
};

struct GqaWeights {
  LinearWeight qkv;     // [gate_size + q_size + kv_size + value_size, hidden]: gate, q, k, v rows in this order
  LinearWeight head_gate;  // [answer_size, hidden]; empty where there is none
  LinearWeight output;  // [hidden, answer_size]
  NormWeights q_norm;   // [head_dim], or of all heads together
  NormWeights k_norm;
  Buffer slopes;  // f32 [num_heads], or empty
  Buffer sinks;  // f32 [num_heads]; empty where there are none
  IndexerWeights indexer;
};

struct GqaSpec {
  using Weights = GqaWeights;

  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  int value_dim = 0;  // of a value, where it is less than head_dim; 0: it is not
  bool qkv_bias = false;
  bool output_bias = false;
  NormSpec head_norm;  // of q and of k
  HeadNormPlace head_norm_place = HeadNormPlace::kEachHead;
  NormSpec value_norm;           // of each head of v: an RMS norm without weights
  bool has_keys = true;          // else those of another layer are read (LayerSpec::kv_source)
  bool has_value_matrix = true;  // else values are what keys are before their norm (Gemma 4)
  // What was attended to is multiplied by the sigmoid of a projection of the input (Qiu et al. 2025).
  bool has_gate = false;
  // Each head's gate lies behind its query in one tensor of the checkpoint (Qwen3-Next).
  bool has_gate_in_queries = false;
  // What a head answers is multiplied by the sigmoid of one number (LFM3); its row is held once for each of the head's values.
  bool has_head_gate = false;
  bool has_sinks = false;  // scores without a value that join each head's softmax (gpt-oss; Xiao et al. 2023)
  float scale = 1;     // of the scores: 1 / sqrt(head_dim)
  float soft_cap = 0;  // 0: none; c: scores become c * tanh(score / c)
  float qkv_limit = 0;  // 0: none; c: of q, k and v what lies within -c..c (MPT)
  // The checkpoint has the first so many dimensions of each head of q and k as pairs of neighbours that rotate
  // together; here they rotate in halves.
  int interleaved_dims = 0;
  bool sees_ahead = false;  // rows see those behind them (AttentionArgs)
  std::optional<FarKeysSpec> far;
  IndexerSpec indexer;  // what chooses the keys, where that is not all
  // Of each head: what a score falls by for each position to its key (ALiBi); empty: nothing.
  std::vector<float> slopes;

  int64_t q_size() const { return int64_t{num_heads} * head_dim; }
  int64_t kv_size() const { return int64_t{num_kv_heads} * head_dim; }
  bool has_layer_norms() const {
    return head_norm_place == HeadNormPlace::kHeadByHead || head_norm.kind == NormSpec::Kind::kLayer;
  }
  int value_width() const { return value_dim > 0 ? value_dim : head_dim; }
  int64_t value_size() const { return int64_t{num_kv_heads} * value_width(); }
  int64_t answer_size() const { return int64_t{num_heads} * value_width(); }
  int64_t gate_size() const { return has_gate ? q_size() : 0; }
  int64_t qkv_size() const { return gate_size() + q_size() + (has_keys ? kv_size() + value_size() : 0); }

  void list_slots(int64_t hidden, GqaWeights& weights, SlotList& slots) const;
  // Of a key that is kept, and of the queries for it.
  int kept_dim() const {
    return (far && far->has_own_keys ? 2 * head_dim : head_dim) + indexer.kept_dim(num_kv_heads);
  }
  // Elements of a row of what is made of the projection where there are far keys: two queries, key and value.
  int64_t far_size() const { return far ? int64_t{2 * num_heads + num_kv_heads} * kept_dim() + kv_size() : 0; }

  // Of a row of keys with what the index keeps behind them, and their values.
  int64_t indexed_size() const { return indexer.is_there() ? int64_t{num_kv_heads} * kept_dim() + value_size() : 0; }

  int64_t scratch_width() const {
    return qkv_size() + answer_size() + far_size() + indexed_size() + indexer.scratch_width();
  }
  void shape_kv(KvLayer& kv) const;
  void raise_limits(StepLimits& limits) const;
  void run(Backend& backend, const GqaWeights& weights, const MixerInput& input) const;

 private:
  // Writes what choose_keys() will read behind the keys, and chooses.
  void write_indexed(Backend& backend, const GqaWeights& weights, const QkNormRopeWriteKvArgs& heads, const MixerInput& in,
                     const Tensor& room) const;
  void attend_far(Backend& backend, const QkNormRopeWriteKvArgs& heads, const MixerInput& in, const Tensor& room,
                  AttentionArgs args) const;
};

}  // namespace serval
