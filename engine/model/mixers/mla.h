// Multi-head latent attention (DeepSeek-V2, section 2.1): keys and values of all heads are made of one latent vector a
// position, which is all that is kept of it beside one rotated key that the heads share. The matrices that would make
// keys and values of the latent are multiplied into queries and answers instead, so that attention runs over the
// latents as over one key-value head, for prompts and single tokens alike. The latent is kept twice, as part of the key
// and as the value, since keys and values lie in different orders in a block (kernels/cpu/kernel_table.h).
#pragma once

#include <vector>

#include "engine/model/mixers/indexer.h"
#include "engine/model/mixers/mixer.h"

namespace serval {

struct MlaWeights {
  LinearWeight query_down;              // [query_rank, hidden]; empty without a query_rank
  NormWeights query_norm;               // [query_rank]
  LinearWeight query;                   // [num_heads * plain_dim, query_rank or hidden]
  std::vector<LinearWeight> query_rot;  // of each head [rotary_dim, query_rank or hidden]
  std::vector<LinearWeight> key_up;     // of each head [latent_dim, plain_dim]: keys of the latent, turned round
  LinearWeight latent;                  // [latent_dim + rotary_dim, hidden]
  NormWeights latent_norm;              // [latent_dim]
  std::vector<LinearWeight> value_up;   // of each head [value_dim, latent_dim]
  LinearWeight gate;                    // [num_heads * value_dim, hidden]; empty where there is none
  LinearWeight output;                  // [hidden, num_heads * value_dim]
  IndexerWeights indexer;
};

struct MlaSpec {
  using Weights = MlaWeights;

  int num_heads = 0;
  int query_rank = 0;  // 0: queries are made of the hidden state at once
  int latent_dim = 0;
  int plain_dim = 0;   // of a query and a key, those that do not rotate
  int rotary_dim = 0;  // and those that do
  int value_dim = 0;   // of a head
  bool has_bias = false;  // on query_down, latent and output
  // The file has the two numbers of a pair that rotates side by side.
  bool has_neighbour_pairs = true;
  // What a head answers is multiplied by the sigmoid of a number that is made of the hidden state (Ling 3); the row of
  // the number is held once for each of the head's values.
  bool has_head_gate = false;
  NormSpec norm;    // of the queries' low rank, and of the latent
  float scale = 1;  // of the scores
  // A layer with one reads what it chooses; one that attends to the chosen without reads what the layer before it did
  // (GLM-5).
  IndexerSpec indexer;
  bool attends_to_chosen = false;

  int key_dim() const { return latent_dim + rotary_dim; }
  // Of a key that is kept.
  int kept_dim() const { return key_dim() + indexer.kept_dim(1); }

  void list_slots(int64_t hidden, MlaWeights& weights, SlotList& slots) const;
  int64_t scratch_width() const;
  void shape_kv(KvLayer& kv) const;
  void raise_limits(StepLimits& limits) const;
  void run(Backend& backend, const MlaWeights& weights, const MixerInput& input) const;
};

}  // namespace serval
