#include "server/responses/responses_handlers.h"

#include <boost/json/serialize.hpp>
#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "server/answers/generation_run.h"
#include "server/http/error_response.h"
#include "server/http/http_exchange.h"
#include "server/responses/responses_answer.h"
#include "server/responses/responses_request.h"
#include "server/service/inference_service.h"
#include "server/unique_id.h"

namespace serval {
namespace {

namespace json = boost::json;
using Exchange = std::shared_ptr<HttpExchange>;

struct Dialect {
  InferenceService& service;
  bool strict;
  ResponseStore store;
};
using SharedDialect = std::shared_ptr<Dialect>;

HttpResponse json_response(const json::value& value) {
  HttpResponse response;
  response.body = json::serialize(value);
  return response;
}

void create(const SharedDialect& dialect, const Exchange& exchange) {
  const int key = exchange->request().key;
  Result<ResponsesRequest> request = parse_responses_request(exchange->take_body(), dialect->store, key, dialect->strict);
  if (!request) {
    exchange->respond(error_response(request.error()));
    return;
  }
  ResponseContext context;
  context.id = "resp_" + unique_id();
  context.created = std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  GenerateRequest& r = request->generate;
  context.model = r.model;
  if (context.model.empty() && !dialect->service.models().empty()) context.model = dialect->service.models().front().id;
  context.repeated = std::move(request->repeated);
  // The routes, and so the store, outlive every connection.
  if (request->store) context.store = &dialect->store;
  context.stored.key = key;
  context.stored.input = std::move(request->input);
  context.stored.conversation = std::move(request->conversation);
  r.client_id = exchange->request().id;
  r.key = key;
  r.whole = !request->stream;
  r.keep_prompt_ids = false;
  run_generation(dialect->service, exchange, std::move(r), responses_writer(std::move(context), request->stream));
}

Error not_kept(std::string_view id) {
  return {ErrorKind::kNotFound, "response_not_found", "No response with the id '" + std::string(id.substr(0, 64)) + "' is kept here.", "response_id"};
}

void show(const SharedDialect& dialect, const Exchange& exchange) {
  std::string_view id = exchange->request().path_tail;
  constexpr std::string_view kItems = "/input_items";
  const bool wants_items = id.ends_with(kItems);
  if (wants_items) id.remove_suffix(kItems.size());
  const std::shared_ptr<const StoredResponse> found = dialect->store.find(id, exchange->request().key);
  if (!found) {
    exchange->respond(error_response(not_kept(id)));
  } else if (wants_items) {
    exchange->respond(json_response(json::object{{"object", "list"}, {"data", found->input}, {"has_more", false}}));
  } else {
    exchange->respond(json_response(found->response));
  }
}

void cancel(const SharedDialect& dialect, const Exchange& exchange) {
  std::string_view id = exchange->request().path_tail;
  constexpr std::string_view kCancel = "/cancel";
  if (!id.ends_with(kCancel)) {
    exchange->respond(error_response(404, "unknown_url", "Unknown URL: a response can only be POSTed to .../cancel."));
    return;
  }
  id.remove_suffix(kCancel.size());
  if (!dialect->store.find(id, exchange->request().key)) {
    exchange->respond(error_response(not_kept(id)));
  } else {
    exchange->respond(error_response(400, "invalid_value", "The response has ended; one that runs ends when its client closes the connection.", "response_id"));
  }
}

void erase(const SharedDialect& dialect, const Exchange& exchange) {
  const std::string id(exchange->request().path_tail);
  if (!dialect->store.erase(id, exchange->request().key)) {
    exchange->respond(error_response(not_kept(id)));
    return;
  }
  exchange->respond(json_response(json::object{{"id", id}, {"object", "response"}, {"deleted", true}}));
}

}  // namespace

std::vector<Route> responses_routes(InferenceService& service, const ResponsesOptions& options) {
  const auto dialect = std::shared_ptr<Dialect>(new Dialect{service, options.strict, ResponseStore(options.max_stored_bytes)});
  const auto of = [&](void (*handle)(const SharedDialect&, const Exchange&)) {
    return [dialect, handle](const Exchange& e) { handle(dialect, e); };
  };
  return {Route{.method = "POST",
                .path = "/v1/responses",
                .handler = of(create),
                .body = BodyKind::kJson,
                .runs_on = RunsOn::kTextPool,
                .ends_with_client = true},
          Route{.method = "GET", .path = "/v1/responses/*", .handler = of(show)},
          Route{.method = "POST", .path = "/v1/responses/*", .handler = of(cancel)},
          Route{.method = "DELETE", .path = "/v1/responses/*", .handler = of(erase)}};
}

}  // namespace serval
