#include "server/http/http_body.h"

#include <algorithm>

namespace serval {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool is_control(char c) {
  return (static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f;
}

// 16 hexadecimal digits fill 64 bits; more could only be leading zeros.
constexpr int kMaxSizeDigits = 16;

}  // namespace

BodyDecoder::BodyDecoder(const BodyFraming& framing, const BodyLimits& limits) : limits_(limits) {
  chunked_ = framing.kind == BodyFraming::Kind::kChunked;
  remaining_ = chunked_ ? 0 : framing.length;
  step_ = chunked_ ? Step::kSize : Step::kData;
  if (!chunked_ && remaining_ == 0) ended_ = State::kComplete;
  if (!chunked_ && remaining_ > limits_.max_bytes) ended_ = State::kTooLarge;
  if (ended_ == State::kNeedMore)
    body_.reserve(static_cast<size_t>(remaining_));  // address space only, until bytes arrive
}

BodyDecoder::State BodyDecoder::feed(std::string_view bytes, size_t* used) {
  size_t pos = 0;
  while (ended_ == State::kNeedMore && pos < bytes.size()) {
    if (step_ == Step::kData) {
      const size_t n = static_cast<size_t>(std::min<uint64_t>(remaining_, bytes.size() - pos));
      body_.append(bytes.substr(pos, n));
      pos += n;
      remaining_ -= n;
      if (remaining_ == 0) {
        step_ = chunked_ ? Step::kDataCr : Step::kDone;
        if (!chunked_) ended_ = State::kComplete;
      }
    } else {
      ended_ = take_framing_byte(bytes[pos++]);
    }
  }
  *used = pos;
  return ended_;
}

// The chunk's size is known to its last digit; the line's LF has come.
BodyDecoder::State BodyDecoder::end_of_size_line() {
  if (remaining_ == 0) {
    step_ = Step::kTrailer;
    return State::kNeedMore;
  }
  if (remaining_ > limits_.max_bytes - body_.size()) return State::kTooLarge;
  if (++num_chunks_ > limits_.max_chunks) return State::kTooManyChunks;
  step_ = Step::kData;
  return State::kNeedMore;
}

BodyDecoder::State BodyDecoder::take_framing_byte(char c) {
  switch (step_) {
    case Step::kSize: {
      const int digit = hex_digit(c);
      if (digit >= 0) {
        if (++size_digits_ > kMaxSizeDigits) return State::kMalformed;
        remaining_ = remaining_ * 16 + static_cast<uint64_t>(digit);
        return State::kNeedMore;
      }
      if (size_digits_ == 0 || (c != ';' && c != '\r')) return State::kMalformed;
      step_ = c == ';' ? Step::kExtension : Step::kSizeLf;
      extension_bytes_ += c == ';';
      return State::kNeedMore;
    }
    case Step::kExtension:
      if (c == '\r' && !in_quotes_) {
        step_ = Step::kSizeLf;
        return State::kNeedMore;
      }
      if (is_control(c) || ++extension_bytes_ > limits_.max_extension_bytes) return State::kMalformed;
      if (escaped_) {
        escaped_ = false;
      } else if (c == '"') {
        in_quotes_ = !in_quotes_;
      } else {
        escaped_ = in_quotes_ && c == '\\';
      }
      return State::kNeedMore;
    case Step::kSizeLf:
      return c == '\n' ? end_of_size_line() : State::kMalformed;
    case Step::kDataCr:
      step_ = Step::kDataLf;
      return c == '\r' ? State::kNeedMore : State::kMalformed;
    case Step::kDataLf:
      step_ = Step::kSize;
      size_digits_ = 0;
      return c == '\n' ? State::kNeedMore : State::kMalformed;
    case Step::kTrailer:
      if (++trailer_bytes_ > limits_.max_trailer_bytes) return State::kMalformed;
      if (c == '\r') {
        step_ = Step::kTrailerLf;
      } else if (is_control(c)) {
        return State::kMalformed;
      } else {
        // A field line begins with its name: neither a fold nor the next request may pass for one.
        if (trailer_line_bytes_++ == 0 && (c == ' ' || c == '\t' || c == ':')) return State::kMalformed;
        trailer_named_ |= c == ':';
      }
      return State::kNeedMore;
    case Step::kTrailerLf:
      if (c != '\n' || ++trailer_bytes_ > limits_.max_trailer_bytes) return State::kMalformed;
      if (trailer_line_bytes_ == 0) return State::kComplete;
      if (!trailer_named_) return State::kMalformed;
      trailer_line_bytes_ = 0;
      trailer_named_ = false;
      step_ = Step::kTrailer;
      return State::kNeedMore;
    case Step::kData:
    case Step::kDone:
      break;
  }
  return State::kMalformed;
}

}  // namespace serval
