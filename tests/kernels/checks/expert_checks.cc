// Routed experts: the choice and the sorting against their definition, each expert's product against the
// plain product of the same rows, bit by bit, and the weighted sum in double.
#include <numeric>

#include "kernels/cuda/experts.h"
#include "kernels/cuda/gemm.h"
#include "loadtest/gpu/device_array.h"
#include "tests/kernels/checks/check.h"
#include "tests/kernels/checks/invariance.h"
#include "tests/kernels/routing_definition.h"

namespace serval::gpu {
namespace {

// What cuda::route_experts leaves.
struct Routed {
  std::vector<int32_t> experts, places, rows, starts;
  std::vector<float> weights;
};

// bias: may be empty.
Routed route(const std::vector<float>& logits, const std::vector<float>& bias, int num_rows, int num_experts, int top_k,
             const RoutingRule& rule) {
  const size_t choices = static_cast<size_t>(num_rows) * top_k;
  const DeviceArray<float> in(logits), correction(bias), weights(choices);
  const DeviceArray<int32_t> experts(choices), places(choices), rows(choices), starts(num_experts + 1);
  cuda::route_experts(nullptr, {in.data(), num_rows, num_experts, top_k, rule, bias.empty() ? nullptr : correction.data(),
                                experts.data(), weights.data(),
                                places.data(), rows.data(), starts.data()});
  return {experts.download(), places.download(), rows.download(), starts.download(), weights.download()};
}

// Multiples of a quarter, so that many are equal.
std::vector<float> coarse_logits(size_t count, std::mt19937& random) {
  std::vector<float> logits = random_numbers<float>(count, random);
  for (float& logit : logits) logit = std::round(logit * 4) / 4;
  return logits;
}

void check_route(int num_rows, int num_experts, int top_k, const RoutingRule& rule, bool has_bias, Finding& finding) {
  std::mt19937 random(static_cast<uint32_t>(num_rows * 7 + num_experts));
  const std::vector<float> logits = coarse_logits(static_cast<size_t>(num_rows) * num_experts, random);
  // Some steps apart, so that no sum decides by its rounding.
  const std::vector<float> bias = has_bias ? random_numbers<float>(num_experts, random) : std::vector<float>();
  const Routed got = route(logits, bias, num_rows, num_experts, top_k, rule);
  Routed want;
  for (int r = 0; r < num_rows; ++r) {
    const std::vector<testing::RoutedTo> chosen =
        testing::route_row(rule, &logits[static_cast<size_t>(r) * num_experts], has_bias ? bias.data() : nullptr,
                           num_experts, top_k);
    for (int i = 0; i < top_k; ++i) {
      want.experts.push_back(chosen[i].expert);
      finding.expect_near(got.weights[r * top_k + i], chosen[i].weight, 1e-5 * chosen[i].weight,
                          "weight " + std::to_string(i));
    }
  }
  want.places.resize(want.experts.size());
  for (int e = 0; e < num_experts; ++e) {
    want.starts.push_back(static_cast<int32_t>(want.rows.size()));
    for (size_t i = 0; i < want.experts.size(); ++i) {
      if (want.experts[i] != e) continue;
      want.places[i] = static_cast<int32_t>(want.rows.size());
      want.rows.push_back(static_cast<int32_t>(i) / top_k);
    }
  }
  want.starts.push_back(static_cast<int32_t>(want.rows.size()));
  finding.expect_same(got.experts, want.experts, "other experts are chosen");
  finding.expect_same(got.starts, want.starts, "experts start elsewhere");
  finding.expect_same(got.rows, want.rows, "rows lie elsewhere");
  finding.expect_same(got.places, want.places, "places are wrong");
}

// counts[e] rows for expert e.
template <class T>
void check_product(const std::vector<int>& counts, int n, int k, Finding& finding) {
  std::mt19937 random(static_cast<uint32_t>(n + k));
  std::vector<int32_t> starts = {0};
  for (const int count : counts) starts.push_back(starts.back() + count);
  const int places = starts.back();
  const DeviceArray<T> x(random_numbers<T>(static_cast<size_t>(places) * k, random)),
      out(static_cast<size_t>(places) * n);
  const DeviceArray<int32_t> device_starts(starts);
  std::vector<DeviceArray<T>> weights;
  std::vector<DeviceArray<float>> biases;
  cuda::ExpertGemmArgs<T> args{.x = x.data(),
                               .out = out.data(),
                               .starts = device_starts.data(),
                               .num_rows = *std::max_element(counts.begin(), counts.end()),
                               .num_places = places,
                               .num_experts = static_cast<int>(counts.size()),
                               .n = n,
                               .k = k,
                               .weights = {},
                               .biases = {}};
  for (size_t e = 0; e < counts.size(); ++e) {
    weights.emplace_back(random_numbers<T>(static_cast<size_t>(n) * k, random, 0.1f));
    args.weights[e] = weights.back().data();
    biases.emplace_back(random_numbers<float>(n, random));
    args.biases[e] = e % 2 == 0 ? biases.back().data() : nullptr;
  }
  cuda::expert_gemm<T>(nullptr, args);
  const std::vector<float> got = out.download_values();
  for (size_t e = 0; e < counts.size(); ++e) {
    if (counts[e] == 0) continue;
    const DeviceArray<T> alone(static_cast<size_t>(counts[e]) * n);
    cuda::gemm<T, T>(nullptr, {x.data() + int64_t{starts[e]} * k, weights[e].data(), args.biases[e], alone.data(),
                               counts[e], n, k});
    finding.expect_same(
        std::vector<float>(got.begin() + int64_t{starts[e]} * n, got.begin() + int64_t{starts[e + 1]} * n),
        alone.download_values(), "expert " + std::to_string(e) + " has other bits than its product alone");
  }
}

template <class T>
void check_combine(int num_rows, int top_k, int dim, Finding& finding) {
  std::mt19937 random(static_cast<uint32_t>(num_rows + dim));
  const size_t places = static_cast<size_t>(num_rows) * top_k;
  const std::vector<T> in = random_numbers<T>(places * dim, random);
  const std::vector<float> shares = random_numbers<float>(places, random);
  std::vector<int32_t> at(places);
  std::iota(at.begin(), at.end(), 0);
  std::shuffle(at.begin(), at.end(), random);
  const DeviceArray<T> x(in), out(static_cast<size_t>(num_rows) * dim);
  const DeviceArray<float> weights(shares);
  const DeviceArray<int32_t> device_places(at);
  cuda::combine_experts<T>(
      nullptr, {x.data(), device_places.data(), weights.data(), out.data(), num_rows, top_k, dim});
  const std::vector<float> got = out.download_values();
  for (int r = 0; r < num_rows; ++r) {
    for (int d = 0; d < dim; ++d) {
      double sum = 0, size = 0;
      for (int j = 0; j < top_k; ++j) {
        const double term =
            double{shares[r * top_k + j]} * value_of(in[int64_t{at[r * top_k + j]} * dim + d]);
        sum += term;
        size += std::abs(term);
      }
      finding.expect_near(got[r * dim + d], sum, std::abs(sum) * kEpsilon<T> * 1.01 + size * 1e-6 + 1e-6,
                          "row " + std::to_string(r) + ", element " + std::to_string(d));
    }
  }
}

// Law 1: what a row is told by its experts' choice does not depend on the other rows.
void check_route_company(Finding& finding) {
  constexpr int kRows = 70, kExperts = 40, kTopK = 3;
  std::mt19937 random(3);
  const std::vector<float> logits = coarse_logits(kRows * kExperts, random);
  const RoutingRule rule = {.score = RoutingRule::Score::kSigmoid, .num_groups = 4, .groups_chosen = 2, .by_best_two = true};
  const std::vector<float> bias = random_numbers<float>(kExperts, random);
  const Routed all = route(logits, bias, kRows, kExperts, kTopK, rule);
  for (int r = 0; r < kRows; ++r) {
    const Routed one = route({logits.begin() + r * kExperts, logits.begin() + (r + 1) * kExperts}, bias, 1,
                             kExperts, kTopK, rule);
    for (int i = 0; i < kTopK; ++i) {
      finding.expect_same(one.experts[i], all.experts[r * kTopK + i], "expert of row " + std::to_string(r));
      finding.expect_same(one.weights[i], all.weights[r * kTopK + i], "weight of row " + std::to_string(r));
    }
  }
}

}  // namespace

std::vector<Check> expert_checks(Sizes sizes) {
  std::vector<Check> checks;
  const RoutingRule all = {}, chosen = {.renormalise = true};
  const auto add_route = [&](int rows, int experts, int top_k, const RoutingRule& rule, bool has_bias = false) {
    checks.push_back(
        {"expert routing",
         std::to_string(rows) + " rows, " + std::to_string(top_k) + " of " + std::to_string(experts),
         [=](Finding& f) { check_route(rows, experts, top_k, rule, has_bias, f); }});
  };
  add_route(1, 8, 2, chosen);
  add_route(5, 1, 1, all);
  add_route(150, 8, 2, chosen);
  add_route(301, 5, 3, all);
  add_route(9, 250, 16, all);
  add_route(9, 256, 8, {.score = RoutingRule::Score::kSigmoid, .num_groups = 8, .groups_chosen = 4, .by_best_two = true,
                        .renormalise = true, .scale = 2.5f}, true);
  add_route(9, 160, 6, {.num_groups = 8, .groups_chosen = 3, .scale = 16});
  add_route(9, 16, 2, {.score = RoutingRule::Score::kNearest, .nearness = 0.3f});
  add_route(9, 384, 6, {.score = RoutingRule::Score::kSqrtSoftplus, .renormalise = true, .scale = 1.5f}, true);
  const auto add_product = [&](const std::vector<int>& counts, int n, int k) {
    checks.push_back(
        {"expert gemm",
         std::to_string(counts.size()) + " experts, " + std::to_string(n) + " x " + std::to_string(k),
         [=](Finding& f) { check_product<Bf16>(counts, n, k, f); }});
  };
  add_product({1, 0, 0, 1}, 48, 520);
  add_product({0, 16, 3, 0, 9}, 33, 72);
  add_product({17, 0, 1, 40}, 130, 100);
  add_product({0, 0, 100, 0}, 20, 72);
  add_product({129, 64, 1}, 24, 584);
  checks.push_back({"expert gemm", "f16", [](Finding& f) { check_product<Half>({3, 0, 18}, 40, 64, f); }});
  for (const int dim : {1, 41, 2056})
    checks.push_back(
        {"expert sum", std::to_string(dim), [dim](Finding& f) { check_combine<Bf16>(5, 3, dim, f); }});
  checks.push_back({"expert sum", "f16", [](Finding& f) { check_combine<Half>(3, 1, 64, f); }});
  if (sizes == Sizes::kAll) {
    add_route(8192, 8, 2, chosen);
    add_product({1, 0, 0, 1, 0, 0, 0, 0}, 28672, 4096);
    add_product({300, 11, 64, 0, 700, 2, 1, 90}, 4096, 14336);
  }
  return checks;
}

std::vector<Check> expert_invariance(Sizes) {
  return {{"expert routing", "any company", check_route_company}};
}

}  // namespace serval::gpu
