// Requests whose answers are vectors or scores of texts, as vLLM, Jina and Cohere have them beside OpenAI's embeddings.
// Translation only.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/base/status.h"
#include "server/openai/openai_request.h"
#include "server/service/inference_service.h"

namespace serval {

// /v1/embeddings, /pooling and /classify: texts in `generate.prompts`.
struct TextsRequest {
  GenerateRequest generate;
  bool base64 = false;
};
Result<TextsRequest> parse_embedding_request(std::string_view body, const RequestOptions& options);
Result<TextsRequest> parse_classify_request(std::string_view body, const RequestOptions& options);

// /v1/score and /v1/rerank: a text and others that are held against it.
struct PairsRequest {
  GenerateRequest generate;          // but for the prompts
  std::vector<std::string> queries;  // one, or as many as documents
  std::vector<std::string> documents;
  std::optional<std::string> instruction;
  // Of a rerank: how many of the best are told, and whether with their texts.
  std::optional<int64_t> top_n;
  bool with_documents = true;
};
Result<PairsRequest> parse_score_request(std::string_view body, const RequestOptions& options);
Result<PairsRequest> parse_rerank_request(std::string_view body, const RequestOptions& options);

}  // namespace serval
