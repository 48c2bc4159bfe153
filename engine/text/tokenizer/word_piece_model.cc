#include "engine/text/tokenizer/word_piece_model.h"

#include <algorithm>
#include <utility>

namespace serval {

WordPieceModel::WordPieceModel(Vocabulary vocabulary, TokenId unk_id, std::string_view continuing_prefix, int max_characters)
    : vocabulary_(std::move(vocabulary)), unk_id_(unk_id), max_characters_(static_cast<size_t>(max_characters)) {
  std::vector<std::pair<std::string_view, int32_t>> first, continuing;
  for (TokenId id = 0; id < vocabulary_.size(); ++id) {
    const std::string_view name = vocabulary_.name(id);
    first.emplace_back(name, id);
    if (name.starts_with(continuing_prefix)) continuing.emplace_back(name.substr(continuing_prefix.size()), id);
  }
  first_ = PrefixTrie(std::move(first));
  continuing_ = PrefixTrie(std::move(continuing));
}

void WordPieceModel::encode(std::string_view piece, Scratch&, std::vector<TokenId>& ids) const {
  const size_t num_before = ids.size();
  const auto be_unknown = [&] {
    ids.resize(num_before);
    ids.push_back(unk_id_);
  };
  const auto begins_character = [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; };
  if (static_cast<size_t>(std::ranges::count_if(piece, begins_character)) > max_characters_) return be_unknown();
  for (size_t begin = 0; begin < piece.size();) {
    const auto [longest, length] = (begin == 0 ? first_ : continuing_).longest(piece.substr(begin));
    if (longest < 0) return be_unknown();
    ids.push_back(longest);
    begin += length;
  }
}

}  // namespace serval
