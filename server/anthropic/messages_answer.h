// Answers in Anthropic's Messages dialect: a message of blocks, whole or as events that open, fill and close one block after the other.
#pragma once

#include <memory>
#include <string>

#include "kernels/base/status.h"
#include "server/answers/answer_writer.h"
#include "server/http/http_types.h"

namespace serval {

std::unique_ptr<AnswerWriter> messages_writer(std::string model, bool stream);

// {"type": "error", "error": {"type", "message"}} with the status that `error` has elsewhere.
HttpResponse messages_error(const Error& error);

}  // namespace serval
