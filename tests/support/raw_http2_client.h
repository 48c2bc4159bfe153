// A socket and frames of HTTP/2 made by hand, written apart from the server's library so that the two can disagree; only header blocks
// are unpacked by it. Sends whatever it is told, allowed or not. Fails slowly rather than never: every wait ends after a generous while.
#pragma once

#include <nghttp2/nghttp2.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace serval::testing {

constexpr uint8_t kData = 0, kHeaders = 1, kPriority = 2, kRstStream = 3, kSettings = 4, kPing = 6, kGoaway = 7, kWindowUpdate = 8,
                  kContinuation = 9;
constexpr uint8_t kEndStream = 1, kAck = 1, kEndHeaders = 4;

std::string frame(uint8_t type, uint8_t flags, uint32_t stream, std::string_view payload = {});
std::string rst_stream(uint32_t stream, uint32_t code = 8);
std::string setting(uint16_t id, uint32_t value);  // a payload, or a part of one
// A header block without compression.
std::string header_block(const std::vector<std::pair<std::string, std::string>>& fields);
// The head of a call of gRPC, in one frame.
std::string call_head(uint32_t stream, std::string_view path, const std::vector<std::pair<std::string, std::string>>& more = {},
                      uint8_t flags = kEndHeaders);
std::string grpc_message(std::string_view bytes, char compressed = 0);

struct Http2Answer {
  std::multimap<std::string, std::string> fields;  // of head and trailers
  std::string data;
  bool ended = false;
  std::optional<uint32_t> reset;  // the code of RST_STREAM

  std::string field(const std::string& name) const;
  int grpc_status() const;  // -1: none came
  std::vector<std::string> messages() const;
};

class RawHttp2Client {
 public:
  // Connects to 127.0.0.1. `settings`: the payload of our first frame. `greet`: sends preface and SETTINGS at once.
  explicit RawHttp2Client(uint16_t port, std::string_view settings = {}, bool greet = true, int receive_buffer_bytes = 0);
  ~RawHttp2Client();
  RawHttp2Client(const RawHttp2Client&) = delete;
  RawHttp2Client& operator=(const RawHttp2Client&) = delete;

  // False when the server takes no more.
  bool send(std::string_view bytes);
  // Whether SETTINGS of the server are acknowledged when they are read.
  void set_acknowledges(bool acknowledges) { acknowledges_ = acknowledges; }

  // Reads until the stream has ended or was reset, or the connection is over.
  const Http2Answer& answer(uint32_t stream);
  // Reads until the stream has `bytes` of data at least.
  const Http2Answer& read_data(uint32_t stream, size_t bytes);
  // Reads until the server has closed the connection; false: it does not.
  bool closed_by_server();
  // Reads until the SETTINGS of the server have come and were acknowledged.
  bool greeted();
  // Reads until a PING was answered; false: the connection is over.
  bool answered_ping();
  void close();

  std::optional<uint32_t> goaway;             // its code, once one came
  std::map<uint16_t, uint32_t> settings;      // the server's
  std::map<uint8_t, int> frames;              // how many of each type came
  std::map<uint32_t, Http2Answer> answers;

 private:
  bool read_frame();
  bool fill();

  struct Inflater {
    void operator()(nghttp2_hd_inflater* inflater) const { nghttp2_hd_inflate_del(inflater); }
  };
  std::unique_ptr<nghttp2_hd_inflater, Inflater> inflater_;
  int fd_ = -1;
  std::string input_;
  bool ended_ = false;
  bool acknowledges_ = true;
};

}  // namespace serval::testing
