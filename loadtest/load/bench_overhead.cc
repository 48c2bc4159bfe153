#include "loadtest/load/bench_overhead.h"

#include <time.h>

#include <algorithm>
#include <cstdio>
#include <ostream>
#include <stdexcept>
#include <vector>

#include "loadtest/load/driver.h"
#include "loadtest/load/measure.h"
#include "loadtest/load/scripted_server.h"

namespace serval {
namespace {

using namespace load;

constexpr int kRequests = 5000;
constexpr int kTokens = 32;

double thread_cpu_s() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

struct Flood {
  double cpu_s, wall_s;
};

// Requests as fast as they go, `concurrency` at a time; the processor time is the driver's thread's alone.
Flood flood(int concurrency, int tokens) {
  ScriptedServer server([](int) {
    return ScriptedServer::Script{std::chrono::microseconds(0), std::chrono::microseconds(0)};
  });
  DriverOptions options;
  options.target = parse_url(server.url());
  options.model = "scripted";
  options.concurrency = concurrency;
  options.scrape_every_s = 0;
  std::vector<PlannedRequest> workload(kRequests);
  for (PlannedRequest& request : workload) {
    request.prompt = "x";
    request.output_tokens = tokens;
  }
  const double begin = thread_cpu_s();
  const DriverResult result = drive(options, workload);
  const double cpu_s = thread_cpu_s() - begin;
  const Summary summary = summarise(result.outcomes, {});
  if (summary.num_ok != workload.size())
    throw std::runtime_error("the harness lost requests to its own server");
  return {cpu_s, summary.duration_s};
}

// How much later than the server sent it each token is stamped, of one stream and of many at once.
std::vector<double> stamp_lags_us(int concurrency) {
  ScriptedServer server([](int) {
    return ScriptedServer::Script{std::chrono::milliseconds(20), std::chrono::milliseconds(20)};
  });
  DriverOptions options;
  options.target = parse_url(server.url());
  options.model = "scripted";
  options.scrape_every_s = 0;
  std::vector<PlannedRequest> workload(concurrency);
  for (int i = 0; i < concurrency; ++i) {
    workload[i].prompt = "x";
    workload[i].output_tokens = kTokens;
    workload[i].at_s = i * 0.64 / concurrency;  // a stream's length: all run at once at the end
  }
  const DriverResult result = drive(options, workload);
  // Tokens of one stream come in order, and streams are far enough apart that so do their first ones.
  const std::vector<ScriptedServer::Record> records = server.records();
  std::vector<double> lags;
  for (size_t i = 0; i < records.size(); ++i) {
    for (size_t t = 0; t < records[i].tokens.size() && t < result.outcomes[i].token_s.size(); ++t) {
      const double sent_s =
          static_cast<double>(std::chrono::nanoseconds(records[i].tokens[t].time_since_epoch()).count() -
                              result.started_ns) /
          1e9;
      lags.push_back((result.outcomes[i].token_s[t] - sent_s) * 1e6);
    }
  }
  return lags;
}

}  // namespace

int bench_overhead(std::ostream& out) {
  char line[160];
  for (const int concurrency : {1, 64, 1000}) {
    const Flood bare = flood(concurrency, 1), full = flood(concurrency, kTokens);
    const double request_us = bare.cpu_s / kRequests * 1e6;
    const double token_us = (full.cpu_s - bare.cpu_s) / kRequests / (kTokens - 1) * 1e6;
    std::snprintf(
        line, sizeof line,
        "%4d at a time: %6.1f us of processor time a request, %5.2f us a token more; %.0f requests/s, "
        "%.0f tokens/s went through\n",
        concurrency, request_us, token_us, kRequests / bare.wall_s, kRequests * kTokens / full.wall_s);
    out << line << std::flush;
  }
  for (const int streams : {1, 64, 1000}) {
    const Percentiles p = percentiles(stamp_lags_us(streams));
    std::snprintf(line, sizeof line,
                  "%4d streams: a token is stamped %.0f us (p50), %.0f us (p99) after it was sent\n", streams,
                  p.p50, p.p99);
    out << line << std::flush;
  }
  return 0;
}

}  // namespace serval
