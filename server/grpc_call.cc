#include "server/grpc_call.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "server/unique_id.h"

namespace serval {
namespace {

constexpr size_t kHeadBytes = 5;        // whether it is compressed, then its size, big-endian
constexpr size_t kCallBytes = 4 << 10;  // what a call without a message costs us, roughly
constexpr size_t kMostIdBytes = 128;

const H2Fields kHead = {{":status", "200"}, {"content-type", "application/grpc"}, {"grpc-accept-encoding", "identity"}};

// The client's own, when it is one to log; a new one otherwise.
std::string request_id_of(const H2Request& request) {
  const std::string* const given = find_field(request, "x-request-id");
  const bool is_plain = given && !given->empty() && given->size() <= kMostIdBytes &&
                        std::all_of(given->begin(), given->end(), [](char c) { return c > 0x20 && c < 0x7f; });
  return is_plain ? *given : unique_id();
}

H2Fields trailers_of(const GrpcStatus& status) {
  H2Fields fields = {{"grpc-status", std::to_string(static_cast<int>(status.code))}};
  if (!status.message.empty()) fields.emplace_back("grpc-message", percent_encoded(status.message));
  fields.insert(fields.end(), status.metadata.begin(), status.metadata.end());
  return fields;
}

}  // namespace

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

GrpcCall::GrpcCall(H2Connection& connection, int32_t stream, const H2Request& request, const GrpcCallLimits& limits, MemoryBudget& messages,
                   MemoryBudget* answers)
    : connection_(&connection),
      link_(connection.weak_from_this()),
      stream_(stream),
      limits_(limits),
      message_charge_(&messages),
      request_id_(request_id_of(request)),
      timeout_([&] {
        const std::string* const text = find_field(request, "grpc-timeout");
        return text ? parse_grpc_timeout(*text) : std::chrono::nanoseconds{0};
      }()),
      answer_charge_(answers, kFreeAnswerBytes) {}

GrpcCall::~GrpcCall() = default;

// --- on the connection's thread ---

bool GrpcCall::begin(const H2Request& request, OnMessage on_message) {
  on_message_ = std::move(on_message);
  if (!message_charge_.fits(kCallBytes)) refuse(GrpcCode::kResourceExhausted, "The server holds too many requests; try again later.");
  if (const std::string* const coding = find_field(request, "grpc-encoding"); coding && *coding != "identity")
    refuse(GrpcCode::kUnimplemented, "grpc-encoding is not supported; send messages as they are (identity).");
  return !is_refused_;
}

void GrpcCall::refuse(GrpcCode code, std::string message) {
  if (std::exchange(is_refused_, true)) return;
  input_ = {};
  finish({code, std::move(message), {}});
}

void GrpcCall::on_data(std::string_view bytes) {
  while (!is_refused_ && !bytes.empty()) {
    // No more than a message's head until its size is known to be allowed.
    const size_t head = input_.size() < kHeadBytes ? std::min(kHeadBytes - input_.size(), bytes.size()) : 0;
    input_ += bytes.substr(0, head);
    bytes.remove_prefix(head);
    if (input_.size() < kHeadBytes) return;
    const auto byte = [&](size_t i) { return static_cast<size_t>(static_cast<unsigned char>(input_[i])); };
    if (byte(0) != 0) return refuse(GrpcCode::kUnimplemented, "A message is compressed; grpc-accept-encoding is identity.");
    const size_t size = byte(1) << 24 | byte(2) << 16 | byte(3) << 8 | byte(4);
    if (size > limits_.max_message_bytes) {
      return refuse(GrpcCode::kResourceExhausted, "A message of " + std::to_string(size) + " bytes is too large; at most " +
                                                      std::to_string(limits_.max_message_bytes) + " are taken.");
    }
    const size_t body = std::min(kHeadBytes + size - input_.size(), bytes.size());
    if (!message_charge_.fits(kCallBytes + input_.size() + body))
      return refuse(GrpcCode::kResourceExhausted, "The server holds too many request bytes; try again later.");
    input_ += bytes.substr(0, body);
    bytes.remove_prefix(body);
    if (input_.size() < kHeadBytes + size) return;
    std::string message = std::exchange(input_, {}).substr(kHeadBytes);
    on_message_(std::move(message));
  }
}

void GrpcCall::on_end() {
  if (is_refused_) return;
  if (!input_.empty()) return refuse(GrpcCode::kInvalidArgument, "The last message is cut off.");
  on_message_(std::nullopt);
}

void GrpcCall::on_sent(size_t bytes) {
  std::lock_guard lock(mutex_);
  unsent_bytes_ -= std::min(unsent_bytes_, bytes);
  answer_charge_.set(unsent_bytes_);
}

void GrpcCall::on_closed() {
  std::function<void()> cancel;
  GrpcCode code = GrpcCode::kCancelled;
  {
    std::lock_guard lock(mutex_);
    is_gone_ = true;
    if (end_ && is_over_) code = end_->code;
    is_over_ = true;
    output_ = {};
    unsent_bytes_ = 0;
    answer_charge_.set(0);
    cancel = std::move(on_cancel_);
    on_cancel_ = nullptr;
  }
  connection_ = nullptr;
  input_ = {};
  message_charge_.set(0);
  const OnMessage forgotten = std::exchange(on_message_, [](std::optional<std::string>) {});
  if (cancel) cancel();
  if (on_finished_) std::exchange(on_finished_, nullptr)(code);
}

void GrpcCall::flush() {
  std::string bytes;
  std::optional<GrpcStatus> end;
  bool is_cut = false;
  std::function<void()> forgotten;
  {
    std::lock_guard lock(mutex_);
    is_woken_ = false;
    if (is_gone_ || is_over_) return;
    bytes.swap(output_);
    is_cut = is_cut_;
    if (!is_cut && end_) {
      end = end_;
      is_over_ = true;
      forgotten = std::exchange(on_cancel_, nullptr);
    }
  }
  if (!connection_) return;
  if (is_cut) return connection_->reset(stream_, NGHTTP2_ENHANCE_YOUR_CALM);
  if (!is_answered_ && bytes.empty() && end) {
    H2Fields head = kHead;
    const H2Fields trailers = trailers_of(*end);
    head.insert(head.end(), trailers.begin(), trailers.end());
    return connection_->respond(stream_, head, true);
  }
  if (!std::exchange(is_answered_, true)) {
    H2Fields head = kHead;
    head.emplace_back("x-request-id", request_id_);
    connection_->respond(stream_, head, false);
  }
  connection_->write(stream_, bytes);
  if (end) connection_->end(stream_, trailers_of(*end));
}

// --- any thread ---

void GrpcCall::wake(std::unique_lock<std::mutex> lock) {
  if (std::exchange(is_woken_, true)) return;
  lock.unlock();
  if (const std::shared_ptr<H2Connection> connection = link_.lock()) {
    connection->post([call = shared_from_this()] { call->flush(); });
  }
}

void GrpcCall::send(std::string_view message) {
  std::unique_lock lock(mutex_);
  if (is_over_ || end_ || is_cut_) return;
  const bool has_room = unsent_bytes_ == 0 || unsent_bytes_ + kHeadBytes + message.size() <= limits_.stream_buffer_bytes;
  unsent_bytes_ += kHeadBytes + message.size();
  if (!has_room || !answer_charge_.fits(unsent_bytes_)) {
    is_cut_ = true;
    output_ = {};
    return wake(std::move(lock));
  }
  const auto size = static_cast<uint32_t>(message.size());
  output_ += {'\0', static_cast<char>(size >> 24), static_cast<char>(size >> 16), static_cast<char>(size >> 8), static_cast<char>(size)};
  output_ += message;
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

}  // namespace serval
