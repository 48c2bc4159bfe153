#include "engine/text/jinja/pieces.h"

#include <algorithm>

#include "engine/text/jinja/unicode.h"

namespace serval::jinja {
namespace {

void add_piece(Runtime& runtime, std::string_view piece, std::vector<std::string_view>& pieces) {
  runtime.step();
  pieces.push_back(piece);
  runtime.require_size(pieces.size() * sizeof(Value));
}

}  // namespace

std::vector<std::string_view> split_on(Runtime& runtime, std::string_view text, std::string_view separator,
                                       int64_t max_splits) {
  std::vector<std::string_view> pieces;
  size_t from = 0;
  while (max_splits < 0 || static_cast<int64_t>(pieces.size()) < max_splits) {
    const size_t at = find(text, separator, from);
    if (at == std::string_view::npos) break;
    add_piece(runtime, text.substr(from, at - from), pieces);
    from = at + separator.size();
  }
  pieces.push_back(text.substr(from));
  return pieces;
}

std::vector<std::string_view> split_spaces(Runtime& runtime, std::string_view text, int64_t max_splits) {
  std::vector<std::string_view> pieces;
  for (text = strip(text, Side::kLeft); !text.empty(); text = strip(text, Side::kLeft)) {
    if (max_splits >= 0 && static_cast<int64_t>(pieces.size()) == max_splits) {
      pieces.push_back(text);
      break;
    }
    size_t end = 0;
    while (end < text.size() && !is_space(char_at(text, end))) end += char_bytes(text, end);
    add_piece(runtime, text.substr(0, end), pieces);
    text.remove_prefix(end);
  }
  return pieces;
}

std::vector<std::string_view> split_on_from_right(Runtime& runtime, std::string_view text,
                                                  std::string_view separator, int64_t max_splits) {
  // A split of everything turned round.
  const std::string turned_text(text.rbegin(), text.rend());
  const std::string turned_separator(separator.rbegin(), separator.rend());
  std::vector<std::string_view> pieces = split_on(runtime, turned_text, turned_separator, max_splits);
  std::reverse(pieces.begin(), pieces.end());
  for (std::string_view& piece : pieces) {
    const size_t turned_end = static_cast<size_t>(piece.data() - turned_text.data()) + piece.size();
    piece = text.substr(text.size() - turned_end, piece.size());
  }
  return pieces;
}

std::vector<std::string_view> split_spaces_from_right(Runtime& runtime, std::string_view text,
                                                      int64_t max_splits) {
  std::vector<std::string_view> pieces = split_spaces(runtime, text, -1);
  if (max_splits < 0 || pieces.size() <= static_cast<size_t>(max_splits)) return pieces;
  const size_t kept = static_cast<size_t>(max_splits);
  const char* end = kept == 0 ? text.data() + text.size() : pieces[pieces.size() - kept].data();
  const std::string_view head =
      strip(std::string_view(text.data(), static_cast<size_t>(end - text.data())), Side::kRight);
  pieces.erase(pieces.begin(), pieces.end() - static_cast<ptrdiff_t>(kept));
  if (!head.empty()) pieces.insert(pieces.begin(), head);
  return pieces;
}

std::vector<std::string_view> split_lines(Runtime& runtime, std::string_view text, bool keep_ends) {
  const auto ends_line = [](char32_t c) {
    return (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
  };
  std::vector<std::string_view> lines;
  size_t start = 0;
  for (size_t at = 0; at < text.size();) {
    size_t next = at + char_bytes(text, at);
    if (!ends_line(char_at(text, at))) {
      at = next;
      continue;
    }
    if (text[at] == '\r' && next < text.size() && text[next] == '\n') ++next;
    add_piece(runtime, text.substr(start, (keep_ends ? next : at) - start), lines);
    start = at = next;
  }
  if (start < text.size()) lines.push_back(text.substr(start));
  return lines;
}

std::string replace_all(Runtime& runtime, std::string_view text, std::string_view from, std::string_view to,
                        int64_t max_count) {
  TextBuilder out(runtime);
  size_t at = 0;
  for (int64_t count = 0; max_count < 0 || count < max_count; ++count) {
    if (from.empty()) {
      // Between all characters, and at both ends.
      out.append(to);
      if (at == text.size()) return out.take();
      out.append(text.substr(at, char_bytes(text, at)));
      at += char_bytes(text, at);
      continue;
    }
    const size_t hit = find(text, from, at);
    if (hit == std::string_view::npos) break;
    out.append(text.substr(at, hit - at));
    out.append(to);
    at = hit + from.size();
  }
  out.append(text.substr(at));
  return out.take();
}

}  // namespace serval::jinja
