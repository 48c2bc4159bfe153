// The services that every gRPC server is expected to have: grpc.health.v1 and reflection (v1, and v1alpha for older clients).
// Neither needs a key: a probe has none.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "server/grpc_methods.h"

namespace serval {

class GrpcHealth {
 public:
  // `services`: the names that are served, besides "" for the server itself.
  explicit GrpcHealth(std::set<std::string> services) : services_(std::move(services)) {}
  // Any thread. Every watcher hears of a change.
  void set_serving(bool is_serving);
  // The health outlives the methods.
  std::vector<GrpcMethod> methods();

 private:
  std::string answer(const std::string& service) const;  // with mutex_ held; a serialized HealthCheckResponse
  const std::set<std::string> services_;
  mutable std::mutex mutex_;
  bool is_serving_ = false;
  std::vector<std::pair<std::string, std::weak_ptr<GrpcCall>>> watchers_;
};

std::vector<GrpcMethod> reflection_methods(std::vector<std::string> services);

}  // namespace serval
