// Recurrences, alone and beside attention.
#include "tests/engine/model/golden_expert_features.h"
#include "tests/engine/model/golden_expert_features.h"
#include "tests/engine/model/golden_features.h"
#include "tests/engine/model/golden_state_features.h"

namespace serval::testing {

std::vector<ModelCase> state_models() {
  return {
      {"mamba", {without_memory(), without_skip(), without_conv_bias()}},
      {"mamba-f16",
       {without_memory(), without_skip(), without_bias("input", [](LayerWeights& w) -> LinearWeight& { return mamba(w).input; }),
        without_bias("output of the mixer", [](LayerWeights& w) -> LinearWeight& { return mamba(w).output; })}},
      {"rwkv",
       {of_mixer_weights<RwkvTimeSpec>("state", [](RwkvTimeWeights& w) { scale_all(w.decay, 1e9f); }),
        of_mixer_weights<RwkvTimeSpec>("weight of the own position", [](RwkvTimeWeights& w) { scale_all(w.first, 0); }),
        of_mixer_weights<RwkvTimeSpec>("mixture of keys, values and gates", without_mixture<RwkvTimeWeights>),
        of_mixer_weights<RwkvChannelSpec>("mixture of the second part", without_mixture<RwkvChannelWeights>),
        without_embedding_norm(), of_mixers<RwkvChannelSpec>("halved residual", [](RwkvChannelSpec& s) { s.norm.eps = 0.05f; })}},
      {"zamba",
       {without_memory_of<HeadMambaSpec>(),
        of_mixer_weights<HeadMambaSpec>("skip", [](HeadMambaWeights& w) { scale_all(w.skip, 0); }),
        of_mixer_weights<HeadMambaSpec>("bias of the convolution", [](HeadMambaWeights& w) { w.conv_bias = {}; }),
        of_mixer_weights<HeadMambaSpec>("bias of steps", [](HeadMambaWeights& w) {
          for (LinearWeight& step : w.step) step.bias = {};
        }),
        of_mixer_weights<HeadMambaSpec>("matrices of each head", [](HeadMambaWeights& w) { std::swap(w.low[0], w.low[1]); }),
        of_mixer_weights<HeadMambaSpec>("input bias", [](HeadMambaWeights& w) { w.input.bias = {}; }),
        {"the block's own projection", [](ModelSpec& s, ModelWeights&) {
           for (LayerSpec& layer : s.layers)
             if (auto* const block = std::get_if<ZambaBlockSpec>(&layer.mixer)) block->user = 0;
         }}}},
      {"zamba2",
       {without_memory_of<Mamba2Spec>(), without_gated_norm<Mamba2Spec>(), without_rotation(),
        of_mixers<ZambaBlockSpec>("whose adapters they are", [](ZambaBlockSpec& s) { s.user = 0; }),
        of_mixers<ZambaBlockSpec>("adapters of queries, keys and values", [](ZambaBlockSpec& s) { s.has_attention_adapters = false; }),
        of_mixers<Mamba2Spec>("least step", [](Mamba2Spec& s) { s.least_step = 0; }),
        {"blocks that take turns", [](ModelSpec& s, ModelWeights&) {
           for (LayerSpec& layer : s.layers)
             if (layer.is_aside) layer.weights_of = 1;
         }}}},
      {"bamba",
       {without_memory_of<Mamba2Spec>(), without_gated_norm<Mamba2Spec>(), without_step_limits(), without_rotation()}},
      {"granite-hybrid",
       {without_memory_of<Mamba2Spec>(), with_one_group(), without_embedding_scale(),
        without_residual_scale(), without_logit_scale(),
        of_mixers<GqaSpec>("scale of scores", [](GqaSpec& mixer) { mixer.scale = 1 / std::sqrt(8.0f); })}},
      {"granite-hybrid-bf16",
       {without_memory_of<Mamba2Spec>(), without_rotation(),
        of_mixer_weights<Mamba2Spec>("input bias", [](Mamba2Weights& w) { w.input.bias = {}; })}},
      {"granite-hybrid-moe",
       {without_memory_of<Mamba2Spec>(), without_renormalised_routing(), without_shared_expert(), with_experts_exchanged(),
        without_residual_scale()}},
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
      {"recurrent-gemma",
       {of_mixer_weights<GriffinSpec>("state", [](GriffinWeights& w) { scale_all(w.rate, 1e9f); }),
        of_mixer_weights<GriffinSpec>("bias of decays", [](GriffinWeights& w) { scale_all(w.decay_bias, 0); }),
        of_mixer_weights<GriffinSpec>("bias of inputs", [](GriffinWeights& w) { scale_all(w.in_bias, 0); }),
        without_last_input<GriffinSpec>(), without_embedding_scale(), without_final_logit_cap(), without_norm_offset(),
        without_window(), with_window_off_by_one(), without_rotation()}},
      {"lfm2-moe",
       {without_last_input<ShortConvSpec>(), without_correction(), without_renormalised_routing(), without_routing_scale(),
        with_softmax_scores(), with_experts_exchanged()}},
      {"lfm3",
       {without_last_input<ShortConvSpec>(), without_window(), with_window_off_by_one(), without_rotation_per_layer(), without_post_norms(),
        without_head_norm_of_attention(), of_mixers<GqaSpec>("gate of heads", [](GqaSpec& mixer) { mixer.has_head_gate = false; })}},
      {"lfm2-bf16",
       {without_last_input<ShortConvSpec>(), without_rotation(),
        of_mixer_weights<ShortConvSpec>("bias of the convolution", [](ShortConvWeights& w) { scale_all(w.conv_bias, 0); }),
        of_mixer_weights<ShortConvSpec>("input bias", [](ShortConvWeights& w) { w.input.bias = {}; }),
        of_mixer_weights<ShortConvSpec>("output bias", [](ShortConvWeights& w) { w.output.bias = {}; })}},
      {"qwen35",
       {without_memory_of<DeltaNetSpec>(), without_last_input<DeltaNetSpec>(), without_gated_norm<DeltaNetSpec>(),
        without_delta_rule(), without_unit_length(), without_head_norm_of_attention(), without_rotation(),
        without_norm_offset()}},
      {"qwen3-next",
       {without_memory_of<DeltaNetSpec>(), without_last_input<DeltaNetSpec>(), without_delta_rule(),
        without_renormalised_routing(), with_experts_exchanged(), without_shared_expert(), without_shared_gate(),
        without_norm_offset()}},
      {"kimi-linear",
       {without_memory_of<KdaSpec>(), without_last_input<KdaSpec>(), without_gated_norm<KdaSpec>(),
        of_mixer_weights<KdaSpec>("length of keys", [](KdaWeights& w) { scale_all(w.unit, 2); }),
        of_mixer_weights<KdaSpec>("bias of a step", [](KdaWeights& w) { scale_all(w.step_bias, 0); }),
        without_correction(), without_shared_expert(), without_routing_scale()}},
      {"bailing-hybrid",
       {without_memory_of<KdaSpec>(), without_gated_norm<KdaSpec>(), without_correction(), without_expert_groups(),
        without_shared_expert(), without_rotation(),
        of_mixers<KdaSpec>("bound of decays", [](KdaSpec& mixer) { mixer.lower_bound = 0; }),
        of_mixers<MlaSpec>("gate of heads", [](MlaSpec& mixer) { mixer.has_head_gate = false; })}},
      {"minimax",
       {of_mixer_weights<LightningSpec>("state", [](LightningWeights& w) { scale_all(w.decays, 0); }),
        without_gated_norm<LightningSpec>(), without_renormalised_routing(), with_experts_exchanged(), without_rotation(),
        {"norms that become the residual",
         [](ModelSpec& s, ModelWeights&) {
           for (LayerSpec& layer : s.layers) layer.keeps_normed = false;
         }},
        {"factors of sums",
         [](ModelSpec& s, ModelWeights&) {
           for (LayerSpec& layer : s.layers) layer.mixer_scale = layer.ffn_scale = 1;
         }}}},
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
      {"jamba-moe", {without_memory_of<MambaSpec>(), with_renormalised_routing(), with_the_best_expert_alone(), with_experts_exchanged()}},
      {"nemotron-h",
       {without_memory_of<Mamba2Spec>(), without_step_limits(), with_one_group(),
        {"activation",
         [](ModelSpec& s, ModelWeights&) {
           for (LayerSpec& layer : s.layers)
             if (auto* const mlp = std::get_if<MlpFfnSpec>(&layer.ffn)) mlp->activation = Activation::kRelu;
         }}}},
      {"nemotron-h-moe",
       {without_memory_of<Mamba2Spec>(), without_correction(), without_shared_expert(), without_routing_scale(),
        without_renormalised_routing(), with_experts_exchanged(),
        with_experts("activation", [](MoeFfnSpec& moe) { moe.activation = Activation::kRelu; })}},
      {"nemotron-h-latent", {without_correction(), without_shared_expert(), with_experts_exchanged()}},
      {"nemotron-h-bf16",
       {without_memory_of<Mamba2Spec>(),
        of_mixer_weights<Mamba2Spec>("input bias", [](Mamba2Weights& w) { w.input.bias = {}; })}},
      {"qwen35-moe", {without_renormalised_routing(), with_experts_exchanged(), without_shared_expert(), without_shared_gate()}},
      {"qwen35-moe-composite", {without_renormalised_routing(), with_experts_exchanged(), without_shared_gate()}},
  };
}

}  // namespace serval::testing
