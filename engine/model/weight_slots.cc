#include "engine/model/weight_slots.h"

#include <utility>

#include "kernels/base/check.h"

namespace serval {
namespace {

// Appends the rows of a head that begins at `first`.
void add_head(std::vector<RowRange>& ranges, int64_t first, int64_t head_dim, int64_t interleaved) {
  if (interleaved > 0) {
    ranges.push_back({first, interleaved / 2, 2});
    ranges.push_back({first + 1, interleaved / 2, 2});
  }
  const int64_t rest = first + interleaved, count = head_dim - interleaved;
  const bool goes_on = !ranges.empty() && ranges.back().step == 1 && ranges.back().first + ranges.back().count == rest;
  if (goes_on) ranges.back().count += count;
  if (!goes_on && count > 0) ranges.push_back({rest, count});
}

// Of each row the even columns, then the odd ones.
void part_neighbours(std::vector<float>& values, const std::vector<int64_t>& shape) {
  const std::vector<float> stored = values;
  for (int64_t r = 0; r < shape[0]; ++r) {
    for (int64_t d = 0; d < shape[1]; ++d)
      values[r * shape[1] + d % 2 * shape[1] / 2 + d / 2] = stored[r * shape[1] + d];
  }
}

}  // namespace

void SlotList::add(LinearWeight& target, const std::vector<Rows>& rows, int64_t columns, bool bias,
                   MatrixFormat format) {
  LinearSlot slot{.target = &target, .format = format, .parts = {}, .biases = {}};
  std::string_view before;
  for (const auto& [module, count, stored_rows] : rows) {
    const std::string name = stored(module);
    const bool is_again = std::exchange(before, module) == module;  // the same rows once more
    if (!is_again && !slot.parts.empty() && slot.parts.back().name == name + ".weight") {
      slot.parts.back().shape[0] += count;
      if (bias) slot.biases.back().shape[0] += count;
      continue;
    }
    slot.parts.push_back({.name = name + ".weight",
                          .shape = {count, columns},
                          .is_transposed = is_transposed_,
                          .rows = stored_rows});
    if (bias) slot.biases.push_back({.name = name + ".bias", .shape = {count}, .rows = stored_rows});
  }
  slots_.emplace_back(std::move(slot));
}

void SlotList::qkv(LinearWeight& target, const std::vector<Rows>& rows, int64_t columns, bool bias,
                   const HeadRows& heads) {
  add(target, rows, columns, bias, format_);
  auto& slot = std::get<LinearSlot>(slots_.back());
  const bool is_fused = slot.parts.size() == 1;
  const FusedQkv fused = is_fused ? names_.fused_qkv : FusedQkv::kOneAfterAnother;
  if (fused == FusedQkv::kOneAfterAnother && heads.interleaved_dims == 0) return;
  SERVAL_CHECK(is_fused || slot.parts.size() == rows.size(), slot.parts.size());
  // The tensor is so many groups of rows, each with its share of the three in this order.
  const int64_t groups = fused == FusedQkv::kByKvHead ? heads.num_kv_heads : fused == FusedQkv::kFourSlices ? 4 : 1;
  const int order[2][3] = {{0, 1, 2}, {0, 2, 1}};
  int64_t begin[3] = {}, group_rows = 0;
  for (const int i : order[fused == FusedQkv::kFourSlices ? 1 : 0]) {
    begin[i] = is_fused ? group_rows : 0;
    group_rows += rows[i].count / groups;
  }
  for (int i = 0; i < 3; ++i) {
    std::vector<RowRange>& wanted = slot.parts[is_fused ? 0 : i].rows;
    for (int64_t g = 0; g < groups; ++g) {
      for (int64_t row = 0; row < rows[i].count / groups; row += heads.head_dim)
        add_head(wanted, g * group_rows + begin[i] + row, heads.head_dim, i < 2 ? heads.interleaved_dims : 0);
    }
  }
  for (size_t i = 0; i < slot.biases.size(); ++i) slot.biases[i].rows = slot.parts[i].rows;
}

void SlotList::expert_linear(LinearWeight& target, const Expert& expert, const std::vector<Rows>& rows,
                             int64_t columns, bool bias) {
  LinearSlot slot{.target = &target, .format = format_, .parts = {}, .biases = {}};
  for (const Rows& asked : rows) {
    const int64_t count = asked.count;
    std::string name = stored(asked.module);
    const size_t star = name.find('*');
    const bool is_stacked = star == std::string::npos;
    if (!is_stacked) name.replace(star, 1, std::to_string(expert.index));
    const std::string weight = is_stacked ? name : name + ".weight", offset = is_stacked ? name + "_bias" : name + ".bias";
    if (!slot.parts.empty() && slot.parts.back().name == weight) {
      slot.parts.back().shape[0] += count;
      if (bias) slot.biases.back().shape[0] += count;
      continue;
    }
    slot.parts.push_back({.name = weight, .shape = {count, columns}});
    if (bias) slot.biases.push_back({.name = offset, .shape = {count}});
    if (!is_stacked) continue;
    if (names_.has_flat_stacks) {
      SourceTensor& part = slot.parts.back();
      part.is_turned = asked.module.ends_with("down_proj");
      const int64_t height = part.is_turned ? columns : count;
      part.rows = {{expert.index * height, height}};
      part.shape = {expert.count * height, part.is_turned ? count : columns};
      continue;
    }
    slot.parts.back().is_transposed = names_.has_transposed_stacks;
    for (SourceTensor* part : {&slot.parts.back(), bias ? &slot.biases.back() : nullptr}) {
      if (part == nullptr) continue;
      part->stack = expert.count;
      part->index = expert.index;
    }
  }
  // Gate and up of one tensor, a row of each in turn.
  if (names_.alternates_gate_up && rows.size() == 2 && slot.parts.size() == 1) {
    const std::vector<RowRange> alternate = {{0, rows[0].count, 2}, {1, rows[1].count, 2}};
    slot.parts[0].rows = alternate;
    if (bias) slot.biases[0].rows = alternate;
  }
  slots_.emplace_back(std::move(slot));
}

void SlotList::reordered_linear(LinearWeight& target, std::string_view module, std::vector<RowRange> rows,
                                int64_t columns, bool bias) {
  int64_t count = 0;
  for (const RowRange& range : rows) count += range.count;
  linear(target, {{module, count}}, columns, bias);
  auto& slot = std::get<LinearSlot>(slots_.back());
  if (bias) slot.biases[0].rows = rows;
  slot.parts[0].rows = std::move(rows);
}

void SlotList::some_rows(LinearWeight& target, std::string_view module, std::vector<RowRange> rows,
                         int64_t rows_in_all, int64_t columns, MatrixFormat format) {
  const SourceTensor part{
      .name = stored(module) + ".weight", .shape = {rows_in_all, columns}, .rows = std::move(rows)};
  slots_.emplace_back(LinearSlot{.target = &target, .format = format, .parts = {part}, .biases = {}});
}

void SlotList::vector(Buffer& target, std::string_view tensor, std::vector<int64_t> shape, Prepare prepare) {
  vectors(target, {{std::string(tensor), std::move(shape)}}, std::move(prepare));
}

void SlotList::integers(Buffer& target, std::string_view tensor, std::vector<int64_t> shape, int64_t limit) {
  vector(target, tensor, std::move(shape));
  std::get<VectorSlot>(slots_.back()).sources[0].integers_below = limit;
}

void SlotList::exact_linear(LinearWeight& target, std::string_view tensor, int64_t rows, int64_t columns) {
  const SourceTensor part{.name = stored(tensor), .shape = {rows, columns}};
  slots_.emplace_back(LinearSlot{.target = &target, .format = WeightFormat::kF32, .parts = {part}, .biases = {}});
}

void SlotList::head_linears(std::vector<LinearWeight>& targets, std::string_view tensor, int heads, int64_t rows, int64_t columns,
                            std::string_view biases) {
  targets.resize(heads);
  for (int h = 0; h < heads; ++h) {
    LinearSlot slot{.target = &targets[h], .format = format_, .parts = {}, .biases = {}};
    slot.parts.push_back({.name = stored(tensor), .shape = {rows, columns}, .stack = heads, .index = h});
    if (!biases.empty()) slot.biases.push_back({.name = stored(biases), .shape = {rows}, .stack = heads, .index = h});
    slots_.emplace_back(std::move(slot));
  }
}

void SlotList::vectors(Buffer& target, const std::vector<NamedShape>& tensors, Prepare prepare) {
  VectorSlot slot{.target = &target, .sources = {}, .prepare = std::move(prepare)};
  for (const auto& [tensor, shape] : tensors) slot.sources.push_back({.name = stored(tensor), .shape = shape});
  slots_.emplace_back(std::move(slot));
}

void SlotList::constant(Buffer& target, std::vector<float> values) {
  slots_.emplace_back(ConstantSlot{.target = &target, .values = std::move(values)});
}

void SlotList::head_norms(Buffer& target, std::string_view module, int num_heads, int head_dim,
                          bool is_interleaved) {
  VectorSlot slot{.target = &target, .sources = {}};
  if (names_.has_tensor_per_head_norm) {
    SERVAL_CHECK(!is_interleaved, module);
    for (int h = 0; h < num_heads; ++h)
      slot.sources.push_back({stored(module) + "." + std::to_string(h) + ".weight", {head_dim}});
  } else {
    slot.sources = {{stored(module) + ".weight", {num_heads, head_dim}}};
    if (is_interleaved) slot.prepare = part_neighbours;
  }
  slots_.emplace_back(std::move(slot));
}

void SlotList::norm(NormWeights& target, std::string_view module, int64_t size, const NormSpec& spec) {
  if (!spec.is_there()) return;
  if (spec.has_weight)
    slots_.emplace_back(VectorSlot{
        .target = &target.weight, .sources = {{stored(module) + ".weight", {size}}}, .offset = spec.offset});
  if (spec.kind == NormSpec::Kind::kLayer && spec.has_bias)
    slots_.emplace_back(VectorSlot{.target = &target.bias, .sources = {{stored(module) + ".bias", {size}}}});
}

}  // namespace serval
