// What RWKV's parts read (Peng et al. 2023, section 3.1): mixtures of each row with the row of the position before.
#pragma once

#include <vector>

#include "engine/model/mixers/mixer.h"

namespace serval {

// `uses` mixtures [num_rows, uses * hidden] of h's rows with those before them; mix f32 [2, uses * hidden], the shares of the
// position before, then of the own: taps of a convolution, whose inputs the layer keeps. copies: of the same shape.
void mix_rows(Backend& backend, const MixerInput& in, const Tensor& h, const Buffer& mix, int64_t uses, const Tensor& copies,
              const Tensor& mixed);

// Products of mixtures from number `first` on, each by its own matrix, one behind the other.
void project_mixed(Backend& backend, const Tensor& mixed, int64_t hidden, int64_t first, const std::vector<LinearWeight>& matrices,
                   const Tensor& out);

}  // namespace serval
