#include "server/grpc/grpc_call.h"

#include <algorithm>
#include <charconv>

#include "server/unique_id.h"

namespace serval {
namespace {

constexpr size_t kCallBytes = 4 << 10;  // what a call without a message costs us, roughly
constexpr size_t kMaxIdBytes = 128;

// The client's own, when it is one to log; a new one otherwise.
std::string request_id_of(const H2Request& request) {
  const std::string* const given = find_field(request, "x-request-id");
  const bool is_plain = given && !given->empty() && given->size() <= kMaxIdBytes &&
                        std::all_of(given->begin(), given->end(), [](char c) { return c > 0x20 && c < 0x7f; });
  return is_plain ? *given : "req_" + unique_id();
}

H2Fields trailers_of(const GrpcStatus& status) {
  H2Fields fields = {{"grpc-status", std::to_string(static_cast<int>(status.code))}};
  if (!status.message.empty()) fields.emplace_back("grpc-message", percent_encoded(status.message));
  fields.insert(fields.end(), status.metadata.begin(), status.metadata.end());
  return fields;
}

GrpcStatus refusal(GrpcCode code, std::string detail, std::string message) {
  return {code, std::move(message), {{"serval-code", std::move(detail)}}};
}

GrpcStatus overloaded() {
  return refusal(GrpcCode::kResourceExhausted, "server_overloaded", "The server holds as many requests as it can; try again shortly.");
}

}  // namespace

std::string_view grpc_code_name(GrpcCode code) {
  switch (code) {
    case GrpcCode::kOk:
      return "OK";
    case GrpcCode::kCancelled:
      return "CANCELLED";
    case GrpcCode::kInvalidArgument:
      return "INVALID_ARGUMENT";
    case GrpcCode::kDeadlineExceeded:
      return "DEADLINE_EXCEEDED";
    case GrpcCode::kNotFound:
      return "NOT_FOUND";
    case GrpcCode::kPermissionDenied:
      return "PERMISSION_DENIED";
    case GrpcCode::kResourceExhausted:
      return "RESOURCE_EXHAUSTED";
    case GrpcCode::kUnimplemented:
      return "UNIMPLEMENTED";
    case GrpcCode::kInternal:
      return "INTERNAL";
    case GrpcCode::kUnavailable:
      return "UNAVAILABLE";
    case GrpcCode::kUnauthenticated:
      return "UNAUTHENTICATED";
  }
  return "UNKNOWN";
}

std::string_view GrpcStatus::detail() const {
  for (const auto& [name, value] : metadata)
    if (name == "serval-code") return value;
  return {};
}

const std::string* find_field(const H2Request& request, std::string_view name) {
  for (const auto& [field, value] : request.fields)
    if (field == name) return &value;
  return nullptr;
}

std::chrono::nanoseconds parse_grpc_timeout(std::string_view text) {
  using namespace std::chrono;
  if (text.size() < 2 || text.size() > 9) return nanoseconds{0};
  int64_t amount = 0;
  const char* const unit = text.data() + text.size() - 1;
  const auto [end, error] = std::from_chars(text.data(), unit, amount);
  if (error != std::errc() || end != unit || amount < 0) return nanoseconds{0};
  nanoseconds one{0};
  switch (*unit) {
    case 'H':
      one = hours{1};
      break;
    case 'M':
      one = minutes{1};
      break;
    case 'S':
      one = seconds{1};
      break;
    case 'm':
      one = milliseconds{1};
      break;
    case 'u':
      one = microseconds{1};
      break;
    case 'n':
      one = nanoseconds{1};
      break;
    default:
      return nanoseconds{0};
  }
  constexpr nanoseconds kLongest = hours{24 * 365};
  if (amount > kLongest / one) return kLongest;
  return std::max(amount * one, nanoseconds{1});  // a deadline that has passed is still one
}

std::string percent_encoded(std::string_view text) {
  constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte <= 0x7e && c != '%') {
      out += c;
    } else {
      out += {'%', kHex[byte >> 4], kHex[byte & 15]};
    }
  }
  return out;
}

GrpcCall::GrpcCall(H2Connection& connection, int32_t stream, const H2Request& request, std::shared_ptr<GrpcShared> shared)
    : connection_(&connection),
      connection_id_(&connection),
      link_(connection.weak_from_this()),
      stream_(stream),
      shared_(std::move(shared)),
      request_id_(request_id_of(request)),
      received_(std::chrono::steady_clock::now()),
      timeout_([&] {
        const std::string* const text = find_field(request, "grpc-timeout");
        return text ? parse_grpc_timeout(*text) : std::chrono::nanoseconds{0};
      }()),
      call_charge_(&shared_->calls),
      answer_charge_(shared_->answers.get(), kFreeAnswerBytes) {}

GrpcCall::~GrpcCall() = default;

std::chrono::nanoseconds GrpcCall::time_left() const {
  if (timeout_.count() == 0) return timeout_;
  return std::max(timeout_ - (std::chrono::steady_clock::now() - received_), std::chrono::nanoseconds{1});
}

// --- on the connection's thread ---

void GrpcCall::start(const H2Request& request, OnMessage on_message) {
  on_message_ = std::move(on_message);
  if (!call_charge_.fits(kCallBytes)) return refuse(overloaded());
  if (const std::string* const coding = find_field(request, "grpc-encoding"); coding && *coding != "identity") {
    refuse(refusal(GrpcCode::kUnimplemented, "compression_not_supported",
                   "grpc-encoding is not supported; send messages as they are (identity)."));
  }
}

void GrpcCall::refuse(GrpcStatus status) {
  if (std::exchange(is_refused_, true)) return;
  message_.reset();
  finish(std::move(status));
}

void GrpcCall::set_standing() {
  if (!std::exchange(is_standing_, true) && shared_->on_standing) shared_->on_standing(*this);
}

// False: it was refused.
bool GrpcCall::read_message_head() {
  const auto byte = [&](size_t i) { return static_cast<size_t>(static_cast<unsigned char>(message_head_[i])); };
  message_bytes_ = byte(1) << 24 | byte(2) << 16 | byte(3) << 8 | byte(4);
  if (byte(0) != 0) {
    refuse(refusal(GrpcCode::kInternal, "compression_not_supported", "A message is compressed although no grpc-encoding was given."));
  } else if (message_bytes_ > shared_->max_message_bytes) {
    refuse(refusal(GrpcCode::kResourceExhausted, "request_too_large",
                   "A message of " + std::to_string(message_bytes_) + " bytes is too large; at most " +
                       std::to_string(shared_->max_message_bytes) + " are taken."));
  } else {
    message_ = std::make_shared<GrpcMessage>(shared_);
    message_->bytes.reserve(message_bytes_);  // address space only, until bytes arrive
  }
  return !is_refused_;
}

void GrpcCall::on_data(std::string_view bytes) {
  while (!is_refused_ && !bytes.empty()) {
    if (!message_) {
      const size_t n = std::min(message_head_.size() - message_head_bytes_, bytes.size());
      std::copy_n(bytes.data(), n, message_head_.begin() + static_cast<std::ptrdiff_t>(message_head_bytes_));
      message_head_bytes_ += n;
      bytes.remove_prefix(n);
      if (message_head_bytes_ < message_head_.size() || !read_message_head()) return;
    }
    const size_t n = std::min(message_bytes_ - message_->bytes.size(), bytes.size());
    if (!message_->charge.fits(message_->bytes.size() + n)) return refuse(overloaded());
    message_->bytes += bytes.substr(0, n);
    bytes.remove_prefix(n);
    if (message_->bytes.size() < message_bytes_) return;
    message_head_bytes_ = 0;
    on_message_(std::exchange(message_, nullptr));
  }
}

void GrpcCall::on_end() {
  if (is_refused_) return;
  if (message_head_bytes_ > 0) {
    return refuse(refusal(GrpcCode::kInvalidArgument, "malformed_message", "The last message is cut off."));
  }
  on_message_(nullptr);
}

void GrpcCall::on_timeout() {
  refuse(refusal(GrpcCode::kDeadlineExceeded, "request_timeout", "The request did not arrive in time."));
}

void GrpcCall::on_sent(size_t bytes) {
  handed_over_ -= std::min(handed_over_, bytes);
  std::lock_guard lock(mutex_);
  unsent_bytes_ -= std::min(unsent_bytes_, bytes);
  answer_charge_.set(unsent_bytes_);
}

void GrpcCall::on_closed(H2End end) {
  std::function<void()> cancel;
  bool was_finished = false;
  {
    std::lock_guard lock(mutex_);
    is_gone_ = true;
    was_finished = std::exchange(is_over_, true);
    output_ = {};
    unsent_bytes_ = 0;
    answer_charge_.set(0);
    cancel = std::exchange(on_cancel_, nullptr);
  }
  connection_ = nullptr;
  message_.reset();
  call_charge_.set(0);
  const OnMessage forgotten = std::exchange(on_message_, [](const std::shared_ptr<GrpcMessage>&) {});
  if (cancel) cancel();
  if (!was_finished && shared_->on_finished) {
    GrpcStatus status{GrpcCode::kCancelled, "", {}};
    if (end == H2End::kStalled) status.metadata = {{"serval-code", "client_stall"}};
    shared_->on_finished(*this, status, false);
  }
  if (shared_->on_closed) shared_->on_closed(*this, end);
}

void GrpcCall::flush() {
  std::string bytes;
  std::optional<GrpcStatus> end;
  std::function<void()> forgotten;
  bool is_cut = false;
  {
    std::lock_guard lock(mutex_);
    is_woken_ = false;
    if (is_over_ || !connection_) return;
    bytes.swap(output_);
    // What waits is what the reader has not taken: however much comes at once, a reader that keeps up is never cut off.
    is_cut = is_cut_ = is_cut_ || (!bytes.empty() && handed_over_ > shared_->stream_buffer_bytes);
    if (!is_cut && end_) {
      end = end_;
      is_over_ = true;
      forgotten = std::exchange(on_cancel_, nullptr);
    }
  }
  if (is_cut) return connection_->cut(stream_);
  if (end) {
    is_refused_ = true;  // whatever still comes
    message_.reset();
    if (shared_->on_finished) shared_->on_finished(*this, *end, !is_answered_ && bytes.empty());
  }
  const bool is_all = !is_answered_ && bytes.empty() && end;
  if (!std::exchange(is_answered_, true)) {
    H2Fields head = {{":status", "200"}, {"content-type", "application/grpc"}, {"grpc-accept-encoding", "identity"}};
    head.emplace_back("x-request-id", request_id_);
    if (is_all) {
      const H2Fields trailers = trailers_of(*end);
      head.insert(head.end(), trailers.begin(), trailers.end());
    }
    connection_->respond(stream_, head, is_all);
  }
  handed_over_ += bytes.size();
  connection_->write(stream_, bytes);
  if (end && !is_all) connection_->end(stream_, trailers_of(*end));
}

// --- any thread ---

void GrpcCall::wake(std::unique_lock<std::mutex> lock) {
  if (std::exchange(is_woken_, true)) return;
  lock.unlock();
  if (const std::shared_ptr<H2Connection> connection = link_.lock()) {
    connection->post([weak = weak_from_this()] {
      if (const std::shared_ptr<GrpcCall> call = weak.lock()) call->flush();
    });
  }
}

void GrpcCall::send(std::string_view message) {
  std::unique_lock lock(mutex_);
  if (is_over_ || end_ || is_cut_) return;
  const auto size = static_cast<uint32_t>(message.size());
  output_ += {'\0', static_cast<char>(size >> 24), static_cast<char>(size >> 16), static_cast<char>(size >> 8), static_cast<char>(size)};
  output_ += message;
  unsent_bytes_ += message_head_.size() + message.size();
  if (!answer_charge_.fits(unsent_bytes_)) {
    is_cut_ = true;
    output_ = {};
  }
  wake(std::move(lock));
}

void GrpcCall::finish(GrpcStatus status) {
  std::unique_lock lock(mutex_);
  if (is_over_ || end_) return;
  end_ = std::move(status);
  wake(std::move(lock));
}

void GrpcCall::set_on_cancel(std::function<void()> on_cancel) {
  {
    std::lock_guard lock(mutex_);
    if (!is_gone_) {
      if (!is_over_) on_cancel_ = std::move(on_cancel);
      return;
    }
  }
  on_cancel();
}

bool GrpcCall::is_gone() {
  std::lock_guard lock(mutex_);
  return is_over_ || end_;
}

size_t GrpcCall::unsent_bytes() {
  std::lock_guard lock(mutex_);
  return unsent_bytes_;
}

}  // namespace serval
