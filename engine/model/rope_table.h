// The rotation of a layer's heads: its parameters, and the table of cosines and sines by position that is
// computed from them once at start (Su et al. 2021; frequencies scaled as Llama 3.1 publishes it, or linearly
// as Chen et al. 2023 do). Where long sequences are rotated another way, there is a table for each class of lengths
// (engine/length_classes.h).
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
  // At position p the two are multiplied by 1 + growth * ln(1 + floor((p + growth_ahead) / growth_span)) as well
  // (Llama 4).
  double growth = 0;
  int growth_span = 1, growth_ahead = 0;
  // Sequences that may become longer than this are rotated by the first of `longer` that holds for them; 0: this one
  // holds for all.
  int holds_until = 0;
  std::vector<RopeSpec> longer = {};  // ascending by holds_until

  // That of sequences of up to so many positions.
  const RopeSpec& for_length(int length) const;
};

// A rotation of pairs by no angle: what grows is all that it does (LayerSpec::query_growth).
RopeSpec growth_alone(double growth, int span, int ahead = 0);

// YaRN (Peng et al. 2023, section 3.2): pairs that turn more than beta_fast times within the original context keep
// their frequency, those that turn less than beta_slow times are stretched by `factor`, between them a ramp.
struct YarnScaling {
  double factor = 1;
  int original_max_positions = 0;
  double beta_fast = 32;
  double beta_slow = 1;
  bool truncate = true;  // the ramp begins and ends at whole pairs
};
// What each pair's frequency is divided by: [rotary_dim / 2].
std::vector<double> yarn_factors(double theta, int rotary_dim, const YarnScaling& scaling);

// By a base that grows with the length of the sequence (dynamic NTK: bloc97 2023): as it would be for sequences of twice
// max_positions, four times, and so on up to factor * max_positions, so that there are few tables.
void add_dynamic_lengths(double factor, int max_positions, RopeSpec& spec);

// Radians a position turns pair i of a head by: [rotary_dim / 2].
std::vector<double> rope_frequencies(const RopeSpec& spec);

// Fills table [max_positions, rotary_dim] f32: rotary_dim / 2 cosines, then as many sines. Angles are formed
// in double precision: at position 100,000 a float angle is already wrong by a part in a hundred of a radian.
void fill_rope_table(const RopeSpec& spec, int max_positions, float* table);

}  // namespace serval
