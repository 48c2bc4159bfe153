// What /v1/files and /v1/batches are asked: forms and JSON to plain values. Pure, but for the time of day.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "kernels/base/status.h"
#include "server/batches/batch_runner.h"
#include "server/batches/file_store.h"

namespace serval {

// Of a text that is one whole number.
std::optional<int64_t> number_of(std::string_view text);

struct FileUpload {
  // Without owner.
  StoredFile about;
  // A part of the body.
  std::string_view content;
};

// `strict`: what is not known is refused.
Result<FileUpload> read_upload(std::string_view content_type, std::string_view body, bool strict);
// Without owner.
Result<BatchRequest> parse_batch_request(std::string_view body, bool strict);

}  // namespace serval
