// The two parts of an RWKV-7 layer (Peng et al. 2025, section 4), each of which mixes what it reads with the position before:
// one in place of attention, a scan of matrices that replace what they hold of a key, with a norm of each head and a gate
// behind, and one in place of a feed-forward part. What they keep of a sequence is a state, whatever the length. Positions
// play no part.
#pragma once

#include <vector>

#include "engine/model/mixers/mixer.h"
#include "engine/model/norm.h"

namespace serval {

// A projection through a low rank; between its two products stands a function, or nothing.
struct Rwkv7LowRank {
  std::vector<LinearWeight> low;  // one [rank, hidden]
  LinearWeight high;              // [hidden, rank]
};

struct Rwkv7TimeWeights {
  Buffer mix;                       // f32 [2, 6 * hidden]: of the position before and the own, for r, k, v, decay, rate, gate
  std::vector<LinearWeight> inner;  // of r, k and v [hidden, hidden]
  Rwkv7LowRank decay, rate, gate, value;
  Buffer signs;                        // f32 [hidden]: -1
  Buffer key_scale, key_rate, bonus;   // f32 [hidden]
  NormWeights norm;                    // [hidden]
  LinearWeight output;                 // [hidden, hidden]
};

struct Rwkv7TimeSpec {
  using Weights = Rwkv7TimeWeights;

  int hidden = 0, head_dim = 0;
  int decay_rank = 0, rate_rank = 0, gate_rank = 0, value_rank = 0;
  // It leaves its values for the layers behind, which mix theirs with them.
  bool is_first = false;
  float length_eps = 0;  // added to the square of a key's length
  NormSpec norm;         // of each head of what the scan gave

  int num_heads() const { return hidden / head_dim; }

  void list_slots(int64_t hidden, Rwkv7TimeWeights& weights, SlotList& slots) const;
  int64_t scratch_width() const;
  void shape_kv(KvLayer& kv) const;
  void raise_limits(StepLimits& limits) const;
  void run(Backend& backend, const Rwkv7TimeWeights& weights, const MixerInput& input) const;
};

struct Rwkv7ChannelWeights {
  NormWeights norm;
  Buffer mix;                    // f32 [2, hidden]
  std::vector<LinearWeight> up;  // one [width, hidden]
  LinearWeight down;             // [hidden, width]
};

struct Rwkv7ChannelSpec {
  using Weights = Rwkv7ChannelWeights;

  int hidden = 0;
  int width = 0;
  NormSpec norm;  // of what it reads: the layer's second

  void list_slots(int64_t hidden, Rwkv7ChannelWeights& weights, SlotList& slots) const;
  int64_t scratch_width() const;
  void shape_kv(KvLayer& kv) const;
  void raise_limits(StepLimits& limits) const;
  void run(Backend& backend, const Rwkv7ChannelWeights& weights, const MixerInput& input) const;
};

}  // namespace serval
