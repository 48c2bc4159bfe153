// Attention to rows that are keys and values at once: those of a window, and compressed ones, each made of a window of
// positions, of which an index may choose some (compressed sparse and heavily compressed attention; DeepSeek-V4, section 2.3).
//
// What is kept of a position lasts as long as the layer's group says: its key, and what compressing reads of it, so that a
// window that is not closed is nothing but positions of which that is kept. The compressed rows lie in another layer of the
// model (CompressedKeysSpec), whose group forgets nothing. Where a window closes is a matter of its absolute positions.
#pragma once

#include <algorithm>
#include <vector>

#include "engine/model/mixers/mixer.h"
#include "engine/model/norm.h"

namespace serval {

// How windows of positions are compressed; of the layer's keys, and of its index.
struct CompressorWeights {
  Buffer bias;      // f32 [span, dim, or 2 * dim]
  NormWeights norm;  // [dim]
};

struct CompressedAttentionWeights {
  LinearWeight query_down;  // [query_rank, hidden]
  NormWeights query_norm;   // [query_rank]
  LinearWeight query;       // [num_heads * head_dim, query_rank]
  LinearWeight key;         // [head_dim, hidden]
  NormWeights key_norm;     // [head_dim]
  Buffer sinks;             // f32 [num_heads]
  LinearWeight compressed;  // [compressed_size(), hidden]; empty where there are no compressed keys
  CompressorWeights keys, index;
  LinearWeight index_query;    // [index_heads * index_dim, query_rank]
  LinearWeight index_weights;  // [index_heads, hidden]
  std::vector<LinearWeight> output_down;  // of each group of heads [output_rank, num_heads / output_groups * head_dim]
  LinearWeight output;                    // [hidden, output_groups * output_rank]
};

struct CompressedAttentionSpec {
  using Weights = CompressedAttentionWeights;

  int num_heads = 0, head_dim = 0;
  int query_rank = 0;
  int output_groups = 0, output_rank = 0;
  int window = 0;
  NormSpec norm;    // of the queries' low rank, of each query (without weights) and of keys
  float scale = 1;  // of the scores
  int span = 0;     // positions of a compressed key; 0: there are none
  // A compressed key is made of the window before too.
  bool overlaps = false;
  int index_heads = 0, index_dim = 0;  // 0: rows attend to all compressed keys
  int top_k = 0;                       // that the index chooses

  bool has_index() const { return index_heads > 0; }
  // Of what one compressor reads of a position: as many numbers as weights.
  int64_t compressor_size(int dim) const { return 2 * (overlaps ? 2 : 1) * int64_t{dim}; }
  int64_t compressed_size() const {
    return span == 0 ? 0 : compressor_size(head_dim) + (has_index() ? compressor_size(index_dim) : 0);
  }
  // The positions before its own that the layer reads of a row, and its own.
  int read_positions() const { return std::max(window, (overlaps ? 2 : 1) * span); }

  void list_slots(int64_t hidden, CompressedAttentionWeights& weights, SlotList& slots) const;
  int64_t scratch_width() const;
  void shape_kv(KvLayer& kv) const;
  void raise_limits(StepLimits& limits) const;
  void run(Backend& backend, const CompressedAttentionWeights& weights, const MixerInput& input) const;

 private:
  void compress(Backend& backend, const CompressedAttentionWeights& weights, const MixerInput& in) const;
};

struct NoWeights {};

// The place of what another layer has compressed: a key for every `span` positions, and behind it the index's.
struct CompressedKeysSpec {
  using Weights = NoWeights;

  int span = 0;
  int row_size = 0;

  void list_slots(int64_t /*hidden*/, NoWeights&, SlotList&) const {}
  int64_t scratch_width() const { return 0; }
  void shape_kv(KvLayer& kv) const {
    kv.dtype = DType::kF32;
    kv.row_floats = row_size;
    kv.row_span = span;
  }
  void raise_limits(StepLimits&) const {}
  void run(Backend&, const NoWeights&, const MixerInput&) const {}
};
inline bool has_mixer(const CompressedKeysSpec&) {
  return false;
}

}  // namespace serval
