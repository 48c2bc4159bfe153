#include "server/openai/pooling_handlers.h"

#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "server/answers/generation_run.h"
#include "server/http/error_response.h"
#include "server/http/http_exchange.h"
#include "server/openai/pooling_answer.h"
#include "server/openai/pooling_request.h"
#include "server/unique_id.h"

namespace serval {
namespace {

using Exchange = std::shared_ptr<HttpExchange>;
using Kind = PoolingContext::Kind;

// What Qwen3's rerankers were trained on.
constexpr const char* kQwen3Instruction = "Given a web search query, retrieve relevant passages that answer the query";
std::string qwen3_pair(const std::string& instruction, const std::string& query, const std::string& document) {
  return "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
         "provided. Note that the answer can only be \"yes\" or \"no\".<|im_end|>\n<|im_start|>user\n<Instruct>: " +
         instruction + "\n<Query>: " + query + "\n<Document>: " + document +
         "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n";
}

PoolingContext context_of(const InferenceService& service, const GenerateRequest& r, Kind kind, const char* id_prefix) {
  PoolingContext context;
  context.kind = kind;
  context.id = id_prefix + unique_id();
  context.created =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  context.model = r.model;
  if (context.model.empty() && !service.models().empty()) context.model = service.models().front().id;
  return context;
}

void run(InferenceService& service, const Exchange& exchange, GenerateRequest r, PoolingContext context) {
  r.client_id = exchange->request().id;
  r.key = exchange->request().key;
  r.whole = true;
  r.keep_prompt_ids = false;
  run_generation(service, exchange, std::move(r), pooling_writer(std::move(context)));
}

void embed(InferenceService& service, const RequestOptions& options, const Exchange& exchange, Kind kind) {
  Result<TextsRequest> request = kind == Kind::kClassify ? parse_classify_request(exchange->take_body(), options)
                                                         : parse_embedding_request(exchange->take_body(), options);
  if (!request) {
    exchange->respond(error_response(request.error()));
    return;
  }
  PoolingContext context = context_of(service, request->generate, kind, kind == Kind::kEmbeddings ? "embd-" : "pool-");
  context.base64 = request->base64;
  context.labels = service.pooling().labels;
  run(service, exchange, std::move(request->generate), std::move(context));
}

// The prompts of a model that is shown a query and a document at once.
Result<std::vector<PromptInput>> pair_prompts(InferenceService& service, const PairsRequest& request) {
  std::vector<PromptInput> prompts;
  const PoolingInfo::Pair pair = service.pooling().pair;
  const auto ids_of = [&](const std::string& text) {
    GenerateRequest one = request.generate;
    one.prompts = {text};
    return service.tokenize(std::move(one));
  };
  std::vector<TokenId> query_ids;
  for (size_t i = 0; i < request.documents.size(); ++i) {
    const bool is_new = i == 0 || request.queries.size() > 1;
    const std::string& query = request.queries[request.queries.size() > 1 ? i : 0];
    const std::string& document = request.documents[i];
    if (pair == PoolingInfo::Pair::kQwen3) {
      prompts.emplace_back(qwen3_pair(request.instruction.value_or(kQwen3Instruction), query, document));
    } else if (pair == PoolingInfo::Pair::kTwoTexts) {
      prompts.emplace_back(std::pair(query, document));
    } else if (pair == PoolingInfo::Pair::kRoles) {
      GenerateRequest one = request.generate;
      Chat& chat = one.chat.emplace();
      if (request.instruction) chat.messages.push_back({.role = "system", .content = *request.instruction});
      chat.messages.push_back({.role = "query", .content = query});
      chat.messages.push_back({.role = "document", .content = document});
      Result<std::vector<PromptInfo>> rendered = service.render(std::move(one));
      if (!rendered) return rendered.error();
      prompts.emplace_back(std::move(rendered->front().token_ids));
    } else {
      if (is_new) {
        Result<PromptInfo> ids = ids_of(query);
        if (!ids) return ids.error();
        query_ids = std::move(ids->token_ids);
      }
      Result<PromptInfo> ids = ids_of(document);
      if (!ids) return ids.error();
      std::vector<TokenId> both = query_ids;
      both.insert(both.end(), ids->token_ids.begin(), ids->token_ids.end());
      prompts.emplace_back(std::move(both));
    }
  }
  return prompts;
}

void score(InferenceService& service, const RequestOptions& options, const Exchange& exchange, Kind kind) {
  Result<PairsRequest> request = kind == Kind::kScore ? parse_score_request(exchange->take_body(), options)
                                                      : parse_rerank_request(exchange->take_body(), options);
  if (!request) {
    exchange->respond(error_response(request.error()));
    return;
  }
  GenerateRequest& r = request->generate;
  PoolingContext context = context_of(service, r, kind, kind == Kind::kScore ? "score-" : "rerank-");
  context.top_n = request->top_n;
  const PoolingInfo info = service.pooling();
  context.is_similarity = info.num_scores == 0;
  const bool has_words = info.num_scores > 0 && (info.pair == PoolingInfo::Pair::kRoles || info.pair == PoolingInfo::Pair::kQwen3);
  if (request->instruction && !has_words) {
    exchange->respond(error_response(invalid("instruction", "not_supported", "instruction: this model is shown no instruction beside texts.")));
    return;
  }
  if (context.is_similarity) {
    context.num_queries = static_cast<int>(request->queries.size());
    for (const auto* texts : {&request->queries, &request->documents}) r.prompts.insert(r.prompts.end(), texts->begin(), texts->end());
    r.pool->finishes = true;
  } else {
    Result<std::vector<PromptInput>> prompts = pair_prompts(service, *request);
    if (!prompts) {
      exchange->respond(error_response(prompts.error()));
      return;
    }
    r.prompts = std::move(*prompts);
    r.add_special_tokens = info.pair != PoolingInfo::Pair::kQwen3;
    r.pool->what = PoolRequest::What::kScores;
  }
  if (request->with_documents) context.documents = std::move(request->documents);
  run(service, exchange, std::move(r), std::move(context));
}

}  // namespace

std::vector<Route> pooling_routes(InferenceService& service, const RequestOptions& options) {
  using Handle = void (*)(InferenceService&, const RequestOptions&, const Exchange&, Kind);
  const auto route = [&](const char* path, Handle handle, Kind kind) {
    return Route{.method = "POST",
                 .path = path,
                 .handler = [&service, options, handle, kind](const Exchange& e) { handle(service, options, e, kind); },
                 .body = BodyKind::kJson,
                 .runs_on = RunsOn::kTextPool,
                 .ends_with_client = true};
  };
  return {route("/v1/embeddings", embed, Kind::kEmbeddings), route("/v1/embeddings/", embed, Kind::kEmbeddings),
          route("/pooling", embed, Kind::kPooling),          route("/classify", embed, Kind::kClassify),
          route("/v1/score", score, Kind::kScore),           route("/score", score, Kind::kScore),
          route("/v1/rerank", score, Kind::kRerank),         route("/v2/rerank", score, Kind::kRerank),
          route("/rerank", score, Kind::kRerank)};
}

}  // namespace serval
