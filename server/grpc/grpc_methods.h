// The methods of gRPC: what each does with a call. Protobuf is behind this header; connections and limits are grpc_server's.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "kernels/base/status.h"
#include "server/grpc/grpc_call.h"

namespace serval {

class InferenceService;

struct GrpcMethod {
  bool is_probe = false;  // answered without a key, and on connections of the reserve
  bool needs_key = true;
  // Begins a call: what to do with its messages.
  std::function<GrpcCall::OnMessage(const std::shared_ptr<GrpcCall>&)> begin;
};
using GrpcMethods = std::map<std::string, GrpcMethod>;  // by "package.Service/Method"

// Runs a task of a request of so many bytes where templates and tokenising run. False: the line there is full.
using SubmitText = std::function<bool(size_t bytes, std::function<void()> task)>;

// serval.v1.Inference.
GrpcMethods inference_methods(InferenceService& service, SubmitText submit);

// grpc.health.v1.Health: "" and every name it is given, all in one state. Any thread.
class GrpcHealth {
 public:
  explicit GrpcHealth(std::vector<std::string> services) : services_(std::move(services)) {}

  GrpcMethods methods();
  void set_serving(bool serving);
  // Ends what watches: the server goes.
  void end();

 private:
  int state_of(const std::string& service) const;  // -1: not served
  void check(GrpcCall& call, const GrpcMessage& message);
  void watch(const std::shared_ptr<GrpcCall>& call, const GrpcMessage& message);

  const std::vector<std::string> services_;
  mutable std::mutex mutex_;
  bool is_serving_ = false;
  std::map<const GrpcCall*, std::weak_ptr<GrpcCall>> watching_;  // served names only: others never change
};

// grpc.reflection.v1 and v1alpha: every service that this server has, with all it takes to call it.
GrpcMethods reflection_methods();
std::vector<std::string> grpc_services();

// The libraries' own log lines go through ours, at most one a second. Once, before any message is parsed.
void take_over_protobuf_log();

GrpcStatus to_status(const Error& error);

}  // namespace serval
