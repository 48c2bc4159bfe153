#include "server/openai/openai_handlers.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "server/http/error_response.h"
#include "server/http/http_exchange.h"
#include "server/http/pieces.h"
#include "server/http/query.h"
#include "server/answers/generation_run.h"
#include "server/openai/openai_answer.h"
#include "server/openai/openai_response.h"
#include "server/service/inference_service.h"
#include "server/unique_id.h"

namespace serval {
namespace {

using Exchange = std::shared_ptr<HttpExchange>;

// A dialect: how its requests are read, and its answers written.
struct Dialect {
  Result<OpenAiRequest> (*parse)(std::string_view body, const RequestOptions& options);
  std::unique_ptr<AnswerWriter> (*writer)(AnswerContext context, bool stream);
  const char* id_prefix;
};
constexpr Dialect kChats{parse_chat_request, chat_writer, "chatcmpl-"};
constexpr Dialect kCompletions{parse_completion_request, completion_writer, "cmpl-"};

HttpResponse json_response(std::string body) {
  HttpResponse response;
  response.body = std::move(body);
  return response;
}

// `bytes` of memory, `owner`'s, are kept until all is written.
HttpResponse json_in_pieces(std::shared_ptr<const void> owner, size_t bytes,
                            const std::function<Pieces(std::string& out)>& write) {
  HttpResponse response;
  response.source = std::make_shared<PiecesBody>(std::move(owner), bytes, write);
  return response;
}

bool has_dot_segment(std::string_view path) {
  for (;;) {
    const size_t slash = path.find('/');
    const std::string_view segment = path.substr(0, slash);
    if (segment == "." || segment == "..") return true;
    if (slash == std::string_view::npos) return false;
    path.remove_prefix(slash + 1);
  }
}

void list_models(InferenceService& service, const Exchange& exchange) {
  exchange->respond(json_response(models_body(service.models())));
}

void show_model(InferenceService& service, const Exchange& exchange) {
  const std::optional<std::string> name = percent_decode(exchange->request().path_tail);
  if (!name || has_dot_segment(*name) || name->find('\0') != std::string::npos) {
    exchange->respond(error_response(404, "unknown_url", "Unknown URL: no model has such a name."));
  } else if (const std::optional<ModelInfo> model = find_model(service, *name)) {
    exchange->respond(json_response(model_body(*model)));
  } else {
    exchange->respond(error_response(model_not_found(*name)));
  }
}

// The header by which a decode instance would be told its prefill peer: never from a client.
bool refuse_peer_header(const Exchange& exchange) {
  if (exchange->request().field("x-prefiller-host-port").empty()) return false;
  exchange->respond(error_response(400, "not_allowed", "x-prefiller-host-port is not accepted from clients.",
                                   "x-prefiller-host-port"));
  return true;
}

AnswerContext answer_context(const InferenceService& service, const OpenAiRequest& request, const char* id_prefix) {
  const GenerateRequest& r = request.generate;
  AnswerContext context;
  context.id = id_prefix + unique_id();
  context.created = std::chrono::duration_cast<std::chrono::seconds>(
                        std::chrono::system_clock::now().time_since_epoch())
                        .count();
  context.include_usage = request.include_usage;
  context.continuous_usage = request.continuous_usage;
  context.return_token_ids = request.return_token_ids;
  context.tokens_as_ids = request.tokens_as_ids;
  context.logprobs = r.logprobs.has_value() && !request.hides_logprobs;
  context.prompt_logprobs = r.prompt_logprobs.has_value();
  context.echo = r.echo;
  context.names_call = r.chat && !r.chat->tool_to_call.empty();
  context.service = &service;
  context.num_drawn = static_cast<int>(r.n.value_or(1));
  context.n = static_cast<int>(request.num_best.value_or(context.num_drawn));
  context.model = r.model;
  if (context.model.empty()) {
    if (const std::vector<ModelInfo> models = service.models(); !models.empty())
      context.model = models.front().id;
  }
  return context;
}

void generate(InferenceService& service, const RequestOptions& options, const Dialect& dialect,
              const Exchange& exchange) {
  if (refuse_peer_header(exchange)) return;
  Result<OpenAiRequest> request = dialect.parse(exchange->take_body(), options);
  if (!request) {
    exchange->respond(error_response(request.error()));
    return;
  }
  GenerateRequest& r = request->generate;
  r.client_id = exchange->request().id;
  r.key = exchange->request().key;
  r.whole = !request->stream;
  r.keep_prompt_ids = request->return_token_ids || request->continuous_usage;
  std::unique_ptr<AnswerWriter> writer =
      dialect.writer(answer_context(service, *request, dialect.id_prefix), request->stream);
  run_generation(service, exchange, std::move(r), std::move(writer));
}

void render(InferenceService& service, const RequestOptions& options, const Dialect& dialect,
            const Exchange& exchange) {
  Result<OpenAiRequest> request = dialect.parse(exchange->take_body(), options);
  if (!request) {
    exchange->respond(error_response(request.error()));
    return;
  }
  Result<std::vector<PromptInfo>> prompts = service.render(std::move(request->generate));
  if (!prompts) {
    exchange->respond(error_response(prompts.error()));
    return;
  }
  const auto rendered = std::make_shared<const std::vector<PromptInfo>>(std::move(*prompts));
  size_t bytes = 0;
  for (const PromptInfo& prompt : *rendered)
    bytes += prompt.text.size() + prompt.token_ids.size() * sizeof(TokenId);
  exchange->respond(
      json_in_pieces(rendered, bytes, [&](std::string& out) { return render_body(out, *rendered); }));
}

void tokenize(InferenceService& service, const RequestOptions& options, const Exchange& exchange) {
  Result<TokenizeRequest> request = parse_tokenize_request(exchange->take_body(), options);
  if (!request) {
    exchange->respond(error_response(request.error()));
    return;
  }
  const std::optional<ModelInfo> model = find_model(service, request->generate.model);
  Result<PromptInfo> prompt = service.tokenize(std::move(request->generate));
  if (!prompt) {
    exchange->respond(error_response(prompt.error()));
    return;
  }
  prompt->token_ids.shrink_to_fit();  // they are kept for as long as the client takes
  const auto ids = std::make_shared<const std::vector<TokenId>>(std::move(prompt->token_ids));
  exchange->respond(json_in_pieces(ids, ids->size() * sizeof(TokenId), [&](std::string& out) {
    return tokenize_body(out, *ids, model ? model->max_model_len : 0,
                         request->return_token_strs ? &service : nullptr);
  }));
}

void detokenize(InferenceService& service, const RequestOptions& options, const Exchange& exchange) {
  Result<DetokenizeRequest> request = parse_detokenize_request(exchange->take_body(), options);
  if (!request) {
    exchange->respond(error_response(request.error()));
    return;
  }
  if (!find_model(service, request->model)) {
    exchange->respond(error_response(model_not_found(request->model)));
    return;
  }
  Result<std::string> decoded = service.detokenize(request->tokens);
  if (!decoded) {
    exchange->respond(error_response(decoded.error()));
    return;
  }
  const auto text = std::make_shared<const std::string>(std::move(*decoded));
  exchange->respond(
      json_in_pieces(text, text->size(), [&](std::string& out) { return detokenize_body(out, *text); }));
}

}  // namespace

std::vector<Route> openai_routes(InferenceService& service, const RequestOptions& options) {
  const auto generating = [&](std::string path, const Dialect& dialect) {
    return Route{
        .method = "POST",
        .path = std::move(path),
        .handler = [&service, options, &dialect](const Exchange& e) { generate(service, options, dialect, e); },
        .body = BodyKind::kJson,
        .runs_on = RunsOn::kTextPool,
        .ends_with_client = true};
  };
  const auto rendering = [&](std::string path, const Dialect& dialect) {
    return Route{
        .method = "POST",
        .path = std::move(path),
        .handler = [&service, options, &dialect](const Exchange& e) { render(service, options, dialect, e); },
        .body = BodyKind::kJson,
        .runs_on = RunsOn::kTextPool};
  };
  const auto tokenizing = [&](std::string path,
                              void (*handle)(InferenceService&, const RequestOptions&, const Exchange&)) {
    return Route{.method = "POST",
                 .path = std::move(path),
                 .handler = [&service, options, handle](const Exchange& e) { handle(service, options, e); },
                 .body = BodyKind::kJson,
                 .runs_on = RunsOn::kTextPool};
  };
  const auto listing = [&](std::string path) {
    return Route{.method = "GET", .path = std::move(path), .handler = [&service](const Exchange& e) {
                   list_models(service, e);
                 }};
  };
  // The rows with a trailing slash are aliases some clients are known to send; no other path is normalised.
  return {
      listing("/v1/models"),
      listing("/v1/models/"),
      Route{.method = "GET",
            .path = "/v1/models/*",
            .handler = [&service](const Exchange& e) { show_model(service, e); }},
      generating("/v1/chat/completions", kChats),
      generating("/v1/chat/completions/", kChats),
      generating("/v1/completions", kCompletions),
      generating("/v1/completions/", kCompletions),
      rendering("/v1/chat/completions/render", kChats),
      rendering("/v1/completions/render", kCompletions),
      tokenizing("/tokenize", tokenize),
      tokenizing("/detokenize", detokenize),
  };
}

}  // namespace serval
