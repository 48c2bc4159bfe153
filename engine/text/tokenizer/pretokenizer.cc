#include "engine/text/tokenizer/pretokenizer.h"

#include <unicode/uscript.h>

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <utility>

#include "engine/text/tokenizer/byte_alphabet.h"
#include "engine/text/tokenizer/tokenizer_parts.h"
#include "kernels/base/shown.h"
#include "kernels/base/utf8.h"

namespace serval {
namespace {

// Radford et al. 2019, as in the published encoder; English contractions, words, numbers and the rest, each
// with the space before.
constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
// Word characters as UTS 18 has them, which are not quite those of Oniguruma's \w.
constexpr std::string_view kWordsAndSymbols =
    R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200c}\x{200d}]+|[^\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200c}\x{200d}\s]+)";
constexpr std::string_view kPunctuation = R"([!-/:-@\[-`{-~\p{P}])";

SplitBehavior behavior_named(std::string_view name) {
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  throw std::runtime_error("the pre_tokenizer behavior " + in_quotes(name) + " is not supported");
}

struct Section {
  Span span;
  bool is_match;
};

// Matches and what lies between them, alternating, covering the text.
std::vector<Section> sections_of(std::string_view text, const std::vector<Span>& matches, bool invert) {
  std::vector<Section> sections;
  sections.reserve(2 * matches.size() + 1);
  uint32_t covered = 0;
  for (const Span& match : matches) {
    if (covered != match.begin) sections.push_back({{covered, match.begin}, invert});
    sections.push_back({match, !invert});
    covered = match.end;
  }
  if (covered != text.size()) sections.push_back({{covered, static_cast<uint32_t>(text.size())}, invert});
  return sections;
}

}  // namespace

std::vector<Span> split_at(std::string_view text, const std::vector<Span>& matches, SplitBehavior behavior,
                           bool invert) {
  const std::vector<Section> sections = sections_of(text, matches, invert);
  std::vector<Span> spans;
  spans.reserve(sections.size());
  bool previous_match = false;
  for (size_t i = 0; i < sections.size(); ++i) {
    const auto& [span, is_match] = sections[i];
    switch (behavior) {
      case SplitBehavior::kIsolated:
        spans.push_back(span);
        break;
      case SplitBehavior::kRemoved:
        if (!is_match) spans.push_back(span);
        break;
      case SplitBehavior::kContiguous:
        if (!spans.empty() && is_match == previous_match) {
          spans.back().end = span.end;
        } else {
          spans.push_back(span);
        }
        break;
      case SplitBehavior::kMergedWithPrevious:
        if (!spans.empty() && is_match && !previous_match) {
          spans.back().end = span.end;
        } else {
          spans.push_back(span);
        }
        break;
      case SplitBehavior::kMergedWithNext:
        // A match joins what follows it unless that is a match as well.
        if (i > 0 && previous_match && !is_match) {
          spans.back().end = span.end;
        } else {
          spans.push_back(span);
        }
        break;
    }
    previous_match = is_match;
  }
  std::erase_if(spans, [](const Span& span) { return span.begin == span.end; });
  return spans;
}

namespace {

// Cuts where the script changes: Japanese and Chinese are one, a space is of any, and spaces before the first
// character that is of one go.
std::vector<Span> cut_scripts(std::string_view text) {
  constexpr char32_t kProlongedSound = 0x30FC;
  std::vector<Span> spans;
  std::optional<UScriptCode> previous;
  for (size_t pos = 0; pos < text.size();) {
    const auto begin = static_cast<uint32_t>(pos);
    const char32_t c = read_utf8(text, pos);
    UErrorCode error = U_ZERO_ERROR;
    UScriptCode script = uscript_getScript(static_cast<UChar32>(c), &error);
    const bool is_japanese = script == USCRIPT_HIRAGANA || script == USCRIPT_KATAKANA || c == kProlongedSound;
    if (is_japanese) script = USCRIPT_HAN;
    const bool is_any = c == ' ' || script == USCRIPT_UNKNOWN;
    if (!is_any && previous != script) {
      spans.push_back({begin, begin});
      previous = script;
    }
    if (!spans.empty()) spans.back().end = static_cast<uint32_t>(pos);
  }
  return spans;
}

std::vector<Span> cut_length(std::string_view text, int length) {
  std::vector<Span> spans;
  for (size_t pos = 0; pos < text.size();) {
    const auto begin = static_cast<uint32_t>(pos);
    for (int i = 0; i < length && pos < text.size(); ++i) read_utf8(text, pos);
    spans.push_back({begin, static_cast<uint32_t>(pos)});
  }
  return spans;
}

}  // namespace

struct PreTokenizer::Step {
  enum class Kind { kPrefix, kReplaceSpaces, kSplit, kCutScripts, kCutLength, kMapBytes };

  Kind kind;
  std::string text{};       // kPrefix: what to put before pieces without it; kReplaceSpaces: for every space
  bool first_only = false;  // kPrefix: only before the piece that starts the text
  std::optional<SplitRegex> pattern{};  // kSplit
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;
  int length = 0;  // kCutLength: characters of a piece

  void apply(SplitBudget& budget, Pieces& pieces) const {
    switch (kind) {
      case Kind::kSplit: {
        std::vector<Span> matches;
        return cut(pieces, [&](std::string_view piece) {
          pattern->find_all(piece, matches, budget);
          return split_at(piece, matches, behavior, invert);
        });
      }
      case Kind::kCutScripts:
        return cut(pieces, cut_scripts);
      case Kind::kCutLength:
        return cut(pieces, [&](std::string_view piece) { return cut_length(piece, length); });
      case Kind::kPrefix:
        return rewrite(pieces, [&](std::string_view piece, bool is_start, std::string& out) {
          if ((is_start || !first_only) && !piece.starts_with(text)) out += text;
          out += piece;
        });
      case Kind::kReplaceSpaces:
        return rewrite(pieces, [&](std::string_view piece, bool, std::string& out) {
          for (const char c : piece) {
            if (c == ' ') {
              out += text;
            } else {
              out += c;
            }
          }
        });
      case Kind::kMapBytes:
        return rewrite(pieces, [](std::string_view piece, bool, std::string& out) {
          for (const char c : piece) out += byte_character(static_cast<unsigned char>(c));
        });
    }
  }

  // write(piece, starts the text, out) appends the piece's new text.
  template <class Write>
  static void rewrite(Pieces& pieces, Write write) {
    std::string out;
    out.reserve(pieces.text.size() + pieces.text.size() / 8);
    for (size_t i = 0; i < pieces.spans.size(); ++i) {
      const auto begin = static_cast<uint32_t>(out.size());
      write(pieces.piece(i), pieces.starts_text && i == 0, out);
      pieces.spans[i] = {begin, static_cast<uint32_t>(out.size())};
    }
    pieces.text = std::move(out);
  }

  // parts_of(piece): what becomes of it.
  template <class PartsOf>
  static void cut(Pieces& pieces, PartsOf parts_of) {
    std::vector<Span> spans;
    bool starts_text = false;
    for (size_t i = 0; i < pieces.spans.size(); ++i) {
      const uint32_t offset = pieces.spans[i].begin;
      const std::vector<Span> parts = parts_of(pieces.piece(i));
      if (i == 0) starts_text = pieces.starts_text && !parts.empty() && parts.front().begin == 0;
      for (const Span& part : parts) spans.push_back({offset + part.begin, offset + part.end});
    }
    pieces.spans = std::move(spans);
    pieces.starts_text = starts_text;
  }
};

// Collects the steps of one pre_tokenizer and keeps them bounded.
class PreTokenizer::Builder {
 public:
  void add(const Fields& part) {
    const std::string type = part.get_string("type");
    if (type == "ByteLevel") {
      byte_level(part.get_bool("add_prefix_space", true), part.get_bool("use_regex", true));
    } else if (type == "Split") {
      split(split_pattern(part), behavior_named(part.get_string("behavior")), part.get_bool("invert", false),
            Loss::kAnything);
    } else if (type == "Digits") {
      const bool individual = part.get_bool("individual_digits", false);
      split("\\p{N}", individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous);
    } else if (type == "Metaspace") {
      metaspace(part);
    } else if (type == "Whitespace") {
      split(kWordsAndSymbols, SplitBehavior::kRemoved, /*invert=*/true, Loss::kWhiteSpace);
    } else if (type == "WhitespaceSplit") {
      split("\\s", SplitBehavior::kRemoved, /*invert=*/false, Loss::kWhiteSpace);
    } else if (type == "Punctuation") {
      split(kPunctuation,
            part.find("behavior") == nullptr ? SplitBehavior::kIsolated
                                             : behavior_named(part.get_string("behavior")),
            /*invert=*/false, Loss::kAnything);
    } else if (type == "CharDelimiterSplit") {
      split(escape_regex(part.get_string("delimiter")), SplitBehavior::kRemoved, /*invert=*/false,
            Loss::kAnything);
    } else if (type == "BertPreTokenizer") {
      split("\\s", SplitBehavior::kRemoved, /*invert=*/false, Loss::kWhiteSpace);
      split(kPunctuation, SplitBehavior::kIsolated);
    } else if (type == "UnicodeScripts") {
      loss_ = std::max(loss_, Loss::kAnything);
      steps_.push_back({.kind = Step::Kind::kCutScripts});
    } else if (type == "FixedLength") {
      constexpr int kMost = 1 << 20;
      steps_.push_back(
          {.kind = Step::Kind::kCutLength, .length = part.find_int("length", 1, kMost).value_or(5)});
    } else {
      throw std::runtime_error("the pre_tokenizer type " + in_quotes(type) + " is not supported");
    }
  }

  void map_bytes() {
    once(has_byte_level_, "ByteLevel");
    steps_.push_back({.kind = Step::Kind::kMapBytes});
  }

  void byte_level(bool add_prefix_space, bool use_regex) {
    if (add_prefix_space) steps_.push_back({.kind = Step::Kind::kPrefix, .text = " "});
    if (use_regex) split(kGpt2Pattern, SplitBehavior::kIsolated);
    map_bytes();
  }

  // `if_removed`: what goes when the behavior is to remove.
  void split(std::string_view pattern, SplitBehavior behavior, bool invert = false,
             Loss if_removed = Loss::kNothing) {
    if (behavior == SplitBehavior::kRemoved) loss_ = std::max(loss_, if_removed);
    Step step{.kind = Step::Kind::kSplit, .behavior = behavior, .invert = invert};
    step.pattern.emplace(pattern);
    steps_.push_back(std::move(step));
  }

  PreTokenizer build() {
    PreTokenizer result(std::move(steps_));
    result.loss_ = loss_;
    result.writes_bytes_ = has_byte_level_;
    return result;
  }

 private:
  static std::string split_pattern(const Fields& part) {
    const Fields pattern = part.get_object("pattern");
    if (std::optional<std::string> regex = pattern.find_string("Regex")) return std::move(*regex);
    return escape_regex(pattern.get_string("String"));
  }

  void metaspace(const Fields& part) {
    once(has_metaspace_, "Metaspace");
    const std::string replacement = part.get_string("replacement");
    if (replacement.empty() || replacement.size() > 4) part.refuse("replacement", "is not one character");
    const bool older = part.get_bool("add_prefix_space", true);
    const std::string scheme = part.find_string("prepend_scheme").value_or(older ? "always" : "never");
    if (scheme != "always" && scheme != "first" && scheme != "never")
      part.refuse("prepend_scheme", "is " + in_quotes(scheme) + ", which is not supported");
    steps_.push_back({.kind = Step::Kind::kReplaceSpaces, .text = replacement});
    if (scheme != "never")
      steps_.push_back({.kind = Step::Kind::kPrefix, .text = replacement, .first_only = scheme == "first"});
    if (part.get_bool("split", true)) split(escape_regex(replacement), SplitBehavior::kMergedWithNext);
  }

  // Each of these lengthens the text; one of a kind bounds by how much.
  static void once(bool& seen, const char* type) {
    if (std::exchange(seen, true))
      throw std::runtime_error(std::string("the pre_tokenizer has more than one ") + type);
  }

  std::vector<Step> steps_;
  bool has_byte_level_ = false;
  bool has_metaspace_ = false;
  Loss loss_ = Loss::kNothing;
};

PreTokenizer::PreTokenizer(std::vector<Step> steps) : steps_(std::move(steps)) {}
PreTokenizer::PreTokenizer(PreTokenizer&&) noexcept = default;
PreTokenizer& PreTokenizer::operator=(PreTokenizer&&) noexcept = default;
PreTokenizer::~PreTokenizer() = default;

PreTokenizer PreTokenizer::from_json(const boost::json::value* value) {
  Builder builder;
  for (const Fields& part : flatten_sequence(value, "pretokenizers", "pre_tokenizer")) builder.add(part);
  return builder.build();
}

PreTokenizer PreTokenizer::gpt2(bool add_prefix_space) {
  Builder builder;
  builder.byte_level(add_prefix_space, /*use_regex=*/true);
  return builder.build();
}

PreTokenizer PreTokenizer::byte_level(std::string_view pattern) {
  Builder builder;
  builder.split(pattern, SplitBehavior::kIsolated);
  builder.map_bytes();
  return builder.build();
}

PreTokenizer PreTokenizer::whole_bytes() {
  Builder builder;
  builder.map_bytes();
  return builder.build();
}

void PreTokenizer::split(std::string_view segment, bool starts_text, SplitBudget& budget,
                         Pieces& pieces) const {
  pieces.text.assign(segment);
  pieces.spans.clear();
  pieces.starts_text = starts_text;
  if (!segment.empty()) pieces.spans.push_back({0, static_cast<uint32_t>(segment.size())});
  for (const Step& step : steps_) step.apply(budget, pieces);
}

}  // namespace serval
