// The rotations that a configuration describes, in either of its spellings: rope_theta beside a rope_scaling object,
// or a rope_parameters object that holds rope_theta as well. Each function throws std::runtime_error that names the
// field.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "engine/model/config_fields.h"
#include "engine/model/model_spec.h"

namespace serval {

// What is the family's to say of its rotation.
struct RopeRules {
  double theta = 10000;  // where the configuration names none
  // Of a head, the part that rotates where partial_rotary_factor is absent; nothing: the family has no such field.
  std::optional<double> part = std::nullopt;
  bool grows = false;  // the family reads llama_4_scaling_beta, of queries
};

// One rotation for all layers that have one. When a file has both objects, rope_scaling wins, as it does in the
// reference.
RopeSpec read_rope(const Fields& config, int head_dim, int max_positions, const RopeRules& rules = {});
// The rotation that `rope`, an object of the configuration, describes. Refuses what the object has beside that.
RopeSpec read_rope_object(const Fields& config, const Fields& rope, int head_dim, int max_positions,
                          const RopeRules& rules);

// Rotations by kind of layer: of those that see everything and of those with a window.
inline constexpr int kFullRope = 0, kWindowedRope = 1;
struct RopeOfKind {
  int head_dim;
  RopeRules rules;
};
// rope_parameters has an object for each kind; or rope_theta and rope_scaling speak of kFullRope alone.
std::vector<RopeSpec> read_ropes_by_kind(const Fields& config, int max_positions, const RopeOfKind& full,
                                         const RopeOfKind& windowed);

// A rotation's base, by the field of that name.
std::optional<double> find_theta(const Fields& fields, std::string_view name);

}  // namespace serval
