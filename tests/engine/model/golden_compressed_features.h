// Features of attention to compressed keys and of mixed residuals (golden_features.h).
#pragma once

#include "tests/engine/model/golden_features.h"

namespace serval::testing {

inline Feature of_compressed(const std::string& name, const std::function<void(CompressedAttentionWeights&)>& change) {
  return of_mixer_weights<CompressedAttentionSpec>(name, change);
}
// Of the layers with an index, or of the others.
inline Feature without_compressed_keys(bool has_index) {
  return {has_index ? "compressed keys that are chosen" : "compressed keys", [has_index](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) {
              auto* const mixer = std::get_if<CompressedAttentionSpec>(&layer.mixer);
              if (mixer == nullptr || mixer->span == 0 || mixer->has_index() != has_index) continue;
              mixer->span = mixer->index_heads = 0;
              layer.far_layer = {};
            }
          }};
}
// The weights of what comes of the window before are nothing.
inline void drop_first_half(Buffer& bias, int64_t rows) {
  const int64_t width = static_cast<int64_t>(bias.bytes / sizeof(float)) / rows;
  for (int64_t i = 0; i < rows * width; ++i)
    if (i % width < width / 2) bias.as<float>()[i] = -1e9f;
}
inline Feature without_overlap() {
  return of_compressed("overlap of windows", [](CompressedAttentionWeights& w) {
    if (w.index.bias.bytes > 0) drop_first_half(w.keys.bias, 4);
  });
}
inline Feature without_overlap_of_index() {
  return of_compressed("overlap of the index's windows", [](CompressedAttentionWeights& w) {
    if (w.index.bias.bytes > 0) drop_first_half(w.index.bias, 4);
  });
}
inline Feature without_place_in_window() {
  return of_compressed("place in a window", [](CompressedAttentionWeights& w) { scale_all(w.keys.bias, 0); });
}
inline Feature without_place_for_index() {
  return of_compressed("place in a window, to the index", [](CompressedAttentionWeights& w) { scale_all(w.index.bias, -3); });
}
inline Feature without_weight_of_sinks() {
  return of_compressed("sinks", [](CompressedAttentionWeights& w) { scale_all(w.sinks, -2); });
}
inline Feature with_another_window() {
  return of_mixers<CompressedAttentionSpec>("exact window", [](CompressedAttentionSpec& s) { ++s.window; });
}
inline Feature without_choice_of_rows() {
  return of_mixers<CompressedAttentionSpec>("choice of compressed keys", [](CompressedAttentionSpec& s) { s.top_k *= 100; });
}
inline Feature with_one_more_row() {
  return of_mixers<CompressedAttentionSpec>("how many are chosen", [](CompressedAttentionSpec& s) { ++s.top_k; });
}
inline Feature with_one_round_of_mixing() {
  return {"rounds of mixing", [](ModelSpec& s, ModelWeights&) { s.mixed.rounds = 1; }};
}
inline Feature without_mixing_by_row() {
  return {"mixtures by row", [](ModelSpec&, ModelWeights& w) {
            for (LayerWeights& layer : w.layers) {
              scale_all(layer.mixer_mix.scale, 0);
              scale_all(layer.ffn_mix.scale, 0);
            }
          }};
}
inline Feature without_mixing_for_head() {
  return {"mixture that the head reads", [](ModelSpec&, ModelWeights& w) { scale_all(w.head_mix.scale, 0); }};
}

}  // namespace serval::testing
