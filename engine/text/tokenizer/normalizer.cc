#include "engine/text/tokenizer/normalizer.h"

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/stringpiece.h>
#include <unicode/uchar.h>
#include <unicode/ustring.h>

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <utility>

#include "engine/text/tokenizer/tokenizer_parts.h"
#include "engine/text/tokenizer/split_regex.h"
#include "kernels/base/check.h"
#include "kernels/base/shown.h"
#include "kernels/base/utf8.h"

namespace serval {
namespace {

enum class Kind { kUnicodeForm, kLowercase, kPrepend, kReplace, kStrip };

constexpr double kMaxGrowth = 64;
constexpr double kFormGrowth = 11;  // U+FDFA, three bytes, becomes 18 characters of 33 bytes in NFKC and NFKD
// A normal form composes at most four characters into one of two bytes or more, and turns at most one into an
// ASCII character (Unicode 3.11, and UAX 15 on expansion factors); a character has at most four bytes.
constexpr size_t kFormShrink = 8;
constexpr size_t kLowercaseShrink = 4;  // U+212A, three bytes, becomes k
constexpr size_t kLongRun = 32;

// ICU sorts a run of combining marks by insertion, which is quadratic for a run nobody writes but anybody can
// send. Sorting long runs beforehand by canonical combining class, stably, is what canonical ordering means
// (Unicode 3.11, D109): the result is canonically equivalent, so every normal form of it is the same, and ICU
// finds nothing left to move.
std::string order_long_mark_runs(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  std::vector<std::pair<uint8_t, char32_t>> run;
  const auto flush = [&] {
    if (run.size() > kLongRun) {
      std::stable_sort(run.begin(), run.end(),
                       [](const auto& a, const auto& b) { return a.first < b.first; });
    }
    for (const auto& mark : run) append_utf8(mark.second, out);
    run.clear();
  };
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = read_utf8(text, pos);
    const uint8_t combining_class = c < 0x300 ? 0 : u_getCombiningClass(static_cast<UChar32>(c));
    if (combining_class != 0) {
      run.emplace_back(combining_class, c);
    } else {
      flush();
      append_utf8(c, out);
    }
  }
  flush();
  return out;
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

std::string to_unicode_form(const icu::Normalizer2& form, std::string_view text) {
  if (is_ascii(text)) return std::string(text);
  const std::string ordered = order_long_mark_runs(text);
  std::string out;
  out.reserve(ordered.size());
  icu::StringByteSink<std::string> sink(&out);
  UErrorCode error = U_ZERO_ERROR;
  form.normalizeUTF8(0, icu::StringPiece(ordered.data(), static_cast<int32_t>(ordered.size())), sink, nullptr,
                     error);
  SERVAL_CHECK(U_SUCCESS(error), u_errorName(error));
  return out;
}

// Character by character, without context: a final sigma is like any other.
std::string to_lowercase(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = read_utf8(text, pos);
    UChar upper[2];
    UChar lower[8];
    int32_t num_upper = 0;
    U16_APPEND_UNSAFE(upper, num_upper, static_cast<UChar32>(c));
    UErrorCode error = U_ZERO_ERROR;
    const int32_t num_lower = u_strToLower(lower, std::size(lower), upper, num_upper, "", &error);
    SERVAL_CHECK(U_SUCCESS(error), u_errorName(error));
    for (int32_t i = 0; i < num_lower;) {
      UChar32 l;
      U16_NEXT(lower, i, num_lower, l);
      append_utf8(static_cast<char32_t>(l), out);
    }
  }
  return out;
}

std::string strip(std::string_view text, bool left, bool right) {
  size_t begin = text.size(), end = 0;
  for (size_t pos = 0; pos < text.size();) {
    const size_t start = pos;
    if (!u_isUWhiteSpace(static_cast<UChar32>(read_utf8(text, pos)))) {
      begin = std::min(begin, start);
      end = pos;
    }
  }
  if (!left) begin = 0;
  if (!right) end = text.size();
  return begin < end ? std::string(text.substr(begin, end - begin)) : std::string();
}

const icu::Normalizer2* unicode_form(std::string_view type) {
  UErrorCode error = U_ZERO_ERROR;
  const icu::Normalizer2* form = type == "NFC"    ? icu::Normalizer2::getNFCInstance(error)
                                 : type == "NFD"  ? icu::Normalizer2::getNFDInstance(error)
                                 : type == "NFKC" ? icu::Normalizer2::getNFKCInstance(error)
                                 : type == "NFKD" ? icu::Normalizer2::getNFKDInstance(error)
                                                  : nullptr;
  if (U_FAILURE(error))
    throw std::runtime_error(std::string("ICU has no normalization data: ") + u_errorName(error));
  return form;
}

}  // namespace

struct Normalizer::Step {
  Kind kind;
  const icu::Normalizer2* form = nullptr;  // kUnicodeForm; ICU's own, lives forever
  std::string content;                     // kPrepend, kReplace
  std::optional<SplitRegex> pattern;       // kReplace
  bool left = false, right = false;        // kStrip

  std::string apply(std::string_view text) const {
    switch (kind) {
      case Kind::kUnicodeForm:
        return to_unicode_form(*form, text);
      case Kind::kLowercase:
        return to_lowercase(text);
      case Kind::kPrepend:
        return text.empty() ? std::string() : content + std::string(text);
      case Kind::kReplace:
        return replace(text);
      case Kind::kStrip:
        return strip(text, left, right);
    }
    return std::string(text);
  }

  std::string replace(std::string_view text) const {
    std::vector<Span> matches;
    SplitBudget budget(text.size());
    pattern->find_all(text, matches, budget);
    std::string out;
    out.reserve(text.size() + matches.size() * content.size());
    size_t copied = 0;
    for (const Span& match : matches) {
      out += text.substr(copied, match.begin - copied);
      out += content;
      copied = match.end;
    }
    out += text.substr(copied);
    return out;
  }
};

Normalizer::Normalizer(std::vector<Step> steps) : steps_(std::move(steps)) {}
Normalizer::Normalizer(Normalizer&&) noexcept = default;
Normalizer& Normalizer::operator=(Normalizer&&) noexcept = default;
Normalizer::~Normalizer() = default;

Normalizer Normalizer::from_json(const boost::json::value* value) {
  std::vector<Step> steps;
  double growth = 1;
  bool has_form = false;
  Loss loss = Loss::kNothing;
  size_t shrink = 1;
  for (const Fields& part : flatten_sequence(value, "normalizers", "normalizer")) {
    const std::string type = part.get_string("type");
    Step step{};
    if (const icu::Normalizer2* form = unicode_form(type)) {
      step.kind = Kind::kUnicodeForm;
      step.form = form;
      if (!std::exchange(has_form, true)) growth *= kFormGrowth;
      shrink *= kFormShrink;
    } else if (type == "Lowercase") {
      step.kind = Kind::kLowercase;
      growth *= 1.5;
      shrink *= kLowercaseShrink;
    } else if (type == "Prepend") {
      step.kind = Kind::kPrepend;
      step.content = part.get_string("prepend");
      if (step.content.size() > kMaxGrowth)
        part.refuse("prepend", "is a prefix of more than 64 bytes");
    } else if (type == "Replace") {
      step.kind = Kind::kReplace;
      step.content = part.get_string("content");
      const Fields pattern = part.get_object("pattern");
      if (const std::optional<std::string> text = pattern.find_string("String")) {
        if (text->empty()) pattern.refuse("String", "is empty");
        step.pattern.emplace(escape_regex(*text));
        if (step.content.size() < text->size()) loss = Loss::kAnything;
        growth *= std::max(1.0, static_cast<double>(step.content.size()) / static_cast<double>(text->size()));
      } else {
        step.pattern.emplace(pattern.get_string("Regex"));
        loss = Loss::kAnything;
        growth *= 1.0 + static_cast<double>(step.content.size());
      }
    } else if (type == "Strip") {
      step.kind = Kind::kStrip;
      step.left = part.get_bool("strip_left", true);
      step.right = part.get_bool("strip_right", true);
      // What an earlier replacement made into white space would be lost with it.
      const bool replaces =
          std::any_of(steps.begin(), steps.end(), [](const Step& s) { return s.kind == Kind::kReplace; });
      loss = std::max(loss, replaces ? Loss::kAnything : Loss::kWhiteSpace);
    } else {
      throw std::runtime_error("the normalizer type " + in_quotes(type) + " is not supported");
    }
    if (growth > kMaxGrowth)
      throw std::runtime_error("the normalizer could make text more than 64 times longer");
    steps.push_back(std::move(step));
  }
  Normalizer normalizer(std::move(steps));
  normalizer.loss_ = loss;
  normalizer.max_shrink_ = shrink;
  return normalizer;
}

std::string Normalizer::apply(std::string_view text) const {
  std::string out(text);
  for (const Step& step : steps_) out = step.apply(out);
  return out;
}

}  // namespace serval
