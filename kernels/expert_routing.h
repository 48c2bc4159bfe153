// Which rows of a step go to which experts (a mixture of experts: Shazeer et al. 2017; without capacities:
// Gale et al. 2022, MegaBlocks). Every row is copied once for each of its top_k experts; the copies lie
// sorted by expert, and inside an expert by row, so that an expert's copies are consecutive rows of a plain
// matrix. A copy's index in that order is its place. Knows no weights; the memory is the backend's, in
// scratch of the caller.
#pragma once

#include "kernels/tensor.h"

namespace serval {

inline constexpr int kMaxExperts = 256;
inline constexpr int kMaxExpertsPerRow = 16;

// What a row's weights are. kSoftmax: the chosen experts' probabilities in the softmax over all experts.
// kSoftmaxRenormalised: the same divided by their sum (Jiang et al. 2024, Mixtral), which is the softmax over
// the chosen ones.
enum class RoutingRule : uint8_t { kSoftmax, kSoftmaxRenormalised };

struct ExpertRouting {
  int num_experts = 0;  // 1..kMaxExperts
  int top_k = 0;        // 1..kMaxExpertsPerRow, at most num_experts
  Tensor experts;       // i32 [rows, top_k]: the row's experts by rank, the highest logit first
  Tensor weights;       // f32 [rows, top_k]
  Tensor places;        // i32 [rows, top_k]: where the row's copy for that expert lies
  Tensor rows;          // i32 [rows * top_k]: by place, the row that is copied there
  Tensor starts;        // i32 [num_experts + 1]: expert e has the places starts[e] .. starts[e + 1] - 1

  int64_t num_rows() const { return experts.dim(0); }
  int64_t num_places() const { return rows.dim(0); }

  // Bytes for routings of at most max_rows rows, and one of num_rows in such memory, 64-byte aligned.
  static size_t bytes(int64_t max_rows, int num_experts, int top_k) {
    return 4 * piece(max_rows * top_k) + piece(num_experts + 1);
  }
  ExpertRouting(void* memory, int64_t num_rows, int experts_in_all, int experts_per_row)
      : num_experts(experts_in_all), top_k(experts_per_row) {
    SERVAL_CHECK(num_experts > 0 && num_experts <= kMaxExperts && top_k > 0 && top_k <= kMaxExpertsPerRow &&
                     top_k <= num_experts,
                 num_experts, top_k);
    auto* next = static_cast<std::byte*>(memory);
    const auto take = [&next](int64_t count) {
      void* const at = next;
      next += piece(count);
      return at;
    };
    experts = Tensor(take(num_rows * top_k), DType::kI32, {num_rows, top_k});
    weights = Tensor(take(num_rows * top_k), DType::kF32, {num_rows, top_k});
    places = Tensor(take(num_rows * top_k), DType::kI32, {num_rows, top_k});
    rows = Tensor(take(num_rows * top_k), DType::kI32, {num_rows * top_k});
    starts = Tensor(take(num_experts + 1), DType::kI32, {num_experts + 1});
  }

 private:
  // Of `count` four-byte numbers, whole cache lines.
  static constexpr size_t piece(int64_t count) { return static_cast<size_t>(count * 4 + 63) / 64 * 64; }
};

}  // namespace serval
