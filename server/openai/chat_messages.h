// A chat as OpenAI's clients send it, from JSON to the service's values: parts of text as one text, a refusal as
// the content it stood for, the older function calls as tool calls. Roles and counts are the service's to check.
#pragma once

#include "server/service/chat.h"

namespace serval {

class Fields;

// `fields`: of the request: messages, documents, chat_template, chat_template_kwargs, add_generation_prompt,
// continue_final_message; not its tools. Throws FieldError.
Chat read_chat(const Fields& fields);

// A list of objects ("tools"); none when it is absent. Throws FieldError.
std::vector<JsonText> read_objects(const Fields& fields, std::string_view list);

}  // namespace serval
