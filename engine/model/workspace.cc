#include "engine/model/workspace.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "kernels/base/check.h"

namespace serval {
namespace {

// Floats each activation takes, rounded up so that the next one starts on a cache line.
struct Sizes {
  size_t hidden_rows, last, logits, scratch;

  Sizes(const ModelSpec& spec, int max_rows, int max_logit_rows) {
    const auto aligned = [](int64_t floats) { return static_cast<size_t>((floats + 15) / 16 * 16); };
    int64_t widest = 0;
    for (const LayerSpec& layer : spec.layers) {
      const auto& attention = std::get<GqaSpec>(layer.attention);
      const auto& ffn = std::get<DenseFfnSpec>(layer.ffn);
      widest =
          std::max({widest, attention.qkv_size() + attention.q_size(), int64_t{3} * ffn.intermediate_size});
    }
    hidden_rows = aligned(int64_t{max_rows} * spec.hidden_size);
    last = aligned(int64_t{max_logit_rows} * spec.hidden_size);
    logits = aligned(int64_t{max_logit_rows} * spec.vocab_size);
    scratch = aligned(max_rows * widest);
  }
  size_t bytes() const { return (3 * hidden_rows + last + logits + scratch) * sizeof(float); }
};

}  // namespace

Workspace::Workspace(const ModelSpec& spec, int max_rows, int max_logit_rows, Backend& backend)
    : max_rows_(max_rows), max_logit_rows_(max_logit_rows) {
  SERVAL_CHECK(max_rows > 0 && max_logit_rows > 0, max_rows, max_logit_rows);
  const Sizes sizes(spec, max_rows, max_logit_rows);
  buffer_ = backend.allocate(sizes.bytes());
  float* next = buffer_.as<float>();
  const auto cut = [&next](size_t floats) { return std::exchange(next, next + floats); };
  for (Tensor* rows : {&residual, &x, &h}) {
    *rows = Tensor(cut(sizes.hidden_rows), DType::kF32, {max_rows, spec.hidden_size});
  }
  last = Tensor(cut(sizes.last), DType::kF32, {max_logit_rows, spec.hidden_size});
  logits = Tensor(cut(sizes.logits), DType::kF32, {max_logit_rows, spec.vocab_size});
  scratch = cut(sizes.scratch);
}

size_t Workspace::planned_bytes(const ModelSpec& spec, int max_rows, int max_logit_rows) {
  return Sizes(spec, max_rows, max_logit_rows).bytes();
}

void Workspace::start(int num_rows) {
  SERVAL_CHECK(num_rows > 0 && num_rows <= max_rows_, num_rows, max_rows_);
  for (Tensor* rows : {&residual, &x, &h}) rows->dims[0] = num_rows;
}

void Workspace::start_logits(int num_rows) {
  SERVAL_CHECK(num_rows > 0 && num_rows <= max_logit_rows_, num_rows, max_logit_rows_);
  last.dims[0] = logits.dims[0] = num_rows;
}

}  // namespace serval
