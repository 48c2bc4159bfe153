// How a row's logits become its experts and their weights, as RoutingRule reads, in double precision.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/expert_routing.h"

namespace serval::testing {

struct RoutedTo {
  int32_t expert;
  double weight;
};

// bias: [num_experts], may be null. NaN counts as the worst. named: the experts, [top_k], where the row does not choose.
inline std::vector<RoutedTo> route_row(const RoutingRule& rule, const float* logits, const float* bias,
                                       int num_experts, int top_k, const float* named = nullptr) {
  using Score = RoutingRule::Score;
  const auto is_better = [](double a, double b) { return a > b || (std::isnan(b) && !std::isnan(a)); };
  const auto best = [&](const std::vector<double>& keys, const std::vector<bool>& is_there) {
    int found = -1;
    for (int i = 0; i < static_cast<int>(keys.size()); ++i)
      if (is_there[i] && (found < 0 || is_better(keys[i], keys[found]))) found = i;
    return found;
  };
  std::vector<double> raw(logits, logits + num_experts), score(num_experts), key(num_experts);
  std::vector<bool> is_there(num_experts, true);
  const double top = raw[best(raw, is_there)];
  double all = 0;
  for (const double logit : raw) all += std::exp(logit - top);
  const bool by_score = bias != nullptr || (rule.by_best_two && rule.num_groups > 1);
  const bool is_share = rule.score == Score::kSoftmax;
  for (int e = 0; e < num_experts; ++e) {
    if (rule.score == Score::kSigmoid) score[e] = 1 / (1 + std::exp(-raw[e]));
    if (rule.score == Score::kSqrtSoftplus) score[e] = std::sqrt(std::log1p(std::exp(raw[e])));
    // Renormalised, what is not chosen plays no part: a NaN of it does not either.
    if (is_share) score[e] = std::exp(raw[e] - top) / (rule.renormalise && !by_score && rule.least_sum == 0 ? 1 : all);
    key[e] = by_score ? score[e] + (bias == nullptr ? 0 : bias[e]) : raw[e];
  }
  if (rule.num_groups > 1) {
    const int size = num_experts / rule.num_groups;
    std::vector<double> groups;
    for (int g = 0; g < rule.num_groups; ++g) {
      std::vector<double> own(key.begin() + g * size, key.begin() + (g + 1) * size);
      std::sort(own.begin(), own.end(), is_better);
      groups.push_back(rule.by_best_two ? own[0] + own[1] : own[0]);
    }
    std::vector<bool> is_left(rule.num_groups, true);
    std::fill(is_there.begin(), is_there.end(), false);
    for (int i = 0; i < rule.groups_chosen; ++i) {
      const int g = best(groups, is_left);
      is_left[g] = false;
      std::fill_n(is_there.begin() + g * size, size, true);
    }
  }
  std::vector<RoutedTo> chosen;
  double total = 0;
  for (int rank = 0; rank < top_k; ++rank) {
    const int e = named != nullptr ? static_cast<int>(named[rank]) : best(key, is_there);
    double weight = score[e];
    if (rule.score == Score::kNearest) {
      double near = 0;
      for (int i = 0; i < num_experts; ++i) {
        if (is_there[i] && !((raw[e] - raw[i]) / std::max(std::abs(raw[i]), raw[e]) > rule.nearness))
          near += std::exp(raw[i] - raw[e]);
      }
      weight = 1 / near;
    }
    is_there[e] = false;
    total += weight;
    chosen.push_back({e, weight});
  }
  for (RoutedTo& to : chosen) {
    if (rule.renormalise) to.weight /= std::max(total, double{rule.least_sum});
    to.weight *= rule.scale;
  }
  return chosen;
}

}  // namespace serval::testing
