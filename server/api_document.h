// What each field of each request means here, in one table: docs/api.md's, `/openapi.json`'s, and what tests hold the
// readers of requests to.
#pragma once

#include <array>
#include <span>
#include <string>
#include <string_view>

namespace serval {

// A kind of request.
struct ApiRequest {
  char letter;
  std::string_view name;                     // "ChatRequest"
  std::string_view title;                    // a column of the table
  std::array<std::string_view, 4> paths;     // that take it by POST
  std::array<std::string_view, 3> required;  // fields
  bool is_form = false;                      // multipart/form-data, else JSON
};
std::span<const ApiRequest> api_requests();

enum class FieldUse { kUnknown, kHonoured, kIgnored, kRefused };

struct ApiField {
  std::string_view name;
  std::string_view types;  // of JSON, with bars between; "binary": a file's content
  // Letters of the requests that read it, pass over it, and say that they cannot: each is in at most one.
  std::string_view honoured, ignored = {}, refused = {};

  FieldUse use(char request) const;
};
// By name; one name has several rows where its type differs.
std::span<const ApiField> api_fields();

// The table, in Markdown.
std::string api_markdown();
// OpenAPI 3.1.
std::string openapi_json(std::string_view version);

}  // namespace serval
