// Every refusal in one shape: {"error":{"message","type","param","code"}}, all four keys always there, with
// the status and the retry headers that official clients act on.
#pragma once

#include <string>
#include <string_view>

#include "kernels/base/status.h"
#include "server/http/http_types.h"

namespace serval {

int http_status(ErrorKind kind);
std::string_view error_type(int status);  // "invalid_request_error", "rate_limit_error", ...

// The JSON of an error; also the payload of an error event inside a stream.
std::string error_body(int status, std::string_view code, std::string_view message, std::string_view param);
std::string error_body(const Error& error);

HttpResponse error_response(int status, std::string_view code, std::string_view message,
                            std::string_view param = {});
// Adds Retry-After to 429 and 503, and x-should-retry: false where a retry cannot help.
HttpResponse error_response(const Error& error);

}  // namespace serval
