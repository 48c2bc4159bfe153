#include "server/http/http_guard.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <vector>

namespace serval {
namespace {

HttpError malformed(std::string message) {
  return {400, "malformed_http", std::move(message)};
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

// Calls fn with each element of a comma-separated list, trimmed; empty elements too.
template <class Fn>
void for_each_element(std::string_view list, Fn fn) {
  for (;;) {
    const size_t comma = list.find(',');
    fn(trim(list.substr(0, comma)));
    if (comma == std::string_view::npos) return;
    list.remove_prefix(comma + 1);
  }
}

// The values of one field name; several lines of it stay several.
std::vector<std::string_view> values_of(const HttpHead& head, std::string_view name) {
  std::vector<std::string_view> values;
  for (const HttpField& field : head.fields) {
    if (equal_ignoring_case(field.name, name)) values.push_back(field.value);
  }
  return values;
}

// `Transfer_Encoding` and the like: another party may read the underscore as a dash, and then sees another
// message than we do.
bool imitates_a_field_with_meaning(std::string_view name) {
  if (name.find('_') == std::string_view::npos) return false;
  std::string dashed(name);
  std::replace(dashed.begin(), dashed.end(), '_', '-');
  constexpr std::array kNames = {"transfer-encoding", "content-length", "content-type",
                                 "content-encoding",  "x-api-key",      "x-request-id"};
  return std::any_of(kNames.begin(), kNames.end(),
                     [&](const char* n) { return equal_ignoring_case(dashed, n); });
}

bool is_digits(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// uri-host [ ":" port ] of RFC 9110 7.2, as far as it can matter here: no delimiter of a URI can hide in it.
bool is_authority(std::string_view text) {
  std::string_view host = text;
  std::string_view port = "0";
  if (!text.empty() && text.front() == '[') {
    const size_t close = text.find(']');
    if (close == std::string_view::npos || close < 3) return false;
    host = text.substr(1, close - 1);
    if (host.find_first_not_of("0123456789abcdefABCDEFvV:.") != std::string_view::npos) return false;
    if (close + 1 < text.size()) {
      if (text[close + 1] != ':') return false;
      port = text.substr(close + 2);
    }
  } else {
    if (const size_t colon = text.find(':'); colon != std::string_view::npos) {
      host = text.substr(0, colon);
      port = text.substr(colon + 1);
    }
    const auto allowed = [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
             c == '.' || c == '_' || c == '~';
    };
    if (host.empty() || !std::all_of(host.begin(), host.end(), allowed)) return false;
  }
  return is_digits(port) && port.size() <= 5 && std::stoi(std::string(port)) <= 65535;
}

std::optional<HttpError> read_transfer_encoding(const HttpHead& head, BodyFraming& body) {
  const std::vector<std::string_view> values = values_of(head, "transfer-encoding");
  if (values.empty()) return std::nullopt;
  if (head.http_1_0) return malformed("HTTP/1.0 has no Transfer-Encoding.");
  if (values.size() > 1) return malformed("Transfer-Encoding is given more than once.");
  std::vector<std::string_view> codings;
  for_each_element(values[0], [&](std::string_view coding) { codings.push_back(coding); });
  for (size_t i = 0; i + 1 < codings.size(); ++i) {
    if (equal_ignoring_case(codings[i], "chunked"))
      return malformed("chunked must be the last transfer coding, once.");
  }
  for (const std::string_view coding : codings) {
    if (coding.empty()) return malformed("Transfer-Encoding has an empty element.");
    if (!equal_ignoring_case(coding, "chunked")) {
      return HttpError{501, "malformed_http", "Only the transfer coding chunked is supported."};
    }
  }
  body.kind = BodyFraming::Kind::kChunked;
  return std::nullopt;
}

std::optional<HttpError> read_content_length(const HttpHead& head, BodyFraming& body) {
  const std::vector<std::string_view> values = values_of(head, "content-length");
  if (values.empty()) return std::nullopt;
  if (body.kind == BodyFraming::Kind::kChunked)
    return malformed("Content-Length and Transfer-Encoding exclude each other.");
  if (values.size() > 1) return malformed("Content-Length is given more than once.");
  const std::string_view digits = values[0];
  uint64_t length = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), length);
  if (!is_digits(digits) || error != std::errc() || end != digits.data() + digits.size()) {
    return malformed("Content-Length must be one decimal number.");
  }
  if (length > 0) body = {BodyFraming::Kind::kLength, length};
  return std::nullopt;
}

std::optional<HttpError> check_host(const HttpHead& head) {
  const std::vector<std::string_view> hosts = values_of(head, "host");
  if (hosts.empty() && head.http_1_0) return std::nullopt;
  if (hosts.size() != 1) return malformed("A request needs exactly one Host.");
  if (!is_authority(hosts[0])) return malformed("Host must be a host name or address, perhaps with a port.");
  return std::nullopt;
}

// origin-form, absolute-form whose authority is the Host's, or "*" of OPTIONS. The path is not decoded and
// not normalised: routes are compared byte for byte, so there is nothing to confuse.
std::optional<HttpError> read_target(const HttpHead& head, GuardedHead& out) {
  std::string_view target = head.target;
  for (const char c : target) {
    if (static_cast<unsigned char>(c) <= 0x20 || static_cast<unsigned char>(c) >= 0x7f || c == '#') {
      return malformed("The request target has a byte that no URL has.");
    }
  }
  if (target == "*" && head.method == "OPTIONS") {
    out.path = "*";
    return std::nullopt;
  }
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (!equal_ignoring_case(target.substr(0, scheme.size()), scheme)) continue;
    target.remove_prefix(scheme.size());
    const size_t slash = std::min(target.find_first_of("/?"), target.size());
    const std::vector<std::string_view> hosts = values_of(head, "host");
    if (hosts.size() != 1 || !equal_ignoring_case(target.substr(0, slash), hosts[0])) {
      return malformed("The authority of the request target is not the Host.");
    }
    target.remove_prefix(slash);
    if (target.empty() || target[0] == '?') {
      out.path = "/";
      if (!target.empty()) out.query = target.substr(1);
      return std::nullopt;
    }
    break;
  }
  if (target.empty() || target[0] != '/') return malformed("The request target must be a path.");
  const size_t question = target.find('?');
  out.path = target.substr(0, question);
  if (question != std::string_view::npos) out.query = target.substr(question + 1);
  return std::nullopt;
}

bool wants_keep_alive(const HttpHead& head) {
  bool close = false;
  bool keep_alive = false;
  for (const std::string_view value : values_of(head, "connection")) {
    for_each_element(value, [&](std::string_view option) {
      close |= equal_ignoring_case(option, "close");
      keep_alive |= equal_ignoring_case(option, "keep-alive");
    });
  }
  return !close && (!head.http_1_0 || keep_alive);
}

std::optional<HttpError> read_expect(const HttpHead& head, GuardedHead& out) {
  for (const std::string_view value : values_of(head, "expect")) {
    if (!equal_ignoring_case(value, "100-continue")) {
      return HttpError{417, "malformed_http", "Only the expectation 100-continue can be met."};
    }
    out.expects_continue = !head.http_1_0;
  }
  return std::nullopt;
}

}  // namespace

std::variant<GuardedHead, HttpError> guard_head(const HttpHead& head, bool folds_framing_field) {
  if (folds_framing_field) return malformed("Host, Content-Length and Transfer-Encoding may not be folded.");
  for (const HttpField& field : head.fields) {
    if (imitates_a_field_with_meaning(field.name))
      return malformed("A header name imitates another one with an underscore.");
  }
  // Two keys: whoever stands before us may have looked at the other one.
  if (values_of(head, "authorization").size() > 1) return malformed("Authorization is given more than once.");
  GuardedHead out;
  if (auto error = read_transfer_encoding(head, out.body)) return *error;
  if (auto error = read_content_length(head, out.body)) return *error;
  if (auto error = check_host(head)) return *error;
  if (auto error = read_target(head, out)) return *error;
  if (auto error = read_expect(head, out)) return *error;
  out.keep_alive = wants_keep_alive(head);
  return out;
}

bool is_json_media_type(std::string_view content_type) {
  const size_t semicolon = content_type.find(';');
  if (!equal_ignoring_case(trim(content_type.substr(0, semicolon)), "application/json")) return false;
  if (semicolon == std::string_view::npos) return true;
  bool utf8 = true;
  std::string_view parameters = content_type.substr(semicolon + 1);
  while (!parameters.empty()) {
    const size_t end = std::min(parameters.find(';'), parameters.size());
    const std::string_view parameter = trim(parameters.substr(0, end));
    const size_t equals = parameter.find('=');
    if (equals != std::string_view::npos &&
        equal_ignoring_case(trim(parameter.substr(0, equals)), "charset")) {
      std::string_view charset = trim(parameter.substr(equals + 1));
      if (charset.size() >= 2 && charset.front() == '"' && charset.back() == '"')
        charset = charset.substr(1, charset.size() - 2);
      utf8 &= equal_ignoring_case(charset, "utf-8") || equal_ignoring_case(charset, "utf8");
    }
    parameters.remove_prefix(std::min(end + 1, parameters.size()));
  }
  return utf8;
}

}  // namespace serval
