// Where a model's folder is.
#pragma once

#include <filesystem>
#include <string>

namespace serval {

// MODEL: a folder, or the name ("org/name") of one in the local Hugging Face cache ($HF_HUB_CACHE,
// $HF_HOME/hub, ~/.cache/huggingface/hub). Throws std::runtime_error with a sentence when there is none.
std::filesystem::path resolve_model(const std::string& model);

}  // namespace serval
