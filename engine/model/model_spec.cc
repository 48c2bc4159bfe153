#include "engine/model/model_spec.h"

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

}  // namespace serval
