// Tokenizers that are published as ranked byte strings: tiktoken's files, whose families say in Python how
// text is cut and what the special tokens are, and Mistral's tekken.json, which says it itself.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "engine/text/tokenizer/tokenizer.h"
#include "engine/text/tokenizer/tokenizer_config.h"

namespace serval {

// The file names by which the families of rank files are known ("qwen.tiktoken").
std::vector<std::string_view> rank_file_names();
// Whether a file, a tokenizer.model, is one of ranks: lines of a token in base64 and a number.
bool is_rank_file(std::string_view text);

// `file_name`: one of rank_file_names(). Both throw std::runtime_error with a sentence, for whatever the
// texts contain, in memory bounded by a few times their size.
std::unique_ptr<Tokenizer> tokenizer_from_ranks(std::string_view text, std::string_view file_name,
                                                const TokenizerConfig& config);
std::unique_ptr<Tokenizer> tokenizer_from_tekken(std::string_view json_text, const TokenizerConfig& config);

}  // namespace serval
