#include "engine/model/workspace.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "kernels/base/check.h"

namespace serval {
namespace {

// Bytes each activation takes, rounded up so that the next one starts on a cache line.
struct Sizes {
  size_t hidden_rows, streams, residuals, mixes, embedded, first_values, layer_inputs, last, logits, scratch;

  Sizes(const ModelSpec& spec, int max_rows, int max_logit_rows, DType activation) {
    const auto bytes_of = [](int64_t elements, DType type) {
      return (static_cast<size_t>(elements) * dtype_bytes(type) + 63) / 64 * 64;
    };
    hidden_rows = bytes_of(int64_t{max_rows} * spec.hidden_size, activation);
    streams = spec.streams.is_there() ? bytes_of(int64_t{max_rows} * spec.hidden_size * spec.streams.count, activation) + 2 * hidden_rows : 0;
    residuals = bytes_of(int64_t{max_rows} * spec.hidden_size * spec.mixed.count, activation);
    mixes = bytes_of(max_rows * spec.mixed.mixes_width(), DType::kF32);
    embedded = spec.keeps_embedding ? 2 * hidden_rows : 0;
    first_values = spec.keeps_first_values ? hidden_rows : 0;
    layer_inputs = bytes_of(max_rows * spec.layer_inputs.row_width(), activation);
    last = bytes_of(int64_t{max_logit_rows} * spec.hidden_size, activation);
    logits = bytes_of(int64_t{max_logit_rows} * spec.vocab_size, DType::kF32);
    scratch = bytes_of(max_rows * widest(spec), activation);
  }
  size_t bytes() const { return 3 * hidden_rows + streams + residuals + mixes + embedded + first_values + layer_inputs + last + logits + scratch; }

  // Elements of a row of the scratch.
  static int64_t widest(const ModelSpec& spec) {
    int64_t most = std::max({spec.layer_inputs.row_width(), spec.streams.scratch_width(), spec.mixed.scratch_width(spec.hidden_size)});
    for (const LayerSpec& layer : spec.layers) {
      const auto width = [](const auto& part) { return part.scratch_width(); };
      most = std::max({most, std::visit(width, layer.mixer), std::visit(width, layer.ffn)});
    }
    return most;
  }
};

}  // namespace

Workspace::Workspace(const ModelSpec& spec, int max_rows, int max_logit_rows, Backend& backend)
    : max_rows_(max_rows), num_streams_(spec.streams.count), max_logit_rows_(max_logit_rows) {
  SERVAL_CHECK(max_rows > 0 && max_logit_rows > 0, max_rows, max_logit_rows);
  const DType activation = backend.activation_dtype(spec.weight_dtype);
  const Sizes sizes(spec, max_rows, max_logit_rows, activation);
  buffer_ = backend.allocate(sizes.bytes());
  auto* next = buffer_.as<std::byte>();
  const auto cut = [&next](size_t bytes) { return std::exchange(next, next + bytes); };
  for (Tensor* rows : {&residual, &x, &h}) {
    *rows = Tensor(cut(sizes.hidden_rows), activation, {max_rows, spec.hidden_size});
  }
  if (num_streams_ > 0) {
    streams = Tensor(cut(sizes.streams - 2 * sizes.hidden_rows), activation, {num_streams_ * max_rows, spec.hidden_size});
    residual = Tensor(streams.data, activation, {max_rows, spec.hidden_size});
    for (Tensor* rows : {&before, &low_rank}) *rows = Tensor(cut(sizes.hidden_rows), activation, {max_rows, spec.hidden_size});
  }
  residuals = Tensor(cut(sizes.residuals), activation, {max_rows, int64_t{spec.mixed.count} * spec.hidden_size});
  mixes = Tensor(cut(sizes.mixes), DType::kF32, {max_rows, spec.mixed.mixes_width()});
  if (spec.keeps_embedding) {
    for (Tensor* rows : {&embedded, &aside}) *rows = Tensor(cut(sizes.hidden_rows), activation, {max_rows, spec.hidden_size});
  }
  first_values = Tensor(cut(sizes.first_values), activation, {max_rows, spec.hidden_size});
  layer_inputs = Tensor(cut(sizes.layer_inputs), activation, {max_rows, spec.layer_inputs.row_width()});
  last = Tensor(cut(sizes.last), activation, {max_logit_rows, spec.hidden_size});
  logits = Tensor(cut(sizes.logits), DType::kF32, {max_logit_rows, spec.vocab_size});
  scratch = Tensor(cut(sizes.scratch), activation, {max_rows * Sizes::widest(spec)});
}

size_t Workspace::planned_bytes(const ModelSpec& spec, int max_rows, int max_logit_rows, DType activation) {
  return Sizes(spec, max_rows, max_logit_rows, activation).bytes();
}

void Workspace::start(int num_rows) {
  SERVAL_CHECK(num_rows > 0 && num_rows <= max_rows_, num_rows, max_rows_);
  for (Tensor* rows : {&residual, &x, &h, &layer_inputs, &before, &low_rank, &residuals, &mixes, &embedded, &aside, &first_values}) rows->dims[0] = num_rows;
  streams.dims[0] = num_streams_ * num_rows;
}

void Workspace::start_logits(int num_rows) {
  SERVAL_CHECK(num_rows > 0 && num_rows <= max_logit_rows_, num_rows, max_logit_rows_);
  last.dims[0] = logits.dims[0] = num_rows;
}

}  // namespace serval
