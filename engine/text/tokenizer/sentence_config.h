// What sentence-transformers says of the texts that a folder is made for: sentence_bert_config.json. Knows nothing of the
// modules behind the model.
#pragma once

#include <filesystem>
#include <optional>

namespace serval {

struct SentenceConfig {
  // Tokens of a text, with those around it; of a longer one it reads the beginning. Nothing: it does not say.
  std::optional<int> max_seq_length;
  bool do_lower_case = false;  // whatever the tokenizer does
};

// By the file, under any of the names that it has had. Where it has no length that is tokenizer_config.json's model_max_length, in a folder with a
// modules.json: so newer releases save it. Throws std::runtime_error with a sentence that names the file and the field.
SentenceConfig read_sentence_config(const std::filesystem::path& model_dir);

}  // namespace serval
