#include "server/answers/long_json.h"

#include <algorithm>

#include "kernels/base/utf8.h"

namespace serval {

void write_all(Pieces pieces) {
  while (pieces.next()) {
  }
}

Pieces write_ids(std::string& out, JsonWriter& json, std::string_view name, const std::vector<TokenId>& ids) {
  json.key(name).begin_array();
  for (const TokenId id : ids) {
    json.integer(id);
    if (is_piece(out)) co_yield PieceEnd{};
  }
  json.end_array();
}

Pieces write_text(std::string& out, JsonWriter& json, std::string_view a, std::string_view b) {
  json.begin_string();
  for (std::string_view rest : {a, b}) {
    while (!rest.empty()) {
      size_t n = std::min(rest.size(), kPieceBytes / 2);
      // Not in the middle of a character.
      while (n < rest.size() && (static_cast<unsigned char>(rest[n]) & 0xC0) == 0x80) ++n;
      json.string_part(rest.substr(0, n));
      rest.remove_prefix(n);
      if (is_piece(out)) co_yield PieceEnd{};
    }
  }
  json.end_string();
}

std::string name_of_token(std::string_view bytes) {
  if (is_valid_utf8(bytes)) return std::string(bytes);
  static constexpr char kHex[] = "0123456789abcdef";
  std::string name = "bytes:";
  for (const char c : bytes) {
    const unsigned char byte = static_cast<unsigned char>(c);
    name += "\\x";
    name += kHex[byte >> 4];
    name += kHex[byte & 15];
  }
  return name;
}

}  // namespace serval
