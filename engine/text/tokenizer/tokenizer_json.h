// tokenizer.json (the format of the Hugging Face `tokenizers` library) to a tokenizer; and the older pair
// vocab.json, merges.txt of GPT-2 and Qwen 2. A component that would change ids and is not supported is
// refused by name.
#pragma once

#include <memory>
#include <string_view>

#include "engine/text/tokenizer/tokenizer.h"
#include "engine/text/tokenizer/tokenizer_config.h"

namespace serval {

// Both throw std::runtime_error with a sentence, for whatever the texts contain, in memory bounded by a few
// times their size.
std::unique_ptr<Tokenizer> tokenizer_from_json(std::string_view tokenizer_json,
                                               const TokenizerConfig& config);
std::unique_ptr<Tokenizer> tokenizer_from_vocab_and_merges(std::string_view vocab_json,
                                                           std::string_view merges_text,
                                                           const TokenizerConfig& config);

}  // namespace serval
