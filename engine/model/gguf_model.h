// A GGUF file as the model folder that it was made from would have told it: config.json, the names of the tensors, the
// tokenizer. A family is a row of the table in the .cc.
#pragma once

#include <boost/json/object.hpp>
#include <filesystem>
#include <string>
#include <vector>

#include "engine/model/gguf.h"
#include "engine/model/model_spec.h"
#include "engine/model/safetensors.h"

namespace serval {

// What config.json would say. Throws std::runtime_error with a sentence that names the file, and the architecture, the
// key or the tensor that is not supported.
boost::json::object config_of_gguf(const GgufFile& gguf);

// Under the names of the folder: its tensors, and those that are no plain numbers.
struct GgufTensors {
  std::vector<TensorInfo> tensors;
  std::vector<StoredMatrix> matrices;
};
GgufTensors tensors_of_gguf(const GgufFile& gguf);

// What such files have otherwise than folders: rows of queries and keys, norms that are stored whole.
void adapt_to_gguf(const GgufFile& gguf, ModelSpec& spec);

// The tokenizer as one of these files, the other is empty, and what tokenizer_config.json would say.
struct GgufTokenizer {
  std::string tokenizer_json, tokenizer_model, config_json;
  std::string chat_template;  // empty: there is none
};
GgufTokenizer tokenizer_of_gguf(const GgufFile& gguf);

}  // namespace serval
