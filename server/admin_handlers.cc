#include "server/admin_handlers.h"

#include <memory>
#include <optional>

#include "engine/json/json_writer.h"
#include "server/api_document.h"
#include "server/http/error_response.h"
#include "server/http/http_exchange.h"
#include "server/service/inference_service.h"

namespace serval {
namespace {

using Exchange = std::shared_ptr<HttpExchange>;

std::optional<HttpResponse> not_live(InferenceService& service) {
  if (service.live()) return std::nullopt;
  return error_response(503, "engine_stalled", "The engine has work and makes no progress.");
}

std::optional<HttpResponse> not_ready(InferenceService& service) {
  std::string reason;
  if (service.ready(&reason)) return std::nullopt;
  return error_response(503, reason, "The server does not accept requests now: " + reason + ".");
}

void answer(const Exchange& exchange, std::optional<HttpResponse> refusal) {
  HttpResponse response;
  if (refusal) {
    response = std::move(*refusal);
    response.refusal.clear();  // a probe's no is its answer
  } else {
    response.body = R"({"status":"ok"})";
  }
  exchange->respond(std::move(response));
}

int max_model_len(InferenceService& service) {
  const std::vector<ModelInfo> models = service.models();
  return models.empty() ? 0 : models.front().max_model_len;
}

// As vLLM's.
void show_tokenizer(InferenceService& service, const Exchange& exchange) {
  const ModelDescription about = service.description();
  HttpResponse response;
  JsonWriter json(response.body);
  json.begin_object().member("vocab_size", about.vocab_size).member("model_max_length", max_model_len(service));
  json.member("bos_token", about.bos_token).member("eos_token", about.eos_token);
  json.key("additional_special_tokens").begin_array();
  for (const std::string& name : about.special_tokens) json.string(name);
  json.end_array().member("chat_template", about.chat_template).end_object();
  exchange->respond(std::move(response));
}

// As llama.cpp's: what its page and its clients ask for.
void show_props(InferenceService& service, const Exchange& exchange) {
  const ModelDescription about = service.description();
  HttpResponse response;
  JsonWriter json(response.body);
  json.begin_object().key("default_generation_settings").begin_object().member("n_ctx", max_model_len(service)).end_object();
  json.member("total_slots", about.max_sequences);
  json.member("model_alias", service.models().empty() ? std::string() : service.models().front().id);
  json.member("chat_template", about.chat_template).member("bos_token", about.bos_token).member("eos_token", about.eos_token);
  json.key("modalities").begin_object().key("vision").boolean(false).key("audio").boolean(false).end_object().end_object();
  exchange->respond(std::move(response));
}

void show_slots(InferenceService& service, const Exchange& exchange) {
  const ModelDescription about = service.description();
  HttpResponse response;
  JsonWriter json(response.body);
  json.begin_array();
  for (int i = 0; i < about.max_sequences; ++i) {
    json.begin_object().member("id", i).member("n_ctx", max_model_len(service));
    json.key("is_processing").boolean(i < about.num_running).end_object();
  }
  json.end_array();
  exchange->respond(std::move(response));
}

}  // namespace

std::vector<Route> admin_routes(InferenceService& service, std::function<std::string()> metrics,
                                std::string version) {
  const auto health = [&service](const Exchange& exchange) {
    std::optional<HttpResponse> refusal = not_live(service);
    if (!refusal) refusal = not_ready(service);
    answer(exchange, std::move(refusal));
  };
  std::string version_body;
  JsonWriter(version_body).begin_object().member("version", version).end_object();
  const auto fixed = [](std::string body) {
    return [body = std::move(body)](const Exchange& exchange) {
      HttpResponse response;
      response.body = body;
      exchange->respond(std::move(response));
    };
  };
  return {
      Route{.method = "GET",
            .path = "/live",
            .handler = [&service](const Exchange& e) { answer(e, not_live(service)); },
            .access = Access::kOpen,
            .probe = true},
      Route{.method = "GET",
            .path = "/ready",
            .handler = [&service](const Exchange& e) { answer(e, not_ready(service)); },
            .access = Access::kOpen,
            .probe = true},
      Route{.method = "GET", .path = "/health", .handler = health, .access = Access::kOpen, .probe = true},
      Route{.method = "GET", .path = "/ping", .handler = health, .access = Access::kOpen, .probe = true},
      Route{.method = "GET",
            .path = "/metrics",
            .handler =
                [metrics = std::move(metrics)](const Exchange& exchange) {
                  HttpResponse response;
                  response.content_type = "text/plain; version=0.0.4; charset=utf-8";
                  response.body = metrics();
                  exchange->respond(std::move(response));
                },
            .probe = true},
      Route{.method = "GET", .path = "/tokenizer_info", .handler = [&service](const Exchange& e) { show_tokenizer(service, e); }},
      Route{.method = "GET", .path = "/props", .handler = [&service](const Exchange& e) { show_props(service, e); }},
      Route{.method = "GET", .path = "/slots", .handler = [&service](const Exchange& e) { show_slots(service, e); }},
      Route{.method = "GET", .path = "/version", .handler = fixed(version_body)},
      Route{.method = "GET", .path = "/openapi.json", .handler = fixed(openapi_json(version))},
  };
}

}  // namespace serval
