#include "engine/model/architectures/plain_decoder.h"

#include <bit>
#include <cmath>
#include <string>
#include <utility>

#include "engine/model/architectures/decoder_fields.h"

namespace serval {

int get_either(const Fields& config, std::string_view own, std::string_view common, int most) {
  const std::optional<int> beside = own == common ? std::nullopt : config.find_int(common, 1, most);
  const std::optional<int> value = config.find_int(own, 1, most);
  if (beside && value && *beside != *value)
    config.refuse(own, "and " + std::string(common) + " say the same and differ");
  if (!beside && !value) config.refuse(own, "is missing");
  return value.value_or(beside.value_or(0));
}

PlainDecoder read_plain_decoder(const Fields& config, const PlainFields& fields) {
  PlainDecoder decoder;
  ModelSpec& spec = decoder.spec;
  spec.vocab_size = config.get_int("vocab_size", 1, kMaxVocab);
  spec.hidden_size = get_either(config, fields.hidden, "hidden_size", kMaxHidden);
  spec.layers.resize(get_either(config, fields.layers, "num_hidden_layers", kMaxLayers));
  if (!fields.positions.empty())
    spec.max_positions = get_either(config, fields.positions, "max_position_embeddings", kMaxPositions);
  spec.tied_embeddings = config.get_bool("tie_word_embeddings", fields.ties_when_absent);

  GqaSpec& attention = decoder.attention;
  attention.num_heads = attention.num_kv_heads =
      get_either(config, fields.heads, "num_attention_heads", kMaxHeads);
  attention.head_dim = spec.hidden_size / attention.num_heads;
  if (spec.hidden_size % attention.num_heads != 0 || attention.head_dim % 8 != 0 ||
      attention.head_dim > kMaxHeadDim) {
    config.refuse(fields.hidden, "must be " + std::string(fields.heads) + " times a multiple of 8 of at most " +
                                     std::to_string(kMaxHeadDim));
  }
  attention.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(attention.head_dim)));
  attention.qkv_bias = attention.output_bias = true;

  decoder.ffn = {
      .intermediate_size =
          config.find_int(fields.intermediate, 1, kMaxIntermediate).value_or(4 * spec.hidden_size),
      .activation = read_activation(config, fields.activation, fields.usual_activation),
      .bias = true};
  decoder.norm = read_layer_norm(config, fields.eps);
  return decoder;
}

ModelSpec made_of(const Fields& config, PlainDecoder decoder) {
  ModelSpec spec = std::move(decoder.spec);
  spec.final_norm = decoder.norm;
  LayerSpec layer = pre_norm_layer(decoder.attention, decoder.ffn, decoder.norm);
  layer.is_parallel = decoder.is_parallel;
  layer.keeps_normed = decoder.keeps_normed;
  if (!decoder.has_ffn_norm) layer.ffn_norm = {};
  if (decoder.norms_residual) {
    layer.norms_residual = true;
    layer.mixer_post_norm = layer.ffn_post_norm = decoder.norm;
    layer.mixer_norm = layer.ffn_norm = spec.final_norm = {};
  }
  if (spec.ropes.empty()) layer.rope = kNoRope;
  spec.layers.assign(spec.layers.size(), layer);
  set_windows(config, {}, std::vector<bool>(spec.layers.size(), false), spec);
  return spec;
}

std::vector<float> alibi_slopes(int num_heads) {
  const int whole = static_cast<int>(std::bit_floor(static_cast<unsigned>(num_heads)));
  std::vector<float> slopes;
  for (int h = 0; h < num_heads; ++h) {
    const double exponent = h < whole ? -8.0 * (h + 1) / whole : -4.0 * (2 * (h - whole) + 1) / whole;
    slopes.push_back(static_cast<float>(std::exp2(exponent)));
  }
  return slopes;
}

}  // namespace serval
