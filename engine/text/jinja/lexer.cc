#include "engine/text/jinja/lexer.h"

#include <algorithm>
#include <charconv>

#include "engine/text/jinja/failure.h"
#include "engine/text/jinja/numbers.h"
#include "engine/text/jinja/unicode.h"
#include "kernels/base/utf8.h"

namespace serval::jinja {
namespace {

constexpr size_t kNone = std::string_view::npos;

bool is_digit_char(char c) {
  return c >= '0' && c <= '9';
}
bool is_name_start(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (c & 0x80);
}
bool is_name_char(char c) {
  return is_name_start(c) || is_digit_char(c);
}

// One kind of line end, and none at the very end: what Jinja makes of a file before it looks at it.
std::string normalize_lines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(source) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) {
      const size_t tag = find_tag();
      if (tag == kNone) {
        add_data(source_.substr(at_));
        break;
      }
      const char type = source_[tag + 1];
      const char sign = sign_at(tag + 2);
      add_data(before_tag(tag, sign, type != '{'));
      count_lines(tag);
      at_ = tag + 2 + (sign != 0);
      if (type == '#') {
        comment();
      } else if (type == '{') {
        expression(Token::Kind::kVariableBegin, Token::Kind::kVariableEnd);
      } else if (!raw_block(tag)) {
        expression(Token::Kind::kBlockBegin, Token::Kind::kBlockEnd);
      }
      tag_ends_line_ = at_ > 0 && source_[at_ - 1] == '\n';
    }
    add(Token::Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  // ---- text between tags

  size_t find_tag() const {
    for (size_t at = at_;; ++at) {
      at = source_.find('{', at);
      if (at == kNone || at + 1 >= source_.size()) return kNone;
      const char next = source_[at + 1];
      if (next == '{' || next == '%' || next == '#') return at;
    }
  }

  char sign_at(size_t at) const {
    return at < source_.size() && (source_[at] == '-' || source_[at] == '+') ? source_[at] : '\0';
  }

  // What stays of the text before a tag: '-' takes its trailing white space, and without a sign a block or
  // comment that stands alone in the beginning of its line takes that beginning.
  std::string_view before_tag(size_t tag, char sign, bool lstrip) const {
    const std::string_view text = source_.substr(at_, tag - at_);
    if (sign == '-') return strip(text, Side::kRight);
    if (sign == '+' || !lstrip) return text;
    const size_t line = text.rfind('\n') + 1;  // 0 when there is none
    if (line == 0 && !tag_ends_line_) return text;
    return strip(text.substr(line), Side::kLeft).empty() ? text.substr(0, line) : text;
  }

  // Moves behind the end of a tag: "-" takes all following white space, a plain "%}" or "#}" one newline.
  void close(size_t end, char sign, bool trims_newline) {
    count_lines(end + 2);
    at_ = end + 2;
    if (sign == '-') {
      const std::string_view rest = source_.substr(at_);
      at_ += rest.size() - strip(rest, Side::kLeft).size();
    } else if (trims_newline && sign == 0 && at_ < source_.size() && source_[at_] == '\n') {
      ++at_;
    }
  }

  void comment() {
    const size_t end = source_.find("#}", at_);
    if (end == kNone) fail_here("Missing end of comment tag");
    close(end, end > at_ ? sign_at(end - 1) : '\0', true);
  }

  size_t skip_spaces(size_t at) const {
    return source_.size() - strip(source_.substr(at), Side::kLeft).size();
  }

  // {% name %} at `tag`: where its content ends ("%}" or a sign before it); kNone when it is another tag.
  size_t match_bare_tag(size_t tag, std::string_view name) const {
    size_t at = tag + 2 + (sign_at(tag + 2) != 0);
    at = skip_spaces(at);
    if (source_.substr(at, name.size()) != name) return kNone;
    at = skip_spaces(at + name.size());
    const size_t end = at + (sign_at(at) != 0);
    return source_.substr(end, 2) == "%}" ? end : kNone;
  }

  bool raw_block(size_t tag) {
    const size_t begin = match_bare_tag(tag, "raw");
    if (begin == kNone || source_[begin - 1] == '+') return false;
    close(begin, sign_at(begin - 1), false);
    tag_ends_line_ = source_[at_ - 1] == '\n';
    for (size_t end_tag = source_.find("{%", at_); end_tag != kNone;
         end_tag = source_.find("{%", end_tag + 2)) {
      const size_t end = match_bare_tag(end_tag, "endraw");
      if (end == kNone) continue;
      add_data(before_tag(end_tag, sign_at(end_tag + 2), true));
      close(end, sign_at(end - 1), true);
      return true;
    }
    fail_here("Missing end of raw directive");
  }

  // ---- inside a tag

  void expression(Token::Kind begin, Token::Kind end) {
    const bool block = end == Token::Kind::kBlockEnd;
    const std::string_view closer = block ? "%}" : "}}";
    add(begin, "");
    std::string open_brackets;
    for (;;) {
      const size_t start = skip_spaces(at_);
      count_lines(start);
      at_ = start;
      if (at_ >= source_.size()) fail_here("unexpected end of template");
      const char sign = source_[at_] == '-' || (block && source_[at_] == '+') ? source_[at_] : '\0';
      if (open_brackets.empty() && source_.substr(at_ + (sign != 0), 2) == closer) {
        add(end, "");
        return close(at_ + (sign != 0), sign, block);
      }
      token(open_brackets);
    }
  }

  void token(std::string& open_brackets) {
    const char c = source_[at_];
    if (is_digit_char(c)) return number();
    if (is_name_start(c)) {
      size_t end = at_;
      while (end < source_.size() && is_name_char(source_[end])) ++end;
      add(Token::Kind::kName, source_.substr(at_, end - at_));
      at_ = end;
      return;
    }
    if (c == '"' || c == '\'') return string(c);
    const std::string_view symbol = operator_at(at_);
    if (symbol.empty())
      fail_here("unexpected char '" + std::string(source_.substr(at_, char_bytes(source_, at_))) + "'");
    constexpr std::string_view kOpen = "([{", kClose = ")]}";
    if (kOpen.find(symbol[0]) != kNone) {
      open_brackets += kClose[kOpen.find(symbol[0])];
    } else if (kClose.find(symbol[0]) != kNone) {
      if (open_brackets.empty() || open_brackets.back() != symbol[0])
        fail_here("unexpected '" + std::string(symbol) + "'");
      open_brackets.pop_back();
    }
    add(Token::Kind::kOperator, symbol);
    at_ += symbol.size();
  }

  std::string_view operator_at(size_t at) const {
    constexpr std::string_view kDouble[] = {"//", "**", "==", "!=", ">=", "<="};
    const std::string_view two = source_.substr(at, 2);
    for (std::string_view symbol : kDouble) {
      if (two == symbol) return symbol;
    }
    constexpr std::string_view kSingle = "+-/*%~[](){}><=.:|,;";
    return kSingle.find(source_[at]) == kNone ? std::string_view() : source_.substr(at, 1);
  }

  // Digits that may be grouped by single underscores; returns where they end.
  size_t digits_end(size_t at) const {
    while (at < source_.size() &&
           (is_digit_char(source_[at]) ||
            (source_[at] == '_' && at + 1 < source_.size() && is_digit_char(source_[at + 1])))) {
      ++at;
    }
    return at;
  }

  void number() {
    const size_t start = at_;
    size_t end = digits_end(start);
    bool real = false;
    // After a dot a number is an index: x.0.1 has no float in it.
    if (start == 0 || source_[start - 1] != '.') {
      const auto digit_at = [&](size_t at) { return at < source_.size() && is_digit_char(source_[at]); };
      if (end < source_.size() && source_[end] == '.' && digit_at(end + 1)) {
        real = true;
        end = digits_end(end + 1);
      }
      if (end < source_.size() && (source_[end] | 0x20) == 'e') {
        const size_t exponent = end + 1 + (sign_at(end + 1) != 0);
        if (digit_at(exponent)) {
          real = true;
          end = digits_end(exponent);
        }
      }
    }
    Token token{Token::Kind::kInteger, line_, ""};
    if (real) {
      token.kind = Token::Kind::kFloat;
      parse_float(source_.substr(start, end - start), token.real);
    } else {
      // 0x, 0o and 0b, which are letters to digits_end.
      if (source_[start] == '0' && end == start + 1 && end < source_.size()) {
        const char mark = static_cast<char>(source_[end] | 0x20);
        size_t last = end + 1;
        while (last < source_.size() && is_name_char(source_[last])) ++last;
        Int unused = 0;
        if ((mark == 'x' || mark == 'o' || mark == 'b') &&
            parse_int(source_.substr(start, last - start), 0, unused))
          end = last;
      }
      if (!parse_int(source_.substr(start, end - start), 0, token.integer)) fail_here("invalid number");
    }
    tokens_.push_back(std::move(token));
    at_ = end;
  }

  void string(char quote) {
    std::string text;
    for (size_t at = at_ + 1; at < source_.size(); ++at) {
      if (source_[at] == quote) {
        Token token{Token::Kind::kString, line_, std::move(text)};
        tokens_.push_back(std::move(token));
        count_lines(at + 1);
        at_ = at + 1;
        return;
      }
      if (source_[at] == '\\' && at + 1 < source_.size()) {
        at = escape(at + 1, text);
      } else {
        text += source_[at];
      }
    }
    fail_here("unterminated string");
  }

  // The escape whose letter is at `at`; returns the place of its last character.
  size_t escape(size_t at, std::string& text) {
    constexpr std::string_view kLetters = "abfnrtv\\'\"", kMeanings = "\a\b\f\n\r\t\v\\'\"";
    const char letter = source_[at];
    if (const size_t i = kLetters.find(letter); i != kNone) {
      text += kMeanings[i];
      return at;
    }
    if (letter == '\n') return at;
    if (letter >= '0' && letter <= '7') {
      char32_t code = 0;
      size_t end = at;
      while (end < at + 3 && end < source_.size() && source_[end] >= '0' && source_[end] <= '7') {
        code = 8 * code + static_cast<char32_t>(source_[end++] - '0');
      }
      append_utf8(code, text);
      return end - 1;
    }
    const int digits = letter == 'x' ? 2 : letter == 'u' ? 4 : letter == 'U' ? 8 : 0;
    if (digits == 0) {
      (text += '\\') += letter;
      return at;
    }
    char32_t code = hex(at + 1, digits);
    at += static_cast<size_t>(digits);
    if (code >= 0xD800 && code <= 0xDBFF && source_.substr(at + 1, 2) == "\\u") {
      const char32_t low = hex(at + 3, 4);
      if (low >= 0xDC00 && low <= 0xDFFF) {
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        at += 6;
      }
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF))
      fail_here("illegal Unicode character in a string");
    append_utf8(code, text);
    return at;
  }

  char32_t hex(size_t at, int digits) {
    uint32_t code = 0;
    const std::string_view text = source_.substr(std::min(at, source_.size()), static_cast<size_t>(digits));
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), code, 16);
    if (error != std::errc() || end != text.data() + digits) fail_here("truncated escape in a string");
    return code;
  }

  // ---- bookkeeping

  void add(Token::Kind kind, std::string_view text) {
    tokens_.push_back(Token{kind, line_, std::string(text)});
  }
  void add_data(std::string_view text) {
    if (!text.empty()) add(Token::Kind::kData, text);
  }

  void count_lines(size_t to) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<ptrdiff_t>(counted_),
                                         source_.begin() + static_cast<ptrdiff_t>(to), '\n'));
    counted_ = to;
  }

  [[noreturn]] void fail_here(const std::string& what) const {
    fail("line " + std::to_string(line_) + ": " + what);
  }

  const std::string_view source_;
  size_t at_ = 0;
  size_t counted_ = 0;
  int line_ = 1;
  bool tag_ends_line_ = true;  // the last tag ended with a line, or nothing has been read yet
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  const std::string lines = normalize_lines(source);
  return Lexer(lines).run();
}

}  // namespace serval::jinja
