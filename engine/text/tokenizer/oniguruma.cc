// The translation half of split_regex.h. Oniguruma's rules are those of its doc/RE and doc/UNICODE_PROPERTIES
// (Ruby syntax, UTF-8).
#include <unicode/uchar.h>

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "engine/text/tokenizer/split_regex.h"
#include "kernels/base/shown.h"
#include "kernels/base/utf8.h"

namespace serval {
namespace {

// Members of character classes, to be put between brackets. White_Space and its complement; Oniguruma's Word,
// to which its table for the first 256 characters adds the superscripts and fractions of Latin-1.
constexpr std::string_view kSpace =
    R"(\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kNotSpace =
    R"(\x{0}-\x{8}\x{e}-\x{1f}!-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027}\x{202a}-\x{202e})"
    R"(\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";
constexpr std::string_view kWord = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{b2}\x{b3}\x{b9}\x{bc}-\x{be})";
constexpr std::string_view kHex = "0-9A-Fa-f";

constexpr bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
constexpr bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
constexpr bool is_hex(char c) {
  return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  std::string run() {
    while (!at_end()) {
      const char c = pattern_[pos_];
      if (c == '\\') {
        escape(/*in_class=*/false);
      } else if (c == '[') {
        character_class();
      } else if (c == '(') {
        group();
      } else if (c == '{') {
        interval();
      } else {
        out_ += c;
        ++pos_;
      }
    }
    return std::move(out_);
  }

 private:
  bool at_end() const { return pos_ == pattern_.size(); }
  char peek(size_t ahead = 0) const { return pos_ + ahead < pattern_.size() ? pattern_[pos_ + ahead] : '\0'; }
  bool starts(std::string_view text) const { return pattern_.substr(pos_).starts_with(text); }

  [[noreturn]] void refuse(std::string_view construct) const {
    throw std::runtime_error("the pattern " + in_quotes(pattern_) + " uses " + std::string(construct) +
                             ", which is not supported");
  }

  void members(std::string_view set, bool negated, bool in_class) {
    if (in_class) {
      out_ += set;
    } else {
      out_ += negated ? "[^" : "[";
      out_ += set;
      out_ += ']';
    }
  }

  void escape(bool in_class) {
    const char c = peek(1);
    pos_ += 2;
    switch (c) {
      case '\0':
        refuse("a backslash at its end");
      case 's':
        return members(kSpace, false, in_class);
      case 'S':
        return in_class ? members(kNotSpace, false, true) : members(kSpace, true, false);
      case 'w':
        return members(kWord, false, in_class);
      case 'h':
        return members(kHex, false, in_class);
      case 'W':
      case 'H':
        if (in_class) refuse(std::string("\\") + c + " inside a class");
        return members(c == 'W' ? kWord : kHex, true, false);
      case 'b':
      case 'B':
        return word_boundary(c == 'B', in_class);
      case 'v':
        out_ += "\\x{0b}";
        return;
      case 'd':
      case 'D':
      case 'n':
      case 'r':
      case 't':
      case 'f':
      case 'a':
      case 'e':
        (out_ += '\\') += c;
        return;
      case 'A':
      case 'z':
      case 'Z':
        if (in_class) refuse(std::string("\\") + c + " inside a class");
        (out_ += '\\') += c;
        return;
      case 'p':
      case 'P':
        return property(c);
      case 'x':
      case 'u':
        return code_point(c);
      default:
        if (is_letter(c) || is_digit(c)) refuse(std::string("\\") + c);
        (out_ += '\\') += c;
    }
  }

  void word_boundary(bool negated, bool in_class) {
    if (in_class) {
      if (negated) refuse("\\B inside a class");
      out_ += "\\x{8}";
      return;
    }
    const std::string word = "[" + std::string(kWord) + "]";
    out_ += negated ? "(?:(?<=" + word + ")(?=" + word + ")|(?<!" + word + ")(?!" + word + "))"
                    : "(?:(?<=" + word + ")(?!" + word + ")|(?<!" + word + ")(?=" + word + "))";
  }

  void property(char c) {
    const size_t close = pattern_.find('}', pos_);
    if (peek() != '{' || close == std::string_view::npos)
      refuse(std::string("\\") + c + " without a name in braces");
    (out_ += '\\') += c;
    std::string_view name = pattern_.substr(pos_ + 1, close - pos_ - 1);
    const bool negated = name.starts_with('^');
    if (negated) name.remove_prefix(1);
    // PCRE2 takes a script's name alone for its extensions as well.
    const bool is_script =
        u_getPropertyValueEnum(UCHAR_SCRIPT, std::string(name).c_str()) != UCHAR_INVALID_CODE;
    out_ += negated ? "{^" : "{";
    if (is_script) out_ += "sc:";
    (out_ += name) += '}';
    pos_ = close + 1;
  }

  void code_point(char c) {
    size_t end = pos_;
    std::string_view digits;
    if (c == 'x' && peek() == '{') {
      while (++end < pattern_.size() && is_hex(pattern_[end])) continue;
      digits = pattern_.substr(pos_ + 1, end - pos_ - 1);
      if (end == pattern_.size() || pattern_[end] != '}') refuse("\\x{ without hexadecimal digits and }");
      ++end;
    } else {
      const size_t wanted = c == 'x' ? 2 : 4;
      while (end < pattern_.size() && end - pos_ < wanted && is_hex(pattern_[end])) ++end;
      digits = pattern_.substr(pos_, end - pos_);
      if (digits.size() != wanted) refuse(std::string("\\") + c + " with too few digits");
      if (c == 'x' && digits[0] >= '8') refuse("\\x of a byte that is not ASCII");
    }
    if (digits.empty() || digits.size() > 8) refuse("\\x{ without one to eight digits");
    ((out_ += "\\x{") += digits) += '}';
    pos_ = end;
  }

  // A class may hold others, and may be an intersection. One that is but members is a class to PCRE2 as well;
  // any other becomes a group of alternatives and assertions that takes one character. Appends it.
  void character_class() {
    const std::string before = std::exchange(out_, {});
    const std::string set = parse_class();
    out_ = before + set;
  }

  // From the [ to behind its ]. Uses out_ to gather members.
  std::string parse_class() {
    if (++depth_ > kMaxClassDepth) refuse("classes inside each other, too many");
    ++pos_;
    const bool negated = peek() == '^';
    if (negated) ++pos_;
    std::vector<std::string> unions;  // that are intersected
    bool is_plain = true;             // one union, of members alone
    std::vector<std::string> alternatives;
    const auto end_union = [&] {
      if (!out_.empty()) alternatives.push_back('[' + std::exchange(out_, {}) + ']');
      if (alternatives.empty()) refuse("a class without members");
      std::string joined = alternatives[0];
      for (size_t i = 1; i < alternatives.size(); ++i) joined += '|' + alternatives[i];
      is_plain &= alternatives.size() == 1 && alternatives[0].starts_with('[');
      unions.push_back(alternatives.size() == 1 ? joined : "(?:" + joined + ")");
      alternatives.clear();
    };
    if (peek() == ']') {
      out_ += "\\]";
      ++pos_;
    }
    while (peek() != ']') {
      if (at_end()) refuse("a class without its ]");
      if (peek() == '\\') {
        escape(/*in_class=*/true);
      } else if (starts("[:")) {
        refuse("a POSIX bracket");
      } else if (peek() == '[') {
        const std::string members = std::exchange(out_, {});
        const std::string inner = parse_class();
        const bool is_members = inner[0] == '[' && inner[1] != '^';
        out_ = is_members ? members + inner.substr(1, inner.size() - 2) : members;
        if (!is_members) alternatives.push_back(inner);
      } else if (starts("&&")) {
        pos_ += 2;
        end_union();
      } else {
        out_ += pattern_[pos_++];
      }
    }
    end_union();
    ++pos_;
    --depth_;
    is_plain &= unions.size() == 1;
    if (is_plain && (!negated || unions[0][1] != '^'))
      return negated ? "[^" + unions[0].substr(1) : unions[0];
    std::string all;
    for (size_t i = 0; i < unions.size(); ++i)
      all += i + 1 < unions.size() ? "(?=" + unions[i] + ")" : unions[i];
    return negated ? "(?:(?!" + all + ")[\\x{0}-\\x{10ffff}])" : "(?:" + all + ")";
  }

  void group() {
    if (peek(1) != '?') {
      out_ += "(?:";  // nothing refers back to a group
      ++pos_;
      return;
    }
    // (?i) reaches to the end of the enclosing group there and here, but only at the start do both see the
    // same alternatives.
    if (pos_ == 0 && starts("(?i)")) return copy(4);
    for (const std::string_view opening : {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?i:", "(?-i:"}) {
      if (starts(opening)) return copy(opening.size());
    }
    refuse("the group " + std::string(pattern_.substr(pos_, 4)));
  }

  void interval() {
    size_t end = pos_ + 1;
    const auto number = [&] {
      const size_t begin = end;
      while (end < pattern_.size() && is_digit(pattern_[end])) ++end;
      return pattern_.substr(begin, end - begin);
    };
    const std::string_view low = number();
    const bool comma = end < pattern_.size() && pattern_[end] == ',';
    if (comma) ++end;
    const std::string_view high = comma ? number() : low;
    if ((low.empty() && high.empty()) || end == pattern_.size() || pattern_[end] != '}') {
      out_ += "\\{";  // not a quantifier: the character itself
      ++pos_;
      return;
    }
    pos_ = end + 1;
    if (peek() == '+' || peek() == '?') refuse("a quantifier after {}");
    ((out_ += '{') += low.empty() ? "0" : low);
    if (comma) (out_ += ',') += high;
    out_ += '}';
  }

  void copy(size_t length) {
    out_ += pattern_.substr(pos_, length);
    pos_ += length;
  }

  static constexpr int kMaxClassDepth = 8;

  std::string_view pattern_;
  size_t pos_ = 0;
  int depth_ = 0;  // of classes
  std::string out_;
};

}  // namespace

std::string translate_oniguruma(std::string_view pattern) {
  return Translator(pattern).run();
}

std::string escape_regex(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x80 && !is_letter(c) && !is_digit(c)) out += '\\';
    out += c;
  }
  return out;
}

}  // namespace serval
