// Taking texts apart and putting other pieces in: str.split, splitlines and replace. Pieces are views into
// the text, counted as they are found.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/jinja/runtime.h"

namespace serval::jinja {

// max_splits < 0: no limit. The rest of the text is the last piece (from the right: the first).
std::vector<std::string_view> split_on(Runtime& runtime, std::string_view text, std::string_view separator,
                                       int64_t max_splits);
std::vector<std::string_view> split_on_from_right(Runtime& runtime, std::string_view text,
                                                  std::string_view separator, int64_t max_splits);
// Between runs of white space; none at the ends.
std::vector<std::string_view> split_spaces(Runtime& runtime, std::string_view text, int64_t max_splits);
std::vector<std::string_view> split_spaces_from_right(Runtime& runtime, std::string_view text,
                                                      int64_t max_splits);
std::vector<std::string_view> split_lines(Runtime& runtime, std::string_view text, bool keep_ends);
// An empty `from` stands between all characters and at both ends.
std::string replace_all(Runtime& runtime, std::string_view text, std::string_view from, std::string_view to,
                        int64_t max_count);

}  // namespace serval::jinja
