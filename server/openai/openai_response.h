// The bodies of what is asked beside generations: models, rendered prompts, tokens. No I/O. What can be long is
// written in pieces; arguments by reference must outlive those.
#pragma once

#include <string>
#include <vector>

#include "server/service/inference_service.h"
#include "server/http/pieces.h"

namespace serval {

std::string models_body(const std::vector<ModelInfo>& models);
std::string model_body(const ModelInfo& model);
Pieces render_body(std::string& out, const std::vector<PromptInfo>& prompts);
// `names`: who names the tokens; null: they are not named.
Pieces tokenize_body(std::string& out, const std::vector<TokenId>& ids, int max_model_len,
                     const InferenceService* names);
Pieces detokenize_body(std::string& out, const std::string& text);

}  // namespace serval
