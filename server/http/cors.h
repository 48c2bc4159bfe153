// Which pages of other origins may call from a browser (the Fetch standard's CORS protocol), as header
// fields. Pure. Without origins it adds nothing anywhere.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "server/http/http_head.h"

namespace serval {

class CorsPolicy {
 public:
  // Each as a browser sends it ("https://chat.example:8443", "null"), or "*" for any. Throws
  // std::runtime_error with a sentence when one can never be sent.
  explicit CorsPolicy(std::vector<std::string> origins);

  // What every answer carries; `head` is null when none could be read.
  std::vector<HttpField> answer_fields(const HttpHead* head) const;
  // The answer to a browser that asks before it sends `head`'s like; nothing when this is no such question,
  // or the origin is not allowed.
  std::optional<std::vector<HttpField>> preflight_fields(const HttpHead& head) const;

 private:
  // What Access-Control-Allow-Origin says; empty: nothing.
  std::string allowed_origin(const HttpHead* head) const;

  std::vector<std::string> origins_;
  bool any_ = false;
};

}  // namespace serval
