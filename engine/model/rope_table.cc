#include "engine/model/rope_table.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

namespace serval {
namespace {

// Llama 3.1: wavelengths short against the original context stay, long ones are stretched by `factor`, and
// between the two bounds the frequency is interpolated.
double scale_llama3(double frequency, const RopeScaling& scaling) {
  const double turns =
      scaling.original_max_positions * frequency / (2 * std::numbers::pi);  // within the original context
  if (turns > scaling.high_freq_factor) return frequency;
  if (turns < scaling.low_freq_factor) return frequency / scaling.factor;
  const double smooth =
      (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
  return (1 - smooth) * frequency / scaling.factor + smooth * frequency;
}

}  // namespace

RopeSpec growth_alone(double growth, int span, int ahead) {
  return {.scaling = {.type = RopeScaling::Type::kByPair, .factors = {std::numeric_limits<double>::infinity()}},
          .rotary_dim = 2,
          .growth = growth,
          .growth_span = span,
          .growth_ahead = ahead};
}

std::vector<double> yarn_factors(double theta, int rotary_dim, const YarnScaling& scaling) {
  // The pair, as a fraction, that turns so often within the original context.
  const auto pair_of = [&](double turns) {
    return rotary_dim * std::log(scaling.original_max_positions / (turns * 2 * std::numbers::pi)) /
           (2 * std::log(theta));
  };
  double low = pair_of(scaling.beta_fast), high = pair_of(scaling.beta_slow);
  if (scaling.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, rotary_dim - 1.0);
  if (low == high) high += 0.001;
  std::vector<double> factors(rotary_dim / 2);
  for (size_t i = 0; i < factors.size(); ++i) {
    const double stretched = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    factors[i] = 1 / (stretched / scaling.factor + 1 - stretched);
  }
  return factors;
}

const RopeSpec& RopeSpec::for_length(int length) const {
  if (holds_until == 0 || length <= holds_until || longer.empty()) return *this;
  for (const RopeSpec& rope : longer)
    if (rope.holds_until == 0 || length <= rope.holds_until) return rope;
  return longer.back();
}

void add_dynamic_lengths(double factor, int max_positions, RopeSpec& spec) {
  const auto longest = static_cast<int64_t>(factor * max_positions);
  const RopeSpec plain = spec;
  for (int64_t length = max_positions; length < longest;) {
    length = std::min(2 * length, longest);
    RopeSpec& rope = spec.longer.emplace_back(plain);
    rope.holds_until = static_cast<int>(length);
    const double stretch = factor * static_cast<double>(length) / max_positions - (factor - 1);
    rope.theta *= std::pow(stretch, double(spec.rotary_dim) / (spec.rotary_dim - 2));
  }
  if (!spec.longer.empty()) spec.holds_until = max_positions;
}

std::vector<double> rope_frequencies(const RopeSpec& spec) {
  std::vector<double> frequencies(spec.rotary_dim / 2);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double frequency = std::pow(spec.theta, -2.0 * static_cast<double>(i) / spec.rotary_dim);
    switch (spec.scaling.type) {
      case RopeScaling::Type::kNone:
        frequencies[i] = frequency;
        break;
      case RopeScaling::Type::kLinear:
        frequencies[i] = frequency / spec.scaling.factor;
        break;
      case RopeScaling::Type::kLlama3:
        frequencies[i] = scale_llama3(frequency, spec.scaling);
        break;
      case RopeScaling::Type::kByPair:
        frequencies[i] = frequency / spec.scaling.factors[i];
        break;
    }
  }
  return frequencies;
}

void fill_rope_table(const RopeSpec& spec, int max_positions, float* table) {
  const std::vector<double> frequencies = rope_frequencies(spec);
  for (int position = 0; position < max_positions; ++position) {
    float* cosines = table + size_t(position) * spec.rotary_dim;
    float* sines = cosines + frequencies.size();
    const double amplitude =
        spec.amplitude * (1 + spec.growth * std::log(1.0 + std::floor(double(position + spec.growth_ahead) / spec.growth_span)));
    for (size_t i = 0; i < frequencies.size(); ++i) {
      const double angle = position * frequencies[i];
      cosines[i] = static_cast<float>(amplitude * std::cos(angle));
      sines[i] = static_cast<float>(amplitude * std::sin(angle));
    }
  }
}

}  // namespace serval
