// Routed experts: which rows go where, and the products of each expert's rows, which are those of linear().
#include <cstring>
#include <limits>

#include "kernels/base/check.h"
#include "kernels/cpu/cpu_backend.h"

namespace serval::cpu {
namespace {

// The top_k highest of `logits`, of equal ones the lower index first; NaN counts as the lowest.
void choose_experts(const float* logits, int num_experts, int top_k, int32_t* chosen) {
  bool is_taken[kMaxExperts] = {};
  for (int rank = 0; rank < top_k; ++rank) {
    int best = -1;
    for (int e = 0; e < num_experts; ++e) {
      if (is_taken[e]) continue;
      if (best < 0 || logits[e] > logits[best] || (logits[best] != logits[best] && logits[e] == logits[e]))
        best = e;
    }
    is_taken[best] = true;
    chosen[rank] = best;
  }
}

}  // namespace

void CpuBackend::route_experts(RoutingRule rule, const Tensor& logits, const ExpertRouting& routing) {
  const int64_t rows = logits.dim(0);
  const int num_experts = routing.num_experts, top_k = routing.top_k;
  SERVAL_CHECK(logits.dtype == DType::kF32 && logits.dim(1) == num_experts && rows == routing.num_rows(),
               logits.dim(1), num_experts, rows, routing.num_rows());
  auto* const experts = routing.experts.as<int32_t>();
  for_rows(rows, int64_t{8} * top_k * num_experts, [&](int64_t r) {
    const float* const row = logits.as<float>() + r * num_experts;
    int32_t* const chosen = experts + r * top_k;
    float* const weights = routing.weights.as<float>() + r * top_k;
    choose_experts(row, num_experts, top_k, chosen);
    const bool among_chosen = rule == RoutingRule::kSoftmaxRenormalised;
    const int count = among_chosen ? top_k : num_experts;
    float p[kMaxExperts];
    for (int i = 0; i < count; ++i) p[i] = row[among_chosen ? chosen[i] : i] - row[chosen[0]];
    kernels_.exp(p, p, count);
    float sum = 0;
    for (int i = 0; i < count; ++i) sum += p[i];
    for (int i = 0; i < top_k; ++i) weights[i] = p[among_chosen ? i : chosen[i]] / sum;
  });

  // Sorted by counting: places of an expert ascend with the row.
  auto* const starts = routing.starts.as<int32_t>();
  std::memset(starts, 0, routing.starts.num_bytes());
  for (int64_t i = 0; i < rows * top_k; ++i) ++starts[experts[i] + 1];
  for (int e = 0; e < num_experts; ++e) starts[e + 1] += starts[e];
  int32_t next[kMaxExperts];
  std::memcpy(next, starts, num_experts * sizeof(int32_t));
  for (int64_t i = 0; i < rows * top_k; ++i) {
    const int32_t place = next[experts[i]]++;
    routing.places.as<int32_t>()[i] = place;
    routing.rows.as<int32_t>()[place] = static_cast<int32_t>(i / top_k);
  }
}

void CpuBackend::dispatch_rows(const Tensor& x, const ExpertRouting& routing, const Tensor& out) {
  SERVAL_CHECK(x.dim(0) == routing.num_rows() && out.dim(0) == routing.num_places() && x.dim(1) == out.dim(1),
               x.dim(0), routing.num_rows(), out.dim(0), routing.num_places(), x.dim(1), out.dim(1));
  gather_rows(x, {routing.rows.as<int32_t>(), static_cast<size_t>(out.dim(0))}, out);
}

void CpuBackend::expert_linear(const Tensor& x, std::span<const LinearWeight> experts,
                               const ExpertRouting& routing, const Tensor& out) {
  SERVAL_CHECK(std::ssize(experts) == routing.num_experts && x.dim(0) == routing.num_places() &&
                   out.dim(0) == x.dim(0),
               experts.size(), routing.num_experts, x.dim(0), routing.num_places(), out.dim(0));
  const auto* const starts = routing.starts.as<int32_t>();
  for (int e = 0; e < routing.num_experts; ++e) {
    const int64_t begin = starts[e], count = starts[e + 1] - begin;
    linear(Tensor(x.at(begin * x.dim(1)), x.dtype, {count, x.dim(1)}), experts[e],
           Tensor(out.at(begin * out.dim(1)), out.dtype, {count, out.dim(1)}));
  }
}

void CpuBackend::combine_experts(const Tensor& x, const ExpertRouting& routing, const Tensor& out) {
  const int64_t dim = out.dim(1);
  const int top_k = routing.top_k;
  SERVAL_CHECK(x.dim(0) == routing.num_places() && out.dim(0) == routing.num_rows() && x.dim(1) == dim,
               x.dim(0), routing.num_places(), out.dim(0), routing.num_rows(), x.dim(1), dim);
  for_rows(out.dim(0), dim * top_k, [&](int64_t r) {
    kernels_.weighted_sum(x.as<float>(), routing.places.as<int32_t>() + r * top_k,
                          routing.weights.as<float>() + r * top_k, top_k, out.as<float>() + r * dim, dim);
  });
}

}  // namespace serval::cpu
