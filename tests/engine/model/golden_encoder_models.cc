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
      {"roberta", {without_sight_ahead(), without_token_types(), without_position_table(), with_another_mlp_activation()}},
      {"xlm-roberta", {without_sight_ahead(), without_token_types(), without_position_table(), without_embedding_norm()}},
  };
}

}  // namespace serval::testing
