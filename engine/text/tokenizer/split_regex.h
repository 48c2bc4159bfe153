// Regular expressions of tokenizer files. The files are written for Oniguruma (Ruby syntax); PCRE2 runs them
// here, so a pattern is translated first and one whose meaning would change is refused. Knows nothing of
// tokens or JSON.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace serval {

struct Span {
  uint32_t begin;
  uint32_t end;  // past the last byte
  bool operator==(const Span&) const = default;
};

// The PCRE2 (UTF, UCP, MULTILINE) pattern that means what `pattern` means to Oniguruma. What differs: \s
// (PCRE2 adds U+180E), \w and \b (marks, connector punctuation), \h, \v, \u, {,n}. Throws std::runtime_error
// naming a construct with no translation: \W or \H inside a class, back references, inline options
// other than i, {n,m}+ (a greedy loop there, possessive here) and the like. Under (?i) a
// character matches its single-character case variants only (there "ss" would also match "ß").
std::string translate_oniguruma(std::string_view pattern);

// `text` as a pattern that matches it literally.
std::string escape_regex(std::string_view text);

// What splitting one text may cost, over all its pieces and patterns: in bytes that attempts saw beyond their
// first window, and in steps of their matching beyond the first few hundred. Published patterns spend next to
// nothing.
class SplitBudget {
 public:
  explicit SplitBudget(size_t text_bytes);

  void charge(uint64_t cost) { spent_ += cost; }
  bool is_spent() const { return spent_ > limit_; }
  uint64_t spent() const { return spent_; }
  uint64_t limit() const { return limit_; }

 private:
  uint64_t limit_;
  uint64_t spent_ = 0;
};

class SplitRegex {
 public:
  // An Oniguruma pattern. Throws std::runtime_error when it is malformed or not supported.
  explicit SplitRegex(std::string_view pattern);
  SplitRegex(SplitRegex&&) noexcept;
  SplitRegex& operator=(SplitRegex&&) noexcept;
  ~SplitRegex();

  // Replaces `matches` with all matches, leftmost first, none overlapping; a match may be empty, but not
  // where the previous one ended. `text` is valid UTF-8 below 2 GiB. Any thread. Linear: an attempt sees a
  // window that grows only when the attempt reaches its end, and may take steps that grow only when it needs
  // more; both are charged. When the budget is spent (only a pattern that is itself quadratic or worse, such
  // as \s+$ or a*a*b, gets there) the rest of the text counts as unmatched.
  void find_all(std::string_view text, std::vector<Span>& matches, SplitBudget& budget) const;
  // `text` with `content` in the place of each match.
  std::string replace_all(std::string_view text, std::string_view content, SplitBudget& budget) const;

 private:
  struct Code;
  std::unique_ptr<Code> code_;
};

}  // namespace serval
