// A socket and a plain reading of HTTP/1.1 answers, written apart from the server so that the two can
// disagree. Fails slowly rather than never: every wait ends after a generous while.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace serval::testing {

struct RawResponse {
  int status = 0;
  std::multimap<std::string, std::string> fields;  // names in lower case
  std::string body;                                // without chunk framing
  std::vector<std::string> chunks;                 // when chunked
  bool ends_with_close = false;                    // neither a length nor chunks

  std::string field(const std::string& lower_name) const;
};

class RawHttpClient {
 public:
  // receive_buffer_bytes: the kernel's, 0 for the default. Connects to 127.0.0.1.
  explicit RawHttpClient(uint16_t port, int receive_buffer_bytes = 0);
  // Makes the socket but does not connect yet.
  RawHttpClient();
  ~RawHttpClient();
  RawHttpClient(const RawHttpClient&) = delete;
  RawHttpClient& operator=(const RawHttpClient&) = delete;

  void connect(uint16_t port);
  // False when the server no longer takes bytes.
  bool send(std::string_view bytes);
  bool send_byte_by_byte(std::string_view bytes);
  void shutdown_send();
  void reset();  // closes with RST
  void close();

  // The next final answer (1xx are skipped and counted); nothing when the connection ends before one is
  // complete.
  std::optional<RawResponse> read_response(bool head_only = false);
  int num_interim() const { return num_interim_; }
  // Takes `n` bytes from the connection, for a later read; false when it ends first.
  bool take(size_t n);
  // Takes bytes as they come until `text` has been seen; false when the connection ends first.
  bool read_until(std::string_view text);
  // True when the server closed and nothing was left to read.
  bool closed_by_server();
  const std::string& received() const { return received_; }

 private:
  bool fill(size_t most = 16384);

  int fd_ = -1;
  std::string received_;  // not yet taken by read_response
  bool ended_ = false;
  int num_interim_ = 0;
};

// A request to `path` with a JSON body.
std::string post(std::string_view path, std::string_view json, std::string_view extra_fields = "");
std::string get(std::string_view path, std::string_view extra_fields = "");

}  // namespace serval::testing
