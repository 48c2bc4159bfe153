// The rotation of a layer's heads: its parameters, and the table of cosines and sines by position that is
// computed from them once at start (Su et al. 2021; frequencies scaled as Llama 3.1 publishes it, or linearly
// as Chen et al. 2023 do).
#pragma once

#include <cstdint>
#include <vector>

namespace serval {

// How frequencies are divided: by nothing, by one factor, by Llama 3.1's function of the frequency (rope_type
// "llama3"), or each pair's by a factor of its own.
struct RopeScaling {
  enum class Type : uint8_t { kNone, kLinear, kLlama3, kByPair } type = Type::kNone;
  double factor = 1;
  double low_freq_factor = 1;
  double high_freq_factor = 4;
  int original_max_positions = 0;
  std::vector<double> factors;  // [rotary_dim / 2]
};

struct RopeSpec {
  double theta = 10000;
  RopeScaling scaling;
  int rotary_dim = 0;    // dimensions of a head that rotate
  double amplitude = 1;  // of cosines and sines
};

// Radians a position turns pair i of a head by: [rotary_dim / 2].
std::vector<double> rope_frequencies(const RopeSpec& spec);

// Fills table [max_positions, rotary_dim] f32: rotary_dim / 2 cosines, then as many sines. Angles are formed
// in double precision: at position 100,000 a float angle is already wrong by a part in a hundred of a radian.
void fill_rope_table(const RopeSpec& spec, int max_positions, float* table);

}  // namespace serval
