#include "loadtest/simulate.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <cmath>
#include <fstream>
#include <memory>
#include <sstream>
#include <stdexcept>

#include "engine/scheduler/scheduler.h"

namespace serval::load {
namespace {

constexpr int kCoefficients = 4;
using Row = std::array<double, kCoefficients>;

Row features(const StepShape& shape) {
  return {1, shape.rows, shape.seqs, shape.context};
}

// Solves the normal equations over the coefficients in `used` by elimination with pivoting; false when they
// are singular.
bool solve(const std::vector<StepSample>& samples, const std::array<bool, kCoefficients>& used, Row& result) {
  double a[kCoefficients][kCoefficients + 1] = {};
  for (const StepSample& sample : samples) {
    const Row f = features(sample.shape);
    const double weight = 1 / (sample.milliseconds * sample.milliseconds);
    for (int i = 0; i < kCoefficients; ++i) {
      for (int j = 0; j < kCoefficients; ++j) a[i][j] += weight * f[i] * f[j];
      a[i][kCoefficients] += weight * f[i] * sample.milliseconds;
    }
  }
  for (int i = 0; i < kCoefficients; ++i) {
    if (used[i]) continue;
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

std::vector<TokenId> prompt_ids(const PlannedRequest& planned) {
  if (!planned.token_ids.empty()) return {planned.token_ids.begin(), planned.token_ids.end()};
  std::vector<TokenId> ids;
  std::stringstream words(planned.prompt);
  for (std::string word; words >> word;)
    ids.push_back(static_cast<TokenId>(std::hash<std::string>{}(word) % 30'000));
  if (ids.empty()) ids.push_back(0);
  return ids;
}

Time to_time(double seconds) {
  return Time{static_cast<int64_t>(seconds * 1e9)};
}

// One server: the real scheduler, and a clock that jumps from step to step.
class Replica {
 public:
  Replica(const SimulationOptions& options, std::vector<Outcome>& outcomes)
      : options_(options), outcomes_(outcomes), scheduler_(options.scheduler, options.geometry) {}

  // Lets time pass up to `until`, finishing every step that ends by then.
  void advance(double until) {
    while (scheduler_.has_work() || stepping_) {
      if (!stepping_) begin_step();
      if (!stepping_ || step_end_ > until) break;
      end_step();
    }
    if (!stepping_) now_ = std::max(now_, until);
  }
  double next_event() const { return stepping_ ? step_end_ : INFINITY; }

  bool add(size_t index, const PlannedRequest& planned) {
    Request request;
    request.id = index + 1;
    request.prompt = prompt_ids(planned);
    request.sampling.max_tokens = planned.output_tokens;
    request.sampling.ignore_eos = true;
    outcomes_[index].prompt_tokens = static_cast<int>(request.prompt.size());
    const int64_t tokens = static_cast<int64_t>(request.prompt.size()) + planned.output_tokens;
    if (tokens > options_.scheduler.max_model_len ||
        !fits(options_.geometry, options_.scheduler, static_cast<int>(request.prompt.size()),
              planned.output_tokens, 1)) {
      outcomes_[index].error = "too long";
      return false;
    }
    now_ = std::max(now_, outcomes_[index].intended_s);
    if (!scheduler_.add(std::move(request), to_time(now_))) {
      outcomes_[index].error = "status 429";
      return false;
    }
    ++open_;
    return true;
  }
  int open() const { return open_; }
  uint64_t steps() const { return steps_; }

 private:
  void begin_step() {
    scheduler_.next_batch(to_time(now_), batch_);
    if (batch_.empty()) return;
    step_end_ = now_ + options_.cost.milliseconds(shape_of(batch_)) / 1e3;
    stepping_ = true;
  }

  void end_step() {
    now_ = step_end_;
    stepping_ = false;
    ++steps_;
    output_.clear();
    output_.step = batch_.step;
    for (const SeqStep& step : batch_.seqs) {
      SeqOutput out;
      out.seq = step.seq;
      if (step.sample) {
        out.tokens_begin = static_cast<int32_t>(output_.tokens.size());
        out.num_tokens = 1;
        // Outputs differ between sequences, so that they share no cache by accident.
        output_.tokens.push_back({static_cast<TokenId>(step.seq * 31 % 30'000), 0, 1, 0, 0});
      }
      output_.seqs.push_back(out);
    }
    scheduler_.apply(output_, to_time(now_), events_);
    for (const TokenEvent& event : events_.events) see(event);
    events_.clear();
  }

  void see(const TokenEvent& event) {
    Outcome& outcome = outcomes_[event.request - 1];
    if (event.token >= 0) {
      if (outcome.token_s.size() < 2)
        outcome.token_s.push_back(now_);
      else
        outcome.token_s[1] = now_;
      outcome.output_tokens = event.num_output;
      outcome.cached_tokens = event.cached_tokens;
    }
    if (event.finish == FinishReason::kNone) return;
    outcome.end_s = now_;
    --open_;
  }

  const SimulationOptions& options_;
  std::vector<Outcome>& outcomes_;
  Scheduler scheduler_;
  Batch batch_;
  ModelOutput output_;
  EventBatch events_;
  double now_ = 0, step_end_ = 0;
  bool stepping_ = false;
  int open_ = 0;
  uint64_t steps_ = 0;
};

size_t choose(const SimulationOptions& options, const std::vector<std::unique_ptr<Replica>>& replicas,
              const PlannedRequest& planned, size_t index) {
  if (options.routing == Routing::kRoundRobin) return index % replicas.size();
  if (options.routing == Routing::kPrefix) {
    const std::vector<TokenId> ids = prompt_ids(planned);
    uint64_t hash = 0xcbf29ce484222325ull;
    for (size_t i = 0; i < std::min<size_t>(ids.size(), 2 * options.geometry.block_size); ++i)
      hash = (hash ^ static_cast<uint64_t>(ids[i])) * 0x100000001b3ull;
    return hash % replicas.size();
  }
  size_t best = 0;
  for (size_t i = 1; i < replicas.size(); ++i) {
    if (replicas[i]->open() < replicas[best]->open()) best = i;
  }
  return best;
}

}  // namespace

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
  std::array<bool, kCoefficients> used{true, true, true, true};
  Row result{};
  for (int round = 0; round < kCoefficients; ++round) {
    if (!solve(samples, used, result)) break;
    // The most negative coefficient is noise: without it, again.
    const auto least = std::min_element(result.begin(), result.end());
    if (*least >= 0) break;
    used[least - result.begin()] = false;
  }
  for (double& value : result) value = std::max(0.0, value);
  return {result[0], result[1], result[2], result[3]};
}

std::string cost_json(const StepCost& cost) {
  const boost::json::object out{{"step_ms", cost.step},
                                {"row_ms", cost.row},
                                {"seq_ms", cost.seq},
                                {"context_ms_per_1000", cost.context}};
  return boost::json::serialize(out) + "\n";
}

StepCost read_cost(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  boost::system::error_code failed;
  const boost::json::value root = boost::json::parse(text.str(), failed);
  StepCost cost;
  const std::pair<const char*, double*> fields[] = {{"step_ms", &cost.step},
                                                    {"row_ms", &cost.row},
                                                    {"seq_ms", &cost.seq},
                                                    {"context_ms_per_1000", &cost.context}};
  for (const auto& [name, field] : fields) {
    const boost::json::value* value =
        !failed && root.is_object() ? root.get_object().if_contains(name) : nullptr;
    if (!value || !value->is_number() || !(value->to_number<double>() >= 0))
      throw std::runtime_error(path + " has no " + name + ": not a step-time model");
    *field = value->to_number<double>();
  }
  return cost;
}

SimulationResult simulate(const SimulationOptions& options, const std::vector<PlannedRequest>& workload) {
  SimulationResult result;
  result.outcomes.resize(workload.size());
  std::vector<std::unique_ptr<Replica>> replicas;
  for (int i = 0; i < options.replicas; ++i)
    replicas.push_back(std::make_unique<Replica>(options, result.outcomes));
  for (size_t i = 0; i < workload.size(); ++i) {
    const double at = workload[i].at_s;
    for (const auto& replica : replicas) replica->advance(at);
    result.outcomes[i].intended_s = result.outcomes[i].sent_s = at;
    Replica& chosen = *replicas[choose(options, replicas, workload[i], i)];
    if (!chosen.add(i, workload[i])) result.outcomes[i].end_s = at;
  }
  for (const auto& replica : replicas) {
    replica->advance(INFINITY);
    result.steps.push_back(replica->steps());
  }
  return result;
}

int find_replicas(SimulationOptions options, const std::vector<PlannedRequest>& workload, const Slo& slo,
                  int most) {
  const auto meets = [&](int replicas) {
    options.replicas = replicas;
    return summarise(simulate(options, workload).outcomes, slo).good_share >= 0.99;
  };
  int good = 1;
  while (!meets(good)) {
    if (good >= most) return 0;
    good = std::min(good * 2, most);
  }
  int bad = good / 2;  // 0, or known not to do
  while (good - bad > 1) {
    const int middle = (good + bad) / 2;
    (meets(middle) ? good : bad) = middle;
  }
  return good;
}

}  // namespace serval::load
