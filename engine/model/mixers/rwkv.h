// The two parts of an RWKV-4 layer (Peng et al. 2023, section 3.1), each of which mixes what it reads with the position
// before: one in place of attention, a scan of weighted means, and one in place of a feed-forward part. What they keep of a
// sequence is a state, whatever the length. Positions play no part.
#pragma once

#include <vector>

#include "engine/model/mixers/mixer.h"
#include "engine/model/norm.h"

namespace serval {

struct RwkvTimeWeights {
  Buffer mix;                       // f32 [2, 3 * hidden]: of the position before and the own, for keys, values, gates
  std::vector<LinearWeight> inner;  // of keys, values and gates [width, hidden]
  Buffer decay, first;              // f32 [width], the decay negative
  LinearWeight output;              // [hidden, width]
};

struct RwkvTimeSpec {
  using Weights = RwkvTimeWeights;

  int hidden = 0;
  int width = 0;

  void list_slots(int64_t hidden, RwkvTimeWeights& weights, SlotList& slots) const;
  int64_t scratch_width() const;
  void shape_kv(KvLayer& kv) const;
  void raise_limits(StepLimits& limits) const;
  void run(Backend& backend, const RwkvTimeWeights& weights, const MixerInput& input) const;
};

struct RwkvChannelWeights {
  NormWeights norm;
  Buffer mix;                      // f32 [2, 2 * hidden], for keys and gates
  std::vector<LinearWeight> up;    // one [width, hidden]
  std::vector<LinearWeight> gate;  // one [hidden, hidden]
  LinearWeight down;               // [hidden, width]
};

struct RwkvChannelSpec {
  using Weights = RwkvChannelWeights;

  int hidden = 0;
  int width = 0;
  NormSpec norm;  // of what it reads: the layer's second

  void list_slots(int64_t hidden, RwkvChannelWeights& weights, SlotList& slots) const;
  int64_t scratch_width() const;
  void shape_kv(KvLayer& kv) const;
  void raise_limits(StepLimits& limits) const;
  void run(Backend& backend, const RwkvChannelWeights& weights, const MixerInput& input) const;
};

}  // namespace serval
