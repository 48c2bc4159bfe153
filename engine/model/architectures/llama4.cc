#include "engine/model/architectures/llama4.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "engine/model/architectures/composite.h"
#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/architectures/expert_fields.h"

namespace serval {
namespace {

// no_rope_layers has a 0 for each layer that does not rotate; or every interval-th does not.
std::vector<bool> read_rotating(const Fields& config, int num_layers) {
  const int interval = config.find_int("no_rope_layer_interval", 1, kMaxLayers).value_or(4);
  std::vector<bool> rotating;
  for (int l = 0; l < num_layers; ++l) rotating.push_back((l + 1) % interval != 0);
  const std::vector<int64_t> said = config.find_integers("no_rope_layers");
  if (said.empty()) return rotating;
  if (static_cast<int>(said.size()) < num_layers) config.refuse("no_rope_layers", "must have a number for each layer");
  for (int l = 0; l < num_layers; ++l) rotating[l] = said[l] != 0;
  return rotating;
}

// moe_layers names them; or every step-th has experts.
std::vector<bool> read_expert_layers(const Fields& config, int num_layers) {
  const int step = config.find_int("interleave_moe_layer_step", 1, kMaxLayers).value_or(1);
  std::vector<bool> has_experts;
  for (int l = 0; l < num_layers; ++l) has_experts.push_back((l + 1) % step == 0);
  if (config.find("moe_layers") == nullptr) return has_experts;
  has_experts.assign(num_layers, false);
  for (const int64_t l : config.find_integers("moe_layers")) {
    if (l < 0 || l >= num_layers) config.refuse("moe_layers", "must hold indices of layers");
    has_experts[l] = true;
  }
  return has_experts;
}

// A switch that some files have as a number.
bool read_tuning(const Fields& config) {
  const boost::json::value* const tunes = config.find("attn_temperature_tuning");
  if (tunes != nullptr && tunes->is_number()) return tunes->to_number<double>() != 0;
  return config.get_bool("attn_temperature_tuning", true);
}

ModelSpec read_text(const Fields& config) {
  ModelSpec spec = read_frame(config);
  const int num_layers = spec.num_layers();
  spec.final_norm = read_rms_norm(config, 1e-5);
  GqaSpec attention = read_heads(config, spec.hidden_size, {.bias = false});
  attention.interleaved_dims = attention.head_dim;
  GqaSpec rotated = attention;
  if (config.get_bool("use_qk_norm", true)) {
    rotated.head_norm = {.kind = NormSpec::Kind::kRms, .eps = spec.final_norm.eps, .has_weight = false};
    rotated.head_norm_place = HeadNormPlace::kEachRotatedHead;
  }
  spec.ropes = {read_rope(config, attention.head_dim, spec.max_positions, {.theta = 500000})};
  // Queries that do not rotate grow with their positions.
  const int span = config.find_int("floor_scale", 1, kMaxPositions).value_or(8192);
  const double growth = config.find_number("attn_scale", 0, 1e6).value_or(0.1);
  const bool tunes = read_tuning(config) && growth > 0;
  if (tunes) spec.ropes.push_back(growth_alone(growth, span, /*ahead=*/1));

  const DenseFfnSpec expert = read_gated_ffn(config);
  DenseFfnSpec dense = expert;
  dense.intermediate_size = config.find_int("intermediate_size_mlp", 1, kMaxIntermediate).value_or(16384);
  MoeFfnSpec experts = read_experts(config, spec, expert, {.count = {"num_local_experts"}, .width = "intermediate_size"});
  experts.rule = {.score = RoutingRule::Score::kSigmoid};
  experts.weighs_inputs = true;
  experts.shared_size = expert.intermediate_size;

  const std::vector<bool> rotating = read_rotating(config, num_layers);
  const std::vector<bool> has_experts = read_expert_layers(config, num_layers);
  constexpr std::string_view kKinds[] = {"full_attention", "chunked_attention"};
  std::vector<int> kinds(rotating.begin(), rotating.end());
  kinds = read_layer_names(config, "layer_types", num_layers, kKinds).value_or(kinds);
  const std::optional<int> chunk = config.find_int("attention_chunk_size", 1, kMaxPositions);
  // A chunk as long as the context hides nothing.
  if (!chunk || *chunk >= spec.max_positions) kinds.assign(num_layers, 0);
  for (int l = 0; l < num_layers; ++l) {
    LayerSpec& layer = spec.layers[l] = pre_norm_layer(rotating[l] ? rotated : attention, dense, spec.final_norm);
    if (rotating[l]) continue;
    layer.rope = kNoRope;
    if (tunes) layer.query_growth = 1;
  }
  set_experts(experts, has_experts, spec);
  set_groups({{}, {.window = chunk.value_or(0), .is_in_chunks = true, .layers = {}}}, kinds, spec);
  config.ignore({"for_llm_compressor"});
  return spec;
}

ModelSpec read_composite(const Fields& config) {
  return read_text_part(config,
                        {{"vocab_size", 202048},
                         {"hidden_size", 5120},
                         {"intermediate_size", 8192},
                         {"num_hidden_layers", 48},
                         {"num_attention_heads", 40},
                         {"num_key_value_heads", 8},
                         {"head_dim", 128},
                         {"max_position_embeddings", 131072},
                         {"num_local_experts", 16},
                         {"num_experts_per_tok", 1}},
                        read_text);
}

// Before all that begins like a dense part's.
constexpr StoredName kModules[] = {{"mlp.gate", "feed_forward.router"},
                                   {"mlp.experts.*.gate_proj", "feed_forward.experts.gate_up_proj"},
                                   {"mlp.experts.*.up_proj", "feed_forward.experts.gate_up_proj"},
                                   {"mlp.experts.*.down_proj", "feed_forward.experts.down_proj"},
                                   {"mlp.shared_experts.", "feed_forward.shared_expert."},
                                   {"mlp.", "feed_forward."}};

constexpr TensorNames with_stacks(TensorNames names) {
  names.has_transposed_stacks = true;
  return names;
}

}  // namespace

constexpr Architecture kLlama4{"Llama4ForCausalLM", "llama4_text", read_text, with_stacks({.modules = kModules}),
                               "Llama 4 without pictures", "llama4"};
constexpr Architecture kLlama4Composite{"Llama4ForConditionalGeneration",
                                        "llama4",
                                        read_composite,
                                        with_stacks(text_names(kModules)),
                                        "Llama 4 Scout, Maverick: text",
                                        "llama4-composite"};

}  // namespace serval
