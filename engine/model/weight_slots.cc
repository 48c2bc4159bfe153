#include "engine/model/weight_slots.h"

#include <utility>

namespace serval {

void SlotList::add(LinearWeight& target, const std::vector<Rows>& rows, int64_t columns, bool bias,
                   WeightFormat format) {
  LinearSlot slot{.target = &target, .format = format, .parts = {}, .biases = {}};
  for (const auto& [module, count] : rows) {
    const std::string name = stored(module);
    if (!slot.parts.empty() && slot.parts.back().name == name + ".weight") {
      slot.parts.back().shape[0] += count;
      if (bias) slot.biases.back().shape[0] += count;
      continue;
    }
    slot.parts.push_back({name + ".weight", {count, columns}, is_transposed_});
    if (bias) slot.biases.push_back({name + ".bias", {count}});
  }
  slots_.emplace_back(std::move(slot));
}

void SlotList::some_rows(LinearWeight& target, std::string_view module, const Range& rows,
                         int64_t rows_in_all, int64_t columns) {
  const SourceTensor part{.name = stored(module) + ".weight",
                          .shape = {rows_in_all, columns},
                          .first_row = rows.first,
                          .some_rows = rows.count};
  slots_.emplace_back(LinearSlot{.target = &target, .format = format_, .parts = {part}, .biases = {}});
}

void SlotList::vector(Buffer& target, std::string_view tensor, std::vector<int64_t> shape, Prepare prepare) {
  slots_.emplace_back(
      VectorSlot{.target = &target, .source = {stored(tensor), std::move(shape)}, .prepare = prepare});
}

void SlotList::norm(NormWeights& target, std::string_view module, int64_t size, const NormSpec& spec) {
  if (!spec.is_there()) return;
  if (spec.has_weight)
    slots_.emplace_back(VectorSlot{
        .target = &target.weight, .source = {stored(module) + ".weight", {size}}, .offset = spec.offset});
  if (spec.kind == NormSpec::Kind::kLayer && spec.has_bias)
    slots_.emplace_back(VectorSlot{.target = &target.bias, .source = {stored(module) + ".bias", {size}}});
}

}  // namespace serval
