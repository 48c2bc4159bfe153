// RWKV's World vocabulary, rwkv_vocab_v20230424.txt: lines of an id, the token as Python writes a string or bytes, and how
// many bytes it has. Text is cut by longest match; id 0, which no line has, ends a text.
#pragma once

#include <memory>
#include <string_view>

#include "engine/text/tokenizer/tokenizer.h"
#include "engine/text/tokenizer/tokenizer_config.h"

namespace serval {

inline constexpr std::string_view kWorldVocabularyFile = "rwkv_vocab_v20230424.txt";

// Throws std::runtime_error with a sentence, for whatever the text contains, in memory bounded by a few times its size.
std::unique_ptr<Tokenizer> tokenizer_from_world(std::string_view text, const TokenizerConfig& config);

}  // namespace serval
