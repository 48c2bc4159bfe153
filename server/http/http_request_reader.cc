#include "server/http/http_request_reader.h"

#include <algorithm>

#include "server/http/error_response.h"

namespace serval {
namespace {

bool is_known_method(std::string_view method) {
  for (const char* known : {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"}) {
    if (method == known) return true;
  }
  return false;
}

// A client's own id is echoed only when nothing that reads logs or headers could take it for anything else.
bool is_sane_request_id(std::string_view id) {
  return !id.empty() && id.size() <= 128 && std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.' || c == ':';
  });
}

// A path in a sentence. It has only visible ASCII (http_guard), but may be kilobytes.
std::string shown(std::string_view path) {
  constexpr size_t kMost = 128;
  return path.size() <= kMost ? std::string(path) : std::string(path.substr(0, kMost)) + "...";
}

HttpError empty_body(bool is_form) {
  return {400, "empty_body", is_form ? "The request needs a form as its body." : "The request needs a JSON body.", /*close=*/false};
}

bool is_form_media_type(std::string_view type) {
  constexpr std::string_view kForm = "multipart/form-data";
  return equal_ignoring_case(type.substr(0, kForm.size()), kForm) && type.substr(kForm.size()).starts_with(';');
}

}  // namespace

RequestReader::State RequestReader::feed(std::string_view bytes, size_t* used) {
  *used = 0;
  if (state_ == State::kHead) {
    switch (scanner_.scan(bytes)) {
      case HeadScanner::State::kNeedMore:
        return state_;
      case HeadScanner::State::kComplete:
        *used = scanner_.head_bytes();
        accept_head(bytes.substr(0, *used));
        break;
      case HeadScanner::State::kLineTooLong:
        refuse({414, "uri_too_long", "The request line is longer than this server reads."});
        break;
      case HeadScanner::State::kFieldsTooLarge:
        refuse({431, "headers_too_large",
                "The request has more header bytes or fields than this server reads."});
        break;
      case HeadScanner::State::kMalformed:
        refuse({400, "malformed_http", "This is not an HTTP/1.1 request."});
    }
  }
  if (state_ == State::kBody) {
    size_t taken = 0;
    feed_body(bytes.substr(*used), &taken);
    *used += taken;
  }
  return state_;
}

void RequestReader::accept_head(std::string_view bytes) {
  std::optional<HttpHead> head = parse_head(bytes);
  if (!head) {
    refuse({400, "malformed_http", "This is not an HTTP/1.1 request."});
    return;
  }
  http_1_0_ = head->http_1_0;
  method_ = head->method;
  head_only_ = method_ == "HEAD";
  cors_fields_ = cors_.answer_fields(&*head);
  for (const HttpField& field : head->fields) {
    if (!equal_ignoring_case(field.name, "x-request-id")) continue;
    if (is_sane_request_id(field.value)) request_.id = field.value;
    break;
  }
  std::variant<GuardedHead, HttpError> guarded = guard_head(*head, scanner_.folds_framing_field());
  if (const HttpError* error = std::get_if<HttpError>(&guarded)) {
    refuse(*error);
    return;
  }
  route_request(std::get<GuardedHead>(guarded), std::move(*head));
}

void RequestReader::route_request(const GuardedHead& head, HttpHead&& raw) {
  path_ = head.path;
  keep_alive_ = head.keep_alive;
  expects_continue_ = head.expects_continue;
  // A refused request's body is not read, so the next request could not be found behind it.
  const bool close = head.body.kind != BodyFraming::Kind::kNone;
  const RouteTable::Match match = routes_.find(raw.method, head.path);
  const bool any_target = head.path == "*";
  const std::string allow = any_target ? "GET, HEAD, POST, OPTIONS" : match.allow;
  // A preflight is answered for unknown paths too: the page may then read the 404.
  std::optional<std::vector<HttpField>> preflight = cors_.preflight_fields(raw);
  if (preflight || (raw.method == "OPTIONS" && !allow.empty())) {
    state_ = State::kRefused;
    refusal_.status = 204;
    refusal_.close = close;
    if (preflight) refusal_.fields = std::move(*preflight);
    if (!allow.empty()) refusal_.fields.push_back({"Allow", allow});
    return;
  }
  if (!match.route) {
    if (!match.allow.empty()) {
      refuse_with({405, "method_not_allowed",
                   shown(head.path) + " does not answer that method; it answers " + match.allow + ".", close},
                  {{"Allow", match.allow}});
    } else if (!is_known_method(raw.method)) {
      refuse({501, "method_not_allowed", "This server does not know that method.", close});
    } else {
      refuse(
          {404, "unknown_url", "Unknown URL: " + shown(head.path) + ". " + routes_.hint(head.path), close});
    }
    return;
  }
  route_ = match.route;
  if (route_->access == Access::kKey) {
    std::variant<int, HttpError> checked = keys_.check(raw);
    if (HttpError* const error = std::get_if<HttpError>(&checked)) {
      error->close |= close;
      std::vector<HttpField> fields;
      if (error->status == 401) fields.push_back({"WWW-Authenticate", "Bearer"});
      refuse_with(*error, std::move(fields));
      return;
    }
    request_.key = std::get<int>(checked);
  }
  request_.method = method_;
  request_.path = path_;
  request_.query = head.query;
  request_.path_tail = std::string(match.path_tail);
  request_.fields = std::move(raw.fields);
  if (std::optional<HttpError> error = check_body(head.body)) {
    refuse(*error);
    return;
  }
  decoder_.emplace(head.body, body_limits_);
  state_ = State::kBody;
}

std::optional<HttpError> RequestReader::check_body(const BodyFraming& body) const {
  const bool has_body = body.kind != BodyFraming::Kind::kNone;
  if (route_->body == BodyKind::kNone) {
    if (has_body) return HttpError{413, "content_too_large", "This URL takes no body."};
    return std::nullopt;
  }
  const bool is_form = route_->body == BodyKind::kForm;
  if (!has_body) return empty_body(is_form);
  if (is_form) {
    if (!is_form_media_type(request_.field("content-type")))
      return HttpError{415, "unsupported_media_type", "The body must be a form with its file, multipart/form-data; with curl: -F purpose=batch -F file=@NAME."};
  } else if (!is_json_media_type(request_.field("content-type"))) {
    return HttpError{
        415, "unsupported_media_type",
        "The body must be JSON in UTF-8 and say so; with curl: -H 'Content-Type: application/json'."};
  }
  const std::string_view coding = request_.field("content-encoding");
  if (!coding.empty() && !equal_ignoring_case(coding, "identity")) {
    return HttpError{415, "unsupported_media_type", "The body may not be compressed."};
  }
  if (body.length > body_limits_.max_bytes) {
    return HttpError{413, "content_too_large",
                     "The body has " + std::to_string(body.length) + " bytes; at most " +
                         std::to_string(body_limits_.max_bytes) + " are read."};
  }
  return std::nullopt;
}

void RequestReader::feed_body(std::string_view bytes, size_t* used) {
  switch (decoder_->feed(bytes, used)) {
    case BodyDecoder::State::kNeedMore:
      break;
    case BodyDecoder::State::kComplete:
      if (route_->body != BodyKind::kNone && decoder_->size() == 0) {
        refuse(empty_body(route_->body == BodyKind::kForm));
        break;
      }
      request_.body = decoder_->take_body();
      decoder_.reset();
      state_ = State::kReady;
      break;
    case BodyDecoder::State::kTooLarge:
      refuse({413, "content_too_large",
              "The body is larger than " + std::to_string(body_limits_.max_bytes) + " bytes."});
      break;
    case BodyDecoder::State::kTooManyChunks:
      refuse({400, "content_too_large", "The body comes in more chunks than this server reads."});
      break;
    case BodyDecoder::State::kMalformed:
      refuse({400, "malformed_http", "The body's chunks are not those of HTTP/1.1."});
  }
}

void RequestReader::refuse(const HttpError& error) {
  refuse_with(error, {});
}

void RequestReader::refuse_with(HttpError error, std::vector<HttpField> fields) {
  state_ = State::kRefused;
  decoder_.reset();
  refusal_ = error_response(error.status, error.code, error.message);
  refusal_.close = error.close;
  for (HttpField& field : fields) refusal_.fields.push_back(std::move(field));
}

}  // namespace serval
