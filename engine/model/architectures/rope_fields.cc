#include "engine/model/architectures/rope_fields.h"

#include <cmath>
#include <limits>
#include <string>

#include "engine/model/harmless_fields.h"
#include "kernels/base/shown.h"

namespace serval {
namespace {

constexpr std::string_view kOriginal = "original_max_position_embeddings";

// The context that the model was made with before its rotation was stretched.
int read_original(const Fields& config, const Fields& rope, int max_positions) {
  const std::optional<int> within = rope.find_int(kOriginal, 1, kMaxPositions);
  return config.find_int(kOriginal, 1, kMaxPositions).value_or(within.value_or(max_positions));
}

double get_factor(const Fields& rope) {
  const std::optional<double> factor = rope.find_positive("factor", 1e6);
  if (!factor) rope.refuse("factor", "is missing");
  return *factor;
}

std::vector<double> read_factors(const Fields& rope, std::string_view field, int pairs) {
  std::vector<double> factors;
  for (const boost::json::value& factor : rope.get_array(field)) {
    if (!factor.is_number() || !(factor.to_number<double>() > 0))
      rope.refuse(field, "must be an array of numbers above 0");
    factors.push_back(factor.to_number<double>());
  }
  if (static_cast<int>(factors.size()) != pairs)
    rope.refuse(field, "must have a factor for each of the " + std::to_string(pairs) +
                           " pairs of dimensions that rotate");
  return factors;
}

// One function of this shape for each rope_type: `rope` describes, `spec` has theta and rotary_dim.
using ReadType = void (*)(const Fields& config, const Fields& rope, int max_positions, RopeSpec& spec);

void read_linear(const Fields&, const Fields& rope, int, RopeSpec& spec) {
  spec.scaling = {.type = RopeScaling::Type::kLinear, .factor = get_factor(rope), .factors = {}};
}

void read_llama3(const Fields& config, const Fields& rope, int max_positions, RopeSpec& spec) {
  spec.scaling = {.type = RopeScaling::Type::kLlama3, .factor = get_factor(rope), .factors = {}};
  const std::optional<double> low = rope.find_positive("low_freq_factor", 1e6);
  const std::optional<double> high = rope.find_positive("high_freq_factor", 1e6);
  if (!low || !high || *low >= *high)
    rope.refuse("high_freq_factor", "and low_freq_factor must both be there, the first above the second");
  spec.scaling.low_freq_factor = *low;
  spec.scaling.high_freq_factor = *high;
  spec.scaling.original_max_positions = read_original(config, rope, max_positions);
}

// By a base that grows with sequences longer than max_position_embeddings, up to `factor` times that; or (Hunyuan) by one
// that a fixed alpha stretches, which leaves out the other fields.
void read_dynamic(const Fields&, const Fields& rope, int max_positions, RopeSpec& spec) {
  if (const std::optional<double> alpha = rope.find_positive("alpha", 1e15)) {
    spec.theta *= std::pow(*alpha, double(spec.rotary_dim) / (spec.rotary_dim - 2));
    rope.ignore({"factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"});
    return;
  }
  const double factor = get_factor(rope);
  if (factor * max_positions > kMaxPositions)
    rope.refuse("factor", "makes a context of more than " + std::to_string(kMaxPositions) + " positions");
  if (spec.rotary_dim <= 2) rope.refuse("type", "dynamic needs more than 2 dimensions of a head that rotate");
  add_dynamic_lengths(factor, max_positions, spec);
}

void read_yarn(const Fields& config, const Fields& rope, int max_positions, RopeSpec& spec) {
  const int original = read_original(config, rope, max_positions);
  const YarnScaling yarn{.factor = rope.find_positive("factor", 1e6).value_or(double(max_positions) / original),
                         .original_max_positions = original,
                         .beta_fast = rope.find_positive("beta_fast", 1e6).value_or(32),
                         .beta_slow = rope.find_positive("beta_slow", 1e6).value_or(1),
                         .truncate = rope.get_bool("truncate", true)};
  spec.scaling = {.type = RopeScaling::Type::kByPair,
                  .factors = yarn_factors(spec.theta, spec.rotary_dim, yarn)};
  const auto amplitude = [&](double mscale) {
    return yarn.factor <= 1 ? 1.0 : 0.1 * mscale * std::log(yarn.factor) + 1;
  };
  const double mscale = rope.find_number("mscale", 0, 1e6).value_or(0);
  const double all_dims = rope.find_number("mscale_all_dim", 0, 1e6).value_or(0);
  spec.amplitude =
      rope.find_positive("attention_factor", 1e6)
          .value_or(mscale > 0 && all_dims > 0 ? amplitude(mscale) / amplitude(all_dims) : amplitude(1));
  rope.ignore({"finetuned"});
}

// LongRoPE (Ding et al. 2024): short_factor for sequences within the original context, long_factor for longer ones.
void read_longrope(const Fields& config, const Fields& rope, int max_positions, RopeSpec& spec) {
  const int original = read_original(config, rope, max_positions);
  const double stretch = rope.find_positive("factor", 1e6).value_or(double(max_positions) / original);
  const double amplitude = stretch <= 1 ? 1 : std::sqrt(1 + std::log(stretch) / std::log(double(original)));
  spec.amplitude = rope.find_positive("attention_factor", 1e6).value_or(amplitude);
  spec.scaling.type = RopeScaling::Type::kByPair;
  RopeSpec longer = spec;
  spec.scaling.factors = read_factors(rope, "short_factor", spec.rotary_dim / 2);
  longer.scaling.factors = read_factors(rope, "long_factor", spec.rotary_dim / 2);
  // Phi-3.5-MoE names the amplitudes.
  spec.amplitude = rope.find_positive("short_mscale", 1e6).value_or(spec.amplitude);
  longer.amplitude = rope.find_positive("long_mscale", 1e6).value_or(longer.amplitude);
  if (original >= max_positions) return;
  spec.holds_until = original;
  spec.longer = {longer};
}

// All of a head counts for the frequencies, of which those behind the part that rotates are 0.
void read_proportional(const Fields&, const Fields& rope, int, RopeSpec& spec) {
  const double factor = rope.find_positive("factor", 1e6).value_or(1);
  const double part = rope.find_number("partial_rotary_factor", 0, 1).value_or(1);
  spec.scaling = {.type = RopeScaling::Type::kByPair,
                  .factors = std::vector<double>(spec.rotary_dim / 2, std::numeric_limits<double>::infinity())};
  const int rotating = static_cast<int>(part * spec.rotary_dim) / 2;
  for (int i = 0; i < rotating; ++i) spec.scaling.factors[i] = factor;
}

// Positions of three kinds, for pictures; of text all three are the same.
void read_multimodal(const Fields&, const Fields& rope, int, RopeSpec&) {
  rope.ignore({"mrope_section", "mrope_interleaved"});
}

struct TypeRow {
  std::string_view name;
  ReadType read;
};
constexpr TypeRow kTypes[] = {{"default", read_multimodal}, {"linear", read_linear},
                              {"dynamic", read_dynamic},    {"llama3", read_llama3},
                              {"yarn", read_yarn},          {"longrope", read_longrope},
                              {"su", read_longrope},        {"proportional", read_proportional},
                              {"mrope", read_multimodal}};

int rotary_dim_of(const Fields& config, const Fields* rope, int head_dim, const RopeRules& rules) {
  if (!rules.part) return head_dim;
  constexpr std::string_view kPart = "partial_rotary_factor";
  double part = config.find_number(kPart, 0.01, 1).value_or(*rules.part);
  if (rope != nullptr) part = rope->find_number(kPart, 0.01, 1).value_or(part);
  const int rotary_dim = static_cast<int>(head_dim * part);
  if (rotary_dim < 2 || rotary_dim % 2 != 0)
    config.refuse(kPart, "rotates " + std::to_string(rotary_dim) +
                             " dimensions of a head; it must be an even number");
  return rotary_dim;
}

}  // namespace

std::optional<double> find_theta(const Fields& fields, std::string_view name) {
  return fields.find_positive(name, 1e15);
}

RopeSpec read_rope_object(const Fields& config, const Fields& rope, int head_dim, int max_positions,
                          const RopeRules& rules) {
  RopeSpec spec{.theta = find_theta(rope, "rope_theta").value_or(rules.theta), .scaling = {}};
  const std::string_view type_field = rope.find("rope_type") != nullptr ? "rope_type" : "type";
  const std::string type = rope.find_string(type_field).value_or("default");
  rope.find("type");
  // Of proportional rotations the part says how many frequencies are not 0.
  spec.rotary_dim = type == "proportional" ? head_dim : rotary_dim_of(config, &rope, head_dim, rules);
  if (rules.grows) {
    spec.growth = rope.find_number("llama_4_scaling_beta", 0, 1e6).value_or(0);
    spec.growth_span = read_original(config, rope, max_positions);
    rope.ignore({"max_position_embeddings"});
  }
  std::string supported;
  for (const TypeRow& row : kTypes) {
    if (row.name == type) {
      row.read(config, rope, max_positions, spec);
      read_original(config, rope, max_positions);  // the reference writes it whatever the type
      refuse_unasked(rope);
      return spec;
    }
    supported += (supported.empty() ? "" : ", ") + std::string(row.name);
  }
  rope.refuse(type_field, in_quotes(type) + " is not supported; supported are " + supported);
}

RopeSpec read_rope(const Fields& config, int head_dim, int max_positions, const RopeRules& rules) {
  RopeRules outside = rules;
  outside.theta = find_theta(config, "rope_theta").value_or(rules.theta);
  config.find(kOriginal);  // of some types alone
  std::optional<Fields> rope = config.find_object("rope_scaling");
  if (config.find("rope_parameters") != nullptr && !rope) rope = config.find_object("rope_parameters");
  if (!rope)
    return {.theta = outside.theta,
            .scaling = {},
            .rotary_dim = rotary_dim_of(config, nullptr, head_dim, outside)};
  for (const std::string_view layer_type : {"full_attention", "sliding_attention"}) {
    if (rope->find(layer_type) != nullptr)
      rope->refuse(layer_type, "is not supported: one rotation for all layers is");
  }
  return read_rope_object(config, *rope, head_dim, max_positions, outside);
}

std::vector<RopeSpec> read_ropes_by_kind(const Fields& config, int max_positions, const RopeOfKind& full,
                                         const RopeOfKind& windowed) {
  RopeOfKind outside = full;
  outside.rules.theta = find_theta(config, "rope_theta").value_or(full.rules.theta);
  const auto rope_of = [&](const std::optional<Fields>& rope, const RopeOfKind& kind) {
    if (rope) return read_rope_object(config, *rope, kind.head_dim, max_positions, kind.rules);
    return RopeSpec{.theta = kind.rules.theta,
                    .scaling = {},
                    .rotary_dim = rotary_dim_of(config, nullptr, kind.head_dim, kind.rules)};
  };
  std::vector<RopeSpec> ropes(2);
  ropes[kFullRope] = rope_of(config.find_object("rope_scaling"), outside);
  ropes[kWindowedRope] = rope_of(std::nullopt, windowed);
  if (const std::optional<Fields> parameters = config.find_object("rope_parameters")) {
    if (std::optional<Fields> of_full = parameters->find_object("full_attention"))
      ropes[kFullRope] = rope_of(of_full, outside);
    if (std::optional<Fields> of_windowed = parameters->find_object("sliding_attention"))
      ropes[kWindowedRope] = rope_of(of_windowed, windowed);
    refuse_unasked(*parameters);
  }
  return ropes;
}

}  // namespace serval
