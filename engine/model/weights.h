// The weights of a model in typed slots, in the backend's memory. Shapes follow the ModelSpec; who fills them
// is weight_loader.cc.
#pragma once

#include <memory>
#include <variant>
#include <vector>

#include "engine/model/model_spec.h"
#include "kernels/backend.h"
#include "kernels/base/check.h"

namespace serval {

template <class Specs>
struct WeightsOf;
template <class... Parts>
struct WeightsOf<std::variant<Parts...>> {
  using Variant = std::variant<typename Parts::Weights...>;
};

struct LayerWeights {
  WeightsOf<MixerSpec>::Variant mixer;
  WeightsOf<FfnSpec>::Variant ffn;
  NormWeights mixer_norm, mixer_post_norm, ffn_norm, ffn_post_norm;  // [hidden]
  LayerInputWeights layer_input;                                     // empty where the model has no such inputs
  StreamLayerWeights stream;                                         // likewise
  MixtureWeights mixer_mix, ffn_mix;                                 // likewise
  Buffer output_scale;                                               // f32 [1]; empty where the layer has none
};

struct ModelWeights {
  std::shared_ptr<void> mapping;  // what the others lie in, where they came from a packed cache
  LinearWeight embedding;    // [vocab, embedding]
  LinearWeight project_in;   // [hidden, embedding] and
  LinearWeight project_out;  // [embedding, hidden], empty where the two are the same
  LinearWeight positions;  // [max_positions, hidden]; empty without learned positions
  LinearWeight token_types;  // [num_token_types, hidden]; empty without them
  NormWeights embedding_norm;  // [hidden]
  LayerInputsWeights layer_inputs;
  StreamsWeights streams;
  MixtureWeights head_mix;
  std::vector<LayerWeights> layers;
  NormWeights final_norm;  // [hidden]
  LinearWeight lm_head;    // [vocab, embedding]; empty when tied to the embedding

  const LinearWeight& head() const { return lm_head.n == 0 ? embedding : lm_head; }
};

// A part's own weights. Those of another part where the spec has this one are a bug of ours.
template <class Part, class Variant>
const typename Part::Weights& weights_of(const Part&, const Variant& weights) {
  const auto* const own = std::get_if<typename Part::Weights>(&weights);
  SERVAL_CHECK(own != nullptr, weights.index());
  return *own;
}

}  // namespace serval
