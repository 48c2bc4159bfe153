// From the JSON of Ollama's requests to a GenerateRequest. Translation only, as server/openai's. Pure.
#pragma once

#include <string>
#include <string_view>

#include "kernels/base/status.h"
#include "server/service/inference_service.h"

namespace serval {

struct OllamaRequest {
  GenerateRequest generate;
  bool stream = true;
  // A prompt without a text: the client wants the model to be there, and nothing said.
  bool only_loads = false;
};

// Fields that are not known are refused where `strict`.
Result<OllamaRequest> parse_ollama_chat(std::string_view body, bool strict);
Result<OllamaRequest> parse_ollama_generate(std::string_view body, bool strict);
// /api/embed ("input"), and the older /api/embeddings ("prompt").
Result<OllamaRequest> parse_ollama_embed(std::string_view body, bool strict);
// The name of the model in a body, without its tag.
Result<std::string> parse_ollama_name(std::string_view body);
std::string without_tag(std::string name);

}  // namespace serval
