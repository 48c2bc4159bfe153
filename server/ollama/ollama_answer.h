// Answers in Ollama's dialect: one object, or a line of JSON for each piece and a last one with the counts.
#pragma once

#include <memory>
#include <string>

#include "kernels/base/status.h"
#include "server/answers/answer_writer.h"
#include "server/http/http_types.h"

namespace serval {

enum class OllamaKind { kChat, kGenerate, kEmbed, kOldEmbedding };

struct OllamaContext {
  OllamaKind kind = OllamaKind::kChat;
  std::string model;  // as the client named it
  bool stream = true;
};
std::unique_ptr<AnswerWriter> ollama_writer(OllamaContext context);

// {"error": TEXT} with the status that `error` has elsewhere.
HttpResponse ollama_error(const Error& error);
// What is answered where nothing was to be said.
HttpResponse ollama_loaded(const OllamaContext& context);
// UTC, as the dialect writes times.
std::string ollama_time(int64_t unix_seconds);

}  // namespace serval
