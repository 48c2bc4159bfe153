// The HTTP listener's settings and what it tells about itself. Plain values.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "server/http/http_body.h"
#include "server/http/http_head.h"
#include "server/http/request_log.h"
#include "server/memory_budget.h"

namespace serval {

struct HttpConfig {
  using Duration = std::chrono::milliseconds;

  std::string host = "127.0.0.1";
  // 0: any free port, see HttpServer::port().
  uint16_t port = 0;
  // None: open, and then only on loopback unless insecure.
  std::vector<std::string> api_keys;
  bool insecure = false;
  // See CorsPolicy.
  std::vector<std::string> cors_allow_origins;

  int io_threads = 1;
  int text_threads = 1;

  HeadLimits head;
  BodyLimits body;
  // Request bodies in memory at once, over all connections; beyond it 429.
  size_t max_total_body_bytes = 256 << 20;
  // More: idle ones make way, else only probes are answered.
  int max_connections = 4096;
  // The same for one client; 0: no limit.
  int max_connections_per_address = 0;
  // Bodies above 64 KiB in line for their thread; beyond it 429.
  size_t max_waiting_long_texts = 256;
  // Their sizes together.
  size_t max_waiting_long_text_bytes = 64 << 20;
  // What answers hold, over all connections and whoever else has a part of it; beyond it 429. None: no limit.
  std::shared_ptr<MemoryBudget> answers;
  // A stream's reader that leaves more than this unread is cut off at the next event.
  size_t stream_buffer_bytes = 256 << 10;
  // The kernel's, per connection; 0: the system's choice.
  int send_buffer_bytes = 0;

  // From a request's first byte (or the connection's start) to the end of its head.
  Duration header_timeout{10'000};
  // Longest pause while a body arrives.
  Duration body_timeout{30'000};
  Duration body_total_timeout{300'000};
  // Idle between requests.
  Duration keep_alive_timeout{60'000};
  // Longest time a reader may take nothing (not a byte).
  Duration write_stall_timeout{30'000};
  // After the last answer, for the client to read it before the connection is gone.
  Duration linger_timeout{1'000};
};

// Observations, for metrics and the log. Called on I/O threads; must not block.
struct HttpHooks {
  std::function<void(const std::string& route, int status)> response;
  // Beside `response`, when that is an error.
  std::function<void(const std::string& code)> refused;
  // "disconnect" or "client_stall", while a request was open.
  std::function<void(const char* reason)> client_gone;
  // Every request that was read, once.
  std::function<void(const RequestEnd& end)> ended;
};

}  // namespace serval
