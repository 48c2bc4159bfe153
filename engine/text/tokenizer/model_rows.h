// Which names of a vocabulary are tokens of the model. One that is an added token too may lie behind the
// model's rows: it is left out, and what join_added_tokens makes of it is text, with a line in the log. An
// ordinary one may not lie there, because any text could become it.
#pragma once

#include <string_view>
#include <unordered_set>
#include <vector>

#include "engine/text/tokenizer/tokenizer_config.h"

namespace serval {

class ModelRows {
 public:
  // Views both arguments, which outlive it. `listed`: added tokens of the same file.
  ModelRows(const TokenizerConfig& config, const std::vector<AddedToken>& listed);

  // False for an added token behind the rows. Throws std::runtime_error with a sentence for an ordinary one.
  bool hold(std::string_view name, TokenId id) const;

 private:
  int num_rows_;
  std::unordered_set<std::string_view> added_;
};

}  // namespace serval
