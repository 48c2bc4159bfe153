// Where a model's folder is.
#pragma once

#include <boost/json/object.hpp>
#include <filesystem>
#include <string>

namespace serval {

// MODEL: a folder, a GGUF file (or a folder with one and no config.json), or the name ("org/name") of one in the local Hugging Face cache ($HF_HUB_CACHE,
// $HF_HOME/hub, ~/.cache/huggingface/hub). Throws std::runtime_error with a sentence when there is none.
std::filesystem::path resolve_model(const std::string& model);

// What config.json says, and the file that says it: a GGUF file says it in its own words (gguf_model.h). Throws
// std::runtime_error with a sentence.
struct ModelConfig {
  boost::json::object object;
  std::filesystem::path file;
};
ModelConfig read_config(const std::filesystem::path& model);

}  // namespace serval
