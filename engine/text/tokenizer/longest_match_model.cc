#include "engine/text/tokenizer/longest_match_model.h"

#include <stdexcept>
#include <string>
#include <utility>

#include "kernels/base/check.h"

namespace serval {

LongestMatchModel::LongestMatchModel(Vocabulary vocabulary) : vocabulary_(std::move(vocabulary)) {
  if (!vocabulary_.has_byte_alphabet()) throw std::runtime_error("it has no token for each byte");
  if (vocabulary_.longest_name(/*in_characters=*/false) > kMaxTokenBytes)
    throw std::runtime_error("a token has more than " + std::to_string(kMaxTokenBytes) + " bytes");
  std::vector<std::pair<std::string_view, int32_t>> names;
  for (TokenId id = 0; id < vocabulary_.size(); ++id) names.emplace_back(vocabulary_.name(id), id);
  trie_ = PrefixTrie(std::move(names));
}

void LongestMatchModel::encode(std::string_view piece, Scratch&, std::vector<TokenId>& ids) const {
  for (size_t begin = 0; begin < piece.size();) {
    const auto [longest, length] = trie_.longest(piece.substr(begin));
    SERVAL_CHECK(longest >= 0, begin, piece.size());
    ids.push_back(longest);
    begin += length;
  }
}

}  // namespace serval
