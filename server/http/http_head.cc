#include "server/http/http_head.h"

#include <boost/asio/buffer.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <limits>

namespace serval {
namespace {

// Field names by which a message is framed or routed: a folded line in one of them is a smuggling attempt,
// not formatting.
bool is_framing_field(std::string_view line) {
  const std::string_view name = line.substr(0, line.find(':'));
  return equal_ignoring_case(name, "transfer-encoding") || equal_ignoring_case(name, "content-length") ||
         equal_ignoring_case(name, "host");
}

}  // namespace

HeadScanner::State HeadScanner::end_of_line(std::string_view line) {
  if (fields_begin_ == 0) {
    if (line.empty()) return State::kMalformed;
    fields_begin_ = pos_;
    return State::kNeedMore;
  }
  if (line.empty()) return State::kComplete;
  if (line[0] == ' ' || line[0] == '\t') {
    if (num_fields_ == 0) return State::kMalformed;
    folds_framing_field_ |= in_framing_field_;
    return State::kNeedMore;
  }
  in_framing_field_ = is_framing_field(line);
  return ++num_fields_ > limits_.max_fields ? State::kFieldsTooLarge : State::kNeedMore;
}

HeadScanner::State HeadScanner::scan(std::string_view bytes) {
  while (pos_ < bytes.size()) {
    const unsigned char c = static_cast<unsigned char>(bytes[pos_]);
    if (c == '\r') {
      if (pos_ + 1 == bytes.size()) return State::kNeedMore;
      if (bytes[pos_ + 1] != '\n') return State::kMalformed;
      const std::string_view line = bytes.substr(line_begin_, pos_ - line_begin_);
      pos_ += 2;
      line_begin_ = pos_;
      if (fields_begin_ != 0 && pos_ - fields_begin_ > limits_.max_header_bytes)
        return State::kFieldsTooLarge;
      if (const State state = end_of_line(line); state != State::kNeedMore) return state;
      continue;
    }
    if ((c < 0x20 && c != '\t') || c == 0x7f) return State::kMalformed;
    ++pos_;
    if (fields_begin_ == 0 && pos_ > limits_.max_request_line_bytes) return State::kLineTooLong;
    if (fields_begin_ != 0 && pos_ - fields_begin_ > limits_.max_header_bytes) return State::kFieldsTooLarge;
  }
  return State::kNeedMore;
}

std::optional<HttpHead> parse_head(std::string_view head) {
  namespace http = boost::beast::http;
  http::request_parser<http::empty_body> parser;
  parser.header_limit(std::numeric_limits<std::uint32_t>::max());  // the scanner has measured it
  parser.body_limit(boost::none);                                  // the body is not this parser's
  parser.eager(false);
  boost::beast::error_code error;
  size_t used = parser.put(boost::asio::buffer(head.data(), head.size()), error);
  if (error || used != head.size() || !parser.is_header_done()) return std::nullopt;

  HttpHead result;
  const auto& message = parser.get();
  result.method = std::string(message.method_string());
  result.target = std::string(message.target());
  result.http_1_0 = message.version() == 10;
  for (const auto& field : message) {
    result.fields.push_back({std::string(field.name_string()), std::string(field.value())});
  }
  return result;
}

}  // namespace serval
