// A model folder's tokenizer, whichever of the published formats it has.
#pragma once

#include <filesystem>
#include <limits>
#include <memory>

#include "engine/text/tokenizer/tokenizer.h"

namespace serval {

// Reads the first of tokenizer.json, tokenizer.model, tekken.json, a tiktoken file (rank_files.h), RWKV's World vocabulary, BERT's
// vocab.txt and vocab.json with merges.txt, with tokenizer_config.json beside it, or the older special_tokens_map.json and
// added_tokens.json. num_rows: of the model's embedding; every id that encode() gives is below it. Added
// tokens beyond it are read as text, with a line in the log; an ordinary token beyond it is refused. Throws
// std::runtime_error with a sentence naming the file and what is wrong or not supported.
std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& model_dir,
                                          int num_rows = std::numeric_limits<int>::max());

}  // namespace serval
