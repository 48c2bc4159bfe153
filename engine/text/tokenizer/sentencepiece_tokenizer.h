// tokenizer.model: the sentencepiece library does the encoding; here are special tokens, BOS and EOS around
// it.
#pragma once

#include <memory>
#include <string_view>

#include "engine/text/tokenizer/tokenizer.h"
#include "engine/text/tokenizer/tokenizer_config.h"

namespace serval {

// `model_proto`: the bytes of a tokenizer.model. Names of control pieces, of the unknown piece and of the
// configuration's added tokens in a text are special tokens; user-defined pieces are found by the library.
// The text after a special token is encoded like a text of its own, with a leading space, unless the
// configuration says "legacy": false. BOS is added unless the configuration says otherwise. Throws
// std::runtime_error with a sentence.
std::unique_ptr<Tokenizer> tokenizer_from_sentencepiece(std::string_view model_proto,
                                                        const TokenizerConfig& config);

}  // namespace serval
