// What was seen of each request, and the figures made of it. Pure arithmetic; definitions in
// docs/loadtest.md.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace serval::load {

// Times in seconds since the run's start. `intended_s` is when the request should have been sent; in an open
// loop latency counts from there, so that a sender held up by a slow server does not hide the wait
// (coordinated omission).
struct Outcome {
  double intended_s = 0;
  double sent_s = 0;
  std::vector<double> token_s;  // arrival of every event with text
  double end_s = 0;
  int prompt_tokens = 0;
  int output_tokens = 0;
  int cached_tokens = 0;
  std::string error;    // kind: "status 429", "connect", "timeout", ...; empty when it succeeded
  std::string message;  // what the server or the system said to it: one line of bounded length, or nothing
  std::string text;     // kept only when asked for
};

struct Percentiles {
  size_t count = 0;
  double mean = 0, p50 = 0, p90 = 0, p95 = 0, p99 = 0, max = 0;
};
// Linear interpolation between the two nearest ranks.
Percentiles percentiles(std::vector<double> values);

// The latencies of the requests that succeeded, in milliseconds; itl has one value a gap, the others one a
// request.
struct Latencies {
  std::vector<double> ttft, tpot, itl, e2e, send_lag;
};
Latencies latencies(const std::vector<Outcome>& outcomes);

struct Slo {
  double ttft_ms = 0;  // 0: none
  double tpot_ms = 0;
};

// One look at the server's own gauges while the run went on.
struct ServerSample {
  double at_s = 0;
  double running = 0;
  double waiting = 0;
  double kv_usage = 0;
};

struct Summary {
  size_t num_requests = 0, num_ok = 0;
  double duration_s = 0;  // first intended send to last end
  Percentiles ttft_ms, tpot_ms, itl_ms, e2e_ms, send_lag_ms;
  double requests_per_s = 0, output_tokens_per_s = 0, total_tokens_per_s = 0;
  double goodput_per_s = 0;  // requests that met every SLO, per second
  double good_share = 0;     // of all requests
  int64_t prompt_tokens = 0, output_tokens = 0, cached_tokens = 0;
  // Of the sends as intended, and of the answers of requests that succeeded: so many less one, by the time
  // between the first and the last, so that how long an answer takes does not count. 0 where there is none.
  double offered_per_s = 0, served_per_s = 0;
  std::map<std::string, int> errors;                  // how many of each kind
  std::map<std::string, std::string> error_messages;  // the first of each kind that had one
};
// Outcomes of the warm-up are not among them.
Summary summarise(const std::vector<Outcome>& outcomes, const Slo& slo);

// Whether the rate a run was offered is one the server holds: 99 % of the requests were good, and answers
// came at no less than 0.9 of the rate of the sends. Without the second a run too short to fill the queue
// would pass at any rate.
bool holds_its_rate(const Summary& summary);

}  // namespace serval::load
