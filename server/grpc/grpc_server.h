// The gRPC listener: serval.v1.Inference over the same InferenceService that HTTP calls, grpc.health.v1 and reflection. Spoken over
// our own HTTP/2 connections, so that every bound of HTTP holds: bytes, time, connections, streams. One I/O thread of its own, so that
// neither face can be held up by the other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "server/grpc/grpc_methods.h"
#include "server/grpc/h2_connection.h"
#include "server/http/request_log.h"
#include "server/memory_budget.h"

namespace serval {

struct GrpcConfig {
  std::string host = "127.0.0.1";
  uint16_t port = 0;      // 0: any free port, see GrpcServer::port()
  bool insecure = false;  // listens on other addresses than loopback without keys

  H2Limits connection;
  int max_connections = 1024;           // more: idle ones make way, else only health is answered
  int max_connections_per_address = 0;  // the same for one client; 0: no limit
  size_t max_message_bytes = 4 << 20;   // of one request
  size_t max_total_bytes = 256 << 20;   // open calls and their messages, over all connections; beyond it RESOURCE_EXHAUSTED
  size_t stream_buffer_bytes = 256 << 10;  // of an answer, not taken; a reader that leaves more is cut off when more comes
  std::shared_ptr<MemoryBudget> answers;   // what answers hold, shared with other faces; none: no limit

  SubmitText submit_text;  // where messages become prompts; none: on the I/O thread
  std::function<int(std::string_view bearer)> find_key;  // a key's position, from 1; 0: none of ours. Empty: every caller may
};

// Observations, for metrics and the log. Called on the I/O thread; must not block.
struct GrpcHooks {
  std::function<void(const std::string& method, std::string_view code)> response;  // "unmatched": none of ours
  std::function<void(const std::string& code)> refused;     // beside `response`, when an error was all of it
  std::function<void(const char* reason)> client_gone;      // "disconnect", "client_stall", "flood"
  std::function<void(const RequestEnd& end)> ended;         // every call, once
};

class GrpcServer {
 public:
  // Listens and answers at once; throws std::runtime_error with a sentence when it cannot. `service` outlives it.
  GrpcServer(GrpcConfig config, InferenceService& service, GrpcHooks hooks = {});
  ~GrpcServer();  // shutdown(0)

  uint16_t port() const;
  int num_connections() const;
  size_t charged_bytes() const;  // of max_total_bytes
  // What health says.
  void set_serving(bool serving);
  // No new calls; lets running ones end until the timeout, then closes everything and joins the thread. Idempotent.
  void shutdown(int timeout_ms);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace serval
