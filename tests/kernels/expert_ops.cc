// Op cases of routed experts.
#include "tests/kernels/activation_definition.h"
#include "tests/kernels/op_bench.h"

namespace serval::testing {
namespace {

// --- routed experts ---

enum class Logits { kRandom, kAllAlike, kOneFavourite, kSomeNaN };

struct ExpertCase {
  int rows, num_experts, top_k;
  Logits logits;
  RoutingRule rule = RoutingRule::kSoftmaxRenormalised;
};

std::vector<float> router_logits(const ExpertCase& c, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<float> logits;
  for (int r = 0; r < c.rows; ++r) {
    for (int e = 0; e < c.num_experts; ++e) {
      float logit = normal(random);
      if (c.logits == Logits::kAllAlike) logit = e % 3 == 1 ? 0.0f : -0.0f;
      if (c.logits == Logits::kOneFavourite && e == c.num_experts - 1) logit += 20;
      if (c.logits == Logits::kSomeNaN && (r % 3 == 0 || (r % 3 == 1 && e % 2 == 0))) logit = std::nanf("");
      logits.push_back(logit);
    }
  }
  return logits;
}

// A row's experts by the definition: the higher logit first, of equal ones the lower index, NaN last.
std::vector<int32_t> experts_of(const float* logits, const ExpertCase& c) {
  std::vector<int32_t> order(c.num_experts);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    if (std::isnan(logits[a]) || std::isnan(logits[b]))
      return !std::isnan(logits[a]) && std::isnan(logits[b]);
    return logits[a] > logits[b];
  });
  order.resize(c.top_k);
  return order;
}

// Routing against its definition, then a product of each expert's rows and the weighted sum, in double.
void check_experts(Backend& backend, WeightFormat weights, const ExpertCase& c) {
  constexpr int64_t kIn = 72, kOut = 41;
  Bench bench(backend, weights, static_cast<uint32_t>(c.rows * 31 + c.num_experts));
  const std::vector<float> logits = router_logits(c, bench.random());
  const Tensor device_logits = bench.poison({c.rows, c.num_experts}, DType::kF32);
  backend.upload(device_logits.data, logits.data(), device_logits.num_bytes());
  const auto bytes = static_cast<int64_t>(ExpertRouting::bytes(c.rows, c.num_experts, c.top_k));
  const ExpertRouting routing(bench.poison({bytes / 4}, DType::kF32).data, c.rows, c.num_experts, c.top_k);
  backend.route_experts(c.rule, device_logits, routing);

  std::vector<int32_t> experts, starts = {0}, rows, places(c.rows * c.top_k);
  for (int r = 0; r < c.rows; ++r) {
    const std::vector<int32_t> own = experts_of(&logits[r * c.num_experts], c);
    experts.insert(experts.end(), own.begin(), own.end());
  }
  for (int e = 0; e < c.num_experts; ++e) {
    for (size_t i = 0; i < experts.size(); ++i) {
      if (experts[i] != e) continue;
      places[i] = static_cast<int32_t>(rows.size());
      rows.push_back(static_cast<int32_t>(i) / c.top_k);
    }
    starts.push_back(static_cast<int32_t>(rows.size()));
  }
  ASSERT_EQ(bench.read_ints(routing.experts), experts);
  ASSERT_EQ(bench.read_ints(routing.starts), starts);
  ASSERT_EQ(bench.read_ints(routing.rows), rows);
  ASSERT_EQ(bench.read_ints(routing.places), places);
  const std::vector<double> shares = bench.read(routing.weights);
  for (int r = 0; r < c.rows; ++r) {
    const float* const row = &logits[r * c.num_experts];
    double sum = 0;
    for (int e = 0; e < c.num_experts; ++e) {
      const bool counts = c.rule == RoutingRule::kSoftmax ||
                          std::count(&experts[r * c.top_k], &experts[r * c.top_k] + c.top_k, e) > 0;
      if (counts) sum += std::exp(row[e] - row[experts[r * c.top_k]]);
    }
    for (int j = 0; j < c.top_k; ++j) {
      const double want = std::exp(row[experts[r * c.top_k + j]] - row[experts[r * c.top_k]]) / sum;
      const double got = shares[r * c.top_k + j];
      EXPECT_TRUE(std::isnan(want) ? std::isnan(got) : std::abs(got - want) <= 1e-5 * want)
          << "row " << r << ", rank " << j << ": " << got << " instead of " << want;
    }
  }

  const Values x = bench.numbers({c.rows, kIn});
  std::vector<LinearWeight> packed;
  std::vector<std::vector<double>> exact(c.num_experts);
  std::vector<double> none;
  for (int e = 0; e < c.num_experts; ++e)
    packed.push_back(bench.weight(kOut, kIn, weights, false, exact[e], none));
  const Tensor dispatched = bench.poison({c.rows * c.top_k, kIn}, bench.type()),
               products = bench.poison({c.rows * c.top_k, kOut}, bench.type()),
               out = bench.poison({c.rows, kOut}, bench.type());
  backend.dispatch_rows(x.tensor, routing, dispatched);
  backend.expert_linear(dispatched, packed, routing, products);
  backend.combine_experts(products, routing, out);
  const std::vector<double> got = bench.read(out);
  std::vector<double> want, size;
  for (int r = 0; r < c.rows; ++r) {
    for (int64_t n = 0; n < kOut; ++n) {
      double sum = 0, terms = 0;
      for (int j = 0; j < c.top_k; ++j) {
        const int e = experts[r * c.top_k + j];
        double dot = 0;
        for (int64_t d = 0; d < kIn; ++d) {
          const double w = exact[e][n * kIn + d];
          dot += x.exact[r * kIn + d] * w;
          terms += std::abs(shares[r * c.top_k + j] * x.exact[r * kIn + d] * w);
        }
        sum += shares[r * c.top_k + j] * dot;
      }
      if (std::isnan(sum)) {
        EXPECT_TRUE(std::isnan(got[r * kOut + n]));
        sum = terms = 0;
      } else {
        EXPECT_FALSE(std::isnan(got[r * kOut + n])) << "row " << r << " has a neighbour's NaN";
      }
      want.push_back(sum);
      size.push_back(terms);
    }
  }
  std::vector<double> numbers = got;
  for (double& value : numbers) value = std::isnan(value) ? 0 : value;
  // Sums in f32, rounded to the activation's type before they are weighted; on one CPU, of rounded
  // activations.
  const bool rounds_x = backend.name() == "cpu-avx512bf16" && bench.number() == DType::kBF16;
  expect_near(numbers, want, size, rounds_x ? 0x1p-8 : bench.tolerance(), "experts");
}

}  // namespace

void add_expert_cases(std::vector<OpCase>& cases) {
  for (const ExpertCase& c : {ExpertCase{1, 8, 2, Logits::kRandom},
                              {7, 8, 2, Logits::kRandom, RoutingRule::kSoftmax},
                              {16, 5, 3, Logits::kAllAlike},
                              {17, 8, 2, Logits::kOneFavourite},
                              {40, 33, 2, Logits::kSomeNaN},
                              {150, 4, 1, Logits::kOneFavourite},
                              {150, 4, 4, Logits::kRandom, RoutingRule::kSoftmax},
                              {3, 130, 16, Logits::kSomeNaN},
                              {6, 1, 1, Logits::kRandom}})
    cases.push_back({"experts_" + std::to_string(c.rows) + "_" + std::to_string(c.num_experts) + "_" +
                         std::to_string(c.top_k),
                     [=](Backend& b, WeightFormat w) { check_experts(b, w, c); }});
}

}  // namespace serval::testing
