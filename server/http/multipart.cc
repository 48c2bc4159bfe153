#include "server/http/multipart.h"

#include <algorithm>

#include "server/http/http_types.h"

namespace serval {
namespace {

constexpr size_t kMaxParts = 32;
constexpr size_t kMaxBoundaryBytes = 70;  // RFC 2046 5.1.1

Error malformed(const std::string& why) {
  return {ErrorKind::kInvalidRequest, "invalid_form", "The body is not a form (multipart/form-data): " + why, ""};
}

// The value of `name` in "; a=b; c=\"d\"", whose backslashes and percent signs stand for themselves but for \".
std::optional<std::string> parameter(std::string_view text, std::string_view name) {
  for (size_t pos = text.find(';'); pos < text.size(); pos = text.find(';', pos)) {
    pos = text.find_first_not_of(" \t", pos + 1);
    const size_t equals = pos == text.npos ? text.npos : text.find('=', pos);
    if (equals == text.npos) return std::nullopt;
    const std::string_view found = text.substr(pos, equals - pos);
    std::string value;
    pos = equals + 1;
    if (pos < text.size() && text[pos] == '"') {
      for (++pos; pos < text.size() && text[pos] != '"'; ++pos) {
        if (text[pos] == '\\' && pos + 1 < text.size() && text[pos + 1] == '"') ++pos;
        value += text[pos];
      }
      if (pos == text.size()) return std::nullopt;
      ++pos;
    } else {
      const size_t end = std::min(text.find_first_of("; \t", pos), text.size());
      value = text.substr(pos, end - pos);
      pos = end;
    }
    if (equal_ignoring_case(found, name)) return value;
  }
  return std::nullopt;
}

Result<FormPart> read_part(std::string_view part) {
  const size_t end = part.find("\r\n\r\n");
  if (end == part.npos) return malformed("a part has no end of its head.");
  FormPart out;
  bool is_named = false;
  for (std::string_view head = part.substr(0, end + 2); !head.empty();) {
    const size_t line_end = head.find("\r\n");
    const std::string_view line = head.substr(0, line_end);
    head.remove_prefix(line_end + 2);
    const size_t colon = line.find(':');
    if (colon == line.npos || !equal_ignoring_case(line.substr(0, colon), "content-disposition")) continue;
    const std::string_view value = line.substr(colon + 1);
    if (std::optional<std::string> name = parameter(value, "name")) {
      out.name = std::move(*name);
      is_named = true;
    }
    out.filename = parameter(value, "filename");
  }
  if (!is_named) return malformed("a part has no name.");
  out.content = part.substr(end + 4);
  return out;
}

}  // namespace

Result<std::vector<FormPart>> read_form(std::string_view content_type, std::string_view body) {
  const std::optional<std::string> boundary = parameter(content_type, "boundary");
  if (!boundary || boundary->empty() || boundary->size() > kMaxBoundaryBytes) return malformed("its content type names no boundary.");
  const std::string mark = "\r\n--" + *boundary;
  std::vector<FormPart> parts;
  // The first boundary may be the body's first line.
  size_t pos = 0;
  if (!body.starts_with(std::string_view(mark).substr(2))) {
    pos = body.find(mark);
    if (pos == body.npos) return malformed("its boundary is not in it.");
    pos += 2;
  }
  pos += mark.size() - 2;
  for (;;) {
    if (body.substr(pos, 2) == "--") return parts;
    pos = body.find("\r\n", pos);
    const size_t end = pos == body.npos ? pos : body.find(mark, pos + 2);
    if (end == body.npos) return malformed("its last boundary is missing.");
    if (parts.size() == kMaxParts) return malformed("it has more than " + std::to_string(kMaxParts) + " parts.");
    Result<FormPart> part = read_part(body.substr(pos + 2, end - pos - 2));
    if (!part) return part.error();
    parts.push_back(std::move(*part));
    pos = end + mark.size();
  }
}

}  // namespace serval
