// A tokenizer of the parts that tokenizer.json has: added tokens, normaliser, pre-tokeniser, model, in that
// order, each in its own file. Knows nothing of the files it was read from (tokenizer_json.h, rank_files.h).
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "engine/text/tokenizer/added_tokens.h"
#include "engine/text/tokenizer/bpe_model.h"
#include "engine/text/tokenizer/longest_match_model.h"
#include "engine/text/tokenizer/normalizer.h"
#include "engine/text/tokenizer/post_processor.h"
#include "engine/text/tokenizer/pretokenizer.h"
#include "engine/text/tokenizer/text_cut.h"
#include "engine/text/tokenizer/token_bound.h"
#include "engine/text/tokenizer/token_decoder.h"
#include "engine/text/tokenizer/token_table.h"
#include "engine/text/tokenizer/tokenizer.h"
#include "engine/text/tokenizer/unigram_model.h"
#include "engine/text/tokenizer/word_piece_model.h"

namespace serval {

class PipelineTokenizer final : public Tokenizer {
 public:
  using Model = std::variant<BpeModel, UnigramModel, LongestMatchModel, WordPieceModel>;
  struct Parts {
    Model model;
    Normalizer normalizer;
    PreTokenizer pretokenizer;
    TokenDecoder decoder;
    TextCut cut = {};  // of what lies between added tokens
    std::vector<AddedToken> added;        // every one with an id
    std::vector<TokenId> prefix, suffix;  // what add_special puts around the text
    std::optional<PairTemplate> pair = {};
    TokenId bos_id = -1, eos_id = -1;
  };

  // Throws std::runtime_error when two tokens claim one id, or ids are far too sparse for their number.
  explicit PipelineTokenizer(Parts parts);

  std::vector<TokenId> encode(std::string_view text, bool add_special, bool parse_special,
                              std::string_view breaker) const override;
  bool joins_texts() const override { return parts_.pair.has_value(); }
  TextPair encode_pair(std::string_view first, std::string_view second, size_t most) const override;
  std::pair<size_t, size_t> num_around() const override { return {parts_.prefix.size(), parts_.suffix.size()}; }
  size_t least_tokens(std::string_view text) const override;
  std::vector<std::string> special_names() const override;
  std::string_view token_bytes(TokenId id) const override { return table_.bytes(id); }
  bool is_special(TokenId id) const override { return table_.is_special(id); }
  bool strips_leading_space() const override { return parts_.decoder.strips_leading_space(); }
  bool strips_trailing_space() const override { return parts_.decoder.strips_trailing_space(); }
  int vocab_size() const override { return table_.size(); }
  TokenId token_to_id(std::string_view token) const override;
  TokenId bos_id() const override { return parts_.bos_id; }
  TokenId eos_id() const override { return parts_.eos_id; }

 private:
  const Vocabulary& vocabulary() const;
  void fill_table();
  void find_bound();

  Parts parts_;
  bool writes_bytes_ = false;             // pieces are in the byte alphabet
  AddedTokenMatcher raw_matcher_;         // added tokens looked for in the text as it came
  AddedTokenMatcher normalized_matcher_;  // and in normalised text
  std::map<std::string, TokenId, std::less<>> added_ids_;
  TokenTable table_;
  TokenBound bound_;
};

struct TokenizerConfig;

// What the configuration says joins the parts: its added tokens to those `listed` by the tokenizer's own
// file, who is BOS and EOS, and what surrounds a text. Throws std::runtime_error with a sentence.
std::unique_ptr<Tokenizer> assemble_tokenizer(PipelineTokenizer::Parts parts, std::vector<AddedToken> listed,
                                              const TokenizerConfig& config);

}  // namespace serval
