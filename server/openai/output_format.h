// The fields by which clients ask for output of a form: OpenAI's response_format, vLLM's structured_outputs and its
// older guided_* names.
#pragma once

#include <optional>

#include "engine/json/fields.h"
#include "server/service/inference_service.h"

namespace serval {

// Throws FieldError: malformed, more than one asked for, or a form that is not built.
std::optional<OutputFormat> read_output_format(const Fields& fields);

}  // namespace serval
