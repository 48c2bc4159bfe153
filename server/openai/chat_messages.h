// A chat as OpenAI's clients send it, from JSON to the service's values: parts of text as one text, a refusal as
// the content it stood for, the older function calls as tool calls. Roles and counts are the service's to check.
#pragma once

#include "server/service/chat.h"

namespace serval {

class Fields;

// `fields`: of the request: messages, chat_template_kwargs, add_generation_prompt. Throws FieldError.
Chat read_chat(const Fields& fields);

}  // namespace serval
