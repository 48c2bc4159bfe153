// multipart/form-data (RFC 7578), of which a form of few fields is made. Pure; views into the body.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/base/status.h"

namespace serval {

struct FormPart {
  std::string name;
  // Of a file; absent for a plain field.
  std::optional<std::string> filename;
  std::string_view content;
};

// `content_type` is the request's, with its boundary; at most 32 parts.
Result<std::vector<FormPart>> read_form(std::string_view content_type, std::string_view body);

}  // namespace serval
