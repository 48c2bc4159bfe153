// Takes a request body off the wire, by length or in chunks, however its bytes are cut into packets. Strict:
// what RFC 9112 7.1 does not allow is refused, chunk extensions are counted and thrown away, trailers are
// skipped. Pure; owns only the body.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "server/http/http_guard.h"

namespace serval {

struct BodyLimits {
  size_t max_bytes = 8 << 20;
  size_t max_extension_bytes = 4 << 10;  // chunk extensions of a whole message
  size_t max_trailer_bytes = 16 << 10;   // all lines, the empty one included
  int max_chunks = 65536;                // with content
};

class BodyDecoder {
 public:
  enum class State { kNeedMore, kComplete, kMalformed, kTooLarge, kTooManyChunks };

  BodyDecoder(const BodyFraming& framing, const BodyLimits& limits);

  // Takes from the front of `bytes` and says in `used` how much; once it is not kNeedMore nothing more is
  // taken.
  State feed(std::string_view bytes, size_t* used);
  size_t size() const { return body_.size(); }
  std::string take_body() { return std::move(body_); }

 private:
  enum class Step { kData, kSize, kExtension, kSizeLf, kDataCr, kDataLf, kTrailer, kTrailerLf, kDone };
  State take_framing_byte(char c);
  State end_of_size_line();

  BodyLimits limits_;
  bool chunked_ = false;
  Step step_ = Step::kData;
  State ended_ = State::kNeedMore;
  uint64_t remaining_ = 0;  // of the body, or of the chunk
  int size_digits_ = 0;
  bool in_quotes_ = false, escaped_ = false;  // inside a quoted extension value
  size_t extension_bytes_ = 0;
  size_t trailer_bytes_ = 0;
  size_t trailer_line_bytes_ = 0;
  bool trailer_named_ = false;  // the trailer line has had its colon
  int num_chunks_ = 0;
  std::string body_;
};

}  // namespace serval
