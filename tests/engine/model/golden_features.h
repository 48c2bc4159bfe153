// What a golden proves: features of a model that can be switched off, and then the comparison must fail. Those of
// experts and of states have pages of their own.
#pragma once

#include <cmath>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "engine/model/model_spec.h"
#include "engine/model/weights.h"

namespace serval::testing {

struct Feature {
  std::string name;
  std::function<void(ModelSpec&, ModelWeights&)> switch_off;
  bool is_rounding = false;  // of weights, which is switched off before they are loaded
  std::string spoiled = {};  // tensors of the checkpoint whose names end so: they are read turned round
};
inline GqaSpec& attention(LayerSpec& layer) {
  return std::get<GqaSpec>(layer.mixer);
}
// A feature of the layers that have this mixer, or of their weights.
template <class Spec>
Feature of_mixers(const std::string& name, const std::function<void(Spec&)>& change) {
  return {name, [change](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers)
              if (auto* const mixer = std::get_if<Spec>(&layer.mixer)) change(*mixer);
          }};
}
template <class Spec>
Feature of_mixer_weights(const std::string& name, const std::function<void(typename Spec::Weights&)>& change) {
  return {name, [change](ModelSpec&, ModelWeights& w) {
            for (LayerWeights& layer : w.layers)
              if (auto* const weights = std::get_if<typename Spec::Weights>(&layer.mixer)) change(*weights);
          }};
}
inline void scale_all(Buffer& buffer, float scale) {
  for (size_t i = 0; i < buffer.bytes / sizeof(float); ++i) buffer.as<float>()[i] *= scale;
}
// A feature of the rotations, of sequences of all lengths.
inline Feature of_ropes(const std::string& name, const std::function<void(RopeSpec&, const ModelSpec&)>& change) {
  return {name, [change](ModelSpec& s, ModelWeights&) {
            for (RopeSpec& rope : s.ropes) {
              change(rope, s);
              for (RopeSpec& longer : rope.longer) change(longer, s);
            }
          }};
}
inline Feature without_rotation() {
  return of_ropes("rotation", [](RopeSpec& rope, const ModelSpec&) {
    rope.scaling = {.type = RopeScaling::Type::kLinear, .factor = 1e12};
  });
}
inline Feature with_rotation_in_every_layer() {
  return {"layers without rotation", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) layer.rope = 0;
          }};
}
inline Feature without_rope_scaling() {
  return of_ropes("rope scaling", [](RopeSpec& rope, const ModelSpec&) { rope.scaling = {}; });
}
inline Feature without_rotation_by_length() {
  return {"rotation of long sequences", [](ModelSpec& s, ModelWeights&) {
            for (RopeSpec& rope : s.ropes) rope.longer.clear();
          }};
}
inline Feature with_the_longest_rotation() {
  return {"rotation of short sequences", [](ModelSpec& s, ModelWeights&) {
            for (RopeSpec& rope : s.ropes) rope = RopeSpec(rope.longer.back());
          }};
}
inline Feature without_window() {
  return {"window", [](ModelSpec& s, ModelWeights&) {
            for (KvGroupSpec& group : s.kv_groups) group.window = 0;
          }};
}
inline Feature with_window_off_by_one() {
  return {"exact window", [](ModelSpec& s, ModelWeights&) {
            for (KvGroupSpec& group : s.kv_groups) group.window += group.window > 0 ? 1 : 0;
          }};
}
inline Feature with_windows_for_chunks() {
  return {"chunks", [](ModelSpec& s, ModelWeights&) {
            for (KvGroupSpec& group : s.kv_groups) group.is_in_chunks = false;
          }};
}
// The layers of the two groups change places.
inline Feature without_layer_assignment() {
  return {"window per layer", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) layer.kv_group = 1 - layer.kv_group;
          }};
}
inline Feature without_qk_norm() {
  return {"q and k norm", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) attention(layer).head_norm = {};
          }};
}
inline Feature without_head_norm_bias() {
  return of_mixer_weights<GqaSpec>("bias of head norms", [](GqaWeights& w) { w.q_norm.bias = {}; });
}
inline Feature with_norms_before_rotation() {
  return {"norms after the rotation", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) attention(layer).head_norm_place = HeadNormPlace::kEachHead;
          }};
}
inline Feature with_another_activation() {
  return {"activation", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers)
              std::get<DenseFfnSpec>(layer.ffn).activation = Activation::kSilu;
          }};
}
inline Feature without_post_norms() {
  return {"post-norms", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) layer.mixer_post_norm = layer.ffn_post_norm = {};
          }};
}
inline Feature without_value_norm() {
  return {"norm of values", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) attention(layer).value_norm = {};
          }};
}
inline Feature without_layer_inputs() {
  return {"inputs of each layer", [](ModelSpec& s, ModelWeights&) { s.layer_inputs.width = 0; }};
}
// Of layers that work on one stream of several.
inline Feature of_stream_weights(const std::string& name, Buffer& (*of)(StreamLayerWeights&)) {
  return {name, [of](ModelSpec&, ModelWeights& w) {
            for (LayerWeights& layer : w.layers) scale_all(of(layer.stream), 0);
          }};
}
inline Feature without_stream_mixing() {
  return of_stream_weights("mixing of streams", [](StreamLayerWeights& w) -> Buffer& { return w.mixing; });
}
inline Feature without_stream_correction() {
  return of_stream_weights("correction of streams", [](StreamLayerWeights& w) -> Buffer& { return w.correcting; });
}
inline Feature without_layer_inputs_of_streams() {
  return of_stream_weights("inputs of each layer", [](StreamLayerWeights& w) -> Buffer& { return w.scale; });
}
inline Feature without_low_rank() {
  return of_stream_weights("residual of low rank", [](StreamLayerWeights& w) -> Buffer& { return w.low_rank_norm.weight; });
}
inline Feature without_gate_cut() {
  return {"cut of the gate", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) std::get<DenseFfnSpec>(layer.ffn).gate_cut = {};
          }};
}
inline Feature without_output_scale() {
  return {"scale of a layer's output", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) layer.has_output_scale = false;
          }};
}
inline Feature without_norm_offset() {
  return {"norm offset", [](ModelSpec& s, ModelWeights& w) {
            for (size_t l = 0; l < w.layers.size(); ++l) {
              auto* const weight = w.layers[l].mixer_norm.weight.as<float>();
              for (int i = 0; i < s.hidden_size; ++i) weight[i] -= s.layers[l].mixer_norm.offset;
            }
          }};
}
inline Feature without_embedding_scale() {
  return {"embedding scale", [](ModelSpec& s, ModelWeights&) { s.embedding_scale = 1; }};
}
inline Feature without_residual_scale() {
  return {"scale of what parts add", [](ModelSpec& s, ModelWeights&) { s.residual_scale = 1; }};
}
inline Feature without_logit_scale() {
  return {"scale of logits", [](ModelSpec& s, ModelWeights&) { s.logit_scale = 1; }};
}
inline Feature with_another_theta() {
  return {"base of the rotation", [](ModelSpec& s, ModelWeights&) {
            for (RopeSpec& rope : s.ropes) rope.theta = 100;
          }};
}
inline Feature without_far_rotation() {
  return {"rows of far keys", [](ModelSpec& s, ModelWeights&) {
            s.long_attention.window += 8;
            s.long_attention.sinks += 8;
          }};
}
inline Feature with_far_keys_moved() {
  return {"where far keys begin", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) std::get<GqaSpec>(layer.mixer).far->near += 4;
          }};
}
inline Feature without_sinks_of_a_stream() {
  return {"sinks of a stream", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) std::get<GqaSpec>(layer.mixer).far->num_far = 1;
          }};
}
inline Feature without_value_scale() {
  return {"scale of values", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) layer.mixer_scale = 1;
          }};
}
inline Feature without_final_logit_cap() {
  return {"final logit cap", [](ModelSpec& s, ModelWeights&) { s.final_logit_cap = 0; }};
}
inline Feature without_score_cap() {
  return {"cap of scores", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) attention(layer).soft_cap = 0;
          }};
}
inline Feature without_rotation_per_layer() {
  return {"rotation per layer", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) layer.rope = 0;
          }};
}
inline Feature without_growth_of_queries() {
  return {"growth of queries", [](ModelSpec& s, ModelWeights&) {
            for (RopeSpec& rope : s.ropes) rope.growth = 0;
          }};
}
inline Feature with_whole_heads_rotated() {
  return of_ropes("partial rotation", [](RopeSpec& rope, const ModelSpec& s) {
    rope.rotary_dim = std::get<GqaSpec>(s.layers[0].mixer).head_dim;
    rope.scaling.factors.resize(rope.rotary_dim / 2, 1);
  });
}
inline Feature without_amplitude() {
  return of_ropes("amplitude of the rotation", [](RopeSpec& rope, const ModelSpec&) { rope.amplitude = 1; });
}
inline Feature with_scale_of_head_dim() {
  return {"scale of scores", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers)
              attention(layer).scale = 1 / std::sqrt(static_cast<float>(attention(layer).head_dim));
          }};
}
inline Feature without_bias(const std::string& which, LinearWeight& (*of)(LayerWeights&)) {
  return {which + " bias", [of](ModelSpec&, ModelWeights& w) {
            for (LayerWeights& layer : w.layers) of(layer).bias = {};
          }};
}
// Every element of an f32 vector is scaled; 0: it is not there.
inline Feature with_scaled(const std::string& what, Buffer& (*of)(LayerWeights&), float scale) {
  return {what, [of, scale](ModelSpec&, ModelWeights& w) {
            for (LayerWeights& layer : w.layers) {
              Buffer& buffer = of(layer);
              for (size_t i = 0; i < buffer.bytes / sizeof(float); ++i) buffer.as<float>()[i] *= scale;
            }
          }};
}
inline LinearWeight& qkv(LayerWeights& w) {
  return std::get<GqaWeights>(w.mixer).qkv;
}
inline LinearWeight& output(LayerWeights& w) {
  return std::get<GqaWeights>(w.mixer).output;
}
inline LinearWeight& gate_up(LayerWeights& w) {
  return std::get<DenseFfnWeights>(w.ffn).gate_up;
}
inline LinearWeight& down(LayerWeights& w) {
  return std::get<DenseFfnWeights>(w.ffn).down;
}
inline Feature without_position_table() {
  return {"table of positions", [](ModelSpec& s, ModelWeights&) { s.positions = PositionTable::kNone; }};
}
template <class Change>
Feature with_norms_changed(const std::string& what, Change change) {
  return {what, [change](ModelSpec& s, ModelWeights& w) {
            for (int l = 0; l < s.num_layers(); ++l) {
              change(s.layers[l].mixer_norm, w.layers[l].mixer_norm);
              change(s.layers[l].ffn_norm, w.layers[l].ffn_norm);
            }
            change(s.final_norm, w.final_norm);
          }};
}
inline Feature without_means() {
  return with_norms_changed("the mean of a norm",
                            [](NormSpec& spec, NormWeights&) { spec.kind = NormSpec::Kind::kRms; });
}
inline Feature without_norm_biases() {
  return with_norms_changed("norms' biases", [](NormSpec&, NormWeights& w) { w.bias = {}; });
}
inline Feature with_another_mlp_activation() {
  return {"activation", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) std::get<MlpFfnSpec>(layer.ffn).activation = Activation::kRelu;
          }};
}
inline LinearWeight& mlp_up(LayerWeights& w) {
  return std::get<MlpFfnWeights>(w.ffn).up;
}
inline LinearWeight& mlp_down(LayerWeights& w) {
  return std::get<MlpFfnWeights>(w.ffn).down;
}
inline Feature without_slopes() {
  return {"slopes", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) attention(layer).slopes.clear();
          }};
}
inline Feature with_parts_in_turn() {
  return {"parts side by side", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) layer.is_parallel = false;
          }};
}
inline Feature without_qkv_limit() {
  return {"limit of q, k and v", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) attention(layer).qkv_limit = 0;
          }};
}
inline Feature with_heads_not_normalised() {
  return {"norms of heads", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) {
              attention(layer).head_norm = {};
              attention(layer).head_norm_place = HeadNormPlace::kEachHead;
            }
          }};
}
// All heads of q by the weight of the first.
inline Feature with_heads_sharing_a_norm() {
  return {"a norm for each head", [](ModelSpec& s, ModelWeights& w) {
            for (LayerWeights& layer : w.layers) {
              auto* const weight = std::get<GqaWeights>(layer.mixer).q_norm.weight.as<float>();
              const GqaSpec& spec = attention(s.layers[0]);
              for (int i = spec.head_dim; i < spec.q_size(); ++i) weight[i] = weight[i % spec.head_dim];
            }
          }};
}
inline Feature with_norms_of_parts() {
  return {"norms behind the residual", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) layer.norms_residual = false;
          }};
}
inline Feature without_post_norm_biases() {
  return {"biases of norms behind the residual", [](ModelSpec&, ModelWeights& w) {
            for (LayerWeights& layer : w.layers) {
              layer.mixer_post_norm.bias = {};
              layer.ffn_post_norm.bias = {};
            }
          }};
}
inline Feature with_parts_side_by_side() {
  return {"one part behind the other", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) layer.is_parallel = true;
          }};
}
inline Feature without_head_bias() {
  return {"head's bias", [](ModelSpec&, ModelWeights& w) { w.lm_head.bias = {}; }};
}
inline Feature without_embedding_norm() {
  return {"norm of the embedding", [](ModelSpec& s, ModelWeights&) { s.embedding_norm = {}; }};
}
inline Feature without_rounding() {
  return {"rounding", [](ModelSpec&, ModelWeights&) {}, true};
}

// A fixture and what it proves.
struct ModelCase {
  std::string name;
  std::vector<Feature> features;
  std::string quantize = "off";
  LongAttention long_attention = {};
  std::string ffn_widths = {}, skip_layers = {};

  bool is_of_format() const { return name.starts_with("quant-") || name.starts_with("gguf-"); }
  // What is asked of the model beside its folder; empty: nothing.
  std::string way() const {
    if (long_attention.is_there())
      return long_attention.kind == LongAttention::Kind::kStreaming ? "streaming" : "self_extend";
    if (!ffn_widths.empty()) return "sliced";
    return quantize == "off" ? "" : quantize;
  }
  std::string golden() const { return way().empty() ? "golden.json" : "golden-" + way() + ".json"; }
};

// All goldens, by kind.
std::vector<ModelCase> dense_models();
std::vector<ModelCase> encoder_models();
std::vector<ModelCase> old_models();
std::vector<ModelCase> composite_models();
std::vector<ModelCase> expert_models();
std::vector<ModelCase> state_models();
std::vector<ModelCase> quantised_models();

}  // namespace serval::testing
