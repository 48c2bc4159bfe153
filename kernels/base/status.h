// What can go wrong with one request, as a value that travels from where it happened to the JSON body or gRPC
// status that tells the client. Nothing is thrown on the engine or worker threads.
#pragma once

#include <string>
#include <utility>
#include <variant>

#include "kernels/base/check.h"

namespace serval {

// The kind decides the transport status (HTTP 400, 404, 429...; gRPC INVALID_ARGUMENT...); `code` is the
// machine-readable detail.
enum class ErrorKind {
  kInvalidRequest,    // 400 INVALID_ARGUMENT
  kUnauthenticated,   // 401
  kPermissionDenied,  // 403
  kNotFound,          // 404
  kOverloaded,        // 429 RESOURCE_EXHAUSTED, carries retry_after_s
  kInternal,          // 500 INTERNAL
  kUnavailable,       // 503 UNAVAILABLE: starting or draining
  kDeadlineExceeded,  // 504
  kCancelled,         // 499: the client went away; nobody reads it
};

struct Error {
  ErrorKind kind = ErrorKind::kInternal;
  std::string code;  // e.g. "context_length_exceeded"
  // One sentence for a person; names limits and the values seen, never addresses or paths.
  std::string message;
  std::string param;  // the request field to blame, empty when there is none
  int retry_after_s = 0;
};

inline Error invalid(std::string param, std::string code, std::string message) {
  return Error{ErrorKind::kInvalidRequest, std::move(code), std::move(message), std::move(param)};
}

// A value or an Error. Asking for the side that is not there is our own mistake and aborts.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}
  Result(Error error) : state_(std::move(error)) {}

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }
  T& value() {
    SERVAL_CHECK(ok(), std::get<1>(state_).message);
    return std::get<0>(state_);
  }
  const T& value() const { return const_cast<Result*>(this)->value(); }
  T& operator*() { return value(); }
  const T& operator*() const { return value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  const Error& error() const {
    SERVAL_CHECK(!ok());
    return std::get<1>(state_);
  }

 private:
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)), failed_(true) {}
  bool ok() const { return !failed_; }
  explicit operator bool() const { return ok(); }
  const Error& error() const {
    SERVAL_CHECK(failed_);
    return error_;
  }

 private:
  Error error_;
  bool failed_ = false;
};

}  // namespace serval
