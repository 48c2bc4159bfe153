// The rotation table of a model: cosines and sines by position, computed once at start (Su et al. 2021;
// frequencies scaled as Llama 3.1 publishes it, or linearly as Chen et al. 2023 do).
#pragma once

#include <vector>

#include "engine/model/model_spec.h"

namespace serval {

// Radians a position turns pair i of a head by: [rotary_dim / 2].
std::vector<double> rope_frequencies(const RopeSpec& spec);

// Fills table [max_positions, rotary_dim] f32: rotary_dim / 2 cosines, then as many sines. Angles are formed
// in double precision: at position 100,000 a float angle is already wrong by a part in a hundred of a radian.
void fill_rope_table(const RopeSpec& spec, int max_positions, float* table);

}  // namespace serval
