// Where a workload goes and how it is driven.
#pragma once

#include <cstddef>
#include <functional>
#include <string>

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
  // Empty: what /models lists first.
  std::string model;
  // Empty: none is sent.
  std::string api_key;
  // /chat/completions instead of /completions (text prompts only).
  bool chat = false;
  // > 0: closed loop of that many; 0: open loop by the workload's times.
  int concurrency = 0;
  // So that output lengths are the planned ones (servers that do not know it ignore it).
  bool ignore_eos = true;
  double temperature = 0;
  double request_timeout_s = 600;
  // Then nothing more is sent and what runs is cut off.
  double max_duration_s = 3600;
  // Of the server's /metrics; 0: never.
  double scrape_every_s = 0.25;
  bool keep_text = false;
  // About twice a second.
  std::function<void(size_t sent, size_t done, size_t failed, size_t total)> progress;
};

}  // namespace serval::load
