// What recurrent mixers share: how their tensors are prepared, and the pieces of their scratch.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "engine/model/norm.h"
#include "engine/model/weight_slots.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace serval {

// [channels, ..., n] as [n, channels]: neighbouring channels are computed side by side.
void channels_last(std::vector<float>& values, const std::vector<int64_t>& shape);
// The checkpoint has the logarithm of how fast a state decays.
void rates_from_log(std::vector<float>& values, const std::vector<int64_t>& shape);

// The convolution over q, k and v as one, f32 [taps, q | k | v]; each has a tensor in the checkpoint,
// "<module>.q_conv1d.weight" and so on.
void list_qkv_convs(SlotList& slots, const std::string& module, Buffer& conv, const std::array<int64_t, 3>& widths,
                    int taps);

// What an RMS norm's weights are to make a vector of length one, and of its squares' sum what the reference adds.
std::vector<float> unit_length(int64_t dim);
inline constexpr float kLengthEps = 1e-6f;

// A buffer of f32 as a tensor; data null where it is empty.
Tensor vector_of(const Buffer& buffer, std::initializer_list<int64_t> shape);

// An RMS norm, in place, of each of `heads` pieces of x's rows, [rows, width], with row_stride elements between them;
// weights [width / heads].
void norm_heads(Backend& backend, const NormSpec& spec, const NormWeights& weights, const Tensor& x, int64_t heads,
                int64_t row_stride);
// The same where every piece has weights of its own, [width], and rows lie together.
void norm_groups(Backend& backend, const NormSpec& spec, const NormWeights& weights, const Tensor& x, int64_t groups);

// Cuts a part's scratch into tensors of `rows` rows, each of which begins where a vector may.
class ScratchCutter {
 public:
  ScratchCutter(const Tensor& scratch, int64_t rows) : scratch_(scratch), rows_(rows) {}

  Tensor cut(int64_t width) { return cut(width, scratch_.dtype, width); }
  // Of f32: as wide as two elements.
  Tensor cut_f32(int64_t width) { return cut(width, DType::kF32, 2 * width); }

  // Elements of a row that these cuts take; one of f32 counts double.
  static int64_t width(std::initializer_list<int64_t> cuts);

 private:
  static int64_t aligned(int64_t elements) { return (elements + 7) / 8 * 8; }
  Tensor cut(int64_t width, DType type, int64_t elements);

  const Tensor& scratch_;
  int64_t rows_, used_ = 0;
};

}  // namespace serval
