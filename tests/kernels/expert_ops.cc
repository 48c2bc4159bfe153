// Op cases of routed experts.
#include "tests/kernels/op_bench.h"
#include "tests/kernels/routing_definition.h"

namespace serval::testing {
namespace {

// --- routed experts ---

enum class Logits { kRandom, kAllAlike, kOneFavourite, kSomeNaN };

struct ExpertCase {
  int rows, num_experts, top_k;
  Logits logits;
  RoutingRule rule = {.renormalise = true};
  bool has_bias = false;  // of the choice, and of the products
  bool weighs_inputs = false;
  enum class Shared { kNone, kPlain, kGated } shared = Shared::kNone;
  bool has_scales = false;
  bool are_named = false;  // a table names the experts of each row's token
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

// Routing against its definition, then a product of each expert's rows and the weighted sum, in double.
void check_experts(Backend& backend, WeightFormat weights, const ExpertCase& c) {
  if (c.are_named && !backend.has(RareOp::kTokenExperts)) return;
  constexpr int64_t kIn = 72, kOut = 41;
  Bench bench(backend, weights, static_cast<uint32_t>(c.rows * 31 + c.num_experts));
  const std::vector<float> logits = router_logits(c, bench.random());
  const Tensor device_logits = bench.poison({c.rows, c.num_experts}, DType::kF32);
  backend.upload(device_logits.data, logits.data(), device_logits.num_bytes());
  const auto bytes = static_cast<int64_t>(ExpertRouting::bytes(c.rows, c.num_experts, c.top_k));
  ExpertRouting routing(bench.poison({bytes / 4}, DType::kF32).data, c.rows, c.num_experts, c.top_k);
  routing.weighs_inputs = c.weighs_inputs;
  const Values correction = bench.numbers({c.num_experts}, DType::kF32);
  const std::vector<float> bias(correction.exact.begin(), correction.exact.end());
  const Values scales = bench.numbers({c.num_experts}, DType::kF32);
  if (c.has_scales) routing.scales = scales.tensor;
  constexpr int kTokens = 50;
  std::vector<int32_t> tokens;
  for (int r = 0; r < c.rows; ++r) tokens.push_back(static_cast<int32_t>(bench.random()() % kTokens));
  std::vector<float> named;
  for (int i = 0; i < kTokens * c.top_k && c.are_named; ++i)
    named.push_back(static_cast<float>((i / c.top_k + 3 * (i % c.top_k)) % c.num_experts));
  if (c.are_named) {
    routing.of_tokens = bench.poison({kTokens, c.top_k}, DType::kF32);
    routing.tokens = tokens;
    backend.upload(routing.of_tokens.data, named.data(), routing.of_tokens.num_bytes());
  }
  backend.route_experts(c.rule, device_logits, c.has_bias ? correction.tensor : Tensor(), routing);

  std::vector<int32_t> experts, starts = {0}, rows, places(c.rows * c.top_k);
  std::vector<double> exact_shares;
  for (int r = 0; r < c.rows; ++r) {
    for (const RoutedTo& to : route_row(c.rule, &logits[r * c.num_experts], c.has_bias ? bias.data() : nullptr,
                                        c.num_experts, c.top_k, c.are_named ? &named[tokens[r] * c.top_k] : nullptr)) {
      experts.push_back(to.expert);
      exact_shares.push_back(to.weight * (c.has_scales ? scales.exact[to.expert] : 1));
    }
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
  for (size_t i = 0; i < exact_shares.size(); ++i) {
    const double want = exact_shares[i], got = shares[i];
    EXPECT_TRUE(std::isnan(want) ? std::isnan(got) : std::abs(got - want) <= 2e-5 * std::abs(want))
        << "row " << i / c.top_k << ", rank " << i % c.top_k << ": " << got << " instead of " << want;
  }

  const Values x = bench.numbers({c.rows, kIn});
  std::vector<LinearWeight> packed;
  std::vector<std::vector<double>> exact(c.num_experts), offsets(c.num_experts);
  for (int e = 0; e < c.num_experts; ++e)
    packed.push_back(bench.weight(kOut, kIn, weights, c.has_bias, exact[e], offsets[e]));
  using Shared = ExpertCase::Shared;
  const int64_t num_places = int64_t{c.rows} * c.top_k;
  const Tensor dispatched = bench.poison({num_places, kIn}, bench.type()), out = bench.poison({c.rows, kOut}, bench.type());
  // Behind the products, those of the shared expert.
  const Values all = bench.numbers({num_places + (c.shared == Shared::kNone ? 0 : c.rows), kOut}),
               gate = bench.numbers({c.rows}, DType::kF32);
  const Tensor products(all.tensor.data, bench.type(), {num_places, kOut});
  backend.dispatch_rows(x.tensor, routing, dispatched);
  backend.expert_linear(dispatched, packed, routing, products);
  backend.combine_experts(all.tensor, routing, c.shared == Shared::kGated ? gate.tensor : Tensor(), out);
  const std::vector<double> got = bench.read(out);
  std::vector<double> want, size;
  for (int r = 0; r < c.rows; ++r) {
    for (int64_t n = 0; n < kOut; ++n) {
      double sum = 0, terms = 0;
      for (int j = 0; j < c.top_k; ++j) {
        const int e = experts[r * c.top_k + j];
        const double offset = offsets[e].empty() ? 0 : offsets[e][n], share = shares[r * c.top_k + j];
        double dot = c.weighs_inputs && share != 0 ? offset / share : offset;  // a bias is not weighed then
        terms += std::abs(c.weighs_inputs ? offset : share * offset);
        for (int64_t d = 0; d < kIn; ++d) {
          const double w = exact[e][n * kIn + d];
          dot += x.exact[r * kIn + d] * w;
          terms += std::abs(shares[r * c.top_k + j] * x.exact[r * kIn + d] * w);
        }
        sum += shares[r * c.top_k + j] * dot;
      }
      if (c.shared != Shared::kNone) {
        const double answer = all.exact[(num_places + r) * kOut + n],
                     factor = c.shared == Shared::kGated ? 1 / (1 + std::exp(-gate.exact[r])) : 1;
        sum += factor * answer;
        terms += std::abs(factor * answer);
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
  const double rounding = rounding_of_rows(backend, weights, bench.number());
  expect_near(numbers, want, size, rounding > 0 ? rounding : bench.tolerance(), "experts");
}

// Each head's slice of a row by the head's weight, into a slice of a wider row.
void check_head_linear(Backend& backend, WeightFormat weights, int rows, int heads, int64_t in, int64_t width) {
  if (!backend.has(RareOp::kHeadLinear)) return;
  constexpr int64_t kBeside = 3;  // numbers behind a head's that are left alone
  Bench bench(backend, weights, static_cast<uint32_t>(rows + heads));
  const auto context = backend.make_step_context(op_table_limits());
  const std::vector<int32_t> ids(rows), row_start = {0, rows}, first_pos = {0}, blocks = {0};
  ForwardInput input{.token_ids = ids, .positions = ids, .groups = {}};
  input.groups[0].attention = {.num_seqs = 1,
                               .num_rows = rows,
                               .row_start = row_start.data(),
                               .first_pos = first_pos.data(),
                               .block_table = blocks.data(),
                               .table_stride = 1};
  context->begin_step(input);
  const Values x = bench.numbers({rows, heads * in}), out = bench.numbers({rows, heads * (width + kBeside)});
  std::vector<LinearWeight> packed;
  std::vector<std::vector<double>> exact(heads);
  std::vector<double> none, want = out.exact, size(out.exact.size(), 0.0);
  for (int h = 0; h < heads; ++h) packed.push_back(bench.weight(width, in, weights, false, exact[h], none));
  backend.head_linear({.x = Tensor(x.tensor.data, bench.type(), {rows, heads, in}),
                       .x_row_stride = heads * in,
                       .x_head_stride = in,
                       .heads = packed,
                       .out = Tensor(out.tensor.data, bench.type(), {rows, heads, width}),
                       .out_row_stride = heads * (width + kBeside),
                       .out_head_stride = width + kBeside});
  for (int r = 0; r < rows; ++r) {
    for (int h = 0; h < heads; ++h) {
      for (int64_t n = 0; n < width; ++n) {
        const int64_t at = (int64_t{r} * heads + h) * (width + kBeside) + n;
        want[at] = 0;
        for (int64_t d = 0; d < in; ++d) {
          const double term = x.exact[(int64_t{r} * heads + h) * in + d] * exact[h][n * in + d];
          want[at] += term;
          size[at] += std::abs(term);
        }
      }
    }
  }
  const double rounding = rounding_of_rows(backend, weights, bench.number());
  expect_near(bench.read(out.tensor), want, size, rounding > 0 ? rounding : bench.tolerance(), "product of heads");
}

}  // namespace

void add_expert_cases(std::vector<OpCase>& cases) {
  for (const int rows : {1, 2, 37})
    cases.push_back({"head_linear_" + std::to_string(rows),
                     [=](Backend& b, WeightFormat w) { check_head_linear(b, w, rows, 3, 24, 40); }});
  using Score = RoutingRule::Score;
  using Shared = ExpertCase::Shared;
  const RoutingRule plain = {};
  const RoutingRule sigmoid = {.score = Score::kSigmoid, .renormalise = true, .scale = 2.5f};
  for (const ExpertCase& c :
       {ExpertCase{1, 8, 2, Logits::kRandom},
        {7, 8, 2, Logits::kRandom, plain},
        {16, 5, 3, Logits::kAllAlike},
        {17, 8, 2, Logits::kOneFavourite},
        {40, 33, 2, Logits::kSomeNaN},
        {150, 4, 1, Logits::kOneFavourite},
        {150, 4, 4, Logits::kRandom, plain},
        {3, 130, 16, Logits::kSomeNaN},
        {6, 1, 1, Logits::kRandom},
        {9, 12, 3, Logits::kRandom, sigmoid, true, false, Shared::kPlain},
        {9, 300, 5, Logits::kRandom, {.score = Score::kSqrtSoftplus, .renormalise = true, .scale = 1.5f}, true},
        {9, 40, 3, Logits::kRandom, {.renormalise = true, .least_sum = 0.5f}, true},  // many stay below it
        {9, 64, 6, Logits::kRandom, {.num_groups = 8, .groups_chosen = 3, .scale = 16}},
        {9, 96, 4, Logits::kSomeNaN,
         {.score = Score::kSigmoid, .num_groups = 4, .groups_chosen = 2, .by_best_two = true, .renormalise = true}},
        {9, 48, 6, Logits::kRandom,
         {.score = Score::kSigmoid, .num_groups = 8, .groups_chosen = 4, .by_best_two = true, .renormalise = true}, true},
        {20, 16, 2, Logits::kRandom, {.score = Score::kNearest, .nearness = 0.6f}, false, false, Shared::kGated},
        {20, 7, 1, Logits::kRandom, {.score = Score::kSigmoid}, true, true, Shared::kPlain},
        {21, 8, 3, Logits::kRandom, {.renormalise = true}, false, false, Shared::kNone, true},
        {22, 11, 3, Logits::kRandom, {.score = Score::kSqrtSoftplus, .renormalise = true, .scale = 1.5f}, false, false, Shared::kPlain,
         false, true}})
    cases.push_back({"experts_" + std::to_string(c.rows) + "_" + std::to_string(c.num_experts) + "_" +
                         std::to_string(c.top_k),
                     [=](Backend& b, WeightFormat w) { check_experts(b, w, c); }});
}

}  // namespace serval::testing
