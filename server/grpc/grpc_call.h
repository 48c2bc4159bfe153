// One gRPC call on an HTTP/2 stream: messages between their five-byte heads, a status in the trailers (gRPC over HTTP/2). Compressed
// messages are refused unread: there is no decompression here. Knows no method and no protobuf.
#pragma once

#include <array>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "server/grpc/h2_connection.h"
#include "server/memory_budget.h"

namespace serval {

class GrpcCall;

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
std::string_view grpc_code_name(GrpcCode code);  // "INVALID_ARGUMENT"

struct GrpcStatus {
  GrpcCode code = GrpcCode::kOk;
  std::string message;
  H2Fields metadata;  // trailing

  // The value of serval-code, empty when there is none.
  std::string_view detail() const;
};

// What all calls of one server share; each holds a reference.
struct GrpcShared {
  GrpcShared(size_t max_message_bytes, size_t max_total_bytes, size_t max_unsent_bytes, std::shared_ptr<MemoryBudget> answer_budget)
      : max_message_bytes(max_message_bytes),
        stream_buffer_bytes(max_unsent_bytes),
        calls(max_total_bytes),
        answers(std::move(answer_budget)) {}

  const size_t max_message_bytes;
  const size_t stream_buffer_bytes;
  MemoryBudget calls;  // what open calls cost, and their messages until somebody has read them
  const std::shared_ptr<MemoryBudget> answers;

  // On the connection's thread, each once for a call. Its status, before the client can know; `is_first`: nothing else was answered.
  std::function<void(const GrpcCall&, const GrpcStatus&, bool is_first)> on_finished;
  std::function<void(const GrpcCall&)> on_standing;
  std::function<void(const GrpcCall&, H2End)> on_closed;
};

// A message of a request, charged for as long as it is held.
struct GrpcMessage {
  explicit GrpcMessage(std::shared_ptr<GrpcShared> all) : shared(std::move(all)), charge(&shared->calls) {}
  const std::shared_ptr<GrpcShared> shared;
  MemoryCharge charge;
  std::string bytes;
};

class GrpcCall final : public H2Stream, public std::enable_shared_from_this<GrpcCall> {
 public:
  // On the connection's thread: a message has come, or (null) the client has no further ones.
  using OnMessage = std::function<void(std::shared_ptr<GrpcMessage>)>;

  GrpcCall(H2Connection& connection, int32_t stream, const H2Request& request, std::shared_ptr<GrpcShared> shared);
  ~GrpcCall() override;

  // --- on the connection's thread ---

  // Before the first message. Refuses what no method takes: a compression, or more calls than there is room for.
  void start(const H2Request& request, OnMessage on_message);
  void set_method(std::string method) { method_ = std::move(method); }
  void set_key(int key) { key_ = key; }
  int key() const { return key_; }  // position of the caller's key, from 1; 0: none was needed, or good
  // It waits for nothing that we do: its connection may make way for others.
  void set_standing();
  bool is_standing() const { return is_standing_; }
  // Ends the call, and takes no further message.
  void refuse(GrpcStatus status);

  // --- any thread ---

  void send(std::string_view message);
  void finish(GrpcStatus status);  // after what was sent
  // Runs on the connection's thread when the call ends before finish(), now when it already has; at most once.
  // finish() forgets it.
  void set_on_cancel(std::function<void()> on_cancel);
  bool is_gone();
  size_t unsent_bytes();

  const std::string& method() const { return method_; }  // "package.Service/Method"; empty: none of ours
  const void* connection() const { return connection_id_; }     // only to tell them apart
  const std::string& request_id() const { return request_id_; }
  std::chrono::steady_clock::time_point received() const { return received_; }
  // What is left of grpc-timeout, at least 1 ns; zero: there is none.
  std::chrono::nanoseconds time_left() const;

 private:
  void on_data(std::string_view bytes) override;
  void on_end() override;
  void on_timeout() override;
  void on_sent(size_t bytes) override;
  void on_closed(H2End end) override;

  bool read_message_head();
  void flush();
  void wake(std::unique_lock<std::mutex> lock);

  H2Connection* connection_;  // null once closed; only on its thread
  const void* const connection_id_;
  const std::weak_ptr<H2Connection> link_;
  const int32_t stream_;
  const std::shared_ptr<GrpcShared> shared_;
  const std::string request_id_;
  const std::chrono::steady_clock::time_point received_;
  const std::chrono::nanoseconds timeout_;
  std::string method_;

  // On the connection's thread.
  OnMessage on_message_;
  MemoryCharge call_charge_;
  std::array<char, 5> message_head_{};  // whether it is compressed, then its size, big-endian
  size_t message_head_bytes_ = 0;
  size_t message_bytes_ = 0;
  std::shared_ptr<GrpcMessage> message_;
  size_t handed_over_ = 0;  // to the connection, and not sent
  bool is_standing_ = false;
  int key_ = 0;
  bool is_refused_ = false;
  bool is_answered_ = false;

  std::mutex mutex_;
  std::string output_;       // framed, not handed over yet
  size_t unsent_bytes_ = 0;  // of it and of what the connection holds
  MemoryCharge answer_charge_;
  std::optional<GrpcStatus> end_;
  std::function<void()> on_cancel_;
  bool is_woken_ = false;
  bool is_cut_ = false;   // there was no room for its answer
  bool is_over_ = false;  // end_ was handed over, or the stream is closed
  bool is_gone_ = false;  // the stream is closed
};

// As grpc-timeout has it: up to eight digits and one of H M S m u n. Zero: not understood. At most a year.
std::chrono::nanoseconds parse_grpc_timeout(std::string_view text);
// A status message as the trailer carries it.
std::string percent_encoded(std::string_view text);
const std::string* find_field(const H2Request& request, std::string_view name);

}  // namespace serval
