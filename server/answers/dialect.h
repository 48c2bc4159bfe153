// What dialects other than the first read and write alike: tools as templates know them, answers in parts.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/service/chat.h"
#include "server/service/inference_service.h"

namespace serval {

class Fields;

// "list[3]", for errors.
std::string place_in(std::string_view list, size_t i);
// A function whose fields stand beside its type, `tool`, as templates know it: within "function". Throws FieldError.
JsonText function_tool(const Fields& tool, const std::optional<Fields>& parameters);
// The parts of an answer; of one that is not told in parts its text is one. Takes them out of `delta`.
std::vector<MessagePart> take_parts(Delta& delta);

}  // namespace serval
