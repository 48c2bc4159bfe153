#include <algorithm>
#include <vector>

#include "grpc/health/v1/health.pb.h"
#include "server/grpc/grpc_unary.h"

namespace serval {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

std::string answer(HealthCheckResponse::ServingStatus status) {
  HealthCheckResponse response;
  response.set_status(status);
  return response.SerializeAsString();
}

}  // namespace

GrpcMethods GrpcHealth::methods() {
  using Call = std::shared_ptr<GrpcCall>;
  using Message = std::shared_ptr<GrpcMessage>;
  const auto on_check = [this](const Call& call) {
    return one_message(call, [this](const Call& open, const Message& message) { check(*open, *message); });
  };
  const auto on_watch = [this](const Call& call) {
    return one_message(call, [this](const Call& open, const Message& message) { watch(open, *message); });
  };
  return {{"grpc.health.v1.Health/Check", {.is_probe = true, .needs_key = false, .begin = on_check}},
          {"grpc.health.v1.Health/Watch", {.is_probe = true, .needs_key = false, .begin = on_watch}}};
}

// Called with mutex_ held.
int GrpcHealth::state_of(const std::string& service) const {
  if (!service.empty() && std::find(services_.begin(), services_.end(), service) == services_.end()) return -1;
  return is_serving_ ? HealthCheckResponse::SERVING : HealthCheckResponse::NOT_SERVING;
}

void GrpcHealth::check(GrpcCall& call, const GrpcMessage& message) {
  HealthCheckRequest request;
  if (!read_message(call, message, request)) return;
  int state = 0;
  {
    std::lock_guard lock(mutex_);
    state = state_of(request.service());
  }
  if (state < 0) {
    return call.finish(to_status({ErrorKind::kNotFound, "unknown_service", "No service of that name is served.", "service"}));
  }
  call.send(answer(static_cast<HealthCheckResponse::ServingStatus>(state)));
  call.finish({});
}

void GrpcHealth::watch(const std::shared_ptr<GrpcCall>& call, const GrpcMessage& message) {
  HealthCheckRequest request;
  if (!read_message(*call, message, request)) return;
  call->set_standing();
  {
    std::lock_guard lock(mutex_);
    const int state = state_of(request.service());
    call->send(answer(state < 0 ? HealthCheckResponse::SERVICE_UNKNOWN : static_cast<HealthCheckResponse::ServingStatus>(state)));
    if (state < 0) return;
    watching_[call.get()] = call;
  }
  call->set_on_cancel([this, id = call.get()] {
    std::lock_guard lock(mutex_);
    watching_.erase(id);
  });
}

void GrpcHealth::set_serving(bool serving) {
  std::lock_guard lock(mutex_);
  if (std::exchange(is_serving_, serving) == serving) return;
  for (const auto& [id, weak] : watching_) {
    if (const std::shared_ptr<GrpcCall> call = weak.lock())
      call->send(answer(serving ? HealthCheckResponse::SERVING : HealthCheckResponse::NOT_SERVING));
  }
}

void GrpcHealth::end() {
  std::map<const GrpcCall*, std::weak_ptr<GrpcCall>> ended;
  {
    std::lock_guard lock(mutex_);
    ended.swap(watching_);
  }
  for (const auto& [id, weak] : ended) {
    if (const std::shared_ptr<GrpcCall> call = weak.lock())
      call->finish(to_status({ErrorKind::kUnavailable, "draining", "The server is shutting down.", ""}));
  }
}

}  // namespace serval
