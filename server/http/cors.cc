#include "server/http/cors.h"

#include <algorithm>
#include <stdexcept>
#include <string_view>

namespace serval {
namespace {

// What official clients read of an answer, beside what every page may.
constexpr const char* kExposed =
    "x-request-id, openai-processing-ms, openai-version, retry-after, retry-after-ms, x-should-retry";
constexpr const char* kMethods = "GET, HEAD, POST, OPTIONS";
constexpr const char* kPreflightSeconds = "600";

std::string_view value_of(const HttpHead& head, std::string_view name) {
  for (const HttpField& field : head.fields) {
    if (equal_ignoring_case(field.name, name)) return field.value;
  }
  return {};
}

// scheme "://" host [":" port], in lower case and nothing behind it.
bool is_origin(std::string_view text) {
  const size_t scheme = text.find("://");
  if (scheme == 0 || scheme == std::string_view::npos) return false;
  const std::string_view rest = text.substr(scheme + 3);
  return !rest.empty() && rest.find_first_of("/?#@,; ") == std::string_view::npos &&
         std::none_of(text.begin(), text.end(), [](char c) { return c >= 'A' && c <= 'Z'; });
}

}  // namespace

CorsPolicy::CorsPolicy(std::vector<std::string> origins) : origins_(std::move(origins)) {
  for (const std::string& origin : origins_) {
    any_ |= origin == "*";
    if (origin != "*" && origin != "null" && !is_origin(origin)) {
      throw std::runtime_error("cors_allow_origins has '" + origin +
                               "'; an origin looks like https://chat.example or http://localhost:3000, "
                               "without a path, or is *");
    }
  }
}

std::string CorsPolicy::allowed_origin(const HttpHead* head) const {
  if (any_) return "*";
  const std::string_view origin = head ? value_of(*head, "origin") : std::string_view();
  return std::find(origins_.begin(), origins_.end(), origin) != origins_.end() ? std::string(origin) : "";
}

std::vector<HttpField> CorsPolicy::answer_fields(const HttpHead* head) const {
  std::vector<HttpField> fields;
  if (origins_.empty()) return fields;
  if (!any_) fields.push_back({"Vary", "Origin"});  // to caches: another origin gets another answer
  if (std::string origin = allowed_origin(head); !origin.empty()) {
    fields.push_back({"Access-Control-Allow-Origin", std::move(origin)});
    fields.push_back({"Access-Control-Expose-Headers", kExposed});
  }
  return fields;
}

std::optional<std::vector<HttpField>> CorsPolicy::preflight_fields(const HttpHead& head) const {
  if (head.method != "OPTIONS" || value_of(head, "access-control-request-method").empty() ||
      value_of(head, "origin").empty() || allowed_origin(&head).empty())
    return std::nullopt;
  // Whatever header an allowed page wants to send: clients of ours send a dozen of their own, and "*" would
  // not cover Authorization.
  const std::string_view wanted = value_of(head, "access-control-request-headers");
  return std::vector<HttpField>{
      {"Access-Control-Allow-Methods", kMethods},
      {"Access-Control-Allow-Headers", wanted.empty() ? "Authorization, Content-Type" : std::string(wanted)},
      {"Access-Control-Max-Age", kPreflightSeconds}};
}

}  // namespace serval
