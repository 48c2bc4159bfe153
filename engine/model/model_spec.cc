#include "engine/model/model_spec.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "kernels/base/shown.h"

namespace serval {

ModelSpec quantised(ModelSpec spec, const std::string& quantize) {
  if (quantize == "off") return spec;
  const WeightFormatRow& format = format_row(WeightFormat::kInt8);
  if (quantize != format.name)
    throw std::runtime_error("quantize is " + in_quotes(quantize) + "; it takes off or " + format.name);
  spec.rounded_to = format.id;
  spec.weight_dtype = format.number;
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
