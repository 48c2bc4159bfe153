#include "engine/model/architectures/vision_language.h"

#include <boost/json/object.hpp>
#include <string>
#include <string_view>

#include "engine/model/architectures/composite.h"
#include "kernels/base/shown.h"

namespace serval {
namespace {

// What text_config leaves out has the value of its decoder's first model.
boost::json::object defaults_of(const Fields& text, const std::string& type) {
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
  if (type == "qwen2" || type == "qwen3") return {};
  text.refuse("model_type", in_quotes(type) + " is not supported; supported are llama, mistral, qwen2, qwen3");
}

ModelSpec read_text(const Fields& config, std::string_view usual_type, boost::json::object more) {
  const Fields text = config.get_object("text_config");
  const std::string type = text.find_string("model_type").value_or(std::string(usual_type));
  boost::json::object defaults = defaults_of(text, type);
  for (const auto& [name, value] : more) defaults[name] = value;
  return read_text_part(config, defaults, find_architecture_of_type(type).read);
}

ModelSpec read_llava(const Fields& config) {
  return read_text(config, "llama", {});
}
ModelSpec read_internvl(const Fields& config) {
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
                                  "LLaVA 1.6: text",
                                  "llava-next"};
constexpr Architecture kInternVl{"InternVLForConditionalGeneration",
                                 "internvl",
                                 read_internvl,
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
