// Sends a workload to an OpenAI-compatible or Serval gRPC endpoint and watches what comes back: one thread,
// thousands of streams. Traffic goes where the URL says and nowhere else, and ends by itself: by count, by
// time, by request.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "loadtest/load/measure.h"
#include "loadtest/load/workload.h"

namespace serval::load {

struct Target {
  std::string host;  // name or address
  std::string port;
  std::string base;  // path before /completions, e.g. "/v1"
  bool is_grpc = false;
};
// http://HOST[:PORT][/PATH] or grpc://HOST:PORT; throws std::runtime_error with a sentence otherwise.
Target parse_url(const std::string& url);

struct DriverOptions {
  Target target;
  std::string model;    // empty: what /models lists first
  std::string api_key;  // empty: none is sent
  bool chat = false;    // /chat/completions instead of /completions (text prompts only)
  int concurrency = 0;  // > 0: closed loop of that many; 0: open loop by the workload's times
  bool ignore_eos =
      true;  // so that output lengths are the planned ones (servers that do not know it ignore it)
  double temperature = 0;
  double request_timeout_s = 600;
  double max_duration_s = 3600;  // then nothing more is sent and what runs is cut off
  double scrape_every_s = 0.25;  // of the server's /metrics; 0: never
  bool keep_text = false;
  std::function<void(size_t sent, size_t done, size_t failed, size_t total)>
      progress;  // about twice a second
};

struct DriverResult {
  std::string model;
  int64_t started_ns = 0;             // when the outcomes' time began, on the monotonic clock
  std::vector<Outcome> outcomes;      // in the workload's order
  std::vector<ServerSample> samples;  // empty when the server shows no such metrics
};

DriverResult drive(const DriverOptions& options, const std::vector<PlannedRequest>& workload);

}  // namespace serval::load
