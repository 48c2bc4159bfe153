#include "engine/model/architectures/composite.h"

#include "engine/model/harmless_fields.h"

namespace serval {

ModelSpec read_text_part(const Fields& config, const boost::json::object& defaults,
                         ModelSpec (*read)(const Fields& text)) {
  config.ignore({"vision_config", "audio_config", "mm_tokens_per_image", "boi_token_index", "eoi_token_index",
                 "image_token_index", "boi_token_id", "eoi_token_id", "image_token_id", "video_token_id",
                 "boa_token_id", "eoa_token_id", "eoa_token_index", "audio_token_id",
                 "vision_start_token_id", "vision_end_token_id", "vision_token_id", "spatial_merge_size",
                 "multimodal_projector_bias", "projector_hidden_act", "vision_feature_layer"});
  if (config.find("text_config") == nullptr) return read(config);
  boost::json::object text = defaults;
  for (const auto& [name, value] : config.get_object("text_config").object()) text[name] = value;
  const Fields fields(text, config.file(), "text_config.");
  fields.ignore({"model_type", "architectures"});
  ModelSpec spec = read(fields);
  // Beside the text's own field, which is mostly absent.
  spec.tied_embeddings = config.get_bool("tie_word_embeddings", spec.tied_embeddings);
  refuse_unasked(fields);
  return spec;
}

}  // namespace serval
