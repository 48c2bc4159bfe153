#include "engine/model/architectures/vision_language.h"

#include <boost/json/object.hpp>
#include <string>
#include <string_view>

#include "engine/model/architectures/composite.h"
#include "kernels/base/shown.h"

namespace serval {
namespace {

// What text_config leaves out has the value of its decoder's first model.
boost::json::object defaults_of(std::string_view type) {
  if (type == "llama")
    return {{"vocab_size", 32000},
            {"hidden_size", 4096},
            {"intermediate_size", 11008},
            {"num_hidden_layers", 32},
            {"num_attention_heads", 32},
            {"max_position_embeddings", 2048}};
  if (type == "mistral")
    return {{"vocab_size", 32000},
            {"hidden_size", 4096},
            {"intermediate_size", 14336},
            {"num_hidden_layers", 32},
            {"num_attention_heads", 32},
            {"num_key_value_heads", 8},
            {"max_position_embeddings", 131072},
            {"sliding_window", 4096}};
  return {};
}

// `more`: what this family's text leaves out beside.
ModelSpec read_text(const Fields& config, std::string_view usual_type, const boost::json::object& more) {
  const Fields text = config.get_object("text_config");
  const std::string type = text.find_string("model_type").value_or(std::string(usual_type));
  const Architecture& decoder = find_architecture_of_type(type);
  // Its tensors are spelled by the row of the whole, which knows no modules of another name.
  if (!decoder.names.modules.empty())
    text.refuse("model_type", in_quotes(type) + " is not supported beside pictures or sound");
  boost::json::object defaults = defaults_of(type);
  for (const auto& [name, value] : more) defaults[name] = value;
  ModelSpec spec = read_text_part(config, defaults, decoder.read);
  spec.logit_scale = 1;  // the head is the whole's: in the reference it does not have the decoder's scale
  return spec;
}

ModelSpec read_llava(const Fields& config) {
  return read_text(config, "llama", {});
}
ModelSpec read_aya(const Fields& config) {
  config.ignore({"downsample_factor", "adapter_layer_norm_eps"});
  return read_text(config, "cohere2", {});
}
ModelSpec read_voxtral(const Fields& config) {
  config.ignore({"hidden_size"});
  return read_text(config, "llama",
                   {{"vocab_size", 131072},
                    {"hidden_size", 3072},
                    {"intermediate_size", 8192},
                    {"num_hidden_layers", 30},
                    {"num_key_value_heads", 8},
                    {"max_position_embeddings", 131072},
                    {"rms_norm_eps", 1e-5},
                    {"rope_theta", 1e8},
                    {"head_dim", 128}});
}
// With a decoder of Qwen's.
ModelSpec read_with_qwen(const Fields& config) {
  return read_text(config, "qwen2", {});
}
ModelSpec read_idefics3(const Fields& config) {
  config.ignore({"scale_factor"});
  return read_text(config, "llama", {{"rms_norm_eps", 1e-5}});
}

}  // namespace

constexpr Architecture kLlava{"LlavaForConditionalGeneration",
                              "llava",
                              read_llava,
                              text_names(),
                              "LLaVA 1.5, Pixtral 12B: text",
                              "llava"};
constexpr Architecture kLlavaNext{"LlavaNextForConditionalGeneration",
                                  "llava_next",
                                  read_llava,
                                  text_names(),
                                  "LLaVA 1.6, Granite Vision: text",
                                  "llava-next llava-next-granite"};
constexpr Architecture kLlavaOnevision{"LlavaOnevisionForConditionalGeneration",
                                       "llava_onevision",
                                       read_with_qwen,
                                       text_names(),
                                       "LLaVA-OneVision: text",
                                       "llava-onevision"};
constexpr Architecture kAyaVision{"AyaVisionForConditionalGeneration",
                                  "aya_vision",
                                  read_aya,
                                  text_names(),
                                  "Aya Vision 8B, 32B: text",
                                  "aya-vision"};
constexpr Architecture kVoxtral{"VoxtralForConditionalGeneration",
                                "voxtral",
                                read_voxtral,
                                text_names(),
                                "Voxtral 3B, 24B: text",
                                "voxtral"};
constexpr Architecture kQwen2Audio{"Qwen2AudioForConditionalGeneration",
                                   "qwen2_audio",
                                   read_with_qwen,
                                   text_names(),
                                   "Qwen2-Audio: text",
                                   "qwen2-audio"};
constexpr Architecture kInternVl{"InternVLForConditionalGeneration",
                                 "internvl",
                                 read_with_qwen,
                                 text_names(),
                                 "InternVL 3, 3.5: text",
                                 "internvl"};
constexpr Architecture kIdefics3{"Idefics3ForConditionalGeneration",
                                 "idefics3",
                                 read_idefics3,
                                 text_names(),
                                 "Idefics 3, SmolVLM, Granite Docling: text",
                                 "idefics3"};
constexpr Architecture kSmolVlm{"SmolVLMForConditionalGeneration",
                                "smolvlm",
                                read_idefics3,
                                text_names(),
                                "SmolVLM 2: text",
                                "smolvlm"};

}  // namespace serval
