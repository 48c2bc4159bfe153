#include <algorithm>
#include <unicode/uchar.h>
#include <unicode/uset.h>

#include "engine/grammar/regex.h"

namespace serval::grammar {
namespace {

constexpr size_t kMaxDepth = 100;
constexpr size_t kMaxRepeat = 100'000;

[[noreturn]] void refuse(const std::string& why) { throw Refusal("pattern", why); }

class Parser {
 public:
  Parser(std::u32string text, RegexSyntax syntax, Budget& budget)
      : text_(std::move(text)), syntax_(syntax), budget_(budget) {}

  Regex parse() {
    Regex regex = alternatives();
    if (!at_end()) refuse("has a ')' that closes nothing");
    return regex;
  }

 private:
  bool at_end() const { return pos_ == text_.size(); }
  char32_t peek(size_t ahead = 0) const { return pos_ + ahead < text_.size() ? text_[pos_ + ahead] : 0; }
  bool take(std::u32string_view word) {
    if (text_.compare(pos_, word.size(), word) != 0) return false;
    pos_ += word.size();
    return true;
  }

  Regex alternatives() {
    if (++depth_ > kMaxDepth) refuse("nests too many groups");
    std::vector<Regex> choices = {terms()};
    while (take(U"|")) choices.push_back(terms());
    --depth_;
    return choices.size() == 1 ? std::move(choices[0]) : either(std::move(choices));
  }

  Regex terms() {
    std::vector<Regex> parts;
    while (!at_end() && peek() != '|' && peek() != ')') {
      budget_.spend(1);
      parts.push_back(quantified(atom()));
    }
    return parts.size() == 1 ? std::move(parts[0]) : sequence(std::move(parts));
  }

  Regex quantified(Regex part) {
    size_t low = 0, high = kNoLimit;
    if (take(U"*")) {
    } else if (take(U"+")) {
      low = 1;
    } else if (take(U"?")) {
      high = 1;
    } else if (!counts(low, high)) {
      return part;
    }
    if (low > high) refuse("has a quantifier whose numbers are out of order");
    if (low > kMaxRepeat || (high != kNoLimit && high > kMaxRepeat)) refuse("repeats too often");
    take(U"?");  // how eagerly makes no difference to what matches
    size_t again = 0;
    if (peek() == '*' || peek() == '+' || peek() == '?' || counts(again, again)) refuse("has two quantifiers in a row");
    return repeat(std::move(part), low, high);
  }

  bool number(size_t& pos, size_t& out) const {
    const size_t begin = pos;
    for (out = 0; pos < text_.size() && text_[pos] >= '0' && text_[pos] <= '9'; ++pos)
      out = std::min<size_t>(out * 10 + text_[pos] - '0', 10'000'000);
    return pos > begin;
  }
  // "{2}", "{2,}", "{2,3}"; anything else after a brace is text.
  bool counts(size_t& low, size_t& high) {
    if (peek() != '{') return false;
    size_t pos = pos_ + 1;
    if (!number(pos, low)) return false;
    high = low;
    if (pos < text_.size() && text_[pos] == ',') {
      ++pos;
      if (!number(pos, high)) high = kNoLimit;
    }
    if (pos >= text_.size() || text_[pos] != '}') return false;
    pos_ = pos + 1;
    return true;
  }

  static Regex mark(Regex::Kind kind, std::vector<Regex> parts = {}) {
    Regex regex;
    regex.kind = kind;
    regex.parts = std::move(parts);
    return regex;
  }

  Regex atom() {
    const char32_t c = text_[pos_++];
    switch (c) {
      case '^':
        return mark(Regex::Kind::kStart);
      case '$':
        return mark(Regex::Kind::kEnd);
      case '.':
        return one_of(syntax_ == RegexSyntax::kEcma
                          ? complement({{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}})
                          : complement({{'\n', '\n'}}));
      case '(':
        return group();
      case '[':
        return one_of(bracket());
      case '\\':
        return escape();
      case '*':
      case '+':
      case '?':
        refuse("has a quantifier with nothing before it");
      default:
        return one_of({{c, c}});
    }
  }

  Regex group() {
    Regex::Kind kind = Regex::Kind::kSequence;
    if (take(U"?:")) {
    } else if (take(U"?=")) {
      kind = Regex::Kind::kAhead;
    } else if (take(U"?!")) {
      kind = Regex::Kind::kNotAhead;
    } else if (take(U"?<=") || take(U"?<!")) {
      refuse("looks behind");
    } else if (take(U"?<") || take(U"?P<")) {
      while (!at_end() && peek() != '>') ++pos_;
      if (!take(U">")) refuse("has a group whose name does not end");
    } else if (peek() == '?') {
      refuse("has a kind of group that is not known here");
    }
    Regex inner = alternatives();
    if (!take(U")")) refuse("has a group that does not end");
    if (kind == Regex::Kind::kSequence) return inner;
    std::vector<Regex> parts;
    parts.push_back(std::move(inner));
    return mark(kind, std::move(parts));
  }

  char32_t hex(size_t digits) {
    char32_t value = 0;
    for (size_t i = 0; i < digits; ++i, ++pos_) {
      const char32_t c = peek();
      const bool is_digit = c >= '0' && c <= '9';
      const char32_t lower = c | 0x20;
      if (!is_digit && (lower < 'a' || lower > 'f')) refuse("has a code point without its hexadecimal digits");
      value = value * 16 + (is_digit ? c - '0' : lower - 'a' + 10);
    }
    return value;
  }

  // What stands for one symbol or a class, inside and outside of brackets. Behind the backslash.
  SymbolSet escaped_set() {
    if (at_end()) refuse("ends in a backslash");
    const char32_t c = text_[pos_++];
    if (const SymbolSet* set = class_of_letter(c)) return *set;
    const auto one = [](char32_t symbol) { return SymbolSet{{symbol, symbol}}; };
    switch (c) {
      case 't':
        return one('\t');
      case 'n':
        return one('\n');
      case 'r':
        return one('\r');
      case 'v':
        return one('\v');
      case 'f':
        return one('\f');
      case '0':
        if (peek() >= '0' && peek() <= '9') refuse("has an octal escape");
        return one(0);
      case 'c': {
        const char32_t letter = peek() & 0xDF;
        if (letter < 'A' || letter > 'Z') refuse("has a control escape without its letter");
        ++pos_;
        return one(letter & 31);
      }
      case 'x':
        return one(hex(2));
      case 'u': {
        if (take(U"{")) {
          size_t digits = 0;
          while (peek(digits) != '}' && digits < 8) ++digits;
          const char32_t value = hex(digits);
          if (!take(U"}") || digits == 0 || value > kLastCodePoint) refuse("has a malformed code point");
          return one(value);
        }
        char32_t value = hex(4);
        if (value >= 0xD800 && value < 0xDC00 && take(U"\\u"))
          value = 0x10000 + ((value - 0xD800) << 10) + (hex(4) - 0xDC00);
        if (value > kLastCodePoint) refuse("has a malformed code point");
        return one(value);
      }
      case 'p':
      case 'P': {
        const bool braced = take(U"{");
        std::string name;
        while (!at_end() && peek() != '}' && (braced || name.empty()))
          name.push_back(static_cast<char>(text_[pos_++] & 0x7f));
        if (braced && !take(U"}")) refuse("has a property whose name does not end");
        SymbolSet set = unicode_property(name);
        if (set.empty()) refuse("names a Unicode property that is not known here");
        return c == 'P' ? complement(std::move(set)) : set;
      }
      default:
        if ((c >= '1' && c <= '9') || c == 'k') refuse("refers back to what a group matched");
        if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
          refuse(std::string("has an escape that is not known here, \\") + static_cast<char>(c));
        return one(c);
    }
  }

  Regex escape() {
    if (take(U"b")) return mark(Regex::Kind::kBoundary);
    if (take(U"B")) return mark(Regex::Kind::kNoBoundary);
    if (syntax_ == RegexSyntax::kPython && take(U"A")) return mark(Regex::Kind::kStart);
    if (syntax_ == RegexSyntax::kPython && take(U"Z")) return mark(Regex::Kind::kEnd);
    return one_of(escaped_set());
  }

  // Behind the bracket that opens.
  SymbolSet bracket() {
    const bool negated = take(U"^");
    SymbolSet set;
    bool first = syntax_ == RegexSyntax::kPython;  // where "]" is text
    const auto item = [&]() -> SymbolSet {
      if (take(U"\\")) {
        if (take(U"b")) return {{'\b', '\b'}};
        return escaped_set();
      }
      const char32_t c = text_[pos_++];
      return {{c, c}};
    };
    for (;;) {
      if (at_end()) refuse("has a bracket that does not end");
      if (!first && take(U"]")) break;
      first = false;
      budget_.spend(1);
      SymbolSet low = item();
      const bool is_one = low.size() == 1 && low[0].first == low[0].second;
      if (is_one && peek() == '-' && peek(1) != ']' && pos_ + 1 < text_.size()) {
        ++pos_;
        const SymbolSet high = item();
        if (high.size() != 1 || high[0].first != high[0].second) {  // "\w-\d": each for itself
          set.insert(set.end(), {low[0], {'-', '-'}});
          set.insert(set.end(), high.begin(), high.end());
          continue;
        }
        if (high[0].first < low[0].first) refuse("has a range whose ends are out of order");
        low[0].second = high[0].first;
      }
      set.insert(set.end(), low.begin(), low.end());
    }
    return negated ? complement(std::move(set)) : joined(std::move(set));
  }

  std::u32string text_;
  RegexSyntax syntax_;
  Budget& budget_;
  size_t pos_ = 0, depth_ = 0;
};

}  // namespace

Regex parse_regex(std::string_view utf8, RegexSyntax syntax, Budget& budget) {
  return Parser(code_points(utf8), syntax, budget).parse();
}

SymbolSet joined(SymbolSet set) {
  std::sort(set.begin(), set.end());
  SymbolSet out;
  for (const auto& [low, high] : set) {
    if (!out.empty() && low <= out.back().second + 1)
      out.back().second = std::max(out.back().second, high);
    else
      out.emplace_back(low, high);
  }
  return out;
}

SymbolSet complement(SymbolSet set) {
  SymbolSet out;
  Symbol at = 0;
  for (const auto& [low, high] : joined(std::move(set))) {
    if (at < low) out.emplace_back(at, low - 1);
    at = high + 1;
  }
  if (at <= kLastCodePoint) out.emplace_back(at, kLastCodePoint);
  return out;
}

const SymbolSet* class_of_letter(char32_t letter) {
  static const SymbolSet digits = {{'0', '9'}};
  static const SymbolSet words = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
  static const SymbolSet spaces = {{'\t', '\r'},     {' ', ' '},       {0xA0, 0xA0},     {0x1680, 0x1680},
                                   {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F},
                                   {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
  static const SymbolSet no_digits = complement(digits), no_words = complement(words),
                         no_spaces = complement(spaces);
  switch (letter) {
    case 'd':
      return &digits;
    case 'D':
      return &no_digits;
    case 'w':
      return &words;
    case 'W':
      return &no_words;
    case 's':
      return &spaces;
    case 'S':
      return &no_spaces;
    default:
      return nullptr;
  }
}

SymbolSet unicode_property(std::string_view name) {
  std::string value(name);
  UProperty property = UCHAR_GENERAL_CATEGORY_MASK;
  if (const size_t equals = value.find('='); equals != std::string::npos) {
    const std::string kind = value.substr(0, equals);
    value = value.substr(equals + 1);
    if (kind == "Script" || kind == "sc") {
      property = UCHAR_SCRIPT;
    } else if (kind != "General_Category" && kind != "gc") {
      return {};
    }
  }
  UErrorCode status = U_ZERO_ERROR;
  USet* const members = uset_openEmpty();
  if (const int32_t number = u_getPropertyValueEnum(property, value.c_str()); number != UCHAR_INVALID_CODE) {
    uset_applyIntPropertyValue(members, property, number, &status);
  } else if (const UProperty binary = u_getPropertyEnum(value.c_str());
             binary >= UCHAR_BINARY_START && binary < UCHAR_BINARY_LIMIT) {
    uset_applyIntPropertyValue(members, binary, 1, &status);
  }
  SymbolSet set;
  for (int32_t i = 0; U_SUCCESS(status) && i < uset_getItemCount(members); ++i) {
    UChar32 low = 0, high = 0;
    if (uset_getItem(members, i, &low, &high, nullptr, 0, &status) == 0)
      set.emplace_back(static_cast<Symbol>(low), static_cast<Symbol>(high));
  }
  uset_close(members);
  return joined(std::move(set));
}

}  // namespace serval::grammar
