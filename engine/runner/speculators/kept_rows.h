// What drafters keep of the steps on their way: rows that the target computed, until it is known what was drawn from them.
#pragma once

#include <span>

#include "engine/runner/speculators/speculator.h"
#include "kernels/backend.h"

namespace serval {

class KeptRows {
 public:
  // Of each step at most `max_rows` rows of each of so many parts.
  static size_t planned_bytes(int num_parts, int max_rows, int64_t width, DType type) {
    return size_t{kMaxStepsInFlight} * num_parts * max_rows * width * dtype_bytes(type);
  }
  void start(int num_parts, int max_rows, int64_t width, DType type, Backend& backend) {
    backend_ = &backend;
    num_parts_ = num_parts;
    max_rows_ = max_rows;
    memory_ = backend.allocate(planned_bytes(num_parts, max_rows, width, type));
    all_ = Tensor(memory_.data(), type, {int64_t{kMaxStepsInFlight} * num_parts * max_rows, width});
  }

  // Of a step that was begun; nothing of one without rows, data null.
  void keep(std::span<const Tensor> parts) {
    const Tensor step = step_of(num_kept_++);
    for (size_t i = 0; i < parts.size() && parts[i].data != nullptr; ++i) {
      const Tensor to(step.at(row_of(static_cast<int>(i), 0) * step.dim(1)), step.dtype, {parts[i].dim(0), step.dim(1)});
      backend_->scaled_add(parts[i], 1, {}, to);
    }
  }
  // [parts * max_rows, width] of the oldest step that was not asked for; row_of() says where its rows are.
  Tensor next() {
    SERVAL_CHECK(num_asked_ < num_kept_, num_asked_, num_kept_);
    return step_of(num_asked_++);
  }
  int row_of(int part, int row) const { return part * max_rows_ + row; }

 private:
  Tensor step_of(uint64_t step) const {
    const int64_t rows = int64_t{num_parts_} * max_rows_;
    return {all_.at(static_cast<int64_t>(step % kMaxStepsInFlight) * rows * all_.dim(1)), all_.dtype, {rows, all_.dim(1)}};
  }

  Backend* backend_ = nullptr;
  int num_parts_ = 0, max_rows_ = 0;
  Buffer memory_;
  Tensor all_;
  uint64_t num_kept_ = 0, num_asked_ = 0;
};

}  // namespace serval
