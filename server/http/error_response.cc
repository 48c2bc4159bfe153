#include "server/http/error_response.h"

#include <algorithm>

#include "engine/json/json_writer.h"

namespace serval {
namespace {

// Official clients give up on a Retry-After beyond two minutes, so none is ever longer.
constexpr int kMaxRetryAfterSeconds = 120;

void add_retry_advice(HttpResponse& response, int retry_after_s) {
  if (response.status == 429 || response.status == 503) {
    const int seconds = std::clamp(retry_after_s, 1, kMaxRetryAfterSeconds);
    response.fields.push_back({"Retry-After", std::to_string(seconds)});
    response.fields.push_back({"retry-after-ms", std::to_string(seconds * 1000)});
  } else if (response.status >= 500) {
    response.fields.push_back({"x-should-retry", "false"});
  }
}

}  // namespace

int http_status(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kInvalidRequest:
      return 400;
    case ErrorKind::kUnauthenticated:
      return 401;
    case ErrorKind::kPermissionDenied:
      return 403;
    case ErrorKind::kNotFound:
      return 404;
    case ErrorKind::kOverloaded:
      return 429;
    case ErrorKind::kInternal:
      return 500;
    case ErrorKind::kUnavailable:
      return 503;
    case ErrorKind::kDeadlineExceeded:
      return 504;
    case ErrorKind::kCancelled:
      return 499;
  }
  return 500;
}

std::string_view error_type(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 408:
    case 504:
      return "timeout_error";
    case 429:
      return "rate_limit_error";
    case 500:
      return "server_error";
    case 503:
      return "service_unavailable";
    default:
      return "invalid_request_error";
  }
}

std::string error_body(int status, std::string_view code, std::string_view message, std::string_view param) {
  std::string body;
  JsonWriter json(body);
  const auto text_or_null = [&](std::string_view name, std::string_view text) {
    json.key(name);
    text.empty() ? json.null() : json.string(text);
  };
  json.begin_object().key("error").begin_object();
  json.member("message", message).member("type", error_type(status));
  text_or_null("param", param);
  text_or_null("code", code);
  json.end_object().end_object();
  return body;
}

std::string error_body(const Error& error) {
  return error_body(http_status(error.kind), error.code, error.message, error.param);
}

HttpResponse error_response(int status, std::string_view code, std::string_view message,
                            std::string_view param) {
  HttpResponse response;
  response.status = status;
  response.body = error_body(status, code, message, param);
  response.refusal = code;
  add_retry_advice(response, 1);
  return response;
}

HttpResponse error_response(const Error& error) {
  HttpResponse response;
  response.status = http_status(error.kind);
  response.body = error_body(error);
  response.refusal = error.code;
  add_retry_advice(response, error.retry_after_s);
  return response;
}

}  // namespace serval
