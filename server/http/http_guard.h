// What a parsed head means and what is refused although it parses: message framing, Host, the target's form
// (reliability table: the gaps of the parser below us). Pure: values in, a value or a refusal out. Routing
// and keys come after it, on the same bytes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

#include "server/http/http_head.h"

namespace serval {

// A refusal that HTTP itself decides. After one the connection closes when `close` is set (always when the
// framing is in doubt).
struct HttpError {
  int status = 400;
  std::string code;
  std::string message;
  bool close = true;
};

struct BodyFraming {
  enum class Kind : uint8_t { kNone, kLength, kChunked } kind = Kind::kNone;
  uint64_t length = 0;
};

struct GuardedHead {
  std::string path;  // begins with '/', or is "*"
  std::string query;
  BodyFraming body;
  bool keep_alive = true;
  bool expects_continue = false;
};

std::variant<GuardedHead, HttpError> guard_head(const HttpHead& head, bool folds_framing_field);

// "application/json", perhaps with charset=utf-8.
bool is_json_media_type(std::string_view content_type);

}  // namespace serval
