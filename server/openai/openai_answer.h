// The answers of OpenAI's two dialects, chats and completions, whole and as streams of events.
#pragma once

#include <memory>

#include "server/openai/answer_context.h"
#include "server/answers/answer_writer.h"

namespace serval {

// `stream`: events as they come; otherwise one answer at the end.
std::unique_ptr<AnswerWriter> completion_writer(AnswerContext context, bool stream);
std::unique_ptr<AnswerWriter> chat_writer(AnswerContext context, bool stream);

}  // namespace serval
