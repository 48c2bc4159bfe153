#include "engine/model/mixers/state_parts.h"

#include <cmath>

namespace serval {

void channels_last(std::vector<float>& values, const std::vector<int64_t>& shape) {
  const int64_t channels = shape.front(), n = shape.back();
  const std::vector<float> stored = values;
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t i = 0; i < n; ++i) values[i * channels + c] = stored[c * n + i];
}

void rates_from_log(std::vector<float>& values, const std::vector<int64_t>&) {
  for (float& value : values) value = -std::exp(value);
}

void list_qkv_convs(SlotList& slots, const std::string& module, Buffer& conv, const std::array<int64_t, 3>& widths,
                    int taps) {
  std::vector<SlotList::NamedShape> tensors;
  for (size_t i = 0; i < widths.size(); ++i)
    tensors.push_back({module + "." + "qkv"[i] + "_conv1d.weight", {widths[i], 1, taps}});
  slots.vectors(conv, tensors, channels_last);
}

std::vector<float> unit_length(int64_t dim) {
  return std::vector<float>(dim, 1 / std::sqrt(static_cast<float>(dim)));
}

Tensor vector_of(const Buffer& buffer, std::initializer_list<int64_t> shape) {
  return buffer.bytes > 0 ? Tensor(buffer.data(), DType::kF32, shape) : Tensor();
}

void norm_heads(Backend& backend, const NormSpec& spec, const NormWeights& weights, const Tensor& x, int64_t heads,
                int64_t row_stride) {
  const int64_t head_dim = x.dim(1) / heads;
  backend.head_rms_norm(Tensor(x.data, x.dtype, {x.dim(0), heads, head_dim}), row_stride,
                        vector_of(weights.weight, {head_dim}), spec.eps);
}

void norm_groups(Backend& backend, const NormSpec& spec, const NormWeights& weights, const Tensor& x, int64_t groups) {
  const int64_t rows = x.dim(0), width = x.dim(1), size = width / groups;
  for (int64_t g = 0; g < groups; ++g)
    backend.head_rms_norm(Tensor(x.at(g * size), x.dtype, {rows, 1, size}), width,
                          Tensor(weights.weight.as<float>() + g * size, DType::kF32, {size}), spec.eps);
}

int64_t ScratchCutter::width(std::initializer_list<int64_t> cuts) {
  int64_t elements = 0;
  for (const int64_t cut : cuts) elements += aligned(cut);
  return elements;
}

Tensor ScratchCutter::cut(int64_t width, DType type, int64_t elements) {
  const Tensor piece(scratch_.at(used_), type, {rows_, width});
  used_ += rows_ * aligned(elements);
  return piece;
}

}  // namespace serval
