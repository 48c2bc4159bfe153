// What the model of a chat may call, as OpenAI's clients say it.
#pragma once

#include "server/service/chat.h"

namespace serval {

class Fields;

// tools, tool_choice, parallel_tool_calls, and how the answer is split. Tools that may not be called are not shown to the model. Throws
// FieldError.
void read_tools(const Fields& fields, Chat& chat);

}  // namespace serval
