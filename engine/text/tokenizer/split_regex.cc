#include "engine/text/tokenizer/split_regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <optional>
#include <stdexcept>

#include "kernels/base/check.h"
#include "kernels/base/shown.h"
#include "kernels/base/utf8.h"

namespace serval {
namespace {

constexpr size_t kMaxPatternBytes = 64 << 10;
constexpr uint32_t kFirstWindow = 256;
constexpr uint64_t kBudgetPerByte = 32;
constexpr uint64_t kBudgetBase = 1 << 20;
constexpr uint64_t kRunawayCost = 16 << 20;  // charged when an attempt ended at another of PCRE2's own limits
// Steps of matching (PCRE2's match limit) that an attempt may take. The first rung is free and far more than
// published patterns need; an attempt that needs more starts over with the next rung, which is charged before
// it begins. How many steps it took nobody says, so the rungs are the count.
constexpr uint32_t kMatchRungs[] = {256,     1 << 10, 1 << 12, 1 << 14, 1 << 16,
                                    1 << 18, 1 << 20, 1 << 22, 1 << 24};
constexpr uint32_t kHeapLimitKib = 64 << 10;
// A run of n characters that is given back one by one takes n steps, and published patterns do that. Beyond a
// few steps for every byte of the window an attempt is worse than linear, and each step may read the window
// again; with a pattern whose steps_may_scan() any of them may.
constexpr uint64_t kLinearSteps = 4;
constexpr uint64_t kScanWindow = 1024;

uint64_t cost_of_rung(uint64_t steps, uint64_t window, bool steps_may_scan) {
  if (!steps_may_scan && steps <= kLinearSteps * window) return steps;
  return steps * std::max<uint64_t>(1, window / kScanWindow);
}

// Whether a step of matching may read as far as the window goes without being counted: a loop that gives
// nothing back (possessive, in an atomic group or in an assertion) that is tried again for each step of a
// loop before or around it. `pattern` is one that PCRE2 has compiled.
bool steps_may_scan(std::string_view pattern) {
  struct Group {
    bool keeps = false;          // an atomic group or an assertion, or inside one
    bool loops_before = false;   // a loop that gives back stands before, in this branch
    bool loops_around = false;   // what loops_before was where the group began
    bool holds_keeping = false;  // a loop that gives nothing back is inside
  };
  std::vector<Group> groups(1);
  bool scans = false;
  for (size_t at = 0; at < pattern.size(); ++at) {
    Group& group = groups.back();
    const char c = pattern[at];
    if (c == '\\') {
      const bool braces = at + 2 < pattern.size() && pattern[at + 2] == '{';
      at = braces ? pattern.find('}', at) : at + 1;
    } else if (c == '[') {
      at += pattern[at + 1] == '^';
      if (pattern[at + 1] == ']') ++at;
      while (pattern[++at] != ']') at += pattern[at] == '\\';
    } else if (c == '?') {
      at += at + 1 < pattern.size() && pattern[at + 1] == '+';
    } else if (c == '|') {
      group.loops_before = group.loops_around;
    } else if (c == '(') {
      const std::string_view rest = pattern.substr(at);
      const bool asserts = rest.starts_with("(?=") || rest.starts_with("(?!") || rest.starts_with("(?<");
      groups.push_back({.keeps = group.keeps || asserts || rest.starts_with("(?>"),
                        .loops_before = group.loops_before,
                        .loops_around = group.loops_before});
      if (rest.starts_with("(?")) ++at;
    } else if (c == ')') {
      const Group closed = group;
      groups.pop_back();
      groups.back().holds_keeping |= closed.holds_keeping;
      groups.back().loops_before |= closed.loops_before;
      const char next = at + 1 < pattern.size() ? pattern[at + 1] : '\0';
      scans |= closed.holds_keeping && (next == '*' || next == '+' || next == '{');
    } else if (c == '*' || c == '+' || pattern.substr(at).starts_with(",}")) {
      const size_t after = at + (c == ',' ? 2 : 1);
      const bool possessive = after < pattern.size() && pattern[after] == '+';
      if (possessive || group.keeps) {
        scans |= group.loops_before;
        group.holds_keeping = true;
      } else {
        group.loops_before = true;
      }
      at = after - 1 + possessive;
    }
  }
  return scans;
}

template <auto free_function>
struct Free {
  template <class T>
  void operator()(T* object) const {
    free_function(object);
  }
};
using CompileContext = std::unique_ptr<pcre2_compile_context, Free<pcre2_compile_context_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Free<pcre2_match_context_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, Free<pcre2_match_data_free>>;

bool is_continuation(char c) {
  return (static_cast<unsigned char>(c) & 0xC0) == 0x80;
}

}  // namespace

struct SplitRegex::Code {
  std::unique_ptr<pcre2_code, Free<pcre2_code_free>> code;
  MatchContext contexts[std::size(kMatchRungs)];  // the same but for their match limits
  bool scans = false;                             // steps_may_scan()

  // The match that begins at `start`.
  std::optional<Span> match_at(std::string_view text, uint32_t start, pcre2_match_data* data,
                               SplitBudget& budget) const {
    uint32_t window = kFirstWindow;
    size_t rung = 0;
    uint32_t options = PCRE2_NO_UTF_CHECK;  // a check would cost the whole text at every call
    while (!budget.is_spent()) {
      size_t end = std::min<size_t>(text.size(), size_t{start} + window);
      while (end < text.size() && is_continuation(text[end])) ++end;
      const bool whole = end == text.size();
      const int rc = pcre2_match(code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), end, start,
                                 options | (whole ? 0 : PCRE2_PARTIAL_HARD), data, contexts[rung].get());
      if (rc >= 0) {
        const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(data);
        return Span{static_cast<uint32_t>(bounds[0]), static_cast<uint32_t>(bounds[1])};
      }
      if (rc == PCRE2_ERROR_NOMATCH) return std::nullopt;
      if (rc == PCRE2_ERROR_PARTIAL) {
        window *= 2;
        budget.charge(window);
      } else if (rc == PCRE2_ERROR_JIT_STACKLIMIT && (options & PCRE2_NO_JIT) == 0) {
        options |= PCRE2_NO_JIT;
      } else if (rc == PCRE2_ERROR_MATCHLIMIT && rung + 1 < std::size(kMatchRungs)) {
        budget.charge(cost_of_rung(kMatchRungs[++rung], end - start, scans));
      } else {
        budget.charge(kRunawayCost);
        return std::nullopt;
      }
    }
    return std::nullopt;
  }
};

SplitBudget::SplitBudget(size_t text_bytes) : limit_(kBudgetPerByte * text_bytes + kBudgetBase) {}

SplitRegex::SplitRegex(std::string_view pattern) : code_(std::make_unique<Code>()) {
  if (pattern.size() > kMaxPatternBytes) {
    throw std::runtime_error("a pattern has " + std::to_string(pattern.size()) + " bytes; at most " +
                             std::to_string(kMaxPatternBytes) + " are supported");
  }
  const std::string translated = translate_oniguruma(pattern);
  const CompileContext context(pcre2_compile_context_create(nullptr));
  SERVAL_CHECK(context != nullptr);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE where = 0;
  code_->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                  PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_ANCHORED, &error, &where,
                                  context.get()));
  if (!code_->code) {
    PCRE2_UCHAR message[256];
    pcre2_get_error_message(error, message, sizeof message);
    throw std::runtime_error("the pattern " + in_quotes(pattern) +
                             " is not valid: " + reinterpret_cast<const char*>(message));
  }
  code_->scans = steps_may_scan(translated);
  // Without executable memory this fails and PCRE2 interprets: slower, the same matches.
  pcre2_jit_compile(code_->code.get(), PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD);
  for (size_t rung = 0; rung < std::size(kMatchRungs); ++rung) {
    MatchContext& match = code_->contexts[rung];
    match.reset(pcre2_match_context_create(nullptr));
    SERVAL_CHECK(match != nullptr);
    pcre2_set_match_limit(match.get(), kMatchRungs[rung]);
    pcre2_set_heap_limit(match.get(), kHeapLimitKib);
  }
}

SplitRegex::SplitRegex(SplitRegex&&) noexcept = default;
SplitRegex& SplitRegex::operator=(SplitRegex&&) noexcept = default;
SplitRegex::~SplitRegex() = default;

void SplitRegex::find_all(std::string_view text, std::vector<Span>& matches, SplitBudget& budget) const {
  matches.clear();
  const MatchData data(pcre2_match_data_create(1, nullptr));
  SERVAL_CHECK(data != nullptr);
  uint32_t at = 0;
  while (at <= text.size() && !budget.is_spent()) {
    const std::optional<Span> match = code_->match_at(text, at, data.get(), budget);
    const bool empty_again =
        match && match->begin == match->end && !matches.empty() && matches.back().end == match->end;
    if (match && !empty_again) {
      matches.push_back(*match);
      at = match->end;
    } else {
      ++at;
      while (at < text.size() && is_continuation(text[at])) ++at;
    }
  }
}

std::string SplitRegex::replace_all(std::string_view text, std::string_view content,
                                    SplitBudget& budget) const {
  std::vector<Span> matches;
  find_all(text, matches, budget);
  std::string out;
  out.reserve(text.size() + matches.size() * content.size());
  size_t copied = 0;
  for (const Span& match : matches) {
    out += text.substr(copied, match.begin - copied);
    out += content;
    copied = match.end;
  }
  return out += text.substr(copied);
}

}  // namespace serval
