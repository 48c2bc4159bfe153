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
    TokenId longest = -1;
    size_t end = begin;
    int32_t node = PrefixTrie::kRoot;
    for (size_t next = begin; next < piece.size();) {
      node = trie_.child(node, piece[next++]);
      if (node < 0) break;
      if (trie_.value(node) < 0) continue;
      longest = trie_.value(node);
      end = next;
    }
    SERVAL_CHECK(longest >= 0, begin, piece.size());
    ids.push_back(longest);
    begin = end;
  }
}

}  // namespace serval
