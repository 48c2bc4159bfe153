// The gRPC transport: HTTP/2 (h2_connection.h) and gRPC's framing (grpc_call.h) on a listener of its own, with the bounds that the
// HTTP one has. Methods are rows (grpc_methods.h, grpc_infrastructure.h).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "server/grpc_call.h"
#include "server/h2_connection.h"
#include "server/memory_budget.h"

namespace serval {

class InferenceService;

struct GrpcConfig {
  std::string host = "127.0.0.1";
  int port = 0;  // 0: any free port, see GrpcServer::port()
  int text_threads = 1;
  int max_connections = 1024;  // more: the one that idles longest makes way, else the new one is closed
  H2Limits connection;
  GrpcCallLimits call;
  size_t max_total_message_bytes = 256 << 20;  // of requests in memory at once, over all connections; beyond it RESOURCE_EXHAUSTED
  size_t max_waiting_texts = 256;              // calls in line for a thread that tokenises
  std::shared_ptr<MemoryBudget> answers;       // what answers hold, with whoever else has a part of it; none: no limit
  std::function<int(std::string_view key)> authorize;    // which API key it is, 0: none of ours. Empty: every caller may
  std::function<void(const std::string& code)> refused;  // told of every call that an error answers
  // Told of every call's end: its method's path ("unknown" for one that there is not) and status.
  std::function<void(const std::string& method, int status)> finished;
};

class GrpcServer {
 public:
  // Listens at once; throws std::runtime_error with a sentence when the port cannot be bound.
  GrpcServer(const GrpcConfig& config, InferenceService& service);
  ~GrpcServer();

  int port() const;
  int num_connections() const;
  // What grpc.health.v1 says.
  void set_serving(bool serving);
  // Refuses new calls, lets running ones end until the timeout, then ends them and joins all threads. Idempotent.
  void shutdown(int timeout_ms);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace serval
