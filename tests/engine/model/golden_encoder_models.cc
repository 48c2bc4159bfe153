// Encoders: what their last rows are held to is what the words' embeddings make of them.
#include "tests/engine/model/golden_features.h"

namespace serval::testing {
namespace {

Feature without_sight_ahead() {
  return {"rows behind a row", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) attention(layer).sees_ahead = false;
          }};
}
Feature without_token_types() {
  return {"token types", [](ModelSpec& s, ModelWeights&) { s.num_token_types = 0; }};
}

Feature without_final_norm() {
  return {"final norm", [](ModelSpec& s, ModelWeights&) { s.final_norm = {}; }};
}
Feature with_first_norm() {
  return {"first layer's missing norm",
          [](ModelSpec& s, ModelWeights&) { s.layers[0].mixer_norm = {.kind = NormSpec::Kind::kLayer, .has_weight = false, .has_bias = false}; }};
}

}  // namespace

std::vector<ModelCase> encoder_models() {
  return {
      {"bert",
       {without_sight_ahead(), without_token_types(), without_position_table(), without_embedding_norm(), with_norms_of_parts(),
        with_another_mlp_activation(), without_bias("qkv", qkv), without_bias("output", output), without_bias("up", mlp_up),
        without_bias("down", mlp_down), {.name = "second text's type", .switch_off = [](ModelSpec&, ModelWeights&) {}, .spoiled = "token_type_embeddings.weight"}}},
      {"distilbert",
       {without_sight_ahead(), without_position_table(), without_embedding_norm(), with_norms_of_parts(), with_another_mlp_activation(),
        without_bias("qkv", qkv), without_bias("output", output), without_bias("up", mlp_up), without_bias("down", mlp_down)}},
      {"modernbert",
       {without_sight_ahead(), without_embedding_norm(), with_another_activation(), without_window(), with_window_off_by_one(), without_layer_assignment(),
        without_rotation(), without_rotation_per_layer(), without_final_norm(), with_first_norm()}},
      {"modernbert-biases",
       {without_sight_ahead(), without_norm_biases(), without_bias("qkv", qkv), without_bias("output", output), without_bias("gate and up", gate_up), without_bias("down", down)}},
      {"roberta", {without_sight_ahead(), without_token_types(), without_position_table(), with_another_mlp_activation()}},
      {"xlm-roberta", {without_sight_ahead(), without_token_types(), without_position_table(), without_embedding_norm()}},
  };
}

}  // namespace serval::testing
