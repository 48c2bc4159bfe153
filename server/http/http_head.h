// The head of a request, from bytes to fields, in two steps: HeadScanner finds its end and enforces every
// size limit while bytes arrive; parse_head hands the complete head to Boost.Beast's parser. Knows nothing of
// sockets, routes or bodies; what a correct head means, and what we refuse although it parses, is
// http_guard's.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/http/http_types.h"

namespace serval {

struct HeadLimits {
  size_t max_request_line_bytes = 8 << 10;  // without its CRLF
  size_t max_header_bytes = 16 << 10;       // everything after the request line, the empty line included
  int max_fields = 100;
};

// Looks at each byte once, however the head is cut into packets.
class HeadScanner {
 public:
  enum class State {
    kNeedMore,
    kComplete,
    kMalformed,      // bare CR or LF, control bytes, an empty first line
    kLineTooLong,    // -> 414
    kFieldsTooLarge  // -> 431
  };
  explicit HeadScanner(const HeadLimits& limits) : limits_(limits) {}

  // `bytes`: all bytes received for this head so far, in front of whatever follows it.
  State scan(std::string_view bytes);
  size_t head_bytes() const { return pos_; }  // when kComplete: the head with its empty line
  // A folded line continued one of the fields that frame or route a message.
  bool folds_framing_field() const { return folds_framing_field_; }

 private:
  State end_of_line(std::string_view line);

  HeadLimits limits_;
  size_t pos_ = 0;  // bytes looked at
  size_t line_begin_ = 0;
  size_t fields_begin_ = 0;  // 0 while in the request line
  int num_fields_ = 0;
  bool in_framing_field_ = false;
  bool folds_framing_field_ = false;
};

struct HttpHead {
  std::string method;
  std::string target;
  bool http_1_0 = false;
  std::vector<HttpField> fields;  // in the order they came, duplicates included
};

// `head` is complete (kComplete). Nothing when it is not HTTP/1.0 or 1.1, or breaks the grammar.
std::optional<HttpHead> parse_head(std::string_view head);

}  // namespace serval
