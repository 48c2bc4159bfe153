// Features of recurrences (golden_features.h).
#pragma once

#include <limits>

#include "tests/engine/model/golden_features.h"

namespace serval::testing {

inline MambaWeights& mamba(LayerWeights& w) {
  return std::get<MambaWeights>(w.mixer);
}
inline Feature without_memory() {  // a state is gone after a position
  return with_scaled("state", [](LayerWeights& w) -> Buffer& { return mamba(w).rates; }, 1e9f);
}
inline Feature without_skip() {
  return with_scaled("skip", [](LayerWeights& w) -> Buffer& { return mamba(w).skip; }, 0);
}
inline Feature without_conv_bias() {
  return with_scaled("bias of the convolution", [](LayerWeights& w) -> Buffer& { return mamba(w).conv_bias; }, 0);
}
inline Feature without_inner_norms() {
  return of_mixers<MambaSpec>("norms of step, b and c", [](MambaSpec& mixer) { mixer.inner_norm = {}; });
}
template <class Spec>
Feature without_memory_of() {
  return of_mixer_weights<Spec>("state", [](auto& w) { scale_all(w.rates, 1e9f); });
}
template <class Spec>
Feature without_gated_norm() {
  return of_mixers<Spec>("norm of what a scan gave", [](Spec& mixer) { mixer.norm.eps = 1e9f; });
}
template <class Spec>
Feature without_last_input() {  // a convolution of what stands before
  return of_mixer_weights<Spec>("convolution", [](auto& w) {
    const size_t first = w.conv.bytes / sizeof(float) / 2;
    for (size_t i = 0; i < first; ++i) w.conv.template as<float>()[i] = 0;
  });
}
// The own position alone.
template <class Weights>
void without_mixture(Weights& w) {
  const size_t half = w.mix.bytes / sizeof(float) / 2;
  for (size_t i = 0; i < 2 * half; ++i) w.mix.template as<float>()[i] = i < half ? 0 : 1;
}
inline Feature without_step_limits() {
  return of_mixers<Mamba2Spec>("limits of a step", [](Mamba2Spec& mixer) {
    mixer.least_step = 0;
    mixer.most_step = std::numeric_limits<float>::infinity();
  });
}
inline Feature with_one_group() {  // the groups' keys and queries change places
  return of_mixers<Mamba2Spec>("groups", [](Mamba2Spec& mixer) {
    mixer.num_states *= mixer.num_groups;
    mixer.num_groups = 1;
  });
}
inline Feature without_delta_rule() {
  return of_mixers<DeltaNetSpec>("strength of what is taken in", [](DeltaNetSpec& mixer) { mixer.beta_scale = 0.3f; });
}
inline Feature without_unit_length() {
  return of_mixer_weights<DeltaNetSpec>("length of keys", [](DeltaNetWeights& w) { scale_all(w.unit, 2); });
}
inline Feature without_head_norm_of_attention() {
  return of_mixers<GqaSpec>("q and k norm", [](GqaSpec& mixer) { mixer.head_norm = {}; });
}

}  // namespace serval::testing
