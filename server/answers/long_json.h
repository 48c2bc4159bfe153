// JSON that can be long, written in pieces.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/json/json_writer.h"
#include "engine/request.h"
#include "server/http/pieces.h"

namespace serval {

// Where it is short, or all of it is wanted at once.
void write_all(Pieces pieces);

// Whether what was written so far should go out before more is.
inline bool is_piece(const std::string& out) {
  return out.size() >= kPieceBytes;
}

// All of what a writer in pieces writes, where it is one of several.
#define SERVAL_WRITE_ALL(pieces)                                 \
  for (Pieces part = (pieces); part.next();) co_yield PieceEnd { \
    }

Pieces write_ids(std::string& out, JsonWriter& json, std::string_view name, const std::vector<TokenId>& ids);
// One string value, `a` and `b` joined.
Pieces write_text(std::string& out, JsonWriter& json, std::string_view a, std::string_view b = {});

// A token that is half a character has no text of its own: it is spelled by its bytes, so that different
// tokens stay different.
std::string name_of_token(std::string_view bytes);

}  // namespace serval
