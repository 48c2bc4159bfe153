// Every architecture against the reference on small random checkpoints, and a negative control for every
// feature: switched off, the same comparison must fail, or the golden would prove nothing.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <limits>
#include <set>
#include <sstream>
#include <string>

#include "engine/model/architectures/architecture.h"
#include "engine/model/architectures/architecture_list.h"
#include "engine/model/architectures/unserved.h"
#include "engine/model/read_model.h"
#include "engine/model/weight_loader.h"
#include "tests/engine/model/golden_file.h"
#include "tests/engine/model/test_devices.h"

namespace serval::testing {
namespace {

constexpr int kMaxLen = 160;

std::filesystem::path fixture(const std::string& model) {
  return std::filesystem::path(SERVAL_SOURCE_DIR) / "tests/fixtures/models" / model;
}

struct Feature {
  std::string name;
  std::function<void(ModelSpec&, ModelWeights&)> switch_off;
  bool is_rounding = false;  // of weights, which is switched off before they are loaded
};

GqaSpec& attention(LayerSpec& layer) {
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
void scale_all(Buffer& buffer, float scale) {
  for (size_t i = 0; i < buffer.bytes / sizeof(float); ++i) buffer.as<float>()[i] *= scale;
}

Feature without_rotation() {
  return {"rotation", [](ModelSpec& s, ModelWeights&) {
            for (RopeSpec& rope : s.ropes)
              rope.scaling = {.type = RopeScaling::Type::kLinear, .factor = 1e12};
          }};
}
Feature with_rotation_in_every_layer() {
  return {"layers without rotation", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) layer.rope = 0;
          }};
}
Feature without_rope_scaling() {
  return {"rope scaling", [](ModelSpec& s, ModelWeights&) {
            for (RopeSpec& rope : s.ropes) rope.scaling = {};
          }};
}
Feature without_window() {
  return {"window", [](ModelSpec& s, ModelWeights&) {
            for (KvGroupSpec& group : s.kv_groups) group.window = 0;
          }};
}
Feature with_window_off_by_one() {
  return {"exact window", [](ModelSpec& s, ModelWeights&) {
            for (KvGroupSpec& group : s.kv_groups) group.window += group.window > 0 ? 1 : 0;
          }};
}
// The layers of the two groups change places.
Feature without_layer_assignment() {
  return {"window per layer", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) layer.kv_group = 1 - layer.kv_group;
          }};
}
Feature without_qk_norm() {
  return {"q and k norm", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) attention(layer).head_norm = {};
          }};
}
Feature with_norms_before_rotation() {
  return {"norms after the rotation", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) attention(layer).head_norm_place = HeadNormPlace::kEachHead;
          }};
}
Feature with_another_activation() {
  return {"activation", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers)
              std::get<DenseFfnSpec>(layer.ffn).activation = Activation::kSilu;
          }};
}
Feature without_post_norms() {
  return {"post-norms", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) layer.mixer_post_norm = layer.ffn_post_norm = {};
          }};
}
Feature without_value_norm() {
  return {"norm of values", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) attention(layer).value_norm = {};
          }};
}
Feature without_layer_inputs() {
  return {"inputs of each layer", [](ModelSpec& s, ModelWeights&) { s.layer_inputs.width = 0; }};
}
Feature without_output_scale() {
  return {"scale of a layer's output", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) layer.has_output_scale = false;
          }};
}
Feature without_norm_offset() {
  return {"norm offset", [](ModelSpec& s, ModelWeights& w) {
            for (size_t l = 0; l < w.layers.size(); ++l) {
              auto* const weight = w.layers[l].mixer_norm.weight.as<float>();
              for (int i = 0; i < s.hidden_size; ++i) weight[i] -= s.layers[l].mixer_norm.offset;
            }
          }};
}
Feature without_embedding_scale() {
  return {"embedding scale", [](ModelSpec& s, ModelWeights&) { s.embedding_scale = 1; }};
}
Feature without_residual_scale() {
  return {"scale of what parts add", [](ModelSpec& s, ModelWeights&) { s.residual_scale = 1; }};
}
Feature without_logit_scale() {
  return {"scale of logits", [](ModelSpec& s, ModelWeights&) { s.logit_scale = 1; }};
}
Feature with_another_theta() {
  return {"base of the rotation", [](ModelSpec& s, ModelWeights&) {
            for (RopeSpec& rope : s.ropes) rope.theta = 100;
          }};
}
Feature without_final_logit_cap() {
  return {"final logit cap", [](ModelSpec& s, ModelWeights&) { s.final_logit_cap = 0; }};
}
Feature without_score_cap() {
  return {"cap of scores", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) attention(layer).soft_cap = 0;
          }};
}
Feature without_rotation_per_layer() {
  return {"rotation per layer", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) layer.rope = 0;
          }};
}
Feature without_growth_of_queries() {
  return {"growth of queries", [](ModelSpec& s, ModelWeights&) {
            for (RopeSpec& rope : s.ropes) rope.growth = 0;
          }};
}
Feature with_whole_heads_rotated() {
  return {"partial rotation", [](ModelSpec& s, ModelWeights&) {
            for (RopeSpec& rope : s.ropes) {
              rope.rotary_dim = attention(s.layers[0]).head_dim;
              rope.scaling.factors.resize(rope.rotary_dim / 2, 1);
            }
          }};
}
Feature without_amplitude() {
  return {"amplitude of the rotation", [](ModelSpec& s, ModelWeights&) {
            for (RopeSpec& rope : s.ropes) rope.amplitude = 1;
          }};
}
Feature with_scale_of_head_dim() {
  return {"scale of scores", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers)
              attention(layer).scale = 1 / std::sqrt(static_cast<float>(attention(layer).head_dim));
          }};
}
Feature without_bias(const std::string& which, LinearWeight& (*of)(LayerWeights&)) {
  return {which + " bias", [of](ModelSpec&, ModelWeights& w) {
            for (LayerWeights& layer : w.layers) of(layer).bias = {};
          }};
}
Feature without_score_scale() {
  return {"scale of scores", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) {
              auto& mla = std::get<MlaSpec>(layer.mixer);
              mla.scale = 1 / std::sqrt(static_cast<float>(mla.plain_dim + mla.rotary_dim));
            }
          }};
}
MambaWeights& mamba(LayerWeights& w) {
  return std::get<MambaWeights>(w.mixer);
}
// Every element of an f32 vector is scaled; 0: it is not there.
Feature with_scaled(const std::string& what, Buffer& (*of)(LayerWeights&), float scale) {
  return {what, [of, scale](ModelSpec&, ModelWeights& w) {
            for (LayerWeights& layer : w.layers) {
              Buffer& buffer = of(layer);
              for (size_t i = 0; i < buffer.bytes / sizeof(float); ++i) buffer.as<float>()[i] *= scale;
            }
          }};
}
Feature without_memory() {  // a state is gone after a position
  return with_scaled("state", [](LayerWeights& w) -> Buffer& { return mamba(w).rates; }, 1e9f);
}
Feature without_skip() {
  return with_scaled("skip", [](LayerWeights& w) -> Buffer& { return mamba(w).skip; }, 0);
}
Feature without_conv_bias() {
  return with_scaled("bias of the convolution", [](LayerWeights& w) -> Buffer& { return mamba(w).conv_bias; }, 0);
}
Feature without_inner_norms() {
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
Feature without_step_limits() {
  return of_mixers<Mamba2Spec>("limits of a step", [](Mamba2Spec& mixer) {
    mixer.least_step = 0;
    mixer.most_step = std::numeric_limits<float>::infinity();
  });
}
Feature with_one_group() {  // the groups' keys and queries change places
  return of_mixers<Mamba2Spec>("groups", [](Mamba2Spec& mixer) {
    mixer.num_states *= mixer.num_groups;
    mixer.num_groups = 1;
  });
}
Feature without_delta_rule() {
  return of_mixers<DeltaNetSpec>("strength of what is taken in", [](DeltaNetSpec& mixer) { mixer.beta_scale = 0.3f; });
}
Feature without_unit_length() {
  return of_mixer_weights<DeltaNetSpec>("length of keys", [](DeltaNetWeights& w) { scale_all(w.unit, 2); });
}
Feature without_head_norm_of_attention() {
  return of_mixers<GqaSpec>("q and k norm", [](GqaSpec& mixer) { mixer.head_norm = {}; });
}
LinearWeight& qkv(LayerWeights& w) {
  return std::get<GqaWeights>(w.mixer).qkv;
}
LinearWeight& output(LayerWeights& w) {
  return std::get<GqaWeights>(w.mixer).output;
}
LinearWeight& gate_up(LayerWeights& w) {
  return std::get<DenseFfnWeights>(w.ffn).gate_up;
}
LinearWeight& down(LayerWeights& w) {
  return std::get<DenseFfnWeights>(w.ffn).down;
}

// Of every layer that has experts.
Feature with_experts(const std::string& what, void (*change)(MoeFfnSpec&)) {
  return {what, [change](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers)
              if (auto* moe = std::get_if<MoeFfnSpec>(&layer.ffn)) change(*moe);
          }};
}
Feature without_renormalised_routing() {
  return with_experts("renormalised routing", [](MoeFfnSpec& moe) { moe.rule.renormalise = false; });
}
Feature with_renormalised_routing() {
  return with_experts("routing that is not renormalised", [](MoeFfnSpec& moe) { moe.rule.renormalise = true; });
}
Feature with_the_best_expert_alone() {
  return with_experts("second expert", [](MoeFfnSpec& moe) { moe.top_k = 1; });
}
Feature without_shared_expert() {
  return with_experts("shared expert", [](MoeFfnSpec& moe) { moe.shared_size = 0, moe.has_shared_gate = false; });
}
Feature without_shared_gate() {
  return with_experts("gate of the shared expert", [](MoeFfnSpec& moe) { moe.has_shared_gate = false; });
}
Feature without_correction() {
  return with_experts("correction of the choice", [](MoeFfnSpec& moe) { moe.has_correction = false; });
}
Feature without_routing_scale() {
  return with_experts("scale of the experts", [](MoeFfnSpec& moe) { moe.rule.scale = 1; });
}
Feature without_expert_groups() {
  return with_experts("groups of experts", [](MoeFfnSpec& moe) { moe.rule.num_groups = moe.rule.groups_chosen = 1; });
}
Feature with_softmax_scores() {
  return with_experts("score of an expert", [](MoeFfnSpec& moe) { moe.rule.score = RoutingRule::Score::kSoftmax; });
}
Feature without_gate_limit() {
  return with_experts("clamp of gate and up", [](MoeFfnSpec& moe) { moe.gate_limit = 1e6f; });
}
Feature without_up_offset() {
  return with_experts("what is added to up", [](MoeFfnSpec& moe) { moe.up_offset = 0; });
}
Feature without_sinks() {
  return {"sinks", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) attention(layer).has_sinks = false;
          }};
}
Feature with_experts_without_bias() {
  return {"experts' biases", [](ModelSpec&, ModelWeights& w) {
            for (LayerWeights& layer : w.layers) {
              auto& moe = std::get<MoeFfnWeights>(layer.ffn);
              for (LinearWeight& weight : moe.gate_up) weight.bias = {};
              for (LinearWeight& weight : moe.down) weight.bias = {};
            }
          }};
}
// The first two experts change places: who is chosen matters.
Feature with_experts_exchanged() {
  return {"the chosen experts", [](ModelSpec&, ModelWeights& w) {
            for (LayerWeights& layer : w.layers) {
              auto* const moe = std::get_if<MoeFfnWeights>(&layer.ffn);
              if (moe == nullptr) continue;
              std::swap(moe->gate_up[0], moe->gate_up[1]);
              std::swap(moe->down[0], moe->down[1]);
            }
          }};
}

Feature without_position_table() {
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
Feature without_means() {
  return with_norms_changed("the mean of a norm",
                            [](NormSpec& spec, NormWeights&) { spec.kind = NormSpec::Kind::kRms; });
}
Feature without_norm_biases() {
  return with_norms_changed("norms' biases", [](NormSpec&, NormWeights& w) { w.bias = {}; });
}
Feature with_another_mlp_activation() {
  return {"activation", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) std::get<MlpFfnSpec>(layer.ffn).activation = Activation::kRelu;
          }};
}
LinearWeight& mlp_up(LayerWeights& w) {
  return std::get<MlpFfnWeights>(w.ffn).up;
}
LinearWeight& mlp_down(LayerWeights& w) {
  return std::get<MlpFfnWeights>(w.ffn).down;
}

Feature without_slopes() {
  return {"slopes", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) attention(layer).slopes.clear();
          }};
}
Feature with_parts_in_turn() {
  return {"parts side by side", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) layer.is_parallel = false;
          }};
}
Feature without_qkv_limit() {
  return {"limit of q, k and v", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) attention(layer).qkv_limit = 0;
          }};
}
Feature with_heads_not_normalised() {
  return {"norms of heads", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) {
              attention(layer).head_norm = {};
              attention(layer).head_norm_place = HeadNormPlace::kEachHead;
            }
          }};
}
// All heads of q by the weight of the first.
Feature with_heads_sharing_a_norm() {
  return {"a norm for each head", [](ModelSpec& s, ModelWeights& w) {
            for (LayerWeights& layer : w.layers) {
              auto* const weight = std::get<GqaWeights>(layer.mixer).q_norm.weight.as<float>();
              const GqaSpec& spec = attention(s.layers[0]);
              for (int i = spec.head_dim; i < spec.q_size(); ++i) weight[i] = weight[i % spec.head_dim];
            }
          }};
}
Feature with_norms_of_parts() {
  return {"norms behind the residual", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) layer.norms_residual = false;
          }};
}
Feature without_post_norm_biases() {
  return {"biases of norms behind the residual", [](ModelSpec&, ModelWeights& w) {
            for (LayerWeights& layer : w.layers) {
              layer.mixer_post_norm.bias = {};
              layer.ffn_post_norm.bias = {};
            }
          }};
}
Feature with_parts_side_by_side() {
  return {"one part behind the other", [](ModelSpec& s, ModelWeights&) {
            for (LayerSpec& layer : s.layers) layer.is_parallel = true;
          }};
}
Feature without_head_bias() {
  return {"head's bias", [](ModelSpec&, ModelWeights& w) { w.lm_head.bias = {}; }};
}
Feature without_embedding_norm() {
  return {"norm of the embedding", [](ModelSpec& s, ModelWeights&) { s.embedding_norm = {}; }};
}

Feature without_rounding() {
  return {"rounding", [](ModelSpec&, ModelWeights&) {}, true};
}

struct ModelCase {
  std::string name;
  std::vector<Feature> features;
  std::string quantize = "off";

  std::string golden() const { return quantize == "off" ? "golden.json" : "golden-" + quantize + ".json"; }
};

std::vector<ModelCase> models() {
  return {
      {"llama2", {without_rotation()}},
      {"llama2-f16", {without_rotation()}},
      {"llama31", {without_rope_scaling()}},
      {"llama-bias",
       {without_bias("qkv", qkv), without_bias("output", output), without_bias("gate and up", gate_up),
        without_bias("down", down), with_another_activation(), without_rope_scaling()}},
      {"mamba", {without_memory(), without_skip(), without_conv_bias()}},
      {"mamba-f16",
       {without_memory(), without_skip(), without_bias("input", [](LayerWeights& w) -> LinearWeight& { return mamba(w).input; }),
        without_bias("output of the mixer", [](LayerWeights& w) -> LinearWeight& { return mamba(w).output; })}},
      {"bamba",
       {without_memory_of<Mamba2Spec>(), without_gated_norm<Mamba2Spec>(), without_step_limits(), without_rotation()}},
      {"granite-hybrid",
       {without_memory_of<Mamba2Spec>(), with_one_group(), without_embedding_scale(),
        without_residual_scale(), without_logit_scale(),
        of_mixers<GqaSpec>("scale of scores", [](GqaSpec& mixer) { mixer.scale = 1 / std::sqrt(8.0f); })}},
      {"granite-hybrid-bf16",
       {without_memory_of<Mamba2Spec>(), without_rotation(),
        of_mixer_weights<Mamba2Spec>("input bias", [](Mamba2Weights& w) { w.input.bias = {}; })}},
      {"falcon-h1",
       {without_memory_of<Mamba2Spec>(), without_rotation(), without_embedding_scale(),
        without_logit_scale(),
        {"scales of what parts add",
         [](ModelSpec& s, ModelWeights&) {
           for (LayerSpec& layer : s.layers) layer.mixer_scale = layer.ffn_scale = 1;
         }},
        {"mixers side by side",
         [](ModelSpec& s, ModelWeights&) {
           for (LayerSpec& layer : s.layers) layer.mixer_scale = layer.is_beside ? 0 : layer.mixer_scale;
         }},
        {"scale of the gate",
         [](ModelSpec& s, ModelWeights&) {
           for (LayerSpec& layer : s.layers)
             if (auto* const ffn = std::get_if<DenseFfnSpec>(&layer.ffn)) ffn->gate_scale = 1;
         }},
        of_mixers<GqaSpec>("scale of keys", [](GqaSpec& mixer) { mixer.scale = 1 / std::sqrt(8.0f); }),
        of_mixers<Mamba2Spec>("scale of the gate of a scan", [](Mamba2Spec& mixer) { mixer.input_scales[0] = 1; }),
        of_mixers<Mamba2Spec>("scale of steps", [](Mamba2Spec& mixer) { mixer.input_scales[4] = 1; }),
        of_mixer_weights<Mamba2Spec>("scale of the convolution", [](Mamba2Weights& w) { scale_all(w.conv, 1.2f); })}},
      {"falcon-h1-bf16",
       {without_memory_of<Mamba2Spec>(), without_gated_norm<Mamba2Spec>(),
        of_mixer_weights<Mamba2Spec>("output bias", [](Mamba2Weights& w) { w.output.bias = {}; })}},
      {"mamba2",
       {without_memory_of<Mamba2Spec>(), without_last_input<Mamba2Spec>(), without_gated_norm<Mamba2Spec>(),
        without_step_limits(), with_one_group(),
        of_mixer_weights<Mamba2Spec>("skip", [](Mamba2Weights& w) { scale_all(w.skip, 0); }),
        of_mixer_weights<Mamba2Spec>("bias of the convolution", [](Mamba2Weights& w) { scale_all(w.conv_bias, 0); }),
        of_mixer_weights<Mamba2Spec>("bias of a step", [](Mamba2Weights& w) { scale_all(w.step_bias, 0); })}},
      {"mamba2-bf16",
       {without_memory_of<Mamba2Spec>(),
        of_mixer_weights<Mamba2Spec>("input bias", [](Mamba2Weights& w) { w.input.bias = {}; }),
        of_mixer_weights<Mamba2Spec>("output bias", [](Mamba2Weights& w) { w.output.bias = {}; })}},
      {"falcon-mamba", {without_memory(), without_inner_norms()}},
      {"lfm2",
       {without_last_input<ShortConvSpec>(), without_head_norm_of_attention(), without_rotation()}},
      {"lfm2-bf16",
       {without_last_input<ShortConvSpec>(), without_rotation(),
        of_mixer_weights<ShortConvSpec>("bias of the convolution", [](ShortConvWeights& w) { scale_all(w.conv_bias, 0); }),
        of_mixer_weights<ShortConvSpec>("input bias", [](ShortConvWeights& w) { w.input.bias = {}; }),
        of_mixer_weights<ShortConvSpec>("output bias", [](ShortConvWeights& w) { w.output.bias = {}; })}},
      {"qwen35",
       {without_memory_of<DeltaNetSpec>(), without_last_input<DeltaNetSpec>(), without_gated_norm<DeltaNetSpec>(),
        without_delta_rule(), without_unit_length(), without_head_norm_of_attention(), without_rotation(),
        without_norm_offset()}},
      {"qwen35-composite", {without_memory_of<DeltaNetSpec>(), without_last_input<DeltaNetSpec>(), without_norm_offset()}},
      {"olmo-hybrid",
       {without_memory_of<DeltaNetSpec>(), without_last_input<DeltaNetSpec>(), without_gated_norm<DeltaNetSpec>(),
        of_mixers<DeltaNetSpec>("beta up to two", [](DeltaNetSpec& mixer) { mixer.beta_scale = 1; }),
        of_mixers<GqaSpec>("norm of all heads", [](GqaSpec& mixer) { mixer.head_norm.eps = 10; }), without_rotation()}},
      {"olmo-hybrid-bf16", {without_memory_of<DeltaNetSpec>(), without_last_input<DeltaNetSpec>()}},
      {"jamba",
       {of_mixer_weights<MambaSpec>("state", [](MambaWeights& w) { scale_all(w.rates, 1e9f); }),
        of_mixers<MambaSpec>("norms of step, b and c", [](MambaSpec& mixer) { mixer.inner_norm.eps = 30; }),
        of_mixer_weights<MambaSpec>("input bias", [](MambaWeights& w) { w.input.bias = {}; })}},
      {"nemotron-h",
       {without_memory_of<Mamba2Spec>(), without_step_limits(), with_one_group(),
        {"activation",
         [](ModelSpec& s, ModelWeights&) {
           for (LayerSpec& layer : s.layers)
             if (auto* const mlp = std::get_if<MlpFfnSpec>(&layer.ffn)) mlp->activation = Activation::kRelu;
         }}}},
      {"nemotron-h-bf16",
       {without_memory_of<Mamba2Spec>(),
        of_mixer_weights<Mamba2Spec>("input bias", [](Mamba2Weights& w) { w.input.bias = {}; })}},
      {"mistral", {without_window(), with_window_off_by_one()}},
      {"mixtral", {without_renormalised_routing(), with_the_best_expert_alone(), with_experts_exchanged()}},
      {"mixtral-bf16",
       {with_the_best_expert_alone(), with_experts_exchanged(), without_window(), with_window_off_by_one()}},
      {"gpt2",
       {without_position_table(), with_scale_of_head_dim(), without_means(), without_norm_biases(), with_another_mlp_activation(),
        without_bias("qkv", qkv), without_bias("output", output), without_bias("up", mlp_up),
        without_bias("down", mlp_down)}},
      {"gpt2-bare", {without_position_table(), without_means(), with_another_mlp_activation()}},
      {"gpt-bigcode",
       {without_position_table(), without_means(), without_norm_biases(), with_another_mlp_activation(),
        without_bias("qkv", qkv), without_bias("output", output), without_bias("up", mlp_up)}},
      {"gpt-neo",
       {without_position_table(), with_scale_of_head_dim(), without_window(), with_window_off_by_one(),
        without_layer_assignment(), with_another_mlp_activation(), without_bias("output", output)}},
      {"starcoder2-bf16",
       {without_rotation(), without_means(), without_window(), with_window_off_by_one(), without_bias("qkv", qkv),
        without_bias("output", output), without_bias("down", mlp_down)}},
      {"opt",
       {without_position_table(), without_means(), without_bias("qkv", qkv), without_bias("output", output),
        without_bias("up", mlp_up), without_bias("down", mlp_down)}},
      {"opt-350m",
       {without_position_table(), with_norms_of_parts(), without_post_norm_biases(), without_bias("down", mlp_down)}},
      {"gpt", {without_position_table(), with_norms_of_parts(), with_another_mlp_activation(), without_bias("qkv", qkv)}},
      {"biogpt", {without_position_table(), without_embedding_scale(), without_norm_biases(), without_bias("qkv", qkv)}},
      {"xglm",
       {without_position_table(), without_embedding_scale(), without_bias("qkv", qkv), with_another_mlp_activation()}},
      {"bloom",
       {without_slopes(), without_embedding_norm(), without_bias("qkv", qkv), without_bias("output", output),
        with_another_mlp_activation()}},
      {"mpt-bf16", {without_slopes(), without_qkv_limit(), without_means(), with_another_mlp_activation()}},
      {"internlm2-bf16", {without_rotation()}},
      {"qwen1-bf16", {without_rotation(), without_bias("qkv", qkv)}},
      {"gptj",
       {without_rotation(), with_whole_heads_rotated(), with_parts_in_turn(), with_another_mlp_activation(),
        without_bias("up", mlp_up), without_bias("down", mlp_down), without_head_bias()}},
      {"codegen", {without_rotation(), with_parts_in_turn(), without_head_bias()}},
      {"gpt-neox",
       {without_rotation(), with_whole_heads_rotated(), with_parts_in_turn(), without_means(), without_norm_biases(),
        without_bias("qkv", qkv), without_bias("output", output), with_another_mlp_activation()}},
      {"gpt-neox-in-turn", {without_rotation(), with_parts_side_by_side()}},
      {"phi",
       {without_rotation(), with_whole_heads_rotated(), with_parts_in_turn(), without_head_bias(),
        without_bias("qkv", qkv), without_bias("output", output), without_bias("up", mlp_up)}},
      {"nemotron-bf16", {without_norm_offset(), without_means(), with_whole_heads_rotated(), with_another_mlp_activation()}},
      {"jais2-bf16", {without_rotation(), without_means(), without_bias("qkv", qkv), without_bias("down", mlp_down)}},
      {"stablelm-bf16", {without_rotation(), with_whole_heads_rotated(), without_means(), without_bias("qkv", qkv)}},
      {"cohere", {without_rotation(), with_parts_in_turn(), without_logit_scale(), without_means()}},
      {"cohere-norms", {with_heads_not_normalised(), with_heads_sharing_a_norm()}},
      {"stablelm-12b-bf16", {with_heads_not_normalised(), with_heads_sharing_a_norm(), with_parts_in_turn()}},
      {"cohere2-bf16",
       {without_rotation(), with_rotation_in_every_layer(), with_parts_in_turn(), without_window(),
        with_window_off_by_one(), without_layer_assignment()}},
      {"falcon-bf16", {without_rotation(), with_parts_in_turn(), without_means(), without_norm_biases()}},
      {"falcon-new-bf16", {without_rotation(), with_parts_in_turn(), with_another_mlp_activation()}},
      {"falcon-rw-bf16",
       {without_slopes(), without_bias("qkv", qkv), without_bias("output", output), without_bias("up", mlp_up)}},
      {"qwen2", {without_bias("qkv", qkv), without_rotation()}},
      {"qwen2-windows", {without_window(), with_window_off_by_one(), without_layer_assignment()}},
      {"qwen2-yarn", {without_rope_scaling(), without_amplitude()}},
      {"qwen3", {without_qk_norm(), without_rotation()}},
      {"qwen3-bf16",
       {without_qk_norm(), without_window(), with_window_off_by_one(), without_layer_assignment()}},
      {"qwen2-moe",
       {with_renormalised_routing(), with_the_best_expert_alone(), with_experts_exchanged(), without_shared_expert(),
        without_shared_gate(), without_bias("qkv", qkv)}},
      {"qwen3-moe",
       {without_renormalised_routing(), with_the_best_expert_alone(), with_experts_exchanged(), without_qk_norm(),
        without_rotation()}},
      {"deepseek-v2",
       {without_expert_groups(), without_routing_scale(), without_shared_expert(), without_rotation()}},
      {"deepseek-v2-lite",
       {without_shared_expert(), with_the_best_expert_alone(), without_rope_scaling(), without_amplitude(), without_score_scale()}},
      {"deepseek-v3",
       {without_correction(), without_expert_groups(), without_renormalised_routing(), without_routing_scale(),
        with_softmax_scores(), without_rope_scaling(), without_score_scale()}},
      {"kimi-k25", {without_correction(), without_shared_expert(), without_rotation()}},
      {"glm4-moe-lite", {without_correction(), without_shared_expert(), without_routing_scale(), without_rotation()}},
      {"glm4-moe",
       {without_correction(), without_shared_expert(), without_routing_scale(), without_qk_norm(), with_whole_heads_rotated(),
        without_bias("qkv", qkv)}},
      {"dots1",
       {without_correction(), without_shared_expert(), without_renormalised_routing(), without_qk_norm(), without_window(),
        with_window_off_by_one(), without_layer_assignment()}},
      {"minimax-m2",
       {without_correction(), without_renormalised_routing(), with_softmax_scores(), without_qk_norm(),
        with_whole_heads_rotated()}},
      {"granite-moe",
       {without_residual_scale(), without_logit_scale(), without_renormalised_routing(), with_the_best_expert_alone(),
        with_experts_exchanged()}},
      {"granite-moe-shared", {without_shared_expert(), without_renormalised_routing(), with_experts_exchanged()}},
      {"olmoe", {with_renormalised_routing(), with_the_best_expert_alone(), with_experts_exchanged(), without_qk_norm()}},
      {"hunyuan-moe",
       {without_renormalised_routing(), with_the_best_expert_alone(), without_shared_expert(), without_qk_norm(),
        with_norms_before_rotation()}},
      {"hy3", {without_correction(), without_shared_expert(), without_routing_scale(), without_qk_norm()}},
      {"minicpm3", {without_residual_scale(), without_logit_scale(), without_embedding_scale(), without_rope_scaling()}},
      {"qwen3-vl-moe", {without_renormalised_routing(), with_experts_exchanged(), without_qk_norm(), without_rotation()}},
      {"qwen35-moe", {without_renormalised_routing(), with_experts_exchanged(), without_shared_expert(), without_shared_gate()}},
      {"qwen35-moe-composite", {without_renormalised_routing(), with_experts_exchanged(), without_shared_gate()}},
      {"phimoe",
       {with_experts("nearness", [](MoeFfnSpec& moe) { moe.rule.nearness = 1e6f; }), with_the_best_expert_alone(),
        with_experts_exchanged(), without_means(), without_bias("qkv", qkv), without_amplitude(), without_rope_scaling()}},
      {"ernie4.5-moe",
       {without_correction(), without_shared_expert(), with_experts_exchanged(), without_bias("qkv", qkv), without_rotation(),
        with_experts("least sum of weights", [](MoeFfnSpec& moe) { moe.rule.least_sum = 0; })}},
      {"gpt-oss",
       {without_renormalised_routing(), with_the_best_expert_alone(), with_experts_exchanged(), without_sinks(),
        without_gate_limit(), without_up_offset(), with_experts_without_bias(), without_bias("qkv", qkv),
        without_bias("output", output), without_rope_scaling(), without_amplitude(), without_window(),
        with_window_off_by_one(), without_layer_assignment()}},
      {"gemma3",
       {without_post_norms(), without_norm_offset(), without_embedding_scale(), without_final_logit_cap(),
        without_rotation_per_layer(), without_rope_scaling(), with_scale_of_head_dim(), without_qk_norm(),
        without_window(), with_window_off_by_one(), without_layer_assignment(), with_another_activation()}},
      {"gemma3-bf16",
       {without_post_norms(), without_norm_offset(), without_embedding_scale(), without_rotation_per_layer(),
        without_rope_scaling(), with_scale_of_head_dim()}},
      {"gemma3-composite", {without_post_norms(), without_embedding_scale(), without_window()}},
      {"gemma4",
       {without_post_norms(), without_qk_norm(), without_value_norm(), without_output_scale(), without_rope_scaling(),
        without_embedding_scale(), without_final_logit_cap(),
        with_scale_of_head_dim(), without_window(), with_window_off_by_one()}},
      {"gemma4-e",
       {without_layer_inputs(), without_output_scale(), without_value_norm(), without_rope_scaling(),
        without_window(), with_window_off_by_one()}},
      {"gemma4-composite",
       {without_qk_norm(), without_value_norm(), without_output_scale(), without_rope_scaling(), without_window()}},
      {"gemma4-unified",
       {without_qk_norm(), without_value_norm(), without_output_scale(), without_rope_scaling(), without_window()}},
      {"gemma2-bf16",
       {without_score_cap(), without_final_logit_cap(), without_post_norms(), without_norm_offset(),
        without_embedding_scale(), with_scale_of_head_dim(), without_window(), with_window_off_by_one(),
        without_layer_assignment()}},
      {"gemma", {without_norm_offset(), without_embedding_scale(), with_another_activation(), without_rotation()}},
      {"granite",
       {without_residual_scale(), without_logit_scale(), without_embedding_scale(), with_scale_of_head_dim()}},
      {"glm", {without_bias("qkv", qkv), with_whole_heads_rotated(), without_rotation()}},
      {"glm4", {without_bias("qkv", qkv), without_post_norms(), with_whole_heads_rotated(), without_rotation()}},
      {"ernie4.5", {without_bias("qkv", qkv), without_bias("down", down), without_rotation()}},
      {"helium", {without_rotation()}},
      {"arcee", {without_rope_scaling(), with_another_mlp_activation()}},
      {"olmo", {without_means(), without_rotation(), without_qkv_limit()}},
      {"olmo2", {without_post_norms(), without_qk_norm(), without_rotation()}},
      {"olmo3",
       {without_post_norms(), without_qk_norm(), without_rope_scaling(), without_amplitude(),
        without_rotation_per_layer(), without_window(), with_window_off_by_one(), without_layer_assignment()}},
      {"seed-oss", {without_bias("qkv", qkv), without_rotation()}},
      {"smollm3", {with_rotation_in_every_layer(), without_rotation()}},
      {"hunyuan", {without_qk_norm(), with_norms_before_rotation(), with_another_theta()}},
      {"exaone4",
       {without_post_norms(), without_qk_norm(), with_rotation_in_every_layer(), without_rope_scaling(),
        without_window(), with_window_off_by_one()}},
      {"exaone4-bf16", {without_post_norms(), without_qk_norm(), without_rope_scaling()}},
      {"ministral", {without_window(), with_window_off_by_one(), without_layer_assignment()}},
      {"qwen2-vl", {without_bias("qkv", qkv), without_rotation()}},
      {"qwen2.5-vl", {without_bias("qkv", qkv), without_rotation()}},
      {"qwen3-vl", {without_qk_norm(), without_rotation()}},
      {"muse-glimmer",
       {without_post_norms(), without_qk_norm(), without_norm_offset(), with_rotation_in_every_layer(),
        without_logit_scale(), without_final_logit_cap(), without_window(), with_window_off_by_one(),
        without_embedding_norm()}},
      {"mllama", {without_rope_scaling(), without_rotation()}},
      {"llava", {without_rotation()}},
      {"llava-next", {without_rotation(), without_window(), with_window_off_by_one()}},
      {"llava-next-granite", {without_residual_scale(), without_embedding_scale()}},
      {"llava-onevision", {without_bias("qkv", qkv), without_rotation()}},
      {"aya-vision", {with_rotation_in_every_layer(), without_window()}},
      {"voxtral", {without_rotation()}},
      {"qwen2-audio", {without_bias("qkv", qkv), without_rotation()}},
      {"internvl", {without_bias("qkv", qkv), without_rotation()}},
      {"idefics3", {without_rotation()}},
      {"smolvlm", {without_rotation()}},
      {"glm4v", {without_bias("qkv", qkv), without_post_norms(), with_whole_heads_rotated(), without_rotation()}},
      {"ministral3", {without_rope_scaling(), without_growth_of_queries()}},
      {"mistral3", {without_rotation()}},
      {"mistral3-ministral", {without_rope_scaling(), without_growth_of_queries()}},
      {"phi3", {without_rope_scaling(), without_amplitude(), with_whole_heads_rotated(), without_rotation()}},
      {"phi3-bf16",
       {with_whole_heads_rotated(), without_window(), with_window_off_by_one(), without_rotation()}},
      {"llama-bias", {without_rounding(), without_bias("qkv", qkv), without_bias("down", down)}, "int8"},
      {"llama2-f16", {without_rounding()}, "int8"},
      {"qwen3-bf16", {without_rounding(), without_qk_norm()}, "int8"},
  };
}

// The first parameter is a device of test_devices.h.
class Golden : public ::testing::TestWithParam<std::tuple<std::string, ModelCase>> {
 protected:
  void SetUp() override {
    try {
      backend_ = make_test_backend(std::get<0>(GetParam()));
    } catch (const std::runtime_error& absent) {
      GTEST_SKIP() << absent.what();
    }
    tolerance_ = tolerance_of(std::get<0>(GetParam()), spec(model().quantize).weight_dtype);
    cases_ = read_golden(fixture(model().name) / model().golden());
    ASSERT_FALSE(cases_.empty());
  }

  const ModelCase& model() const { return std::get<1>(GetParam()); }

  ModelSpec spec(const std::string& quantize) const {
    return quantised(read_model_spec(fixture(model().name)), quantize);
  }

  Transformer load(const Feature* off = nullptr) {
    ModelSpec loaded = spec(off != nullptr && off->is_rounding ? "off" : model().quantize);
    ModelWeights weights = load_weights(fixture(model().name), loaded, *backend_);
    if (off != nullptr) off->switch_off(loaded, weights);
    return Transformer(std::move(loaded), std::move(weights), kMaxLen, *backend_);
  }

  // The worst of all prompts.
  GoldenVerdict judge(Transformer& transformer, int chunk) {
    GoldenVerdict worst;
    for (const GoldenCase& golden : cases_) {
      PagedDriver driver(transformer, *backend_, DType::kF32, 1, kMaxLen, kMaxLen);
      const GoldenVerdict verdict = compare(golden, driver.run(0, golden.all_ids(), chunk), tolerance_);
      worst.worst = std::max(worst.worst, verdict.worst);
      worst.num_steps_compared += verdict.num_steps_compared;
      if (verdict.first_wrong_step >= 0) worst.first_wrong_step = verdict.first_wrong_step;
    }
    return worst;
  }

  std::unique_ptr<Backend> backend_;
  double tolerance_ = 0;
  std::vector<GoldenCase> cases_;
};

TEST_P(Golden, AgreesWithTheReference) {
  Transformer transformer = load();
  const GoldenVerdict verdict = judge(transformer, kMaxLen);
  RecordProperty("worst_difference", std::to_string(verdict.worst));
  EXPECT_LE(verdict.worst, tolerance_);
  EXPECT_EQ(verdict.first_wrong_step, -1);
  // Every greedy step of the fixtures has a margin above the float32 gate; a looser one leaves most of them.
  const int all_steps = 64 * static_cast<int>(cases_.size());
  EXPECT_GE(verdict.num_steps_compared, tolerance_ == 1e-3 ? all_steps : all_steps / 2);
}

TEST_P(Golden, FailsWithAnyFeatureSwitchedOff) {
  for (const Feature& feature : model().features) {
    Transformer transformer = load(&feature);
    const GoldenVerdict verdict = judge(transformer, kMaxLen);
    EXPECT_FALSE(verdict.passes(tolerance_)) << feature.name;
    EXPECT_GT(verdict.worst, 0.01) << feature.name << " hardly matters to this golden";
  }
}

TEST_P(Golden, GivesTheSameBitsInChunksAndBesideOthers) {
  Transformer transformer = load();
  PagedDriver driver(transformer, *backend_, DType::kF32, 3, kMaxLen, 2 * kMaxLen);
  const std::vector<int32_t> ids = cases_.back().all_ids();
  const std::vector<float> whole = driver.run(0, ids, kMaxLen);
  for (const int chunk : {1, 7, 64}) {
    driver.restart(0);
    const std::vector<float> chunked = driver.run(0, ids, chunk);
    EXPECT_EQ(std::memcmp(whole.data(), chunked.data(), whole.size() * sizeof(float)), 0)
        << "chunk " << chunk;
  }

  // In the middle of a step with two other sequences, one of them ahead.
  std::vector<int32_t> others(ids.rbegin(), ids.rend());
  driver.restart(0);
  driver.run(1, std::span(others).first(21), 64);
  const PagedDriver::Work work[] = {
      {1, std::span(others).subspan(21, 1)}, {0, ids}, {2, std::span(others).first(13)}};
  const std::vector<float> together = driver.step(work);
  const size_t vocab = transformer.spec().vocab_size;
  EXPECT_EQ(std::memcmp(whole.data(), together.data() + vocab, whole.size() * sizeof(float)), 0)
      << "beside others";
}

INSTANTIATE_TEST_SUITE_P(Models, Golden,
                         ::testing::Combine(::testing::ValuesIn(test_devices()),
                                            ::testing::ValuesIn(models())),
                         [](const auto& info) {
                           const ModelCase& model = std::get<1>(info.param);
                           std::string name = std::get<0>(info.param) + "_" + model.name;
                           if (model.quantize != "off") name += "_" + model.quantize;
                           for (char& c : name)
                             if (c == '-' || c == '.') c = '_';
                           return name;
                         });

// What `serval models` says is what runs here.
TEST(Architectures, NameTheirModelsAndTheGoldensThatRun) {
  std::set<std::string> unnamed;
  for (const ModelCase& model : models()) unnamed.insert(model.name);
  for (const Architecture* row : architectures()) {
    EXPECT_FALSE(row->models.empty()) << row->name << " does not say what models have it";
    EXPECT_FALSE(row->goldens.empty()) << row->name << " names no golden";
    std::istringstream goldens{std::string(row->goldens)};
    for (std::string golden; goldens >> golden;) {
      EXPECT_EQ(unnamed.erase(golden), 1) << row->name << ": no golden " << golden << ", or it is named twice";
      EXPECT_EQ(read_model_spec(fixture(golden)).architecture, row->name) << golden;
    }
  }
  EXPECT_TRUE(unnamed.empty()) << "no architecture names the golden " << *unnamed.begin();
}

TEST(Architectures, AreServedOrNot) {
  for (const Unserved& row : unserved_architectures()) {
    for (const Architecture* served : architectures()) EXPECT_NE(served->name, row.name);
  }
}

TEST(Architectures, AreDocumentedAsTheyAre) {
  std::ifstream file(std::string(SERVAL_SOURCE_DIR) + "/docs/models.md");
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_EQ(text.str(), models_markdown()) << "run: serval models --markdown > docs/models.md";
}

}  // namespace
}  // namespace serval::testing
