// From the bytes of a connection to one request that a route has accepted, or to the answer that refuses it:
// head, checks, routing, key, then the body, each stage only after the one before. Pure: no sockets, no
// clock. Whoever feeds it keeps the time.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

#include "server/http/api_keys.h"
#include "server/http/cors.h"
#include "server/http/http_body.h"
#include "server/http/http_guard.h"
#include "server/http/http_head.h"
#include "server/http/http_types.h"
#include "server/http/route_table.h"

namespace serval {

class RequestReader {
 public:
  enum class State {
    kHead,     // more of the head is needed
    kBody,     // the head is accepted, more of the body is needed
    kReady,    // take_request(), route()
    kRefused,  // take_refusal(): the answer
  };

  // All must outlive the reader.
  RequestReader(const HeadLimits& head_limits, const BodyLimits& body_limits, const RouteTable& routes,
                const ApiKeys& keys, const CorsPolicy& cors)
      : body_limits_(body_limits),
        routes_(routes),
        keys_(keys),
        cors_(cors),
        scanner_(head_limits),
        cors_fields_(cors.answer_fields(nullptr)) {}

  // `bytes`: everything received and not yet used. Says in `used` how much of it is done with.
  State feed(std::string_view bytes, size_t* used);
  State state() const { return state_; }
  // Ends the request with an answer of ours (a timeout, no room).
  void refuse(const HttpError& error);

  HttpRequest take_request() { return std::move(request_); }
  HttpResponse take_refusal() { return std::move(refusal_); }
  const Route* route() const { return route_; }  // null until one is found
  size_t body_bytes() const { return decoder_ ? decoder_->size() : request_.body.size(); }

  // Of the head, as far as it was read. They hold for refusals too.
  std::string_view request_id() const {
    return request_.id;
  }  // the client's own, empty when it gave no sane one
  std::string_view method() const { return method_; }
  std::string_view path() const { return path_; }
  int key() const { return request_.key; }                                    // see ApiKeys::check
  const std::vector<HttpField>& cors_fields() const { return cors_fields_; }  // for every answer
  bool keep_alive() const { return keep_alive_; }
  bool http_1_0() const { return http_1_0_; }
  bool head_only() const { return head_only_; }
  bool expects_continue() const { return expects_continue_; }

 private:
  void accept_head(std::string_view bytes);
  void route_request(const GuardedHead& head, HttpHead&& raw);
  std::optional<HttpError> check_body(const BodyFraming& body) const;
  void feed_body(std::string_view bytes, size_t* used);
  void refuse_with(HttpError error, std::vector<HttpField> fields);

  const BodyLimits& body_limits_;
  const RouteTable& routes_;
  const ApiKeys& keys_;
  const CorsPolicy& cors_;
  State state_ = State::kHead;
  HeadScanner scanner_;
  std::optional<BodyDecoder> decoder_;
  std::vector<HttpField> cors_fields_;
  std::string method_, path_;
  HttpRequest request_;
  HttpResponse refusal_;
  const Route* route_ = nullptr;
  bool keep_alive_ = true;
  bool http_1_0_ = false;
  bool head_only_ = false;
  bool expects_continue_ = false;
};

}  // namespace serval
