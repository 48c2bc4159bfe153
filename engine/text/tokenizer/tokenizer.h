// Text <-> token ids. Implementations: the parts of tokenizer.json, which rank files are read into as well,
// and sentencepiece from tokenizer.model. Immutable after loading; every method may be called from any
// thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace serval {

using TokenId = int32_t;

// Two texts as one prompt. second: where tokens of the second kind begin, of a model that tells them apart; 0: all are of one.
struct TextPair {
  std::vector<TokenId> ids;
  size_t second = 0;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // add_special: surround with BOS/EOS as the tokenizer's own post-processor says. parse_special: the names
  // of special tokens in the text ("<|im_end|>") become their ids; otherwise they are plain text. `breaker`:
  // a character that stands in the text only to break names, so that these alone are plain text; it is left
  // out once added tokens have been found. Linear in the text's size. Text must be valid UTF-8 (the JSON
  // layer has made sure); invalid bytes are encoded as U+FFFD.
  virtual std::vector<TokenId> encode(std::string_view text, bool add_special, bool parse_special = true,
                                      std::string_view breaker = {}) const = 0;
  // Whether the post-processor says how two texts are joined; then as it says, with special tokens by their names.
  virtual bool joins_texts() const { return false; }
  // Of more tokens than `most` the longer text loses its last ones, then both (the reference's "longest first").
  virtual TextPair encode_pair(std::string_view /*first*/, std::string_view /*second*/, size_t /*most*/) const { return {}; }
  // How many tokens add_special puts before and behind a text.
  virtual std::pair<size_t, size_t> num_around() const { return {0, 0}; }
  // Names of the tokens that parse_special is about, in no order.
  virtual std::vector<std::string> special_names() const = 0;

  // At most encode(text, …).size(), from the bytes of the text alone; 0 when this tokenizer may drop or join
  // without bound. `text` as for encode. Far faster than encode.
  virtual size_t least_tokens(std::string_view text) const = 0;

  // The exact bytes one id stands for when it follows other text (a sentencepiece "▁" is a space); special
  // tokens give their name. Ids outside the vocabulary, or holes in it, give "".
  virtual std::string_view token_bytes(TokenId id) const = 0;
  virtual bool is_special(TokenId id) const = 0;
  // True when the decoder drops one leading space at the start of a text (sentencepiece's dummy prefix).
  virtual bool strips_leading_space() const = 0;
  // True when it drops one space at the end of a text: spaces stand behind words there.
  virtual bool strips_trailing_space() const { return false; }

  // 1 + the largest id.
  virtual int vocab_size() const = 0;
  // Of a token's name (vocabulary or added); -1 when unknown.
  virtual TokenId token_to_id(std::string_view token) const = 0;
  virtual TokenId bos_id() const = 0;  // -1 when there is none
  virtual TokenId eos_id() const = 0;

  // All ids at once, by a Detokenizer: invalid UTF-8 becomes U+FFFD.
  std::string decode(std::span<const TokenId> ids, bool skip_special) const;
};

// `text` without any `part`, which is not empty.
std::string without(std::string_view text, std::string_view part);

}  // namespace serval
