#include "tests/support/raw_http2_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace serval::testing {
namespace {

constexpr int kGenerousMs = 20'000;
constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

std::string big_endian(uint32_t value, int bytes) {
  std::string out;
  for (int i = bytes - 1; i >= 0; --i) out += static_cast<char>(value >> (8 * i));
  return out;
}

uint32_t number(std::string_view bytes) {
  uint32_t value = 0;
  for (const char c : bytes) value = value << 8 | static_cast<unsigned char>(c);
  return value;
}

// HPACK 5.1, 5.2: a string as it is.
std::string plain_string(std::string_view text) {
  std::string out;
  if (text.size() < 127) {
    out += static_cast<char>(text.size());
  } else {
    out += static_cast<char>(127);
    size_t rest = text.size() - 127;
    for (; rest >= 128; rest >>= 7) out += static_cast<char>((rest & 127) | 128);
    out += static_cast<char>(rest);
  }
  return out + std::string(text);
}

}  // namespace

std::string frame(uint8_t type, uint8_t flags, uint32_t stream, std::string_view payload) {
  return big_endian(static_cast<uint32_t>(payload.size()), 3) + static_cast<char>(type) + static_cast<char>(flags) +
         big_endian(stream, 4) + std::string(payload);
}

std::string rst_stream(uint32_t stream, uint32_t code) {
  return frame(kRstStream, 0, stream, big_endian(code, 4));
}

std::string setting(uint16_t id, uint32_t value) {
  return big_endian(id, 2) + big_endian(value, 4);
}

std::string header_block(const std::vector<std::pair<std::string, std::string>>& fields) {
  std::string block;
  for (const auto& [name, value] : fields) block += std::string(1, '\0') + plain_string(name) + plain_string(value);
  return block;
}

std::string call_head(uint32_t stream, std::string_view path, const std::vector<std::pair<std::string, std::string>>& more, uint8_t flags) {
  std::vector<std::pair<std::string, std::string>> fields = {
      {":method", "POST"}, {":scheme", "http"}, {":path", std::string(path)}, {":authority", "a"},
      {"te", "trailers"},  {"content-type", "application/grpc"}};
  fields.insert(fields.end(), more.begin(), more.end());
  return frame(kHeaders, flags, stream, header_block(fields));
}

std::string grpc_message(std::string_view bytes, char compressed) {
  return std::string(1, compressed) + big_endian(static_cast<uint32_t>(bytes.size()), 4) + std::string(bytes);
}

std::string Http2Answer::field(const std::string& name) const {
  const auto found = fields.find(name);
  return found == fields.end() ? "" : found->second;
}

int Http2Answer::grpc_status() const {
  const std::string text = field("grpc-status");
  return text.empty() ? -1 : std::stoi(text);
}

std::vector<std::string> Http2Answer::messages() const {
  std::vector<std::string> all;
  for (std::string_view rest = data; rest.size() >= 5;) {
    const size_t size = number(rest.substr(1, 4));
    if (rest.size() < 5 + size) break;
    all.emplace_back(rest.substr(5, size));
    rest.remove_prefix(5 + size);
  }
  return all;
}

RawHttp2Client::RawHttp2Client(uint16_t port, std::string_view settings_payload, bool greet, int receive_buffer_bytes) {
  nghttp2_hd_inflater* inflater = nullptr;
  nghttp2_hd_inflate_new(&inflater);
  inflater_.reset(inflater);
  fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (receive_buffer_bytes > 0) ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof receive_buffer_bytes);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ended_ = ::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0;
  if (greet) send(std::string(kPreface) + frame(kSettings, 0, 0, settings_payload));
}

RawHttp2Client::~RawHttp2Client() {
  close();
}

void RawHttp2Client::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
  ended_ = true;
}

// Takes what the server says meanwhile, so that neither waits for the other.
bool RawHttp2Client::send(std::string_view bytes) {
  while (!bytes.empty() && fd_ >= 0) {
    pollfd ready{fd_, POLLOUT, 0};
    if (::poll(&ready, 1, kGenerousMs) <= 0) return false;
    const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) continue;
    if (n <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return bytes.empty();
}

bool RawHttp2Client::fill() {
  if (ended_) return false;
  pollfd ready{fd_, POLLIN, 0};
  if (::poll(&ready, 1, kGenerousMs) <= 0) return false;
  char buffer[16 << 10];
  const ssize_t n = ::recv(fd_, buffer, sizeof buffer, 0);
  if (n <= 0) {
    ended_ = true;
    return false;
  }
  input_.append(buffer, static_cast<size_t>(n));
  return true;
}

bool RawHttp2Client::read_frame() {
  constexpr size_t kHead = 9;
  while (input_.size() < kHead || input_.size() < kHead + number(std::string_view(input_).substr(0, 3))) {
    if (!fill()) return false;
  }
  const size_t size = number(std::string_view(input_).substr(0, 3));
  const auto type = static_cast<uint8_t>(input_[3]);
  const auto flags = static_cast<uint8_t>(input_[4]);
  const uint32_t stream = number(std::string_view(input_).substr(5, 4));
  const std::string payload = input_.substr(kHead, size);
  input_.erase(0, kHead + size);
  ++frames[type];
  Http2Answer* const answer = stream > 0 ? &answers[stream] : nullptr;
  if (type == kHeaders && answer) {
    auto* in = reinterpret_cast<const uint8_t*>(payload.data());
    size_t left = payload.size();
    for (int flag = 0; left > 0 || (flag & NGHTTP2_HD_INFLATE_FINAL) == 0;) {
      nghttp2_nv field{};
      const ssize_t n = nghttp2_hd_inflate_hd2(inflater_.get(), &field, &flag, in, left, 1);
      if (n < 0) return false;
      in += n;
      left -= static_cast<size_t>(n);
      if (flag & NGHTTP2_HD_INFLATE_EMIT) {
        answer->fields.emplace(std::string(reinterpret_cast<char*>(field.name), field.namelen),
                               std::string(reinterpret_cast<char*>(field.value), field.valuelen));
      }
    }
    nghttp2_hd_inflate_end_headers(inflater_.get());
  } else if (type == kData && answer) {
    answer->data += payload;
  } else if (type == kRstStream && answer) {
    answer->reset = number(payload);
  } else if (type == kGoaway) {
    goaway = number(std::string_view(payload).substr(4, 4));
  } else if (type == kSettings && (flags & kAck) == 0) {
    for (size_t i = 0; i + 6 <= payload.size(); i += 6)
      settings[static_cast<uint16_t>(number(payload.substr(i, 2)))] = number(payload.substr(i + 2, 4));
    if (acknowledges_) send(frame(kSettings, kAck, 0));
  }
  if ((type == kHeaders || type == kData) && (flags & kEndStream) && answer) answer->ended = true;
  return true;
}

const Http2Answer& RawHttp2Client::answer(uint32_t stream) {
  while (!answers[stream].ended && !answers[stream].reset && read_frame()) {
  }
  return answers[stream];
}

const Http2Answer& RawHttp2Client::read_data(uint32_t stream, size_t bytes) {
  while (answers[stream].data.size() < bytes && !answers[stream].ended && !answers[stream].reset && read_frame()) {
  }
  return answers[stream];
}

bool RawHttp2Client::closed_by_server() {
  while (read_frame()) {
  }
  return ended_;
}

bool RawHttp2Client::answered_ping() {
  while (frames[kPing] == 0 && read_frame()) {
  }
  return frames[kPing] > 0;
}

bool RawHttp2Client::greeted() {
  while (settings.empty() && read_frame()) {
  }
  return !settings.empty();
}

}  // namespace serval::testing
