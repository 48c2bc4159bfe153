#include "engine/text/split_regex.h"

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
constexpr uint64_t kRunawayCost = 16 << 20;  // charged when an attempt ended at PCRE2's own limits
constexpr uint32_t kMatchLimit = 10'000'000;
constexpr uint32_t kHeapLimitKib = 64 << 10;

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
  MatchContext context;

  // The match that begins at `start`. `spent` grows by every window beyond the first.
  std::optional<Span> match_at(std::string_view text, uint32_t start, pcre2_match_data* data, uint64_t budget,
                               uint64_t& spent) const {
    uint32_t window = kFirstWindow;
    uint32_t options = PCRE2_NO_UTF_CHECK;  // a check would cost the whole text at every call
    while (true) {
      size_t end = std::min<size_t>(text.size(), size_t{start} + window);
      while (end < text.size() && is_continuation(text[end])) ++end;
      const bool whole = end == text.size();
      const int rc = pcre2_match(code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), end, start,
                                 options | (whole ? 0 : PCRE2_PARTIAL_HARD), data, context.get());
      if (rc >= 0) {
        const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(data);
        return Span{static_cast<uint32_t>(bounds[0]), static_cast<uint32_t>(bounds[1])};
      }
      if (rc == PCRE2_ERROR_PARTIAL) {
        window *= 2;
        spent += window;
        if (spent > budget) return std::nullopt;
      } else if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
        options |= PCRE2_NO_JIT;
      } else {
        if (rc != PCRE2_ERROR_NOMATCH) spent += kRunawayCost;
        return std::nullopt;
      }
    }
  }
};

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
  // Without executable memory this fails and PCRE2 interprets: slower, the same matches.
  pcre2_jit_compile(code_->code.get(), PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD);
  code_->context.reset(pcre2_match_context_create(nullptr));
  SERVAL_CHECK(code_->context != nullptr);
  pcre2_set_match_limit(code_->context.get(), kMatchLimit);
  pcre2_set_heap_limit(code_->context.get(), kHeapLimitKib);
}

SplitRegex::SplitRegex(SplitRegex&&) noexcept = default;
SplitRegex& SplitRegex::operator=(SplitRegex&&) noexcept = default;
SplitRegex::~SplitRegex() = default;

uint64_t SplitRegex::find_all(std::string_view text, std::vector<Span>& matches) const {
  matches.clear();
  const MatchData data(pcre2_match_data_create(1, nullptr));
  SERVAL_CHECK(data != nullptr);
  const uint64_t budget = kBudgetPerByte * text.size() + kBudgetBase;
  uint64_t spent = 0;
  uint32_t at = 0;
  while (at <= text.size() && spent <= budget) {
    const std::optional<Span> match = code_->match_at(text, at, data.get(), budget, spent);
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
  return spent;
}

}  // namespace serval
