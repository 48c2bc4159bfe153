// Layers that read the keys and values of others, as Gemma 3n and Gemma 4 say it. Beside decoder_fields.h.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "engine/model/config_fields.h"
#include "engine/model/model_spec.h"
#include "engine/model/tensor_names.h"

namespace serval {

// Of each layer the one whose keys and values it reads: the last num_kv_shared_layers have none of their own, and read
// those of the last layer of their kind that has.
std::vector<std::optional<int>> read_key_sources(const Fields& config, const std::vector<bool>& windowed,
                                                 int shared_when_absent);
// Takes those that read another's out of the groups.
void leave_shared_keys(const std::vector<std::optional<int>>& sources, ModelSpec& spec);

// Norms before and behind both parts, as Gemma names them.
inline constexpr StoredName kSandwichModules[] = {{"mixer_post_norm", "post_attention_layernorm"},
                                                  {"post_attention_layernorm", "pre_feedforward_layernorm"},
                                                  {"ffn_post_norm", "post_feedforward_layernorm"}};

// Beside what is no text: layers that read another's keys and values still have matrices for their own.
inline constexpr std::string_view kNotTextOrKeys[] = {
    "vision_tower.",    "audio_tower.",      "embed_vision.",     "embed_audio.",
    "vision_embedder.", "self_attn.k_proj.", "self_attn.v_proj.", "self_attn.k_norm."};

}  // namespace serval
