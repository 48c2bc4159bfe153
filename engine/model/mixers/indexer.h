// What chooses the keys that a layer of attention reads (DeepSeek-V3.2, section 2.1; MiniMax-M3): small queries of each
// position meet one small key of every other, which is kept behind the layer's own keys. Part of the mixers that have
// one.
#pragma once

#include <cstdint>
#include <string>

#include "engine/model/mixers/mixer.h"
#include "engine/model/norm.h"

namespace serval {

struct IndexerWeights {
  LinearWeight query;    // [num_heads * head_dim, what queries are made of]
  LinearWeight key;      // [head_dim, hidden]
  LinearWeight weights;  // [num_heads, hidden]; empty where heads choose by themselves
  NormWeights query_norm, key_norm;  // [head_dim]
};

struct IndexerSpec {
  int num_heads = 0;
  int head_dim = 0;
  // The heads' scores are added by weights that are made of the hidden state, and all KV heads read what they choose;
  // else each KV head has a head that chooses for it.
  bool has_weights = true;
  // In the file the two numbers of a pair that rotates lie side by side, in the first so many of a head; 0: they do not.
  int interleaved_dims = 0;
  NormSpec query_norm, key_norm;  // of each head, before the rotation; an RMS norm or a LayerNorm with a bias
  int top_k = 0;                  // blocks that are chosen
  int block = 1;                  // positions of a block
  int local = 0;                  // the last blocks, which always are

  bool is_there() const { return num_heads > 0; }
  // Elements of each of so many kept keys that are the index's.
  int kept_dim(int num_kv_heads) const { return is_there() ? head_dim / num_kv_heads : 0; }

  // `query_in`: columns of the queries' matrix.
  void list_slots(int64_t hidden, int64_t query_in, IndexerWeights& weights, SlotList& slots) const;
  // Elements of a row of the scratch that run() takes.
  int64_t scratch_width() const;
  void raise_limits(StepLimits& limits) const;

  // What the index makes of a step's rows.
  struct Rows {
    Tensor q;        // [num_rows, num_heads, head_dim]
    Tensor key;      // [num_rows, head_dim]
    Tensor weights;  // [num_rows, num_heads]; data null where there are none
  };
  // from: what queries are made of. scratch: of the rows, scratch_width() elements each.
  Rows make(Backend& backend, const IndexerWeights& weights, const MixerInput& in, const Tensor& from,
            const Tensor& scratch) const;
  // Once keys are written, each behind `kept_from` numbers of a layer's own.
  void choose(Backend& backend, const Rows& rows, const MixerInput& in, int kept_from) const;
};

}  // namespace serval
