#include "loadtest/load/sse.h"

#include <algorithm>
#include <cctype>
#include <charconv>

namespace serval::load {
namespace {

constexpr size_t kMaxHead = 64 << 10;
constexpr size_t kMaxBody = 64 << 20;

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

}  // namespace

ResponseReader::State ResponseReader::feed(std::string_view bytes) {
  if (!in_head_) return take_body(bytes);
  const size_t before = head_.size();
  head_ += bytes;
  const size_t end = head_.find("\r\n\r\n", before < 3 ? 0 : before - 3);
  if (end == std::string::npos) return head_.size() > kMaxHead ? State::kMalformed : State::kNeedMore;
  const std::string rest = head_.substr(end + 4);
  head_.resize(end + 2);
  if (take_head() == State::kMalformed) return State::kMalformed;
  in_head_ = false;
  if (!chunked_ && has_length_ && remaining_ == 0) return State::kComplete;
  return take_body(rest);
}

ResponseReader::State ResponseReader::take_head() {
  if (!head_.starts_with("HTTP/1.") || head_.size() < 12) return State::kMalformed;
  keep_alive_ = head_[7] == '1';
  if (std::from_chars(head_.data() + 9, head_.data() + 12, status_).ec != std::errc())
    return State::kMalformed;
  for (size_t at = head_.find("\r\n") + 2; at < head_.size();) {
    const size_t end = head_.find("\r\n", at);
    const std::string_view field(head_.data() + at, end - at);
    at = end + 2;
    const size_t colon = field.find(':');
    if (colon == std::string_view::npos) continue;
    const std::string name = lower(field.substr(0, colon));
    std::string_view raw = field.substr(colon + 1);
    while (!raw.empty() && raw.front() == ' ') raw.remove_prefix(1);
    const std::string value = lower(raw);
    if (name == "content-type") is_stream_ = value.starts_with("text/event-stream");
    if (name == "transfer-encoding") chunked_ = value.find("chunked") != std::string::npos;
    if (name == "connection" && value.find("close") != std::string::npos) keep_alive_ = false;
    if (name == "content-length") {
      has_length_ = std::from_chars(value.data(), value.data() + value.size(), remaining_).ec == std::errc();
      if (!has_length_ || remaining_ > kMaxBody) return State::kMalformed;
    }
  }
  return State::kNeedMore;
}

ResponseReader::State ResponseReader::take_body(std::string_view bytes) {
  while (!bytes.empty()) {
    if (!chunked_) {
      const size_t taken = has_length_ ? std::min(remaining_, bytes.size()) : bytes.size();
      take_content(bytes.substr(0, taken));
      bytes.remove_prefix(taken);
      if (has_length_ && (remaining_ -= taken) == 0) return State::kComplete;
    } else if (in_chunk_) {
      const size_t taken = std::min(remaining_, bytes.size());
      const size_t content = remaining_ > 2 ? std::min(taken, remaining_ - 2) : 0;
      take_content(bytes.substr(0, content));
      bytes.remove_prefix(taken);
      remaining_ -= taken;
      if (remaining_ == 0) in_chunk_ = false;
    } else {
      const size_t end = bytes.find('\n');
      chunk_line_ += bytes.substr(0, end == std::string_view::npos ? end : end + 1);
      bytes.remove_prefix(end == std::string_view::npos ? bytes.size() : end + 1);
      if (chunk_line_.empty() || chunk_line_.back() != '\n') {
        if (chunk_line_.size() > 1024) return State::kMalformed;
        continue;
      }
      if (last_chunk_) {  // trailers end with an empty line
        const bool over = chunk_line_ == "\r\n";
        chunk_line_.clear();
        if (over) return State::kComplete;
        continue;
      }
      size_t size = 0;
      const auto parsed =
          std::from_chars(chunk_line_.data(), chunk_line_.data() + chunk_line_.size(), size, 16);
      if (parsed.ec != std::errc() || size > kMaxBody) return State::kMalformed;
      chunk_line_.clear();
      last_chunk_ = size == 0;
      in_chunk_ = size > 0;
      remaining_ = size + 2;
    }
  }
  return body_.size() > kMaxBody || line_.size() > kMaxBody ? State::kMalformed : State::kNeedMore;
}

ResponseReader::State ResponseReader::end_of_stream() {
  keep_alive_ = false;
  return !in_head_ && !chunked_ && !has_length_ ? State::kComplete : State::kMalformed;
}

void ResponseReader::take_content(std::string_view bytes) {
  if (!is_stream_) {
    body_ += bytes;
    return;
  }
  for (;;) {
    const size_t end = bytes.find('\n');
    line_ += bytes.substr(0, end);
    if (end == std::string_view::npos) return;
    bytes.remove_prefix(end + 1);
    if (!line_.empty() && line_.back() == '\r') line_.pop_back();
    if (line_.starts_with("data:")) {
      std::string_view data = std::string_view(line_).substr(5);
      if (data.starts_with(" ")) data.remove_prefix(1);
      on_event_(data);
    }
    line_.clear();
  }
}

}  // namespace serval::load
