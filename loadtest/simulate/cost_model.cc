#include "loadtest/simulate/cost_model.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <cmath>
#include <limits>
#include <numeric>
#include <stdexcept>

#include "engine/json/fields.h"
#include "engine/json/json_reader.h"

namespace serval::load {
namespace {

namespace json = boost::json;

constexpr size_t kShares = 50;
constexpr size_t kLengths = 4;  // of steps, by their predicted times
constexpr int kCoefficients = 4;
using Row = std::array<double, kCoefficients>;
using Used = std::array<bool, kCoefficients>;

Row features(const StepShape& shape) {
  return {1, shape.rows, shape.seqs, shape.context};
}

double dot(const Row& a, const Row& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

// Solves the weighted normal equations over the coefficients in `used` by elimination with pivoting; false
// when they are singular.
bool solve(const std::vector<StepSample>& samples, const std::vector<double>& weights, const Used& used,
           Row& result) {
  double a[kCoefficients][kCoefficients + 1] = {};
  for (size_t s = 0; s < samples.size(); ++s) {
    const Row f = features(samples[s].shape);
    for (int i = 0; i < kCoefficients; ++i) {
      for (int j = 0; j < kCoefficients; ++j) a[i][j] += weights[s] * f[i] * f[j];
      a[i][kCoefficients] += weights[s] * f[i] * samples[s].milliseconds;
    }
  }
  for (int i = 0; i < kCoefficients; ++i) {
    // A ridge too small to see makes features that say the same (one sequence in every step) share their
    // part.
    a[i][i] *= 1 + 1e-9;
    if (used[i] && a[i][i] > 0) continue;
    for (int j = 0; j <= kCoefficients; ++j) a[i][j] = i == j;
    a[i][kCoefficients] = 0;
    for (int k = 0; k < kCoefficients; ++k) {
      if (k != i) a[k][i] = 0;
    }
  }
  for (int i = 0; i < kCoefficients; ++i) {
    int pivot = i;
    for (int k = i + 1; k < kCoefficients; ++k) {
      if (std::abs(a[k][i]) > std::abs(a[pivot][i])) pivot = k;
    }
    std::swap(a[i], a[pivot]);
    if (std::abs(a[i][i]) < 1e-18) return false;
    for (int k = 0; k < kCoefficients; ++k) {
      if (k == i) continue;
      const double factor = a[k][i] / a[i][i];
      for (int j = i; j <= kCoefficients; ++j) a[k][j] -= factor * a[i][j];
    }
  }
  for (int i = 0; i < kCoefficients; ++i) result[i] = a[i][kCoefficients] / a[i][i];
  return true;
}

// The same with no coefficient below zero: the most negative one is noise, and it goes without.
Row solve_positive(const std::vector<StepSample>& samples, const std::vector<double>& weights, Used used) {
  Row result{};
  for (int round = 0; round < kCoefficients; ++round) {
    if (!solve(samples, weights, used, result)) break;
    const auto least = std::min_element(result.begin(), result.end());
    if (*least >= 0) break;
    used[least - result.begin()] = false;
  }
  for (double& value : result) value = std::max(0.0, value);
  return result;
}

json::array to_json(const Spread& spread) {
  return json::array(spread.shares.begin(), spread.shares.end());
}

json::object to_json(const StepCost& cost) {
  json::array residuals;
  for (const StepCost::Residual& residual : cost.residuals)
    residuals.push_back({{"up_to_ms", residual.up_to_ms}, {"ratio", to_json(residual.ratio)}});
  return {{"step_ms", cost.step},
          {"row_ms", cost.row},
          {"seq_ms", cost.seq},
          {"context_ms_per_1000", cost.context},
          {"residuals", std::move(residuals)}};
}

double read_cost_number(const Fields& fields, const char* name) {
  const std::optional<double> number = fields.find_number(name, 0, std::numeric_limits<double>::max());
  if (!number) fields.refuse(name, "is missing");
  return *number;
}

Spread read_spread(const Fields& fields, const char* name) {
  Spread spread;
  for (const json::value& share : fields.get_array(name)) {
    if (!share.is_number() || !(share.to_number<double>() >= 0))
      fields.refuse(name, "holds what is not a number from 0 on");
    spread.shares.push_back(share.to_number<double>());
  }
  return spread;
}

StepCost read_step_cost(const Fields& fields) {
  StepCost cost{read_cost_number(fields, "step_ms"),
                read_cost_number(fields, "row_ms"),
                read_cost_number(fields, "seq_ms"),
                read_cost_number(fields, "context_ms_per_1000"),
                {}};
  for (const json::value& value : fields.get_array("residuals")) {
    const Fields residual = fields.inside(value, "residuals");
    cost.residuals.push_back({read_cost_number(residual, "up_to_ms"), read_spread(residual, "ratio")});
  }
  return cost;
}

// What the coefficients leave unexplained, by the length they predict.
std::vector<StepCost::Residual> residuals_of(const StepCost& cost, const std::vector<StepSample>& samples) {
  std::vector<std::pair<double, double>> by_length;  // predicted, measured / predicted
  for (const StepSample& sample : samples) {
    const double predicted = std::max(1e-6, cost.mean_ms(sample.shape));
    by_length.emplace_back(predicted, sample.milliseconds / predicted);
  }
  std::stable_sort(by_length.begin(), by_length.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<StepCost::Residual> residuals;
  for (size_t begin = 0; begin < by_length.size();) {
    const size_t size = by_length.size() / kLengths + 1;
    size_t end = std::min(begin + size, by_length.size());
    while (end < by_length.size() && by_length[end].first == by_length[end - 1].first) ++end;
    std::vector<double> ratios;
    for (; begin < end; ++begin) ratios.push_back(by_length[begin].second);
    residuals.push_back({by_length[end - 1].first, Spread::of(std::move(ratios))});
  }
  return residuals;
}

}  // namespace

Spread Spread::of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  Spread spread;
  const size_t shares = std::min(kShares, values.size());
  for (size_t i = 0; i < shares; ++i) {
    const auto begin = values.begin() + i * values.size() / shares;
    const auto end = values.begin() + (i + 1) * values.size() / shares;
    spread.shares.push_back(std::accumulate(begin, end, 0.0) / static_cast<double>(end - begin));
  }
  return spread;
}

double Spread::draw(std::mt19937_64& random, double when_empty) const {
  return shares.empty() ? when_empty : shares[random() % shares.size()];
}

double StepCost::draw_ms(const StepShape& shape, std::mt19937_64& random) const {
  const double mean = mean_ms(shape);
  if (residuals.empty()) return mean;
  const auto residual = std::find_if(residuals.begin(), residuals.end() - 1,
                                     [&](const Residual& r) { return mean <= r.up_to_ms; });
  return mean * residual->ratio.draw(random, 1);
}

StepShape shape_of(const Batch& batch) {
  StepShape shape;
  shape.rows = static_cast<double>(batch.tokens.size());
  shape.seqs = static_cast<double>(batch.seqs.size());
  for (const SeqStep& step : batch.seqs) {
    shape.context +=
        (static_cast<double>(step.first_pos) + (step.num_tokens + 1) / 2.0) * step.num_tokens / 1000;
  }
  return shape;
}

StepCost fit_step_cost(const std::vector<StepSample>& samples) {
  if (samples.size() < kCoefficients)
    throw std::runtime_error("a step-time model needs at least 4 measured steps");
  Used used{true, true, true, true};
  // Where every sequence has one row the two cannot be told apart.
  used[1] = std::any_of(samples.begin(), samples.end(),
                        [](const StepSample& s) { return s.shape.rows != s.shape.seqs; });
  // Weighted by the measurements themselves a step that was held up would count for little and the fit would
  // miss the mean; so by the predictions of the round before.
  std::vector<double> weights;
  for (const StepSample& sample : samples) weights.push_back(1 / std::pow(sample.milliseconds, 2));
  Row result{};
  for (int round = 0; round < 6; ++round) {
    result = solve_positive(samples, weights, used);
    for (size_t i = 0; i < samples.size(); ++i)
      weights[i] = 1 / std::pow(std::max(1e-6, dot(result, features(samples[i].shape))), 2);
  }
  StepCost cost{result[0], result[1], result[2], result[3], {}};
  cost.residuals = residuals_of(cost, samples);
  return cost;
}

CostModel fit_steps(const std::vector<StepSample>& samples) {
  std::vector<StepSample> decode, prompt;
  for (const StepSample& sample : samples)
    (sample.shape.rows > sample.shape.seqs ? prompt : decode).push_back(sample);
  CostModel cost;
  cost.decode = fit_step_cost(decode);
  cost.prompt = fit_step_cost(prompt);
  return cost;
}

std::string cost_json(const CostModel& cost) {
  const json::object out{{"decode", to_json(cost.decode)},
                         {"prompt", to_json(cost.prompt)},
                         {"arrival_idle_ms", to_json(cost.arrival_idle)},
                         {"arrival_busy_ms", to_json(cost.arrival_busy)},
                         {"first_token_ms", to_json(cost.first_token)},
                         {"last_token_ms", to_json(cost.last_token)}};
  return json::serialize(out) + "\n";
}

CostModel read_cost(const std::string& path) {
  const json::object object = read_own_json_file(path);
  const Fields fields(object, path);
  return {read_step_cost(fields.get_object("decode")), read_step_cost(fields.get_object("prompt")),
          read_spread(fields, "arrival_idle_ms"),      read_spread(fields, "arrival_busy_ms"),
          read_spread(fields, "first_token_ms"),       read_spread(fields, "last_token_ms")};
}

}  // namespace serval::load
