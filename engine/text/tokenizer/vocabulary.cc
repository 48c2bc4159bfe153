#include "engine/text/tokenizer/vocabulary.h"

#include <algorithm>
#include <stdexcept>

#include "kernels/base/shown.h"

namespace serval {

Vocabulary::Vocabulary(std::vector<std::pair<std::string, TokenId>> entries) {
  const int64_t max_id = 2 * static_cast<int64_t>(entries.size()) + 65'536;
  TokenId largest = -1;
  for (const auto& [name, id] : entries) {
    if (id < 0 || id > max_id) {
      throw std::runtime_error("token " + in_quotes(name) + " has the id " + std::to_string(id) +
                               ", which is out of place among " + std::to_string(entries.size()) + " tokens");
    }
    largest = std::max(largest, id);
  }
  names_.resize(largest + 1);
  ids_.reserve(entries.size());
  std::vector<bool> taken(names_.size());
  for (auto& [name, id] : entries) {
    if (taken[id]) {
      throw std::runtime_error("tokens " + in_quotes(names_[id]) + " and " + in_quotes(name) +
                               " share the id " + std::to_string(id));
    }
    taken[id] = true;
    names_[id] = std::move(name);
    if (!ids_.emplace(names_[id], id).second) {
      throw std::runtime_error("token " + in_quotes(names_[id]) + " is there twice");
    }
  }
}

}  // namespace serval
