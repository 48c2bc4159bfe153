// Models that read pictures or sound beside text, of which the text part is served: a configuration with another
// inside it, and tensors that text does not need.
#pragma once

#include <boost/json/object.hpp>
#include <string_view>

#include "engine/model/config_fields.h"
#include "engine/model/model_spec.h"
#include "engine/model/tensor_names.h"

namespace serval {

// Reads text_config, or the configuration itself where it has none; what text_config leaves out has the value of
// `defaults`. Refuses what is left of text_config. tie_word_embeddings may stand outside.
ModelSpec read_text_part(const Fields& config, const boost::json::object& defaults,
                         ModelSpec (*read)(const Fields& text));

// How checkpoints spell the text part: as most were published, as they are saved today, as Idefics 3 has it, and
// without a prefix.
inline constexpr FrameNames kTextSpellings[] = {
    {"language_model.model.embed_tokens", "language_model.model.layers", "language_model.model.norm",
     "language_model.lm_head"},
    {"model.language_model.embed_tokens", "model.language_model.layers", "model.language_model.norm", "lm_head"},
    {"model.text_model.embed_tokens", "model.text_model.layers", "model.text_model.norm", "lm_head"},
    {"model.embed_tokens", "model.layers", "model.norm", "lm_head"}};

// Parts of the names of tensors that text does not need.
inline constexpr std::string_view kNotText[] = {"vision_tower.", "multi_modal_projector.", "mm_projector.", "visual.",
                                                "audio_tower.", "embed_vision.", "embed_audio.", "vision_embedder.", "vision_model.",
                                                "model.connector.", "image_newline", "vision_adapter.", "vision_projection."};

// The names of such a family; its layers' modules are spelled as `modules` says.
constexpr TensorNames text_names(std::span<const StoredName> modules = {}) {
  return {.embedding = kTextSpellings[0].embedding,
          .layers = kTextSpellings[0].layers,
          .final_norm = kTextSpellings[0].final_norm,
          .head = kTextSpellings[0].head,
          .also = kTextSpellings,
          .modules = modules,
          .ignored = kNotText};
}

}  // namespace serval
