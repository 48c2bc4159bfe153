// One gRPC call on an HTTP/2 stream: messages between their five-byte heads, status in the trailers (gRPC over HTTP/2, PROTOCOL-
// HTTP2). Compressed messages are refused unread. Knows no method.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "server/h2_connection.h"
#include "server/memory_budget.h"

namespace serval {

// The codes of google.rpc.Code that we say.
enum class GrpcCode {
  kOk = 0,
  kCancelled = 1,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kUnauthenticated = 16,
};

struct GrpcStatus {
  GrpcCode code = GrpcCode::kOk;
  std::string message;
  H2Fields metadata;  // trailing
};

struct GrpcCallLimits {
  size_t max_message_bytes = 4 << 20;      // of a request
  // Of an answer, not taken yet: a reader that falls further behind is cut off. One message may be larger.
  size_t stream_buffer_bytes = 256 << 10;
};

class GrpcCall final : public H2Stream, public std::enable_shared_from_this<GrpcCall> {
 public:
  // On the connection's thread: a message has come, or (nothing) the client has no further ones.
  using OnMessage = std::function<void(std::optional<std::string> message)>;

  // Both budgets hold over all calls and outlive them.
  GrpcCall(H2Connection& connection, int32_t stream, const H2Request& request, const GrpcCallLimits& limits, MemoryBudget& messages,
           MemoryBudget* answers);
  ~GrpcCall() override;

  // Once, before anything else. False: it was refused for what its head says, or for want of memory.
  bool begin(const H2Request& request, OnMessage on_message);
  // Told once how the call ended, on the connection's thread.
  void set_on_finished(std::function<void(GrpcCode)> on_finished) { on_finished_ = std::move(on_finished); }

  // --- any thread ---
  void send(std::string_view message);
  void finish(GrpcStatus status);  // after what was sent
  // Runs when the client is gone before finish(), now when it is already; at most once. finish() forgets it.
  void set_on_cancel(std::function<void()> on_cancel);

  // Which API key calls, from 1; 0: none is needed. Set before begin().
  void set_key(int key) { key_ = key; }
  int key() const { return key_; }
  const std::string& request_id() const { return request_id_; }
  // From grpc-timeout; zero: none.
  std::chrono::nanoseconds timeout() const { return timeout_; }

 private:
  void on_data(std::string_view bytes) override;
  void on_end() override;
  void on_sent(size_t bytes) override;
  void on_closed() override;

  void refuse(GrpcCode code, std::string message);
  void flush();  // on the connection's thread
  void wake(std::unique_lock<std::mutex> lock);

  H2Connection* connection_;  // null once closed; only on its thread
  const std::weak_ptr<H2Connection> link_;
  const int32_t stream_;
  const GrpcCallLimits& limits_;
  MemoryCharge message_charge_;
  const std::string request_id_;
  const std::chrono::nanoseconds timeout_;
  int key_ = 0;

  // On the connection's thread.
  OnMessage on_message_;
  std::function<void(GrpcCode)> on_finished_;
  std::string input_;  // a message's head and what is here of it
  bool is_refused_ = false;
  bool is_answered_ = false;

  std::mutex mutex_;
  std::string output_;             // framed, not handed over yet
  size_t unsent_bytes_ = 0;        // of it and of what the connection holds
  MemoryCharge answer_charge_;
  std::optional<GrpcStatus> end_;
  std::function<void()> on_cancel_;
  bool is_woken_ = false;
  bool is_cut_ = false;            // its reader fell too far behind
  bool is_over_ = false;           // closed, or finish() was handed over
  bool is_gone_ = false;           // closed
};

// As grpc-timeout has it: up to eight digits and one of H M S m u n. Zero: not understood.
std::chrono::nanoseconds parse_grpc_timeout(std::string_view text);
// A status message as the trailer carries it.
std::string percent_encoded(std::string_view text);
const std::string* find_field(const H2Request& request, std::string_view name);

}  // namespace serval
