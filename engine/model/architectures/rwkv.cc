#include "engine/model/architectures/rwkv.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/model/architectures/decoder_fields.h"
#include "kernels/base/shown.h"

namespace serval {
namespace {

ModelSpec read_rwkv(const Fields& config) {
  ModelSpec spec;
  spec.vocab_size = config.get_int("vocab_size", 1, kMaxVocab);
  spec.hidden_size = config.get_int("hidden_size", 1, kMaxHidden);
  const int num_layers = config.get_int("num_hidden_layers", 1, kMaxLayers / 2);
  spec.max_positions = kPositionsOfStates;
  config.ignore({"context_length", "max_position_embeddings"});  // what it was trained with
  spec.tied_embeddings = config.get_bool("tie_word_embeddings", false);
  const NormSpec norm = read_layer_norm(config, "layer_norm_epsilon");
  spec.embedding_norm = norm;
  RwkvTimeSpec time{.hidden = spec.hidden_size,
                    .width = config.find_int("attention_hidden_size", 1, kMaxHidden).value_or(spec.hidden_size)};
  RwkvChannelSpec channel{.hidden = spec.hidden_size,
                          .width = config.find_int("intermediate_size", 1, kMaxIntermediate).value_or(4 * spec.hidden_size)};
  // The reference halves the residual behind every so many layers, with all that is added to it: what a norm adds to its
  // variance is then so much more.
  const int every = static_cast<int>(config.find_integer("rescale_every").value_or(6));
  const auto halved = [&](NormSpec of, int layers) {
    for (int i = every; every > 0 && i <= layers; i += every) of.eps *= 4;
    return of;
  };
  for (int l = 0; l < num_layers; ++l) {
    LayerSpec layer{.mixer = time, .ffn = NoFfnSpec(), .mixer_norm = halved(norm, l), .rope = kNoRope, .stored_index = l};
    spec.layers.push_back(layer);
    channel.norm = halved(norm, l);
    layer.mixer = channel;
    layer.mixer_norm = {};
    spec.layers.push_back(layer);
  }
  spec.final_norm = halved({.kind = NormSpec::Kind::kLayer, .eps = 1e-5f}, num_layers);
  set_state_groups(std::vector<bool>(spec.layers.size(), true), spec);
  return spec;
}

// value_dim: one for all layers, or one each; the state of wider values would be no square.
void check_values(const Fields& config, int hidden_size) {
  const boost::json::value* const said = config.find("value_dim");
  if (said == nullptr) return;
  const std::vector<int64_t> widths =
      said->is_array() ? config.find_integers("value_dim") : std::vector<int64_t>{config.find_integer("value_dim").value_or(0)};
  for (const int64_t width : widths)
    if (width != hidden_size) config.refuse("value_dim", "must be hidden_size");
}

int read_head_dim(const Fields& config, int hidden_size) {
  const std::optional<int> dim = config.find_int("head_dim", 1, kMaxScanKeys), heads = config.find_int("num_heads", 1, kMaxHidden);
  const int head_dim = dim.value_or(heads && hidden_size % *heads == 0 ? hidden_size / *heads : 64);
  if (hidden_size % head_dim != 0 || head_dim > kMaxScanKeys)
    config.refuse("head_dim", "must divide hidden_size, into heads of at most " + std::to_string(kMaxScanKeys));
  return head_dim;
}

ModelSpec read_rwkv7(const Fields& config) {
  ModelSpec spec;
  spec.vocab_size = config.get_int("vocab_size", 1, kMaxVocab);
  spec.hidden_size = config.get_int("hidden_size", 1, kMaxHidden);
  const int num_layers = config.get_int("num_hidden_layers", 1, kMaxLayers / 2);
  spec.max_positions = kPositionsOfStates;
  config.ignore({"max_position_embeddings"});  // what it was trained with
  spec.tied_embeddings = config.get_bool("tie_word_embeddings", false);
  if (const std::string act = config.find_string("hidden_act").value_or("sqrelu"); act != "sqrelu")
    config.refuse("hidden_act", in_quotes(act) + " is not supported; supported is sqrelu");
  const double eps = config.find_positive("norm_eps", 1).value_or(1e-5);
  NormSpec norm = read_layer_norm(config, "norm_eps");
  norm.has_bias = config.get_bool("norm_bias", true);
  if (config.get_bool("norm_first", true)) spec.embedding_norm = norm;
  check_values(config, spec.hidden_size);

  Rwkv7TimeSpec time{.hidden = spec.hidden_size, .head_dim = read_head_dim(config, spec.hidden_size)};
  const auto rank = [&](const char* field, int when_absent) { return config.find_int(field, 1, kMaxHidden).value_or(when_absent); };
  time.decay_rank = rank("decay_low_rank_dim", 64);
  time.gate_rank = rank("gate_low_rank_dim", 128);
  time.rate_rank = rank("a_low_rank_dim", 64);
  time.value_rank = rank("v_low_rank_dim", 16);
  // In one spelling of the reference a number is added to a length's square, in the other lengths have a least one.
  time.length_eps = config.get_bool("fuse_norm", true) ? 1e-6f : 1e-24f;
  time.norm = {.kind = NormSpec::Kind::kLayer, .eps = static_cast<float>(time.head_dim * eps)};
  const double ratio = config.find_positive("hidden_ratio", 1024).value_or(4);
  const std::optional<int> width = config.find_int("intermediate_size", 1, kMaxIntermediate);
  const Rwkv7ChannelSpec channel{.hidden = spec.hidden_size,
                                 .width = width.value_or((static_cast<int>(spec.hidden_size * ratio) + 31) / 32 * 32),
                                 .norm = norm};
  if (channel.width > kMaxIntermediate) config.refuse("hidden_ratio", "makes the second parts too wide");
  config.ignore({"attn_mode", "fuse_cross_entropy", "fuse_linear_cross_entropy", "use_l2warp"});

  for (int l = 0; l < num_layers; ++l) {
    time.is_first = l == 0;
    LayerSpec layer{.mixer = time, .ffn = NoFfnSpec(), .mixer_norm = norm, .rope = kNoRope, .stored_index = l};
    spec.layers.push_back(layer);
    layer.mixer = channel;
    layer.mixer_norm = {};
    spec.layers.push_back(layer);
  }
  spec.keeps_first_values = true;
  spec.final_norm = norm;
  set_state_groups(std::vector<bool>(spec.layers.size(), true), spec);
  return spec;
}

constexpr StoredName kModules[] = {{"input_layernorm", "ln1"}, {"post_attention_layernorm", "ln2"}};
constexpr StoredName kModules7[] = {{"input_layernorm", "attn_norm"}, {"post_attention_layernorm", "ffn_norm"}};

}  // namespace

constexpr Architecture kRwkv{"RwkvForCausalLM",
                             "rwkv",
                             read_rwkv,
                             {.embedding = "rwkv.embeddings",
                              .embedding_norm = "rwkv.blocks.0.pre_ln",
                              .layers = "rwkv.blocks",
                              .final_norm = "rwkv.ln_out",
                              .head = "head",
                              .modules = kModules},
                             "RWKV-4 169M to 14B, Raven",
                             "rwkv"};
constexpr Architecture kRwkv7{"RWKV7ForCausalLM",
                              "rwkv7",
                              read_rwkv7,
                              {.embedding = "model.embeddings", .embedding_norm = "model.layers.0.pre_norm", .modules = kModules7},
                              "RWKV-7 0.1B to 7.2B: World, G1 (converted)",
                              "rwkv7 rwkv7-f16"};

}  // namespace serval
