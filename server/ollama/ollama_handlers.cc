#include "server/ollama/ollama_handlers.h"

#include <memory>
#include <optional>
#include <utility>

#include "engine/json/json_writer.h"
#include "server/answers/generation_run.h"
#include "server/http/http_exchange.h"
#include "server/ollama/ollama_answer.h"
#include "server/ollama/ollama_request.h"

namespace serval {
namespace {

using Exchange = std::shared_ptr<HttpExchange>;
using Parse = Result<OllamaRequest> (*)(std::string_view body, bool strict);

void generate(InferenceService& service, bool strict, const Exchange& exchange, OllamaKind kind, Parse parse) {
  Result<OllamaRequest> request = parse(exchange->take_body(), strict);
  if (!request) {
    exchange->respond(ollama_error(request.error()));
    return;
  }
  GenerateRequest& r = request->generate;
  OllamaContext context{.kind = kind, .model = r.model, .stream = request->stream};
  if (context.model.empty() && !service.models().empty()) context.model = service.models().front().id;
  if (request->only_loads) {
    exchange->respond(ollama_loaded(context));
    return;
  }
  r.client_id = exchange->request().id;
  r.key = exchange->request().key;
  r.whole = !request->stream;
  r.keep_prompt_ids = false;
  run_generation(service, exchange, std::move(r), ollama_writer(std::move(context)));
}

void write_details(JsonWriter& json) {
  json.key("details").begin_object().member("parent_model", "").member("format", "safetensors").member("family", "");
  json.key("families").begin_array().end_array();
  json.member("parameter_size", "").member("quantization_level", "").end_object();
}

void list(InferenceService& service, const Exchange& exchange) {
  HttpResponse response;
  JsonWriter json(response.body);
  json.begin_object().key("models").begin_array();
  for (const ModelInfo& model : service.models()) {
    json.begin_object().member("name", model.id).member("model", model.id);
    json.member("modified_at", ollama_time(model.created)).member("size", 0).member("digest", "");
    write_details(json);
    json.member("context_length", model.max_model_len).end_object();
  }
  json.end_array().end_object();
  exchange->respond(std::move(response));
}

void show(InferenceService& service, const Exchange& exchange) {
  const Result<std::string> name = parse_ollama_name(exchange->take_body());
  if (!name) {
    exchange->respond(ollama_error(name.error()));
    return;
  }
  const std::optional<ModelInfo> model = find_model(service, *name);
  if (!model) {
    exchange->respond(ollama_error(model_not_found(*name)));
    return;
  }
  const ModelDescription about = service.description();
  HttpResponse response;
  JsonWriter json(response.body);
  json.begin_object().member("modelfile", "").member("parameters", "").member("template", about.chat_template);
  write_details(json);
  json.key("model_info").begin_object().member("general.architecture", "serval").member("serval.context_length", model->max_model_len);
  json.member("serval.embedding_length", service.pooling().vector_size).end_object();
  json.key("capabilities").begin_array();
  if (service.pooling().writes_text) json.string("completion");
  if (about.calls_tools) json.string("tools");
  if (about.thinks) json.string("thinking");
  if (about.fills_in) json.string("insert");
  json.string("embedding").end_array();
  json.member("modified_at", ollama_time(model->created)).end_object();
  exchange->respond(std::move(response));
}

}  // namespace

std::vector<Route> ollama_routes(InferenceService& service, bool strict, const std::string& version) {
  const auto generating = [&](const char* path, OllamaKind kind, Parse parse) {
    return Route{.method = "POST",
                 .path = path,
                 .handler = [&service, strict, kind, parse](const Exchange& e) { generate(service, strict, e, kind, parse); },
                 .body = BodyKind::kJson,
                 .runs_on = RunsOn::kTextPool,
                 .ends_with_client = true};
  };
  const auto listing = [&](const char* path) {
    return Route{.method = "GET", .path = path, .handler = [&service](const Exchange& e) { list(service, e); }};
  };
  std::string version_body;
  JsonWriter(version_body).begin_object().member("version", version).end_object();
  return {generating("/api/chat", OllamaKind::kChat, parse_ollama_chat),
          generating("/api/generate", OllamaKind::kGenerate, parse_ollama_generate),
          generating("/api/embed", OllamaKind::kEmbed, parse_ollama_embed),
          generating("/api/embeddings", OllamaKind::kOldEmbedding, parse_ollama_embed),
          listing("/api/tags"),
          listing("/api/ps"),
          Route{.method = "POST",
                .path = "/api/show",
                .handler = [&service](const Exchange& e) { show(service, e); },
                .body = BodyKind::kJson,
                .runs_on = RunsOn::kTextPool},
          Route{.method = "GET", .path = "/api/version", .handler = [version_body](const Exchange& exchange) {
                  HttpResponse response;
                  response.body = version_body;
                  exchange->respond(std::move(response));
                }}};
}

}  // namespace serval
