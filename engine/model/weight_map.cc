#include "engine/model/weight_map.h"

#include <string>
#include <variant>

namespace serval {
namespace {

// The weights of this part, made where there are none yet.
template <class Part, class Variant>
typename Part::Weights& own_weights(const Part&, Variant& weights) {
  auto* const own = std::get_if<typename Part::Weights>(&weights);
  return own != nullptr ? *own : weights.template emplace<typename Part::Weights>();
}

size_t bytes_in(const LinearSlot& slot) {
  return slot.target->bytes();
}
size_t bytes_in(const VectorSlot& slot) {
  return slot.target->bytes;
}

}  // namespace

std::vector<WeightSlot> map_weights(const ModelSpec& spec, ModelWeights& weights) {
  const int64_t hidden = spec.hidden_size;
  const TensorNames& names = spec.names;
  std::vector<WeightSlot> slots;
  SlotList frame(slots, names, "", spec.weight_format());
  frame.linear(weights.embedding, {{names.embedding, spec.vocab_size}}, hidden, false);
  if (spec.learned_positions)
    frame.unrounded_linear(weights.positions, {{names.positions, spec.max_positions}}, hidden, false);
  weights.layers.resize(spec.layers.size());
  for (size_t l = 0; l < spec.layers.size(); ++l) {
    const LayerSpec& layer = spec.layers[l];
    LayerWeights& w = weights.layers[l];
    SlotList list(slots, names, std::string(names.layers) + "." + std::to_string(l) + ".",
                  spec.weight_format(), names.has_transposed_layers);
    const auto list_part = [&](const auto& part, auto& held) {
      part.list_slots(hidden, own_weights(part, held), list);
    };
    list.norm(w.mixer_norm, "input_layernorm", hidden, layer.mixer_norm);
    std::visit([&](const auto& mixer) { list_part(mixer, w.mixer); }, layer.mixer);
    list.norm(w.mixer_post_norm, "mixer_post_norm", hidden, layer.mixer_post_norm);
    list.norm(w.ffn_norm, "post_attention_layernorm", hidden, layer.ffn_norm);
    std::visit([&](const auto& ffn) { list_part(ffn, w.ffn); }, layer.ffn);
    list.norm(w.ffn_post_norm, "ffn_post_norm", hidden, layer.ffn_post_norm);
  }
  frame.norm(weights.final_norm, names.final_norm, hidden, spec.final_norm);
  if (!spec.tied_embeddings) frame.linear(weights.lm_head, {{names.head, spec.vocab_size}}, hidden, false);
  return slots;
}

size_t held_bytes(const std::vector<WeightSlot>& slots) {
  size_t bytes = 0;
  for (const WeightSlot& slot : slots) bytes += std::visit([](const auto& s) { return bytes_in(s); }, slot);
  return bytes;
}

}  // namespace serval
