// Beam search: the most likely texts instead of drawn ones. Each step asks the service for the best next tokens behind every beam, whose prompts are
// in the prefix cache but for their last token, so that the engine knows nothing of it. The bits are those of the texts alone.
#pragma once

#include <memory>

#include "server/service/inference_service.h"

namespace serval {

// A generation with the request's `beams`; n choices, the best first. `service` outlives it.
Result<std::unique_ptr<Generation>> search_beams(InferenceService& service, GenerateRequest request, std::shared_ptr<GenerationObserver> observer);

}  // namespace serval
