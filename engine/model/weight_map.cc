#include "engine/model/weight_map.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <span>
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
size_t bytes_in(const ConstantSlot& slot) {
  return slot.target->bytes;
}

size_t bytes_in(const TableSlot& slot) {
  return slot.target->bytes();
}

// sin(p / 10000^(i / (n - 1))) for the n = dim / 2 first of a row, then as many cosines.
void fill_sinusoids(int64_t position, std::span<float> row) {
  const size_t half = row.size() / 2;
  for (size_t i = 0; i < half; ++i) {
    const double angle = static_cast<double>(position) *
                         std::exp(-std::log(10000.0) * static_cast<double>(i) / static_cast<double>(half - 1));
    row[i] = static_cast<float>(std::sin(angle));
    row[half + i] = static_cast<float>(std::cos(angle));
  }
}

// What can hold the codes of both exactly; nothing where no format can.
std::optional<StoredFormat> common_format(const StoredFormat& a, const StoredFormat& b, int64_t k) {
  if (a == b) return a;
  const bool is_same = a.id == b.id && a.levels == b.levels && format_row(a.id).has_groups();
  const auto are_integers = [](const StoredFormat& format) {
    return format.id == WeightFormat::kInt4 || format.id == WeightFormat::kInt8Groups || format.levels != nullptr;
  };
  if (!is_same && !(are_integers(a) && are_integers(b))) return std::nullopt;
  const WeightFormat id = is_same ? a.id : WeightFormat::kInt8Groups;
  const auto size = [&](const MatrixFormat& format) { return num_groups(format, k) == 1 ? k : format.group; };
  const int64_t group = std::gcd(size(a), size(b));
  if (group % format_row(id).together != 0) return std::nullopt;
  return StoredFormat({id, group >= k ? kWholeRow : group, a.has_offsets || b.has_offsets}, is_same ? a.levels : nullptr);
}

// The same codes, multiplied with rounded rows where that is asked for: those of 8 bits under a scale a row (W8A8), and, beside weights of
// 4 bits, those of 4 bits under any (W4A8).
StoredFormat with_rounded_rows(const StoredFormat& held, WeightFormat asked) {
  const bool has_row_codes = held.id == WeightFormat::kInt8Groups && held.group == kWholeRow && !held.has_offsets;
  if (has_row_codes && format_row(asked).rounds_rows) return WeightFormat::kInt8Dynamic;
  if (held.id != WeightFormat::kInt4 || asked != WeightFormat::kInt4Dynamic) return held;
  return MatrixFormat(asked, held.group, held.has_offsets);
}

// A matrix whose parts the checkpoint has all quantised in ways that one format can hold is held so. One that has only
// some of them quantised is held as plain numbers, and so is one that is turned on the way.
void hold_as_stored(const ModelSpec& spec, LinearSlot& slot) {
  const WeightFormat plain = format_of(spec.weight_dtype);
  slot.format.plain = plain;
  std::optional<StoredFormat> held;
  bool is_kept = true, is_stored = false;
  for (const SourceTensor& part : slot.parts) {
    const auto stored = spec.stored.find(part.name);
    is_stored |= stored != spec.stored.end();
    is_kept &= stored != spec.stored.end() && format_row(stored->second.id).group != 0 && !part.is_turned && !part.is_transposed;
    if (!is_kept) continue;
    held = held ? common_format(*held, stored->second, part.num_columns()) : stored->second;
    is_kept = held.has_value();
  }
  if (!is_stored) return;
  const bool is_whole = std::all_of(slot.parts.begin(), slot.parts.end(), [&](const SourceTensor& part) {
    const auto stored = spec.stored.find(part.name);
    return stored != spec.stored.end() && stored->second.id == WeightFormat::kF32;
  });
  if (is_whole) held = WeightFormat::kF32;
  if (held && spec.rounded_to) held = with_rounded_rows(*held, spec.rounded_to->layers.id);
  is_kept |= is_whole;
  slot.format = is_kept ? *held : StoredFormat(plain);
  slot.format.plain = plain;
}

}  // namespace

std::vector<WeightSlot> map_weights(const ModelSpec& spec, ModelWeights& weights) {
  const int64_t hidden = spec.hidden_size;
  const TensorNames& names = spec.names;
  std::vector<WeightSlot> slots;
  SlotList frame(slots, names, "", spec.frame_format());
  if (spec.embedding_rows_unused == 0) {
    frame.linear(weights.embedding, {{names.embedding, spec.vocab_size}}, spec.embedding_width(), false);
  } else {
    frame.some_rows(weights.embedding, names.embedding, {{0, spec.vocab_size}},
                    spec.vocab_size + spec.embedding_rows_unused, spec.embedding_width());
  }
  if (spec.embedding_size > 0) {
    frame.linear(weights.project_in, {{names.project_in, hidden}}, spec.embedding_size, false);
    frame.linear(weights.project_out, {{names.project_out, spec.embedding_size}}, hidden, false);
  }
  if (spec.positions == PositionTable::kSinusoids)
    frame.table(weights.positions, spec.positions_unused, spec.max_positions, hidden, fill_sinusoids);
  if (spec.positions == PositionTable::kLearned)
    frame.some_unrounded_rows(weights.positions, names.positions, {{spec.positions_unused, spec.max_positions}},
                              spec.positions_unused + spec.max_positions, hidden);
  if (spec.num_token_types > 0)
    frame.some_unrounded_rows(weights.token_types, names.token_types, {{0, spec.num_token_types}}, spec.num_token_types, hidden);
  frame.norm(weights.embedding_norm, names.embedding_norm, hidden, spec.embedding_norm);
  if (spec.layer_inputs.is_there()) {
    SlotList inside(slots, names, names.frame_prefix(), spec.frame_format());
    spec.layer_inputs.list_slots(hidden, weights.layer_inputs, inside);
    if (spec.streams.is_there()) spec.streams.list_slots(hidden, weights.streams, inside);
  }
  if (spec.mixed.is_there()) {
    SlotList inside(slots, names, names.frame_prefix(), spec.frame_format());
    spec.mixed.list_head_slots(hidden, weights.head_mix, inside);
  }
  weights.layers.resize(spec.layers.size());
  for (size_t l = 0; l < spec.layers.size(); ++l) {
    const LayerSpec& layer = spec.layers[l];
    LayerWeights& w = weights.layers[l];
    const int stored = layer.stored_index.value_or(static_cast<int>(l));
    SlotList list(slots, names, std::string(names.layers) + "." + std::to_string(stored) + "." + std::string(layer.stored_inside),
                  spec.weight_format(), names.has_transposed_layers);
    list_layer(spec, layer, w, list);
  }
  frame.norm(weights.final_norm, names.final_norm, hidden, spec.final_norm);
  if (!spec.tied_embeddings) 
    frame.linear(weights.lm_head, {{names.head, spec.vocab_size}}, spec.embedding_width(), spec.head_bias);
  for (WeightSlot& slot : slots) {
    if (auto* const linear = std::get_if<LinearSlot>(&slot)) hold_as_stored(spec, *linear);
  }
  return slots;
}

void list_layer(const ModelSpec& spec, const LayerSpec& layer, LayerWeights& w, SlotList& list) {
  const int64_t hidden = spec.hidden_size;
  const auto list_part = [&](const auto& part, auto& held) {
    part.list_slots(hidden, own_weights(part, held), list);
  };
  list.norm(w.mixer_norm, "input_layernorm", hidden, layer.mixer_norm);
  std::visit([&](const auto& mixer) { list_part(mixer, w.mixer); }, layer.mixer);
  list.norm(w.mixer_post_norm, "mixer_post_norm", hidden, layer.mixer_post_norm);
  list.norm(w.ffn_norm, "post_attention_layernorm", hidden, layer.ffn_norm);
  std::visit([&](const auto& ffn) { list_part(ffn, w.ffn); }, layer.ffn);
  list.norm(w.ffn_post_norm, "ffn_post_norm", hidden, layer.ffn_post_norm);
  if (spec.layer_inputs.is_there()) spec.layer_inputs.list_layer_slots(hidden, w.layer_input, list);
  if (spec.streams.is_there()) spec.streams.list_layer_slots(hidden, w.stream, list);
  if (spec.mixed.is_there()) {
    const auto has_part = [](const auto& part) { return has_mixer(part); };
    if (std::visit(has_part, layer.mixer)) spec.mixed.list_slots(hidden, "attn_hc", w.mixer_mix, list);
    if (std::visit([](const auto& part) { return is_there(part); }, layer.ffn))
      spec.mixed.list_slots(hidden, "ffn_hc", w.ffn_mix, list);
  }
  if (layer.has_output_scale) list.vector(w.output_scale, "layer_scalar", {1});
}

size_t held_bytes(const std::vector<WeightSlot>& slots) {
  size_t bytes = 0;
  for (const WeightSlot& slot : slots) bytes += std::visit([](const auto& s) { return bytes_in(s); }, slot);
  return bytes;
}

}  // namespace serval
