// The HTTP/1.1 listener: addresses, threads, limits and the life of all connections. Knows nothing of models
// or JSON; what is answered is the RouteTable's. Asio stays behind this header.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>

#include "server/http/http_config.h"
#include "server/http/route_table.h"

namespace serval {

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
