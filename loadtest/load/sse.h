// Takes an HTTP/1.1 response off the wire, whole or as server-sent events, however it is cut into packets.
// Pure; the client's half of what the server's framing must be read by.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace serval::load {

class ResponseReader {
 public:
  // Called with every line `data: X` of an event stream (X without the prefix), as it completes.
  explicit ResponseReader(std::function<void(std::string_view)> on_event) : on_event_(std::move(on_event)) {}

  enum class State { kNeedMore, kComplete, kMalformed };
  State feed(std::string_view bytes);
  State end_of_stream();  // the peer closed

  int status() const { return status_; }
  bool keep_alive() const { return keep_alive_; }
  const std::string& body() const { return body_; }  // of an answer that is no event stream

 private:
  State take_head();
  State take_body(std::string_view bytes);
  void take_content(std::string_view bytes);

  std::function<void(std::string_view)> on_event_;
  std::string head_;
  bool in_head_ = true;
  int status_ = 0;
  bool keep_alive_ = true;
  bool is_stream_ = false;
  bool chunked_ = false;
  bool has_length_ = false;
  size_t remaining_ = 0;  // of the body, or of the chunk with its CRLF
  std::string chunk_line_;
  bool in_chunk_ = false, last_chunk_ = false;
  std::string line_;
  std::string body_;
};

}  // namespace serval::load
