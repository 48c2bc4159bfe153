#include "engine/text/tokenizer/normalizer.h"

#include <unicode/brkiter.h>
#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/stringpiece.h>
#include <unicode/uchar.h>
#include <unicode/ustring.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <utility>

#include "engine/text/tokenizer/base64.h"
#include "engine/text/tokenizer/byte_alphabet.h"
#include "engine/text/tokenizer/character_map.h"
#include "engine/text/tokenizer/split_regex.h"
#include "engine/text/tokenizer/tokenizer_parts.h"
#include "kernels/base/check.h"
#include "kernels/base/shown.h"
#include "kernels/base/utf8.h"

namespace serval {
namespace {

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

// Each character that `change` gives nothing for stays; of others it appends what they become.
template <class Change>
std::string map_characters(std::string_view text, Change change) {
  std::string out;
  out.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    if (!change(static_cast<UChar32>(read_utf8(text, pos)), out)) out += text.substr(begin, pos - begin);
  }
  return out;
}

std::string without_categories(std::string_view text, uint32_t categories) {
  return map_characters(text, [&](UChar32 c, std::string&) { return (U_GET_GC_MASK(c) & categories) != 0; });
}

// The rules of the reference's Nmt: controls go, other white space and what no one can see become spaces.
std::string normalize_nmt(std::string_view text) {
  return map_characters(text, [](UChar32 c, std::string& out) {
    const auto within = [c](UChar32 first, UChar32 last) { return first <= c && c <= last; };
    if (within(0x1, 0x8) || c == 0xB || within(0xE, 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F) return true;
    const bool is_space = c == 0x9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 ||
                          within(0x200B, 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                          c == 0xFEFF || c == 0xFFFD;
    if (is_space) out += ' ';
    return is_space;
  });
}

// BERT's: controls go, white space becomes spaces.
std::string clean(std::string_view text) {
  return map_characters(text, [](UChar32 c, std::string& out) {
    constexpr uint32_t kControls = U_GC_CC_MASK | U_GC_CF_MASK | U_GC_CO_MASK;
    const bool is_break = c == '\t' || c == '\n' || c == '\r';
    if (!is_break && (c == 0xFFFD || (U_GET_GC_MASK(c) & kControls) != 0)) return true;
    if (u_isUWhiteSpace(c)) out += ' ';
    return static_cast<bool>(u_isUWhiteSpace(c));
  });
}

// Spaces around what BERT's authors took for Chinese.
std::string space_ideographs(std::string_view text) {
  return map_characters(text, [](UChar32 c, std::string& out) {
    constexpr std::pair<UChar32, UChar32> kRanges[] = {
        {0x4E00, 0x9FFF},   {0x3400, 0x4DBF},   {0x20000, 0x2A6DF}, {0x2A700, 0x2B73F},
        {0x2B740, 0x2B81F}, {0x2B920, 0x2CEAF}, {0xF900, 0xFAFF},   {0x2F800, 0x2FA1F}};
    const bool is_one = std::any_of(std::begin(kRanges), std::end(kRanges),
                                    [c](const auto& range) { return range.first <= c && c <= range.second; });
    if (!is_one) return false;
    out += ' ';
    append_utf8(static_cast<char32_t>(c), out);
    out += ' ';
    return true;
  });
}

std::string in_byte_alphabet(std::string_view text) {
  std::string out;
  for (const char c : text) out += byte_character(static_cast<unsigned char>(c));
  return out;
}

// As the reference applies a map: to a grapheme of fewer than six bytes as a whole, by the shortest sequence
// that it begins with, and to any other character by character.
std::string apply_map(const CharacterMap& map, std::string_view text) {
  constexpr int32_t kLongGrapheme = 6;
  const auto append_mapped = [&map](std::string_view part, std::string& out) {
    const std::optional<std::string_view> mapped = map.shortest(part);
    if (mapped) out += *mapped;
    return mapped.has_value();
  };
  UErrorCode error = U_ZERO_ERROR;
  const std::unique_ptr<icu::BreakIterator> graphemes(
      icu::BreakIterator::createCharacterInstance(icu::Locale::getRoot(), error));
  UText input = UTEXT_INITIALIZER;
  utext_openUTF8(&input, text.data(), static_cast<int64_t>(text.size()), &error);
  SERVAL_CHECK(U_SUCCESS(error), u_errorName(error));
  graphemes->setText(&input, error);
  std::string out;
  out.reserve(text.size());
  int32_t begin = graphemes->first();
  for (int32_t end; (end = graphemes->next()) != icu::BreakIterator::DONE; begin = end) {
    const std::string_view grapheme = text.substr(begin, end - begin);
    if (end - begin < kLongGrapheme && append_mapped(grapheme, out)) continue;
    for (size_t pos = 0; pos < grapheme.size();) {
      const size_t start = pos;
      read_utf8(grapheme, pos);
      const std::string_view character = grapheme.substr(start, pos - start);
      if (!append_mapped(character, out)) out += character;
    }
  }
  utext_close(&input);
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

// Collects the steps of one normalizer, and what they do to a text's size.
class Normalizer::Builder {
 public:
  void add(const Fields& part) {
    const std::string type = part.get_string("type");
    if (type == "Prepend") {
      prepend(part);
    } else if (type == "Replace") {
      replace(part);
    } else if (type == "Strip") {
      strip_ends(part.get_bool("strip_left", true), part.get_bool("strip_right", true));
    } else if (type == "Precompiled") {
      map_precompiled(part);
    } else if (type == "BertNormalizer") {
      bert(part);
    } else {
      add_plain(type);
    }
  }

  // Of the types without fields.
  void add_plain(std::string_view type) {
    if (const icu::Normalizer2* form = unicode_form(type)) {
      grow_once(kFormGrowth);
      shrink_ *= kFormShrink;
      step([form](std::string_view text) { return to_unicode_form(*form, text); });
    } else if (type == "Lowercase") {
      lowercase();
    } else if (type == "StripAccents") {
      lose(Loss::kAnything);
      step([](std::string_view text) { return without_categories(text, U_GC_M_MASK); });
    } else if (type == "Nmt") {
      lose(Loss::kAnything);
      step(normalize_nmt);
    } else if (type == "ByteLevel") {
      grow(2);
      writes_bytes_ = true;
      step(in_byte_alphabet);
    } else {
      throw std::runtime_error("the normalizer type " + in_quotes(type) + " is not supported");
    }
  }

  Normalizer build() {
    Normalizer normalizer;
    normalizer.steps_ = std::move(steps_);
    normalizer.loss_ = loss_;
    normalizer.max_shrink_ = shrink_;
    normalizer.writes_bytes_ = writes_bytes_;
    return normalizer;
  }

 private:
  void step(Step step) { steps_.push_back(std::move(step)); }
  void lose(Loss loss) { loss_ = std::max(loss_, loss); }
  void grow(double factor) {
    growth_ *= factor;
    if (growth_ > kMaxGrowth)
      throw std::runtime_error("the normalizer could make text more than 64 times longer");
  }
  // What a form has made long no other form makes longer.
  void grow_once(double factor) {
    if (factor > form_growth_) grow(factor / std::exchange(form_growth_, factor));
  }

  void lowercase() {
    grow(1.5);
    shrink_ *= kLowercaseShrink;
    step(to_lowercase);
  }

  void prepend(const Fields& part) {
    std::string prefix = part.get_string("prepend");
    if (prefix.size() > kMaxGrowth) part.refuse("prepend", "is a prefix of more than 64 bytes");
    step([prefix](std::string_view text) {
      return text.empty() ? std::string() : prefix + std::string(text);
    });
  }

  void replace(const Fields& part) {
    const std::string content = part.get_string("content");
    const Fields pattern = part.get_object("pattern");
    std::string regex;
    if (const std::optional<std::string> text = pattern.find_string("String")) {
      if (text->empty()) pattern.refuse("String", "is empty");
      regex = escape_regex(*text);
      if (content.size() < text->size()) lose(Loss::kAnything);
      grow(std::max(1.0, static_cast<double>(content.size()) / static_cast<double>(text->size())));
    } else {
      regex = pattern.get_string("Regex");
      lose(Loss::kAnything);
      grow(1.0 + static_cast<double>(content.size()));
    }
    replaces_ = true;
    step([compiled = std::make_shared<SplitRegex>(regex), content](std::string_view text) {
      SplitBudget budget(text.size());
      return compiled->replace_all(text, content, budget);
    });
  }

  void strip_ends(bool left, bool right) {
    // What an earlier replacement made into white space would be lost with it.
    lose(replaces_ ? Loss::kAnything : Loss::kWhiteSpace);
    step([left, right](std::string_view text) { return strip(text, left, right); });
  }

  void map_precompiled(const Fields& part) {
    const std::optional<std::string> bytes =
        decode_base64(part.find_string("precompiled_charsmap").value_or(""));
    if (!bytes) part.refuse("precompiled_charsmap", "is no base64");
    const auto map = std::make_shared<CharacterMap>(*bytes);
    lose(Loss::kAnything);
    grow_once(map->growth());
    step([map](std::string_view text) { return apply_map(*map, text); });
  }

  void bert(const Fields& part) {
    const bool lower = part.get_bool("lowercase", true);
    if (part.get_bool("clean_text", true)) step(clean);
    if (part.get_bool("handle_chinese_chars", true)) {
      grow(5.0 / 3);
      step(space_ideographs);
    }
    if (part.get_bool("strip_accents", lower)) {
      add_plain("NFD");
      step([](std::string_view text) { return without_categories(text, U_GC_MN_MASK); });
    }
    if (lower) lowercase();
    lose(Loss::kAnything);
  }

  std::vector<Step> steps_;
  double growth_ = 1;
  double form_growth_ = 1;
  bool replaces_ = false;
  Loss loss_ = Loss::kNothing;
  size_t shrink_ = 1;
  bool writes_bytes_ = false;
};

Normalizer Normalizer::from_json(const boost::json::value* value, bool lowers_first) {
  Builder builder;
  if (lowers_first) builder.add_plain("Lowercase");
  for (const Fields& part : flatten_sequence(value, "normalizers", "normalizer")) builder.add(part);
  return builder.build();
}

Normalizer Normalizer::of_type(std::string_view type) {
  Builder builder;
  builder.add_plain(type);
  return builder.build();
}

std::string Normalizer::apply(std::string_view text) const {
  std::string out(text);
  for (const Step& step : steps_) out = step(out);
  return out;
}

}  // namespace serval
