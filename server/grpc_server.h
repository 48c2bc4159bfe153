// The gRPC transport: proto messages to the same InferenceService that HTTP calls, and back. Cancellation and
// deadlines of a call reach the scheduler. Also grpc.health.v1 and reflection.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace serval {

class InferenceService;

struct GrpcConfig {
  std::string host = "127.0.0.1";
  int port = 0;                     // 0: any free port, see GrpcServer::port()
  int max_message_bytes = 4 << 20;  // of one request
  size_t stream_buffer_bytes =
      256 << 10;  // unsent answer of one call; a reader that falls further behind is cut off
  int max_concurrent_streams = 1024;  // per connection
  // Which API key it is, 0: none of ours. Empty: every caller may.
  std::function<int(std::string_view bearer)> authorize;
  std::function<void(const std::string& code)> refused;  // told of every call that an error answers
};

class GrpcServer {
 public:
  // Listens at once; throws std::runtime_error with a sentence when the port cannot be bound.
  GrpcServer(const GrpcConfig& config, InferenceService& service);
  ~GrpcServer();

  int port() const;
  // What grpc.health.v1 says.
  void set_serving(bool serving);
  // Refuses new calls, lets running ones end until the timeout, then cancels them.
  void shutdown(int timeout_ms);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace serval
