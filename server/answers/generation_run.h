// One generation on its way to one HTTP client: starts it, hands what happens to it to the dialect's writer, and
// ends it when the client leaves. Runs on the connection's strand, except where said.
#pragma once

#include <memory>

#include "server/answers/answer_writer.h"
#include "server/http/http_exchange.h"
#include "server/service/inference_service.h"

namespace serval {

// Text pool. Answers `exchange` with what `writer` makes of `request`'s generation; an error of the service
// before there is one becomes its status.
void run_generation(InferenceService& service, const std::shared_ptr<HttpExchange>& exchange,
                    GenerateRequest request, std::unique_ptr<AnswerWriter> writer);

}  // namespace serval
