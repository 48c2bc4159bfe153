#include "engine/model/architectures/deepseek_v4.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/architectures/expert_fields.h"
#include "engine/model/harmless_fields.h"
#include "kernels/base/shown.h"

namespace serval {
namespace {

// What a layer attends to beside its window: nothing, compressed keys of which an index chooses, or all of those that are
// made of more positions.
enum Kind { kWindow, kSparse, kHeavy };
constexpr std::string_view kKinds[] = {"sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"};
constexpr int kUsualSpans[] = {0, 4, 128};

// layer_types; or compress_ratios, a span for each layer and for those that are not run.
std::vector<int> read_kinds(const Fields& config, int num_layers) {
  const std::vector<int64_t> spans = config.find_integers("compress_ratios");
  if (const auto kinds = read_layer_names(config, "layer_types", num_layers, kKinds)) return *kinds;
  std::vector<int> kinds;
  if (!spans.empty() && static_cast<int>(spans.size()) < num_layers)
    config.refuse("compress_ratios", "must have a number for each of num_hidden_layers layers");
  for (int l = 0; l < num_layers; ++l) {
    if (spans.empty()) {
      kinds.push_back(l < 2 || l % 2 == 0 ? kHeavy : kSparse);
      continue;
    }
    const auto* const kind = std::ranges::find(kUsualSpans, spans[l]);
    if (kind == std::end(kUsualSpans))
      config.refuse("compress_ratios", "holds " + std::to_string(spans[l]) + "; supported are 0, 4, 128");
    kinds.push_back(static_cast<int>(kind - kUsualSpans));
  }
  return kinds;
}

int read_span(const Fields& config, Kind kind, std::string_view old_field) {
  int span = kUsualSpans[kind];
  if (const std::optional<Fields> spans = config.find_object("compress_rates"))
    span = spans->find_int(kKinds[kind], 1, kMaxPositions).value_or(span);
  return config.find_int(old_field, 1, kMaxPositions).value_or(span);
}

// Whether a table of each layer gives its experts to tokens.
std::vector<bool> read_token_experts(const Fields& config, int num_layers) {
  constexpr std::string_view kNames[] = {"moe", "hash_moe"};
  const int first = config.find_int("num_hash_layers", 0, kMaxLayers).value_or(3);
  if (const auto named = read_layer_names(config, "mlp_layer_types", num_layers, kNames)) return {named->begin(), named->end()};
  std::vector<bool> named;
  for (int l = 0; l < num_layers; ++l) named.push_back(l < first);
  return named;
}

MoeFfnSpec read_v4_experts(const Fields& config, const ModelSpec& frame) {
  DenseFfnSpec dense;
  dense.activation = read_activation(config, "hidden_act", "silu");
  MoeFfnSpec moe = read_experts(config, frame, dense);
  if (config.find_int("n_shared_experts", 0, kMaxExperts).value_or(1) != 1) config.refuse("n_shared_experts", "must be 1");
  moe.shared_size = moe.intermediate_size;
  moe.shared_bias = config.get_bool("mlp_bias", false);
  moe.gate_limit = static_cast<float>(config.find_positive("swiglu_limit", 1e9).value_or(10));
  struct Name {
    std::string_view name;
    RoutingRule::Score score;
  };
  constexpr Name kScores[] = {{"sqrtsoftplus", RoutingRule::Score::kSqrtSoftplus},
                              {"softmax", RoutingRule::Score::kSoftmax},
                              {"sigmoid", RoutingRule::Score::kSigmoid}};
  const std::string score = config.find_string("scoring_func").value_or("sqrtsoftplus");
  const auto* const known = std::ranges::find(kScores, std::string_view(score), &Name::name);
  if (known == std::end(kScores))
    config.refuse("scoring_func", in_quotes(score) + " is not supported; supported are sqrtsoftplus, softmax, sigmoid");
  moe.rule = {.score = known->score, .renormalise = true, .least_sum = 1e-20f};
  moe.rule.scale = static_cast<float>(config.find_positive("routed_scaling_factor", 1e6).value_or(1.5));
  // The reference renormalises, and knows neither groups nor another way to choose, whatever these say.
  config.ignore({"norm_topk_prob", "topk_method", "n_group", "topk_group", "intermediate_size"});
  return moe;
}

// Of the layers with a window alone, and of those with compressed keys: an object each, or one that is the second's but for
// its base.
std::vector<RopeSpec> read_v4_ropes(const Fields& config, int head_dim, int max_positions) {
  const std::optional<int> rotary_dim = config.find_int("qk_rope_head_dim", 2, head_dim);
  const double part = rotary_dim ? double(*rotary_dim) / head_dim : 64.0 / 512;
  const RopeRules main{.theta = find_theta(config, "rope_theta").value_or(10000), .part = part};
  const RopeRules compressed{.theta = find_theta(config, "compress_rope_theta").value_or(160000), .part = part};
  std::optional<Fields> rope = config.find_object("rope_parameters");
  if (rope && rope->find("main") != nullptr && rope->find("compress") != nullptr) {
    config.find("rope_scaling");
    return {read_rope_object(config, rope->get_object("main"), head_dim, max_positions, main),
            read_rope_object(config, rope->get_object("compress"), head_dim, max_positions, compressed)};
  }
  const boost::json::object nothing;
  if (std::optional<Fields> scaling = config.find_object("rope_scaling")) rope = std::move(scaling);
  boost::json::object stretched = rope ? rope->object() : nothing;
  for (const char* field : {"rope_theta", "main", "compress"}) stretched.erase(field);
  const bool has_amplitude = stretched.contains("attention_factor");
  std::vector<RopeSpec> ropes = {
      read_rope_object(config, Fields(nothing, config.file()), head_dim, max_positions, main),
      read_rope_object(config, Fields(stretched, config.file(), "rope_scaling."), head_dim, max_positions, compressed)};
  if (!has_amplitude) ropes[1].amplitude = 1;
  return ropes;
}

CompressedAttentionSpec read_attention(const Fields& config, int hidden_size) {
  CompressedAttentionSpec spec;
  const GqaSpec heads = read_heads(config, hidden_size, {.requires_num_kv_heads = false, .requires_head_dim = true});
  if (config.find_int("num_key_value_heads", 1, kMaxHeads).value_or(1) != 1) config.refuse("num_key_value_heads", "must be 1");
  spec.num_heads = heads.num_heads;
  spec.head_dim = heads.head_dim;
  spec.scale = heads.scale;
  spec.query_rank = config.get_int("q_lora_rank", 1, kMaxHidden);
  spec.output_groups = config.get_int("o_groups", 1, kMaxHeads);
  spec.output_rank = config.get_int("o_lora_rank", 1, kMaxHidden);
  if (spec.num_heads % spec.output_groups != 0) config.refuse("o_groups", "must divide num_attention_heads");
  spec.window = read_window(config).value_or(128);
  if (spec.window == 0) config.refuse("sliding_window", "must be positive");
  spec.norm = read_rms_norm(config);
  config.ignore({"attention_bias"});  // the reference has none
  return spec;
}

// The model's layers, each but those with a window alone followed by the place of what it compresses.
ModelSpec read_deepseek_v4(const Fields& config) {
  ModelSpec spec = read_frame(config);
  const int num_layers = spec.num_layers();
  spec.final_norm = read_rms_norm(config);
  spec.mixed = {.count = config.find_int("hc_mult", 1, kMaxStreams).value_or(4),
                .rounds = config.find_int("hc_sinkhorn_iters", 1, 1000).value_or(20),
                .eps = static_cast<float>(config.find_positive("hc_eps", 1).value_or(1e-6)),
                .norm_eps = spec.final_norm.eps};
  const CompressedAttentionSpec windowed = read_attention(config, spec.hidden_size);
  spec.ropes = read_v4_ropes(config, windowed.head_dim, spec.max_positions);
  CompressedAttentionSpec kinds[] = {windowed, windowed, windowed};
  kinds[kSparse].span = read_span(config, kSparse, "compress_rate_csa");
  kinds[kSparse].overlaps = true;
  kinds[kSparse].index_heads = config.get_int("index_n_heads", 1, kMaxHeads);
  kinds[kSparse].index_dim = config.get_int("index_head_dim", spec.ropes[1].rotary_dim, kMaxHeadDim);
  kinds[kSparse].top_k = config.get_int("index_topk", 1, kMaxPositions);
  kinds[kHeavy].span = read_span(config, kHeavy, "compress_rate_hca");
  MoeFfnSpec experts = read_v4_experts(config, spec);
  const std::vector<int> kind_of = read_kinds(config, num_layers);
  const std::vector<bool> has_table = read_token_experts(config, num_layers);
  // Layers that guess more tokens are not run; the method of quantisation reads its own.
  config.ignore({"num_nextn_predict_layers", "expert_dtype"});

  spec.layers.clear();
  std::vector<int> group_of;
  constexpr int kAll = 0, kLast = 1;
  KvGroupSpec last{.layers = {}};
  for (int l = 0; l < num_layers; ++l) {
    const CompressedAttentionSpec& attention = kinds[kind_of[l]];
    LayerSpec layer;
    layer.mixer = attention;
    experts.named_tokens = has_table[l] ? spec.vocab_size : 0;
    experts.has_correction = !has_table[l];
    layer.ffn = experts;
    layer.mixer_norm = layer.ffn_norm = spec.final_norm;
    layer.rope = attention.span > 0 ? 1 : 0;
    layer.stored_index = l;
    last.window = std::max(last.window, attention.read_positions());
    group_of.push_back(kLast);
    if (attention.span > 0) layer.far_layer = spec.num_layers() + 1;
    spec.layers.push_back(layer);
    if (attention.span == 0) continue;
    LayerSpec place;
    place.mixer = CompressedKeysSpec{.span = attention.span, .row_size = attention.head_dim + attention.index_dim};
    place.ffn = NoFfnSpec{};
    place.stored_index = l;
    spec.layers.push_back(place);
    group_of.push_back(kAll);
  }
  std::vector<KvGroupSpec> groups(2);
  groups[kAll] = {.layers = {}};
  groups[kLast] = last;
  set_groups(std::move(groups), group_of, spec);
  return spec;
}

// The names that are published.
constexpr StoredName kModules[] = {
    {"input_layernorm", "attn_norm"},
    {"post_attention_layernorm", "ffn_norm"},
    {"attn_hc.fn", "hc_attn_fn"},
    {"attn_hc.base", "hc_attn_base"},
    {"attn_hc.scale", "hc_attn_scale"},
    {"ffn_hc.fn", "hc_ffn_fn"},
    {"ffn_hc.base", "hc_ffn_base"},
    {"ffn_hc.scale", "hc_ffn_scale"},
    {"hc_head.fn", "hc_head_fn"},
    {"hc_head.base", "hc_head_base"},
    {"hc_head.scale", "hc_head_scale"},
    {"self_attn.q_a_proj", "attn.wq_a"},
    {"self_attn.q_a_norm", "attn.q_norm"},
    {"self_attn.q_b_proj", "attn.wq_b"},
    {"self_attn.kv_proj", "attn.wkv"},
    {"self_attn.sinks", "attn.attn_sink"},
    {"self_attn.o_a_proj", "attn.wo_a"},
    {"self_attn.o_b_proj", "attn.wo_b"},
    {"self_attn.compressor.kv_proj", "attn.compressor.wkv"},
    {"self_attn.compressor.gate_proj", "attn.compressor.wgate"},
    {"self_attn.compressor.position_bias", "attn.compressor.ape"},
    {"self_attn.compressor.kv_norm", "attn.compressor.norm"},
    {"self_attn.compressor.indexer.kv_proj", "attn.indexer.compressor.wkv"},
    {"self_attn.compressor.indexer.gate_proj", "attn.indexer.compressor.wgate"},
    {"self_attn.compressor.indexer.position_bias", "attn.indexer.compressor.ape"},
    {"self_attn.compressor.indexer.kv_norm", "attn.indexer.compressor.norm"},
    {"self_attn.compressor.indexer.q_b_proj", "attn.indexer.wq_b"},
    {"self_attn.compressor.indexer.scorer.weights_proj", "attn.indexer.weights_proj"},
    {"self_attn.", "attn."},
    {"mlp.gate.e_score_correction_bias", "ffn.gate.bias"},
    {"mlp.experts.*.gate_proj", "ffn.experts.*.w1"},
    {"mlp.experts.*.up_proj", "ffn.experts.*.w3"},
    {"mlp.experts.*.down_proj", "ffn.experts.*.w2"},
    {"mlp.shared_experts.gate_proj", "ffn.shared_experts.w1"},
    {"mlp.shared_experts.up_proj", "ffn.shared_experts.w3"},
    {"mlp.shared_experts.down_proj", "ffn.shared_experts.w2"},
    {"mlp.", "ffn."}};
constexpr std::string_view kDraftLayers[] = {"mtp."};

}  // namespace

constexpr Architecture kDeepseekV4{"DeepseekV4ForCausalLM",
                                   "deepseek_v4",
                                   read_deepseek_v4,
                                   {.embedding = "embed",
                                    .layers = "layers",
                                    .final_norm = "norm",
                                    .head = "head",
                                    .modules = kModules,
                                    .ignored = kDraftLayers},
                                   "DeepSeek-V4-Flash, V4-Pro",
                                   "deepseek-v4"};

}  // namespace serval
