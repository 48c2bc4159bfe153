#include "engine/text/tokenizer/model_rows.h"

#include <stdexcept>
#include <string>

#include "kernels/base/shown.h"

namespace serval {

ModelRows::ModelRows(const TokenizerConfig& config, const std::vector<AddedToken>& listed)
    : num_rows_(config.num_rows) {
  for (const auto* tokens : {&listed, &config.added_tokens}) {
    for (const AddedToken& token : *tokens) added_.insert(token.content);
  }
  added_.insert(config.special_names.begin(), config.special_names.end());
}

bool ModelRows::hold(std::string_view name, TokenId id) const {
  if (id < num_rows_) return true;
  if (added_.contains(name)) return false;
  throw std::runtime_error("token " + in_quotes(name) + " has the id " + std::to_string(id) +
                           ", but the model has rows for " + std::to_string(num_rows_) +
                           " tokens only: the tokenizer is another model's");
}

}  // namespace serval
