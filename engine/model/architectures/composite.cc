#include "engine/model/architectures/composite.h"

#include "engine/model/harmless_fields.h"

namespace serval {

ModelSpec read_text_part(const Fields& config, const boost::json::object& defaults,
                         ModelSpec (*read)(const Fields& text)) {
  config.ignore({"vision_config", "audio_config", "mm_tokens_per_image", "boi_token_index", "eoi_token_index",
                 "image_token_index", "boi_token_id", "eoi_token_id", "image_token_id", "video_token_id",
                 "boa_token_id", "eoa_token_id", "eoa_token_index", "audio_token_id",
                 "vision_start_token_id", "vision_end_token_id", "vision_token_id", "spatial_merge_size",
                 "multimodal_projector_bias", "projector_hidden_act", "vision_feature_layer",
                 "vision_feature_select_strategy", "image_seq_length", "image_grid_pinpoints", "downsample_ratio",
                 "use_image_newline_parameter", "image_start_token_id", "image_end_token_id", "video_start_token_id",
                 "video_end_token_id", "vision_soft_tokens_per_image", "audio_ms_per_token", "_pad_token_id",
                 "ignore_index", "vocab_size", "video_token_index", "vision_aspect_ratio", "audio_token_index"});
  if (config.find("text_config") == nullptr) return read(config);
  boost::json::object text = defaults;
  for (const auto& [name, value] : config.get_object("text_config").object()) text[name] = value;
  const Fields fields(text, config.file(), "text_config.");
  fields.ignore({"model_type", "architectures"});
  // Of the pictures again, and of training.
  fields.ignore({"perceiver_config", "pixel_shuffle_factor", "qk_layer_norms", "use_resampler", "neftune_noise_alpha"});
  ModelSpec spec = read(fields);
  // May stand in either; the text's own is mostly absent, and then has a value of its family.
  const bool says_tied = text.contains("tie_word_embeddings") && spec.tied_embeddings;
  spec.tied_embeddings = config.get_bool("tie_word_embeddings", spec.tied_embeddings) || says_tied;
  refuse_unasked(fields);
  return spec;
}

}  // namespace serval
