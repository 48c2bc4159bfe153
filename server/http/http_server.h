// The HTTP/1.1 listener: addresses, threads, limits and the life of all connections. Knows nothing of models
// or JSON; what is answered is the RouteTable's. Asio stays behind this header.
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
#include "server/http/route_table.h"
#include "server/memory_budget.h"

namespace serval {

struct HttpConfig {
  using Duration = std::chrono::milliseconds;

  std::string host = "127.0.0.1";
  uint16_t port = 0;                  // 0: any free port, see HttpServer::port()
  std::vector<std::string> api_keys;  // none: open, and then only on loopback unless insecure
  bool insecure = false;
  std::vector<std::string> cors_allow_origins;  // see CorsPolicy

  int io_threads = 1;
  int text_threads = 1;

  HeadLimits head;
  BodyLimits body;
  size_t max_total_body_bytes =
      256 << 20;               // request bodies in memory at once, over all connections; beyond it 429
  int max_connections = 4096;          // more: idle ones make way, else only probes are answered
  int max_connections_per_address = 0;  // the same for one client; 0: no limit
  size_t max_waiting_long_texts = 256;  // bodies above 64 KiB in line for their thread; beyond it 429
  size_t max_waiting_long_text_bytes = 64 << 20;  // their sizes together
  // What answers hold, over all connections and whoever else has a part of it; beyond it 429. None: no limit.
  std::shared_ptr<MemoryBudget> answers;
  // A stream's reader that leaves more than this unread is cut off at the next event.
  size_t stream_buffer_bytes = 256 << 10;
  int send_buffer_bytes = 0;  // the kernel's, per connection; 0: the system's choice

  Duration header_timeout{
      10'000};  // from a request's first byte (or the connection's start) to the end of its head
  Duration body_timeout{30'000};         // longest pause while a body arrives
  Duration body_total_timeout{300'000};  // whole body
  Duration keep_alive_timeout{60'000};   // idle between requests
  Duration write_stall_timeout{30'000};  // longest time a reader may take nothing (not a byte)
  Duration linger_timeout{
      1'000};  // after the last answer, for the client to read it before the connection is gone
};

// Observations, for metrics and the log. Called on I/O threads; must not block.
struct HttpHooks {
  std::function<void(const std::string& route, int status)> response;
  std::function<void(const std::string& code)> refused;  // beside `response`, when that is an error
  std::function<void(const char* reason)>
      client_gone;  // "disconnect" or "client_stall", while a request was open
  std::function<void(const RequestEnd& end)> ended;  // every request that was read, once
};

class HttpServer {
 public:
  // Binds and listens; throws std::runtime_error with a sentence when it cannot, or may not without keys.
  // Answers from start() on.
  HttpServer(HttpConfig config, RouteTable routes, HttpHooks hooks = {});
  ~HttpServer();  // stop()

  void start();
  uint16_t port() const;
  int num_connections() const;
  size_t num_waiting_texts() const;  // long ones, in line for their thread
  // Runs a task of a request of so many bytes where this server's own templates and tokenising run. False: that line is full.
  // `task` must not throw. Any thread, until stop().
  bool submit_text(size_t bytes, std::function<void()> task);

  // Stops accepting, closes idle connections, lets open requests finish (their connections close after the
  // answer), and waits for that at most `timeout`. False: some are still open. May be called again.
  bool drain(HttpConfig::Duration timeout);
  // Closes everything at once, open requests included, and joins all threads. Idempotent.
  void stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace serval
