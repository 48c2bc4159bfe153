// BERT's first form of a tokenizer: vocab.txt, a token a line, whose place is its id. What becomes of a text is its class's to
// say, with the switches of tokenizer_config.json.
#pragma once

#include <memory>
#include <string_view>

#include "engine/text/tokenizer/tokenizer.h"
#include "engine/text/tokenizer/tokenizer_config.h"

namespace serval {

inline constexpr std::string_view kWordPieceFile = "vocab.txt";

// An empty line is no token. config_json: tokenizer_config.json, of which it reads the switches that only BERT's class has, and who plays which role;
// empty: there is none. Throws std::runtime_error with a sentence: of another class than BERT's and DistilBERT's, for text that is not UTF-8,
// a name twice, and where the tokens are missing that words become or that stand around a text.
std::unique_ptr<Tokenizer> tokenizer_from_word_pieces(std::string_view text, std::string_view config_json, const TokenizerConfig& config);

}  // namespace serval
