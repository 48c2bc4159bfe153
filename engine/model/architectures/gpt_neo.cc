#include "engine/model/architectures/gpt_neo.h"

#include <string>
#include <utility>
#include <vector>

#include "engine/model/architectures/decoder_fields.h"
#include "engine/model/architectures/plain_decoder.h"
#include "kernels/base/shown.h"

namespace serval {
namespace {

namespace json = boost::json;

// attention_types: [[["global", "local"], 12]] is these two twelve times in turn.
std::vector<bool> read_local(const Fields& config, int num_layers) {
  constexpr std::string_view kField = "attention_types";
  const auto wrong = [&] {
    config.refuse(kField, "must be pairs of names, global or local, and how often they come, " +
                              std::to_string(num_layers) + " layers in all");
  };
  std::vector<bool> local;
  for (const json::value& pair : config.get_array(kField)) {
    if (!pair.is_array() || pair.get_array().size() != 2 || !pair.get_array()[0].is_array() ||
        !pair.get_array()[1].is_int64())
      wrong();
    const json::array& names = pair.get_array()[0].get_array();
    for (int64_t turn = 0; turn < pair.get_array()[1].get_int64(); ++turn) {
      if (names.empty() || local.size() > static_cast<size_t>(num_layers)) wrong();
      for (const json::value& name : names) {
        if (!name.is_string() || (name.get_string() != "global" && name.get_string() != "local")) wrong();
        local.push_back(name.get_string() == "local");
      }
    }
  }
  if (local.size() != static_cast<size_t>(num_layers)) wrong();
  return local;
}

ModelSpec read_gpt_neo(const Fields& config) {
  PlainDecoder decoder = read_plain_decoder(config, {.layers = "num_layers", .heads = "num_heads"});
  decoder.spec.positions = PositionTable::kLearned;
  decoder.attention.scale = 1;
  decoder.attention.qkv_bias = false;
  config.find("attention_layers");  // the same, a name a layer
  const int window = config.find_int("window_size", 1, kMaxPositions).value_or(256);
  const std::vector<bool> local = read_local(config, decoder.spec.num_layers());
  ModelSpec spec = made_of(config, std::move(decoder));
  spec.kv_groups.clear();
  set_windows(config, window, local, spec);
  return spec;
}

constexpr StoredName kModules[] = {{"input_layernorm", "ln_1"},
                                   {"self_attn.q_proj", "attn.attention.q_proj"},
                                   {"self_attn.k_proj", "attn.attention.k_proj"},
                                   {"self_attn.v_proj", "attn.attention.v_proj"},
                                   {"self_attn.o_proj", "attn.attention.out_proj"},
                                   {"post_attention_layernorm", "ln_2"},
                                   {"mlp.up_proj", "mlp.c_fc"},
                                   {"mlp.down_proj", "mlp.c_proj"}};
// The masks, which old exporters saved.
constexpr std::string_view kMasks[] = {".attn.attention.bias", ".attn.attention.masked_bias"};

}  // namespace

constexpr Architecture kGptNeo{"GPTNeoForCausalLM",
                               "gpt_neo",
                               read_gpt_neo,
                               {.embedding = "transformer.wte",
                                .positions = "transformer.wpe",
                                .layers = "transformer.h",
                                .final_norm = "transformer.ln_f",
                                .optional_prefix = "transformer.",
                                .modules = kModules,
                                .ignored = kMasks},
                               "GPT-Neo 125M to 2.7B, TinyStories",
                               "gpt-neo"};

}  // namespace serval
