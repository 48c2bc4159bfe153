#include "engine/model/architectures/irregular.h"

#include <cmath>
#include <string>
#include <vector>

#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/harmless_fields.h"

namespace serval {
namespace {

// All layers with attention keep every position.
void set_group(ModelSpec& spec) {
  std::vector<int> group_of;
  for (const LayerSpec& layer : spec.layers)
    group_of.push_back(std::visit([](const auto& part) { return has_mixer(part); }, layer.mixer) ? 0 : -1);
  set_groups({KvGroupSpec{}}, group_of, spec);
}

void set_kv_heads(const Fields& config, const char* field, int64_t kv_heads, GqaSpec& attention) {
  if (kv_heads < 1 || attention.num_heads % kv_heads != 0)
    config.refuse(field, "must divide num_attention_heads in each layer");
  attention.num_kv_heads = static_cast<int>(kv_heads);
}

// Of a block's half: whether it is there. A linear map in its place is not served.
bool has_part(const Fields& part) {
  if (part.get_bool("replace_with_linear", false)) part.refuse("replace_with_linear", "is not supported when true");
  return !part.get_bool("no_op", false);
}

// What a block's ffn_mult means, in multiples of 256.
int ffn_width(double multiplier, int hidden) {
  const int width = static_cast<int>(2 * multiplier * hidden / 3);
  return (width + 255) / 256 * 256;
}

ModelSpec read_deci(const Fields& config) {
  ModelSpec spec = read_frame(config);
  const int num_layers = spec.num_layers();
  spec.final_norm = read_rms_norm(config);
  GqaSpec attention = read_heads(config, spec.hidden_size, {.requires_num_kv_heads = false, .bias = false});
  const RopeSpec rope = read_rope(config, attention.head_dim, spec.max_positions);
  const bool ffn_bias = config.get_bool("mlp_bias", false);
  if (config.find("block_configs") == nullptr) {
    DenseFfnSpec ffn = read_gated_ffn(config);
    ffn.bias = ffn_bias;
    constexpr const char* kPerLayer = "num_key_value_heads_per_layer";
    const std::vector<int64_t> kv_heads = config.find_integers(kPerLayer);
    if (!kv_heads.empty() && std::ssize(kv_heads) != num_layers)
      config.refuse(kPerLayer, "must be an array of num_hidden_layers numbers");
    config.ignore({"naive_attention_prefill", "naive_attention_decode_batched", "naive_attention_decode_single"});
    set_uniform_layers(config, pre_norm_layer(attention, ffn, spec.final_norm), rope, spec);
    for (size_t l = 0; l < kv_heads.size(); ++l) {
      set_kv_heads(config, kPerLayer, kv_heads[l], attention);
      spec.layers[l].mixer = attention;
    }
    return spec;
  }
  config.ignore({"intermediate_size", "num_key_value_heads"});  // of blocks that say nothing
  const boost::json::array& blocks = config.get_array("block_configs");
  if (std::ssize(blocks) != num_layers) config.refuse("block_configs", "must be an array of num_hidden_layers objects");
  const Activation activation = read_activation(config, "hidden_act", "silu");
  spec.ropes = {rope};
  spec.layers.clear();
  for (int l = 0; l < num_layers; ++l) {
    const Fields block = config.inside(blocks[l], "block_configs." + std::to_string(l));
    const Fields mixer = block.get_object("attention"), ffn = block.get_object("ffn");
    LayerSpec layer;
    layer.stored_index = l;
    layer.mixer = NoMixerSpec{};
    layer.ffn = NoFfnSpec{};
    const bool has_attention = has_part(mixer), has_ffn = has_part(ffn);
    const int sharing = mixer.find_int("n_heads_in_group", 1, kMaxHeads).value_or(1);
    const double multiplier = ffn.find_positive("ffn_mult", 1e3).value_or(0);
    if (has_attention) {
      if (attention.num_heads % sharing != 0) mixer.refuse("n_heads_in_group", "must divide num_attention_heads");
      attention.num_kv_heads = attention.num_heads / sharing;
      layer.mixer = attention;
      layer.mixer_norm = spec.final_norm;
    }
    if (has_ffn) {
      const int width = ffn_width(multiplier, spec.hidden_size);
      if (width < 1 || width > kMaxIntermediate) ffn.refuse("ffn_mult", "makes a width of " + std::to_string(width));
      layer.ffn = DenseFfnSpec{.intermediate_size = width, .activation = activation, .bias = ffn_bias};
      layer.ffn_norm = spec.final_norm;
    }
    for (const Fields* part : {&mixer, &ffn, &block}) refuse_unasked(*part);
    if (has_attention || has_ffn) spec.layers.push_back(layer);
  }
  if (spec.layers.empty()) config.refuse("block_configs", "leaves no layer");
  set_group(spec);
  return spec;
}

// A fraction of the model's width, in multiples of a divisor, never less than nine tenths of it.
int divisible_width(double wanted, int divisor) {
  const int width = std::max(divisor, static_cast<int>(wanted + divisor / 2.0) / divisor * divisor);
  return width < 0.9 * wanted ? width + divisor : width;
}

ModelSpec read_openelm(const Fields& config) {
  ModelSpec spec;
  spec.vocab_size = config.get_int("vocab_size", 1, kMaxVocab);
  spec.hidden_size = config.get_int("model_dim", 1, kMaxHidden);
  spec.layers.resize(config.get_int("num_transformer_layers", 1, kMaxLayers));
  spec.max_positions = config.get_int("max_context_length", 1, kMaxPositions);
  spec.tied_embeddings = config.get_bool("share_input_output_layers", true);
  spec.final_norm = {.kind = NormSpec::Kind::kRms, .eps = 1e-6f};
  if (config.find_string("normalization_layer_name").value_or("rms_norm") != "rms_norm")
    config.refuse("normalization_layer_name", "must be rms_norm");
  if (!config.get_bool("ffn_with_glu", true)) config.refuse("ffn_with_glu", "must be true");
  const Activation activation = read_activation(config, "activation_fn_name", "swish");
  GqaSpec attention;
  attention.head_dim = config.get_int("head_dim", 8, kMaxHeadDim);
  if (attention.head_dim % 8 != 0) config.refuse("head_dim", "must be a multiple of 8");
  attention.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(attention.head_dim)));
  if (config.get_bool("normalize_qk_projections", true)) attention.head_norm = spec.final_norm;
  spec.ropes = {RopeSpec{.theta = find_theta(config, "rope_freq_constant").value_or(10000), .rotary_dim = attention.head_dim}};
  // What the lists below were made of, and a limit of the table of rotations.
  config.ignore({"num_gqa_groups", "qkv_multipliers", "rope_max_length"});
  const std::vector<int64_t> heads = config.find_integers("num_query_heads"), kv_heads = config.find_integers("num_kv_heads");
  const boost::json::array& multipliers = config.get_array("ffn_multipliers");
  const int divisor = config.find_int("ffn_dim_divisor", 1, 1 << 16).value_or(256);
  for (const auto& [field, size] : {std::pair{"num_query_heads", heads.size()}, {"num_kv_heads", kv_heads.size()},
                                    {"ffn_multipliers", multipliers.size()}}) {
    if (size != spec.layers.size()) config.refuse(field, "must be an array of num_transformer_layers numbers");
  }
  for (size_t l = 0; l < spec.layers.size(); ++l) {
    if (heads[l] < 1 || heads[l] > kMaxHeads) config.refuse("num_query_heads", "must be numbers from 1 on");
    attention.num_heads = static_cast<int>(heads[l]);
    set_kv_heads(config, "num_kv_heads", kv_heads[l], attention);
    if (!multipliers[l].is_number()) config.refuse("ffn_multipliers", "must be numbers");
    const double wanted = multipliers[l].to_number<double>() * spec.hidden_size;
    if (!(wanted > 0 && wanted < kMaxIntermediate)) config.refuse("ffn_multipliers", "must be numbers above 0");
    const DenseFfnSpec ffn{.intermediate_size = divisible_width(wanted, divisor), .activation = activation};
    spec.layers[l] = pre_norm_layer(attention, ffn, spec.final_norm);
  }
  set_group(spec);
  return spec;
}

constexpr StoredName kOpenElmModules[] = {
    {"input_layernorm", "attn_norm"},      {"post_attention_layernorm", "ffn_norm"}, {"self_attn.q_proj", "attn.qkv_proj"},
    {"self_attn.k_proj", "attn.qkv_proj"}, {"self_attn.v_proj", "attn.qkv_proj"},    {"self_attn.o_proj", "attn.out_proj"},
    {"self_attn.q_norm", "attn.q_norm"},   {"self_attn.k_norm", "attn.k_norm"},      {"mlp.gate_proj", "ffn.proj_1"},
    {"mlp.up_proj", "ffn.proj_1"},         {"mlp.down_proj", "ffn.proj_2"}};

}  // namespace

constexpr Architecture kDeciLM{"DeciLMForCausalLM",
                               "nemotron-nas",
                               read_deci,
                               {},
                               "Llama-Nemotron 49B, 51B, 253B, DeciLM 7B",
                               "nemotron-nas-bf16 decilm-f16"};
constexpr Architecture kOpenElm{"OpenELMForCausalLM",
                                "openelm",
                                read_openelm,
                                {.embedding = "transformer.token_embeddings",
                                 .layers = "transformer.layers",
                                 .final_norm = "transformer.norm",
                                 .modules = kOpenElmModules},
                                "OpenELM 270M to 3B",
                                "openelm-bf16"};

}  // namespace serval
