// config.json -> ModelSpec.
#pragma once

#include <filesystem>

#include "engine/model/model_spec.h"

namespace serval {

// By the row of architectures/ that the file names. Throws std::runtime_error with a sentence that names the
// file and the field: one that is missing or out of bounds, or one that nobody asked for and that is not
// known to change no output.
ModelSpec read_model_spec(const std::filesystem::path& model_dir);

}  // namespace serval
