#include "tests/support/raw_http_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <utility>

#include "kernels/base/check.h"

namespace serval::testing {
namespace {

constexpr int kPatienceMs = 20'000;

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

}  // namespace

std::string RawResponse::field(const std::string& lower_name) const {
  const auto found = fields.find(lower_name);
  return found == fields.end() ? "" : found->second;
}

RawHttpClient::RawHttpClient() {
  fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  SERVAL_CHECK(fd_ >= 0);
  const int on = 1;
  ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

RawHttpClient::RawHttpClient(uint16_t port, int receive_buffer_bytes) : RawHttpClient() {
  if (receive_buffer_bytes > 0)
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof(receive_buffer_bytes));
  connect(port);
}

RawHttpClient::~RawHttpClient() {
  close();
}

void RawHttpClient::connect(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  SERVAL_CHECK(::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0, errno);
}

bool RawHttpClient::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

bool RawHttpClient::send_byte_by_byte(std::string_view bytes) {
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (!send(bytes.substr(i, 1))) return false;
  }
  return true;
}

void RawHttpClient::shutdown_send() {
  ::shutdown(fd_, SHUT_WR);
}

void RawHttpClient::reset() {
  const linger hard{1, 0};
  ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
  close();
}

void RawHttpClient::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

bool RawHttpClient::fill(size_t most) {
  if (ended_ || fd_ < 0) return false;
  pollfd waiting{fd_, POLLIN, 0};
  if (::poll(&waiting, 1, kPatienceMs) <= 0) {
    ended_ = true;
    return false;
  }
  char buffer[16384];
  const ssize_t n = ::recv(fd_, buffer, std::min(most, sizeof(buffer)), 0);
  if (n <= 0) {
    ended_ = true;
    return false;
  }
  received_.append(buffer, static_cast<size_t>(n));
  return true;
}

bool RawHttpClient::take(size_t n) {
  for (const size_t end = received_.size() + n; received_.size() < end;) {
    if (!fill(end - received_.size())) return false;
  }
  return true;
}

bool RawHttpClient::read_until(std::string_view text) {
  size_t from = 0;
  for (;;) {
    if (received_.find(text, from) != std::string::npos) return true;
    from = received_.size() > text.size() ? received_.size() - text.size() : 0;
    if (!fill()) return false;
  }
}

bool RawHttpClient::closed_by_server() {
  while (fill()) {
  }
  return received_.empty();
}

std::optional<RawResponse> RawHttpClient::read_response(bool head_only) {
  for (;;) {
    if (!read_until("\r\n\r\n")) return std::nullopt;
    const size_t head_end = received_.find("\r\n\r\n") + 4;
    const std::string head = received_.substr(0, head_end);
    received_.erase(0, head_end);
    RawResponse response;
    if (head.rfind("HTTP/1.1 ", 0) != 0) return std::nullopt;
    response.status = std::stoi(head.substr(9, 3));
    for (size_t line = head.find("\r\n") + 2; line + 2 < head.size();) {
      const size_t end = head.find("\r\n", line);
      const size_t colon = head.find(": ", line);
      response.fields.emplace(lower(head.substr(line, colon - line)),
                              head.substr(colon + 2, end - colon - 2));
      line = end + 2;
    }
    if (response.status < 200) {
      ++num_interim_;
      continue;
    }
    if (head_only || response.status == 204) return response;
    if (response.field("transfer-encoding") == "chunked") {
      for (;;) {
        if (!read_until("\r\n")) return std::nullopt;
        const size_t line = received_.find("\r\n");
        const size_t size = std::stoul(received_.substr(0, line), nullptr, 16);
        while (received_.size() < line + 2 + size + 2) {
          if (!fill()) return std::nullopt;
        }
        const std::string chunk = received_.substr(line + 2, size);
        received_.erase(0, line + 2 + size + 2);
        if (size == 0) return response;
        response.body += chunk;
        response.chunks.push_back(chunk);
      }
    }
    if (!response.field("content-length").empty()) {
      const size_t size = std::stoul(response.field("content-length"));
      while (received_.size() < size) {
        if (!fill()) return std::nullopt;
      }
      response.body = received_.substr(0, size);
      received_.erase(0, size);
      return response;
    }
    while (fill()) {
    }
    response.ends_with_close = true;
    response.body = std::exchange(received_, {});
    return response;
  }
}

std::string post(std::string_view path, std::string_view json, std::string_view extra_fields) {
  std::string request = "POST ";
  request += path;
  request += " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ";
  request += std::to_string(json.size());
  request += "\r\n";
  request += extra_fields;
  request += "\r\n";
  request += json;
  return request;
}

std::string get(std::string_view path, std::string_view extra_fields) {
  std::string request = "GET ";
  request += path;
  request += " HTTP/1.1\r\nHost: localhost\r\n";
  request += extra_fields;
  request += "\r\n";
  return request;
}

}  // namespace serval::testing
