// Which rows of a step go to which experts (a mixture of experts: Shazeer et al. 2017; without capacities:
// Gale et al. 2022, MegaBlocks). Every row is copied once for each of its top_k experts; the copies lie
// sorted by expert, and inside an expert by row, so that an expert's copies are consecutive rows of a plain
// matrix. A copy's index in that order is its place. Knows no weights; the memory is the backend's, in
// scratch of the caller.
#pragma once

#include <span>

#include "kernels/tensor.h"

namespace serval {

inline constexpr int kMaxExperts = 512;
inline constexpr int kMaxExpertsPerRow = 16;

// How a row's logits become its choice of experts and their weights. Every expert has a score; those with the
// highest score plus bias (where there is one: DeepSeek-V3, section 2.1.2) are chosen, and the bias plays no part
// in what follows.
struct RoutingRule {
  enum class Score : uint8_t {
    kSoftmax,       // the probability among all experts (Shazeer et al. 2017)
    kSigmoid,       // of the expert's own logit (DeepSeek-V3)
    kSqrtSoftplus,  // the square root of ln(1 + e^logit) (DeepSeek-V4)
    // One expert after another, each of a weight of its own: its probability among those that are left whose logit
    // is no further below the highest than `nearness` of the larger of the two in size (SparseMixer; Liu et al.
    // 2023, as Phi-3.5-MoE uses it).
    kNearest,
  };
  Score score = Score::kSoftmax;
  // Consecutive experts are a group; only the groups_chosen best of num_groups groups have experts to choose from.
  // A group is as good as its best expert, or (by_best_two) as its two best together (DeepSeek-V3).
  int num_groups = 1, groups_chosen = 1;
  bool by_best_two = false;
  // The weights of a row's experts are divided by their sum, or by `least_sum` if that is more.
  bool renormalise = false;
  float least_sum = 0;
  float scale = 1;     // of every weight, at last
  float nearness = 0;  // of kNearest
};
inline constexpr int kMaxExpertGroups = 32;

struct ExpertRouting {
  int num_experts = 0;  // 1..kMaxExperts
  int top_k = 0;        // 1..kMaxExpertsPerRow, at most num_experts
  Tensor experts;       // i32 [rows, top_k]: the row's experts by rank, the highest logit first
  Tensor weights;       // f32 [rows, top_k]
  Tensor places;        // i32 [rows, top_k]: where the row's copy for that expert lies
  Tensor rows;          // i32 [rows * top_k]: by place, the row that is copied there
  Tensor starts;        // i32 [num_experts + 1]: expert e has the places starts[e] .. starts[e + 1] - 1
  // The weights belong to what the experts are given, not to what they answer (Llama 4).
  bool weighs_inputs = false;
  Tensor scales;  // f32 [num_experts]: of an expert's weight, behind all of the rule; data null: 1
  // Which experts each token of the vocabulary has, whole numbers of f32 [vocab, top_k], and the rows' tokens as Backend::embed has them: then
  // logits make the weights alone (DeepSeek-V4, section 2.1). Data null: rows choose. RareOp::kTokenExperts.
  Tensor of_tokens;
  std::span<const int32_t> tokens = {};

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
