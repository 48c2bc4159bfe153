#include "engine/text/jinja/numbers.h"

#include <charconv>
#include <cmath>
#include <cstdlib>

#include "engine/text/jinja/failure.h"
#include "engine/text/jinja/unicode.h"

namespace serval::jinja {

Int to_int(double x) {
  if (!std::isfinite(x)) fail("cannot convert float infinity or NaN to integer");
  if (std::fabs(x) >= 0x1p126) fail("integer overflow");
  return static_cast<Int>(x);
}

bool parse_int(std::string_view text, int base, Int& out) {
  text = strip(text, Side::kBoth);
  const bool negative = !text.empty() && text[0] == '-';
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) text.remove_prefix(1);
  if (text.size() > 2 && text[0] == '0') {
    const char mark = static_cast<char>(text[1] | 0x20);
    const int prefix = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
    if (prefix && (base == prefix || base == 0)) {
      base = prefix;
      text.remove_prefix(text[2] == '_' ? 3 : 2);
    }
  }
  if (base == 0) base = 10;
  Int value = 0;
  bool after_digit = false;
  for (char c : text) {
    if (c == '_' && after_digit) {
      after_digit = false;
      continue;
    }
    const char lower = static_cast<char>(c | 0x20);
    const int digit = c >= '0' && c <= '9' ? c - '0' : lower >= 'a' && lower <= 'z' ? lower - 'a' + 10 : 99;
    if (digit >= base) return false;
    if (__builtin_mul_overflow(value, Int{base}, &value) ||
        __builtin_add_overflow(value, Int{digit}, &value)) {
      fail("integer overflow");
    }
    after_digit = true;
  }
  out = negative ? -value : value;
  return after_digit;
}

bool parse_float(std::string_view text, double& out) {
  std::string plain;
  for (char c : strip(text, Side::kBoth)) {
    if (c == '_') {
      if (plain.empty() || plain.back() < '0' || plain.back() > '9') return false;
    } else {
      plain += c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    }
  }
  const char* first = plain.data();
  const char* last = first + plain.size();
  if (first != last && *first == '+') ++first;
  if (first == last || (plain[0] == '+' && *first == '-')) return false;
  const auto [end, error] = std::from_chars(first, last, out);
  if (error == std::errc::result_out_of_range && end == last) {
    // Too large is infinite, too small is zero: what strtod says.
    out = std::strtod(plain.c_str(), nullptr);
    return true;
  }
  return error == std::errc() && end == last;
}

}  // namespace serval::jinja
