#include "engine/model/model_spec.h"

#include <algorithm>
#include <iterator>
#include <stdexcept>
#include <utility>

#include "kernels/base/shown.h"

namespace serval {

namespace {

struct RoundingRow {
  const char* name;
  ModelSpec::Rounding to;
};
// Of fewer than 8 bits the embedding and the head would lose too much.
const RoundingRow kRoundings[] = {
    {"int8", {WeightFormat::kInt8, WeightFormat::kInt8}},
    {"int8_dynamic", {WeightFormat::kInt8Dynamic, WeightFormat::kInt8Dynamic}},
    {"int8_g32", {{WeightFormat::kInt8Groups, 32}, {WeightFormat::kInt8Groups, 32}}},
    {"int8_g128", {{WeightFormat::kInt8Groups, 128}, {WeightFormat::kInt8Groups, 128}}},
    {"int4", {{WeightFormat::kInt4, 32}, WeightFormat::kInt8}},
    {"int4_g128", {{WeightFormat::kInt4, 128}, WeightFormat::kInt8}},
    {"int4_dynamic", {{WeightFormat::kInt4Dynamic, 32}, WeightFormat::kInt8Dynamic}},
    {"int4_dynamic_g128", {{WeightFormat::kInt4Dynamic, 128}, WeightFormat::kInt8Dynamic}},
    {"fp8", {{WeightFormat::kFp8, kWholeRow}, {WeightFormat::kFp8, kWholeRow}}},
    {"fp6", {{WeightFormat::kFp6, kWholeRow}, WeightFormat::kInt8}},
};

}  // namespace

ModelSpec quantised(ModelSpec spec, const std::string& quantize) {
  if (quantize == "off") return spec;
  const auto* const row = std::find_if(std::begin(kRoundings), std::end(kRoundings),
                                       [&](const RoundingRow& known) { return known.name == quantize; });
  if (row == std::end(kRoundings))
    throw std::runtime_error("quantize is " + in_quotes(quantize) + "; it takes off, int8, int8_dynamic, int8_g32, int8_g128, int4, int4_g128, int4_dynamic, "
                             "int4_dynamic_g128, fp8 or fp6");
  spec.rounded_to = row->to;
  spec.weight_dtype = format_row(row->to.layers.id).number;
  return spec;
}

LengthClasses ModelSpec::length_classes() const {
  std::vector<int> bounds;
  const auto add = [&](const RopeSpec& rope) {
    if (rope.holds_until > 0 && rope.holds_until < max_positions) bounds.push_back(rope.holds_until);
  };
  for (const RopeSpec& rope : ropes) {
    add(rope);
    std::ranges::for_each(rope.longer, add);
  }
  std::ranges::sort(bounds);
  bounds.erase(std::unique(bounds.begin(), bounds.end()), bounds.end());
  if (bounds.size() > kMaxLengthBounds)
    throw std::runtime_error("the model's rotations tell " + std::to_string(bounds.size() + 1) +
                             " lengths of sequences apart; at most " + std::to_string(kMaxLengthBounds + 1) +
                             " are supported");
  LengthClasses classes{.num_bounds = static_cast<int32_t>(bounds.size())};
  std::ranges::copy(bounds, classes.bounds);
  return classes;
}

}  // namespace serval
