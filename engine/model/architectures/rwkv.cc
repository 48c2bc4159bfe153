#include "engine/model/architectures/rwkv.h"

#include <vector>

#include "engine/model/architectures/decoder_fields.h"

namespace serval {
namespace {

// A state has no last position, and context_length is what was trained. This is where a context ends.
constexpr int kUsualPositions = 1 << 17;

ModelSpec read_rwkv(const Fields& config) {
  ModelSpec spec;
  spec.vocab_size = config.get_int("vocab_size", 1, kMaxVocab);
  spec.hidden_size = config.get_int("hidden_size", 1, kMaxHidden);
  const int num_layers = config.get_int("num_hidden_layers", 1, kMaxLayers / 2);
  spec.max_positions = kUsualPositions;
  config.ignore({"context_length", "max_position_embeddings"});
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

constexpr StoredName kModules[] = {{"input_layernorm", "ln1"}, {"post_attention_layernorm", "ln2"}};

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

}  // namespace serval
