#include "engine/text/tokenizer/detokenizer.h"

#include <algorithm>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/utf8.h"

namespace serval {

Detokenizer::StopMatcher::StopMatcher(std::string stop) : text(std::move(stop)), failure(text.size(), 0) {
  SERVAL_CHECK(!text.empty());
  for (size_t i = 1; i < text.size(); ++i) {
    uint32_t length = failure[i - 1];
    while (length > 0 && text[length] != text[i]) length = failure[length - 1];
    failure[i] = length + (text[length] == text[i] ? 1 : 0);
  }
}

bool Detokenizer::StopMatcher::step(char byte) {
  while (matched > 0 && text[matched] != byte) matched = failure[matched - 1];
  if (text[matched] == byte) ++matched;
  if (matched < text.size()) return false;
  matched = failure[matched - 1];
  return true;
}

Detokenizer::Detokenizer(const Tokenizer& tokenizer, DetokenizerOptions options)
    : tokenizer_(tokenizer), options_(std::move(options)) {
  stops_.reserve(options_.stop.size());
  for (const std::string& stop : options_.stop) stops_.emplace_back(stop);
  at_start_ = !options_.continues_text && tokenizer.strips_leading_space();
}

bool Detokenizer::push(TokenId token, std::string& out) {
  if (stopped_) return false;
  ++num_tokens_;
  const std::vector<TokenId>& shown = options_.shown_special;
  if (options_.skip_special && tokenizer_.is_special(token) && std::ranges::find(shown, token) == shown.end()) return true;
  std::string_view bytes = tokenizer_.token_bytes(token);
  if (at_start_ && !bytes.empty()) {
    at_start_ = false;
    if (bytes.front() == ' ') bytes.remove_prefix(1);
  }
  if (tokenizer_.strips_trailing_space() && !bytes.empty()) {
    if (std::exchange(holds_space_, bytes.ends_with(' '))) pending_bytes_ += ' ';
    if (holds_space_) bytes.remove_suffix(1);
  }
  pending_bytes_ += bytes;
  take_characters(out);
  return !stopped_;
}

void Detokenizer::finish(std::string& out) {
  if (stopped_) return;
  if (!std::exchange(pending_bytes_, {}).empty()) take_text(kReplacementCharacter);
  for (StopMatcher& stop : stops_) stop.matched = 0;  // nothing follows that could complete it
  release(out);
}

// Moves whole characters from pending_bytes_ on; a broken sequence counts as U+FFFD as soon as it is known to
// be broken.
void Detokenizer::take_characters(std::string& out) {
  std::string_view rest = pending_bytes_;
  while (!rest.empty() && !stopped_) {
    const Utf8Step step = next_utf8(rest);
    if (step.kind == Utf8Kind::kIncomplete) break;
    take_text(step.kind == Utf8Kind::kCharacter ? rest.substr(0, step.length) : kReplacementCharacter);
    rest.remove_prefix(step.length);
  }
  pending_bytes_.erase(0, pending_bytes_.size() - rest.size());
  release(out);
}

void Detokenizer::take_text(std::string_view text) {
  for (const char byte : text) {
    held_ += byte;
    const StopMatcher* longest = nullptr;
    for (StopMatcher& stop : stops_) {
      if (stop.step(byte) && (longest == nullptr || stop.text.size() > longest->text.size())) longest = &stop;
    }
    if (longest == nullptr || num_tokens_ < options_.min_tokens) continue;
    matched_stop_ = longest->text;
    if (!options_.include_stop) held_.resize(held_.size() - matched_stop_.size());
    stopped_ = true;
    return;
  }
}

// Appends what cannot become part of a stop string any more: all but the longest begun one.
void Detokenizer::release(std::string& out) {
  size_t kept = 0;
  if (!stopped_) {
    for (const StopMatcher& stop : stops_) kept = std::max<size_t>(kept, stop.matched);
  }
  const size_t released = held_.size() - kept;
  out.append(held_, 0, released);
  held_.erase(0, released);
}

std::string Tokenizer::decode(std::span<const TokenId> ids, bool skip_special) const {
  Detokenizer detokenizer(*this, {.skip_special = skip_special});
  std::string text;
  for (const TokenId id : ids) detokenizer.push(id, text);
  detokenizer.finish(text);
  return text;
}

std::string without(std::string_view text, std::string_view part) {
  std::string out;
  size_t copied = 0;
  for (size_t at; (at = text.find(part, copied)) != std::string_view::npos; copied = at + part.size())
    out += text.substr(copied, at - copied);
  return out += text.substr(copied);
}

}  // namespace serval
