#include "engine/text/tokenizer/added_tokens.h"

#include <unicode/uchar.h>

#include <algorithm>
#include <stdexcept>

#include "kernels/base/utf8.h"

namespace serval {
namespace {

// Word characters of UTS 18, annex C.
bool is_word(char32_t codepoint) {
  const auto c = static_cast<UChar32>(codepoint);
  constexpr uint32_t kWordCategories = U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK;
  return u_hasBinaryProperty(c, UCHAR_ALPHABETIC) || (U_GET_GC_MASK(c) & kWordCategories) != 0 ||
         u_hasBinaryProperty(c, UCHAR_JOIN_CONTROL);
}

size_t character_before(std::string_view text, size_t pos) {
  do --pos;
  while ((static_cast<unsigned char>(text[pos]) & 0xC0) == 0x80);
  return pos;
}

bool touches_word(std::string_view text, size_t begin, size_t end) {
  if (begin > 0) {
    size_t before = character_before(text, begin);
    if (is_word(read_utf8(text, before))) return true;
  }
  return end < text.size() && is_word(read_utf8(text, end));
}

size_t skip_space_left(std::string_view text, size_t pos, size_t lowest) {
  while (pos > lowest) {
    const size_t before = character_before(text, pos);
    size_t at = before;
    if (!u_isUWhiteSpace(static_cast<UChar32>(read_utf8(text, at)))) break;
    pos = before;
  }
  return pos;
}

size_t skip_space_right(std::string_view text, size_t pos) {
  while (pos < text.size()) {
    size_t next = pos;
    if (!u_isUWhiteSpace(static_cast<UChar32>(read_utf8(text, next)))) break;
    pos = next;
  }
  return pos;
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  std::vector<std::pair<std::string_view, int32_t>> names;
  for (const AddedToken& token : tokens_) {
    if (token.content.empty() || token.content.size() > kMaxContentBytes) {
      throw std::runtime_error("the added token of id " + std::to_string(token.id) + " has " +
                               std::to_string(token.content.size()) + " bytes; 1 to " +
                               std::to_string(kMaxContentBytes) + " are supported");
    }
    names.emplace_back(token.content, static_cast<int32_t>(names.size()));
  }
  trie_ = PrefixTrie(std::move(names));
}

std::vector<std::string> AddedTokenMatcher::special_names() const {
  std::vector<std::string> names;
  for (const AddedToken& token : tokens_) {
    if (token.special) names.push_back(token.content);
  }
  return names;
}

bool AddedTokenMatcher::strips() const {
  return std::any_of(tokens_.begin(), tokens_.end(),
                     [](const AddedToken& t) { return t.lstrip || t.rstrip; });
}

const AddedToken* AddedTokenMatcher::longest_at(std::string_view text, size_t pos) const {
  const AddedToken* longest = nullptr;
  for (int32_t node = PrefixTrie::kRoot; pos < text.size(); ++pos) {
    node = trie_.child(node, text[pos]);
    if (node < 0) break;
    if (trie_.value(node) >= 0) longest = &tokens_[trie_.value(node)];
  }
  return longest;
}

void AddedTokenMatcher::split(std::string_view text, bool match_special,
                              std::vector<TextSegment>& segments) const {
  segments.clear();
  size_t covered = 0;  // everything before is in a segment
  size_t pos = 0;
  while (pos < text.size()) {
    const AddedToken* token = longest_at(text, pos);
    if (token == nullptr) {
      ++pos;
      continue;
    }
    size_t begin = pos;
    size_t end = pos + token->content.size();
    pos = end;
    if (token->special && !match_special) continue;
    if (token->single_word && touches_word(text, begin, end)) continue;
    if (token->lstrip) begin = skip_space_left(text, begin, covered);
    if (token->rstrip) end = skip_space_right(text, end);
    if (covered < begin) segments.push_back({text.substr(covered, begin - covered), -1});
    segments.push_back({text.substr(begin, end - begin), token->id});
    pos = covered = end;
  }
  if (covered < text.size()) segments.push_back({text.substr(covered), -1});
}

}  // namespace serval
