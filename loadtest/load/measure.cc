#include "loadtest/load/measure.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace serval::load {

Percentiles percentiles(std::vector<double> values) {
  Percentiles result;
  result.count = values.size();
  if (values.empty()) return result;
  std::sort(values.begin(), values.end());
  const auto at = [&](double p) {
    const double rank = p * static_cast<double>(values.size() - 1);
    const size_t low = static_cast<size_t>(rank);
    const size_t high = std::min(low + 1, values.size() - 1);
    return values[low] + (rank - static_cast<double>(low)) * (values[high] - values[low]);
  };
  result.mean = std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  result.p50 = at(0.50);
  result.p90 = at(0.90);
  result.p95 = at(0.95);
  result.p99 = at(0.99);
  result.max = values.back();
  return result;
}

namespace {

double ttft_ms(const Outcome& o) {
  return (o.token_s.front() - o.intended_s) * 1e3;
}
bool has_tpot(const Outcome& o) {
  return !o.token_s.empty() && o.output_tokens > 1;
}
double tpot_ms(const Outcome& o) {
  return (o.token_s.back() - o.token_s.front()) * 1e3 / (o.output_tokens - 1);
}

bool is_good(const Outcome& o, const Slo& slo) {
  if (slo.ttft_ms > 0 && !o.token_s.empty() && ttft_ms(o) > slo.ttft_ms) return false;
  return slo.tpot_ms <= 0 || !has_tpot(o) || tpot_ms(o) <= slo.tpot_ms;
}

double rate_of(const std::vector<double>& times) {
  if (times.size() < 2) return 0;
  const auto [first, last] = std::minmax_element(times.begin(), times.end());
  return *last > *first ? static_cast<double>(times.size() - 1) / (*last - *first) : 0;
}

}  // namespace

Latencies latencies(const std::vector<Outcome>& outcomes) {
  Latencies l;
  for (const Outcome& o : outcomes) {
    if (!o.error.empty()) continue;
    l.send_lag.push_back((o.sent_s - o.intended_s) * 1e3);
    l.e2e.push_back((o.end_s - o.intended_s) * 1e3);
    if (!o.token_s.empty()) l.ttft.push_back(ttft_ms(o));
    for (size_t i = 1; i < o.token_s.size(); ++i) l.itl.push_back((o.token_s[i] - o.token_s[i - 1]) * 1e3);
    if (has_tpot(o)) l.tpot.push_back(tpot_ms(o));
  }
  return l;
}

Summary summarise(const std::vector<Outcome>& outcomes, const Slo& slo) {
  Summary s;
  s.num_requests = outcomes.size();
  double first = INFINITY, last = 0;
  size_t num_good = 0;
  std::vector<double> sends, answers;
  for (const Outcome& o : outcomes) {
    first = std::min(first, o.intended_s);
    last = std::max(last, o.end_s);
    sends.push_back(o.intended_s);
    if (!o.error.empty()) {
      ++s.errors[o.error];
      if (!o.message.empty()) s.error_messages.emplace(o.error, o.message);
      continue;
    }
    ++s.num_ok;
    answers.push_back(o.end_s);
    s.prompt_tokens += o.prompt_tokens;
    s.output_tokens += o.output_tokens;
    s.cached_tokens += o.cached_tokens;
    num_good += is_good(o, slo);
  }
  Latencies l = latencies(outcomes);
  s.ttft_ms = percentiles(std::move(l.ttft));
  s.tpot_ms = percentiles(std::move(l.tpot));
  s.itl_ms = percentiles(std::move(l.itl));
  s.e2e_ms = percentiles(std::move(l.e2e));
  s.send_lag_ms = percentiles(std::move(l.send_lag));
  s.offered_per_s = rate_of(sends);
  s.served_per_s = rate_of(answers);
  s.duration_s = outcomes.empty() ? 0 : last - first;
  if (s.duration_s > 0) {
    s.requests_per_s = static_cast<double>(s.num_ok) / s.duration_s;
    s.output_tokens_per_s = static_cast<double>(s.output_tokens) / s.duration_s;
    s.total_tokens_per_s = static_cast<double>(s.output_tokens + s.prompt_tokens) / s.duration_s;
    s.goodput_per_s = static_cast<double>(num_good) / s.duration_s;
  }
  if (!outcomes.empty()) s.good_share = static_cast<double>(num_good) / static_cast<double>(outcomes.size());
  return s;
}

bool holds_its_rate(const Summary& summary) {
  return summary.good_share >= 0.99 && summary.served_per_s > 0 &&
         summary.served_per_s >= 0.9 * summary.offered_per_s;
}

}  // namespace serval::load
