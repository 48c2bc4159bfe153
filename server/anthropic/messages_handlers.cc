#include "server/anthropic/messages_handlers.h"

#include <memory>
#include <string>
#include <utility>

#include "engine/json/json_writer.h"
#include "server/anthropic/messages_answer.h"
#include "server/anthropic/messages_request.h"
#include "server/answers/generation_run.h"
#include "server/http/http_exchange.h"
#include "server/service/inference_service.h"

namespace serval {
namespace {

using Exchange = std::shared_ptr<HttpExchange>;

void generate(InferenceService& service, bool strict, const Exchange& exchange) {
  Result<MessagesRequest> request = parse_messages_request(exchange->take_body(), /*counts_only=*/false, strict);
  if (!request) {
    exchange->respond(messages_error(request.error()));
    return;
  }
  GenerateRequest& r = request->generate;
  r.client_id = exchange->request().id;
  r.key = exchange->request().key;
  r.whole = !request->stream;
  r.keep_prompt_ids = request->stream;  // they are counted in the first event
  std::string model = r.model;
  if (model.empty() && !service.models().empty()) model = service.models().front().id;
  run_generation(service, exchange, std::move(r), messages_writer(std::move(model), request->stream));
}

void count_tokens(InferenceService& service, bool strict, const Exchange& exchange) {
  Result<MessagesRequest> request = parse_messages_request(exchange->take_body(), /*counts_only=*/true, strict);
  Result<PromptInfo> prompt = request ? service.tokenize(std::move(request->generate)) : Result<PromptInfo>(request.error());
  if (!prompt) {
    exchange->respond(messages_error(prompt.error()));
    return;
  }
  HttpResponse response;
  JsonWriter(response.body).begin_object().member("input_tokens", static_cast<int64_t>(prompt->token_ids.size())).end_object();
  exchange->respond(std::move(response));
}

}  // namespace

std::vector<Route> messages_routes(InferenceService& service, bool strict) {
  return {Route{.method = "POST",
                .path = "/v1/messages",
                .handler = [&service, strict](const Exchange& e) { generate(service, strict, e); },
                .body = BodyKind::kJson,
                .runs_on = RunsOn::kTextPool,
                .ends_with_client = true},
          Route{.method = "POST",
                .path = "/v1/messages/count_tokens",
                .handler = [&service, strict](const Exchange& e) { count_tokens(service, strict, e); },
                .body = BodyKind::kJson,
                .runs_on = RunsOn::kTextPool}};
}

}  // namespace serval
