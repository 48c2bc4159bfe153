// tokenizer_config.json: which tokens play a role (BOS, EOS, special ones) and a few switches that older
// folders keep only there. Chat templates in the same file are none of its business.
#pragma once

#include <boost/json/fwd.hpp>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/tokenizer/added_tokens.h"

namespace serval {

class Fields;

struct TokenizerConfig {
  int num_rows = std::numeric_limits<int>::max();  // ids the model has rows for: from 0 up to before this one
  std::string tokenizer_class;                     // "" when not said
  std::string bos_token, eos_token;                // names, "" for none
  std::vector<std::string> special_names;          // of all tokens with a role, those two included
  std::vector<AddedToken> added_tokens;            // "added_tokens_decoder"
  std::optional<bool> add_bos_token, add_eos_token;
  bool add_prefix_space = false;
  bool lowers_text = false;  // before all else, whatever the tokenizer does (SentenceConfig::do_lower_case)
  bool legacy = true;  // sentencepiece: text after a special token gets a leading space of its own

  // Throws std::runtime_error with a sentence.
  static TokenizerConfig parse(std::string_view json_text);
  // Of older folders, whose configuration lists no added tokens (otherwise these say nothing):
  // special_tokens_map.json, and then added_tokens.json. Throw the same.
  void read_special_tokens_map(std::string_view json_text);
  void read_added_tokens(std::string_view json_text);
};

// The name of a token with a role: a string, or an object with its content; "" for null and absent.
std::string role_name(const Fields& config, std::string_view key);

// One added token as tokenizer.json and tokenizer_config.json both write it, without its id.
AddedToken read_added_token(const Fields& fields);

// The added tokens that `listed` (tokenizer.json, a sentencepiece model) and the configuration name together,
// special names found in the vocabulary included. `find` gives a vocabulary name's id or -1; that id
// overrules a declared one, as in the reference implementation. Of equal contents the first counts. Names
// without any id are left out, and so are ids that the model has no row for (a pad token that was added
// without enlarging the model): their names are text like any other, and a line in the log says so.
std::vector<AddedToken> join_added_tokens(std::vector<AddedToken> listed, const TokenizerConfig& config,
                                          const std::function<TokenId(std::string_view)>& find);

// What surrounds a text: `prefix` and `suffix` are what the tokenizer's own post-processor inserts; an
// explicit add_bos_token or add_eos_token of the configuration has the last word. Throws when one asks for a
// token that is not there.
void apply_bos_eos(const TokenizerConfig& config, TokenId bos_id, TokenId eos_id,
                   std::vector<TokenId>& prefix, std::vector<TokenId>& suffix);

}  // namespace serval
