// Routed experts: which rows go where, and the products of each expert's rows, which are those of linear().
#include <cmath>
#include <cstring>

#include "kernels/base/check.h"
#include "kernels/cpu/cpu_backend.h"

namespace serval::cpu {
namespace {

// The index of the highest of keys [begin, end) that is not taken, of equal ones the lowest; NaN counts as the lowest
// key of all. -1: all are taken.
int best_of(const float* keys, int begin, int end, const bool* is_taken) {
  int best = -1;
  for (int i = begin; i < end; ++i) {
    if (is_taken[i]) continue;
    if (best < 0 || keys[i] > keys[best] || (keys[best] != keys[best] && keys[i] == keys[i])) best = i;
  }
  return best;
}

// Takes the experts of every group that is not among the best.
void leave_groups(const RoutingRule& rule, const float* keys, int num_experts, bool* is_taken) {
  const int size = num_experts / rule.num_groups;
  float scores[kMaxExpertGroups];
  for (int g = 0; g < rule.num_groups; ++g) {
    const int best = best_of(keys, g * size, (g + 1) * size, is_taken);
    scores[g] = keys[best];
    if (!rule.by_best_two) continue;
    is_taken[best] = true;
    scores[g] += keys[best_of(keys, g * size, (g + 1) * size, is_taken)];
    is_taken[best] = false;
  }
  bool is_chosen[kMaxExpertGroups] = {};
  for (int i = 0; i < rule.groups_chosen; ++i) is_chosen[best_of(scores, 0, rule.num_groups, is_chosen)] = true;
  for (int e = 0; e < num_experts; ++e) is_taken[e] = !is_chosen[e / size];
}

// The probability of expert `best`, whose logit is the highest that is left, among those near it (kNearest).
float near_share(const float* logits, int num_experts, int best, const bool* is_taken, float nearness) {
  const float most = logits[best];
  float sum = 0;
  for (int e = 0; e < num_experts; ++e) {
    if (!is_taken[e] && !((most - logits[e]) / std::max(std::abs(logits[e]), most) > nearness))
      sum += std::exp(logits[e] - most);
  }
  return 1 / sum;
}

void check_rule(const RoutingRule& rule, const ExpertRouting& routing, const Tensor& bias) {
  const int groups = rule.num_groups, size = routing.num_experts / groups;
  SERVAL_CHECK(groups > 0 && groups <= kMaxExpertGroups && routing.num_experts == groups * size &&
                   rule.groups_chosen > 0 && rule.groups_chosen <= groups &&
                   rule.groups_chosen * size >= routing.top_k && (groups == 1 || !rule.by_best_two || size > 1),
               groups, rule.groups_chosen, routing.num_experts, routing.top_k);
  SERVAL_CHECK(bias.data == nullptr || (bias.dtype == DType::kF32 && bias.num_elements() == routing.num_experts),
               bias.num_elements(), routing.num_experts);
}

}  // namespace

void CpuBackend::route_experts(const RoutingRule& rule, const Tensor& logits, const Tensor& bias,
                               const ExpertRouting& routing) {
  using Score = RoutingRule::Score;
  check_rule(rule, routing, bias);
  const int64_t rows = logits.dim(0);
  const int num_experts = routing.num_experts, top_k = routing.top_k;
  SERVAL_CHECK(logits.dtype == DType::kF32 && logits.dim(1) == num_experts && rows == routing.num_rows(),
               logits.dim(1), num_experts, rows, routing.num_rows());
  auto* const experts = routing.experts.as<int32_t>();
  for_rows(rows, int64_t{8} * top_k * num_experts, [&](int64_t r) {
    const float* const row = logits.as<float>() + r * num_experts;
    int32_t* const chosen = experts + r * top_k;
    float* const weights = routing.weights.as<float>() + r * top_k;
    bool is_taken[kMaxExperts] = {};
    float score[kMaxExperts], key[kMaxExperts];
    // Of softmax relative to the highest logit, which is chosen first where there is no bias.
    const int top = best_of(row, 0, num_experts, is_taken);
    float sum = 0;  // of softmax
    for (int e = 0; e < num_experts; ++e)
      score[e] = rule.score == Score::kSoftmax ? row[e] - row[top] : rule.score == Score::kSigmoid ? -row[e] : row[e];
    if (rule.score != Score::kNearest) kernels_.exp(score, score, num_experts);
    for (int e = 0; e < num_experts; ++e) {
      if (rule.score == Score::kSoftmax) sum += score[e];
      if (rule.score == Score::kSigmoid) score[e] = 1 / (1 + score[e]);
      if (rule.score == Score::kSqrtSoftplus) score[e] = std::sqrt(row[e] > 20 ? row[e] : std::log1p(score[e]));
    }
    // A score grows with its logit: without a bias and sums of two, logits are in the same order.
    const bool by_score = bias.data != nullptr || (rule.by_best_two && rule.num_groups > 1);
    // Where only the chosen ones' shares matter, the others do not come into them.
    const bool among_all = by_score || !rule.renormalise || rule.least_sum > 0;
    for (int e = 0; e < num_experts; ++e) {
      if (rule.score == Score::kSoftmax && among_all) score[e] /= sum;
      key[e] = by_score ? score[e] : row[e];
      if (bias.data != nullptr) key[e] += bias.as<float>()[e];
    }
    if (rule.num_groups > 1) leave_groups(rule, key, num_experts, is_taken);
    float total = 0;
    const auto* const named = routing.of_tokens.as<float>();
    for (int rank = 0; rank < top_k; ++rank) {
      const int e = chosen[rank] = named != nullptr ? static_cast<int>(named[token_of(routing.tokens[r]) * top_k + rank])
                                                    : best_of(key, 0, num_experts, is_taken);
      SERVAL_CHECK(e >= 0 && e < num_experts, e, rank, top_k, rule.num_groups, rule.groups_chosen);
      weights[rank] = rule.score == Score::kNearest ? near_share(row, num_experts, e, is_taken, rule.nearness) : score[e];
      is_taken[e] = true;
      total += weights[rank];
    }
    const float factor = rule.renormalise ? 1 / std::max(total, rule.least_sum) : 1;
    for (int rank = 0; rank < top_k; ++rank) weights[rank] = weights[rank] * factor * rule.scale;
    if (const float* const scales = routing.scales.as<float>(); scales != nullptr)
      for (int rank = 0; rank < top_k; ++rank) weights[rank] *= scales[chosen[rank]];
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
  if (!routing.weighs_inputs)
    return gather_rows(x, {routing.rows.as<int32_t>(), static_cast<size_t>(out.dim(0))}, out);
  const int64_t dim = x.dim(1);
  const int top_k = routing.top_k;
  for_rows(x.dim(0), dim * top_k, [&](int64_t r) {
    const auto row = static_cast<int32_t>(r);
    for (int64_t i = r * top_k; i < (r + 1) * top_k; ++i)
      kernels_.weighted_sum(x.as<float>(), &row, routing.weights.as<float>() + i, 1,
                            out.as<float>() + routing.places.as<int32_t>()[i] * dim, dim);
  });
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

void CpuBackend::combine_experts(const Tensor& x, const ExpertRouting& routing, const Tensor& shared_gate,
                                 const Tensor& out) {
  const int64_t dim = out.dim(1), places = routing.num_places();
  const int top_k = routing.top_k;
  const bool has_shared = x.dim(0) == places + routing.num_rows();
  SERVAL_CHECK((x.dim(0) == places || has_shared) && out.dim(0) == routing.num_rows() && x.dim(1) == dim,
               x.dim(0), places, out.dim(0), routing.num_rows(), x.dim(1), dim);
  SERVAL_CHECK(shared_gate.data == nullptr || (has_shared && shared_gate.num_elements() == out.dim(0)),
               shared_gate.num_elements(), out.dim(0));
  for_rows(out.dim(0), dim * (top_k + 1), [&](int64_t r) {
    int32_t indices[kMaxExpertsPerRow + 1];
    float weights[kMaxExpertsPerRow + 1];
    for (int i = 0; i < top_k; ++i) {
      indices[i] = routing.places.as<int32_t>()[r * top_k + i];
      weights[i] = routing.weighs_inputs ? 1 : routing.weights.as<float>()[r * top_k + i];
    }
    indices[top_k] = static_cast<int32_t>(places + r);
    weights[top_k] = shared_gate.data == nullptr ? 1 : 1 / (1 + std::exp(-shared_gate.as<float>()[r]));
    kernels_.weighted_sum(x.as<float>(), indices, weights, top_k + (has_shared ? 1 : 0), out.as<float>() + r * dim,
                          dim);
  });
}

}  // namespace serval::cpu
