// What the configurations of models with Mamba 2's mixer say in the same words.
#pragma once

#include <optional>
#include <string_view>

#include "engine/model/config_fields.h"
#include "engine/model/model_spec.h"

namespace serval {

// The mixer of a hybrid, by fields that begin with mamba_; `inner` where they say how wide it is otherwise than by
// mamba_expand. Its norm is `norm`.
Mamba2Spec read_mamba2_mixer(const Fields& config, int hidden_size, const NormSpec& norm,
                             std::optional<int> inner = {});

// [least, most] of a step; the last may be infinite, in any spelling of the reference's: Infinity, or an object
// {"__float__": "Infinity"}.
void read_step_limits(const Fields& config, std::string_view field, Mamba2Spec& mixer);

}  // namespace serval
