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
  std::fill(std::begin(roots_), std::end(roots_), -1);
  for (size_t index = 0; index < tokens_.size(); ++index) {
    const std::string& content = tokens_[index].content;
    if (content.empty() || content.size() > kMaxContentBytes) {
      throw std::runtime_error("the added token of id " + std::to_string(tokens_[index].id) + " has " +
                               std::to_string(content.size()) + " bytes; 1 to " +
                               std::to_string(kMaxContentBytes) + " are supported");
    }
    int32_t node = -1;
    for (const char c : content) {
      const auto byte = static_cast<uint8_t>(c);
      int32_t next = node < 0 ? roots_[byte] : find_child(node, byte);
      if (next < 0) {
        next = static_cast<int32_t>(nodes_.size());
        nodes_.push_back({.byte = byte});
        if (node < 0) {
          roots_[byte] = next;
        } else {
          nodes_[next].sibling = nodes_[node].child;
          nodes_[node].child = next;
        }
      }
      node = next;
    }
    if (nodes_[node].token < 0) nodes_[node].token = static_cast<int32_t>(index);
  }
}

bool AddedTokenMatcher::strips() const {
  return std::any_of(tokens_.begin(), tokens_.end(),
                     [](const AddedToken& t) { return t.lstrip || t.rstrip; });
}

int32_t AddedTokenMatcher::find_child(int32_t node, uint8_t byte) const {
  int32_t child = nodes_[node].child;
  while (child >= 0 && nodes_[child].byte != byte) child = nodes_[child].sibling;
  return child;
}

const AddedToken* AddedTokenMatcher::longest_at(std::string_view text, size_t pos) const {
  const AddedToken* longest = nullptr;
  int32_t node = roots_[static_cast<uint8_t>(text[pos])];
  while (node >= 0) {
    if (nodes_[node].token >= 0) longest = &tokens_[nodes_[node].token];
    node = ++pos < text.size() ? find_child(node, static_cast<uint8_t>(text[pos])) : -1;
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
