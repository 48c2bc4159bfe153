#include <google/protobuf/stubs/logging.h>

#include <atomic>
#include <chrono>

#include "kernels/base/log.h"
#include "server/grpc/grpc_methods.h"

namespace serval {
namespace {

GrpcCode code_of(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kInvalidRequest:
      return GrpcCode::kInvalidArgument;
    case ErrorKind::kUnauthenticated:
      return GrpcCode::kUnauthenticated;
    case ErrorKind::kPermissionDenied:
      return GrpcCode::kPermissionDenied;
    case ErrorKind::kNotFound:
      return GrpcCode::kNotFound;
    case ErrorKind::kOverloaded:
      return GrpcCode::kResourceExhausted;
    case ErrorKind::kUnavailable:
      return GrpcCode::kUnavailable;
    case ErrorKind::kDeadlineExceeded:
      return GrpcCode::kDeadlineExceeded;
    case ErrorKind::kCancelled:
      return GrpcCode::kCancelled;
    case ErrorKind::kInternal:
      return GrpcCode::kInternal;
  }
  return GrpcCode::kInternal;
}

// Whoever sends malformed messages chooses how many lines there are to be, so few are written.
void log_of_protobuf(google::protobuf::LogLevel, const char*, int, const std::string& message) {
  using Clock = std::chrono::steady_clock;
  constexpr int64_t kNanoseconds = 1'000'000'000;
  static std::atomic<int64_t> next{0};
  static std::atomic<int64_t> left_out{0};
  const int64_t now = Clock::now().time_since_epoch().count();
  int64_t due = next.load();
  if (now < due || !next.compare_exchange_strong(due, now + kNanoseconds)) {
    ++left_out;
    return;
  }
  log_warn("protobuf", {{"says", message}, {"left_out", left_out.exchange(0)}});
}

}  // namespace

// The sentence is the status message; code and param travel as trailing metadata, as does when to try again.
GrpcStatus to_status(const Error& error) {
  GrpcStatus status{code_of(error.kind), error.message, {{"serval-code", error.code}}};
  if (!error.param.empty()) status.metadata.emplace_back("serval-param", error.param);
  if (error.retry_after_s > 0) {
    status.metadata.emplace_back("grpc-retry-pushback-ms", std::to_string(error.retry_after_s * 1000));
  }
  return status;
}

void take_over_protobuf_log() {
  google::protobuf::SetLogHandler(log_of_protobuf);
}

}  // namespace serval
