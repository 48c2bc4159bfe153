// Python's two formatting languages: printf style ("%5.1f" % x) and str.format ("{:>8}").
#include <algorithm>
#include <charconv>
#include <cmath>

#include "engine/text/jinja/access.h"
#include "engine/text/jinja/format.h"
#include "engine/text/jinja/numbers.h"
#include "engine/text/jinja/unicode.h"

namespace serval::jinja {
namespace {

// One conversion, whichever language spelled it.
struct Spec {
  std::string fill = " ";
  char align = 0;  // < > ^ =, or 0: the type's own
  char sign = '-';
  bool alternate = false;
  char thousands = 0;
  int width = 0;
  int precision = -1;
  char type = 0;
};

// Digits beyond a double's and widths beyond a line's are refused rather than paid for.
constexpr int kMaxFormatNumber = 10'000;

int read_number(std::string_view text, size_t& at) {
  int n = 0;
  for (; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at) {
    n = 10 * n + (text[at] - '0');
    if (n > kMaxFormatNumber) fail_limit("a format asks for too many characters");
  }
  return n;
}

std::string pad(std::string body, const Spec& spec, char default_align) {
  const auto width = static_cast<size_t>(spec.width);
  const size_t length = num_chars(body);
  if (length >= width) return body;
  const char align = spec.align ? spec.align : default_align;
  const auto fill = [&](size_t count) {
    std::string out;
    for (size_t i = 0; i < count; ++i) out += spec.fill;
    return out;
  };
  const size_t missing = width - length;
  switch (align) {
    case '<':
      return body + fill(missing);
    case '^':
      return fill(missing / 2) + body + fill(missing - missing / 2);
    case '=': {
      const size_t prefix = !body.empty() && (body[0] == '-' || body[0] == '+' || body[0] == ' ') ? 1 : 0;
      return body.substr(0, prefix) + fill(missing) + body.substr(prefix);
    }
    default:
      return fill(missing) + body;
  }
}

std::string group_digits(std::string digits, char separator) {
  const size_t end = std::min(digits.find_first_not_of("0123456789"), digits.size());
  for (size_t at = end; at > 3; at -= 3) digits.insert(at - 3, 1, separator);
  return digits;
}

std::string int_digits(Int n, char type) {
  if (type == 'd') return int_text(n);
  const int base = type == 'b' ? 2 : type == 'o' ? 8 : 16;
  std::string digits;
  for (; n != 0; n /= base) digits += "0123456789abcdef"[static_cast<int>(n % base)];
  if (digits.empty()) digits = "0";
  std::reverse(digits.begin(), digits.end());
  return type == 'X' ? to_upper(digits) : digits;
}

std::string float_digits(double x, char type, int precision) {
  const bool upper = type == 'E' || type == 'F' || type == 'G';
  const char lower_type = upper ? static_cast<char>(type + 32) : type;
  std::string text;
  if (std::isnan(x) || std::isinf(x)) {
    text = std::isnan(x) ? "nan" : "inf";
  } else {
    const std::string format = std::string("%.*") + lower_type;
    text.resize(static_cast<size_t>(precision) + 400);
    text.resize(static_cast<size_t>(std::snprintf(text.data(), text.size(), format.c_str(), precision, x)));
  }
  return upper ? to_upper(text) : text;
}

std::string format_number(const Value& value, Spec spec) {
  bool negative = false;
  std::string digits;
  if (std::string_view("bodxXn").find(spec.type) != std::string_view::npos && value.is_integral()) {
    Int n = value.integer();
    negative = n < 0;
    if (n == std::numeric_limits<Int>::min()) fail("integer overflow");
    digits = int_digits(negative ? -n : n, spec.type == 'n' ? 'd' : spec.type);
    if (spec.alternate && spec.type != 'd') digits = std::string("0") + spec.type + digits;
  } else if (std::string_view("eEfFgG%").find(spec.type) != std::string_view::npos) {
    double x = value.number();
    negative = std::signbit(x);
    const bool percent = spec.type == '%';
    const int precision = spec.precision < 0 ? 6 : spec.precision;
    digits = float_digits(std::fabs(percent ? x * 100 : x), percent ? 'f' : spec.type, precision);
    if (percent) digits += '%';
  } else {
    fail("unknown format code '" + std::string(1, spec.type) + "' for '" + std::string(type_name(value)) +
         "'");
  }
  if (spec.thousands) digits = group_digits(std::move(digits), spec.thousands);
  const std::string sign = negative ? "-" : spec.sign == '-' ? "" : std::string(1, spec.sign);
  return pad(sign + digits, spec, '>');
}

std::string cut(std::string text, int precision) {
  if (precision < 0) return text;
  size_t at = 0;
  for (int i = 0; i < precision && at < text.size(); ++i) at += char_bytes(text, at);
  text.resize(at);
  return text;
}

// ---- printf style

class PercentFormatter {
 public:
  PercentFormatter(Runtime& runtime, std::string_view format, const Value& values)
      : runtime_(runtime), format_(format), values_(values), out_(runtime) {}

  std::string run() {
    while (at_ < format_.size()) {
      const size_t percent = std::min(format_.find('%', at_), format_.size());
      out_.append(format_.substr(at_, percent - at_));
      at_ = percent + 1;
      if (percent < format_.size()) conversion();
    }
    if (next_ < num_required()) fail("not all arguments converted during string formatting");
    return out_.take();
  }

 private:
  char peek() const {
    if (at_ >= format_.size()) fail("incomplete format");
    return format_[at_];
  }

  void conversion() {
    if (peek() == '%') {
      ++at_;
      return out_.append('%');
    }
    std::string_view name;
    const bool has_name = peek() == '(';
    if (has_name) {
      const size_t close = format_.find(')', at_);
      if (close == std::string_view::npos) fail("incomplete format key");
      name = format_.substr(at_ + 1, close - at_ - 1);
      at_ = close + 1;
    }
    Spec spec;
    bool zero = false;
    for (;; ++at_) {
      const char flag = peek();
      if (flag == '-')
        spec.align = '<';
      else if (flag == '0')
        zero = true;
      else if (flag == '+' || (flag == ' ' && spec.sign != '+'))
        spec.sign = flag;
      else if (flag == '#')
        spec.alternate = true;
      else if (flag != ' ')
        break;
    }
    spec.width = read_number(format_, at_);
    if (peek() == '.') {
      ++at_;
      spec.precision = read_number(format_, at_);
    }
    spec.type = peek();
    ++at_;
    write(has_name ? named(name) : next(), spec, zero);
  }

  void write(const Value& value, Spec spec, bool zero) {
    runtime_.step();
    switch (spec.type) {
      case 's':
        return out_.append(pad(cut(str_of(runtime_, value), spec.precision), spec, '>'));
      case 'r':
      case 'a': {
        TextBuilder text(runtime_);
        append_repr(text, value);
        return out_.append(pad(cut(text.take(), spec.precision), spec, '>'));
      }
      case 'c':
        if (!value.is_text() || num_chars(value.str()) != 1) fail("%c requires a character");
        return out_.append(pad(std::string(value.str()), spec, '>'));
      default:
        break;
    }
    if (!value.is_number())
      fail(std::string("%") + spec.type + " format: a number is required, not " +
           std::string(type_name(value)));
    if (zero && !spec.align) {
      spec.fill = "0";
      spec.align = '=';
    }
    if (spec.type == 'i' || spec.type == 'u') spec.type = 'd';
    const bool truncates = spec.type == 'd' && value.is_float();
    out_.append(format_number(truncates ? Value(to_int(value.number())) : value, spec));
  }

  // All of a tuple has to be used, and a single value; what can be indexed may stand for a mapping that is
  // not asked.
  size_t num_required() const {
    if (values_.is_sequence() && values_.sequence().is_tuple()) return values_.sequence().items.size();
    const bool indexable = values_.is_dict() || values_.is_undefined() ||
                           (values_.is_sequence() && values_.sequence().is_indexable());
    return indexable ? 0 : 1;
  }

  Value next() {
    if (values_.is_sequence() && values_.sequence().is_tuple()) {
      const std::vector<Value>& items = values_.sequence().items;
      if (next_ >= items.size()) fail("not enough arguments for format string");
      return items[next_++];
    }
    if (next_++ > 0) fail("not enough arguments for format string");
    return values_;
  }

  Value named(std::string_view name) {
    if (!values_.is_dict()) fail("format requires a mapping");
    const Value* value = find_key(values_.dict(), name);
    if (!value) fail("format key '" + std::string(name) + "' is missing");
    return *value;
  }

  Runtime& runtime_;
  std::string_view format_;
  const Value& values_;
  TextBuilder out_;
  size_t at_ = 0;
  size_t next_ = 0;
};

// ---- str.format

Spec parse_spec(std::string_view text) {
  Spec spec;
  size_t at = 0;
  constexpr std::string_view kAligns = "<>^=";
  const size_t first = text.empty() ? 0 : char_bytes(text, 0);
  if (first < text.size() && kAligns.find(text[first]) != std::string_view::npos) {
    spec.fill = text.substr(0, first);
    spec.align = text[first];
    at = first + 1;
  } else if (!text.empty() && kAligns.find(text[0]) != std::string_view::npos) {
    spec.align = text[0];
    at = 1;
  }
  const auto take_any = [&](std::string_view set) {
    return at < text.size() && set.find(text[at]) != std::string_view::npos ? text[at++] : '\0';
  };
  if (const char sign = take_any("+- ")) spec.sign = sign;
  spec.alternate = take_any("#") != 0;
  if (take_any("0") && !spec.align) {
    spec.fill = "0";
    spec.align = '=';
  }
  spec.width = read_number(text, at);
  spec.thousands = take_any(",_");
  if (take_any(".")) spec.precision = read_number(text, at);
  spec.type = take_any("sbcdoxXneEfFgG%");
  if (at != text.size()) fail("invalid format specifier");
  return spec;
}

std::string format_value(Runtime& runtime, const Value& value, std::string_view spec_text) {
  Spec spec = parse_spec(spec_text);
  if (value.is_number() && !(value.is_bool() && spec_text.empty())) {
    if (!spec.type && value.is_integral()) spec.type = 'd';
    if (spec.type) return format_number(value, spec);
    if (spec.precision < 0) return pad(float_text(value.number()), spec, '>');
    spec.type = 'g';
    return format_number(value, spec);
  }
  if (value.is_undefined() && !spec_text.empty())
    fail("unsupported format string passed to Undefined.__format__");
  if (spec.type && spec.type != 's') fail(std::string("unknown format code '") + spec.type + "' for text");
  return pad(cut(str_of(runtime, value), spec.precision), spec, '<');
}

class BraceFormatter {
 public:
  BraceFormatter(Runtime& runtime, std::string_view format, const CallArgs& args)
      : runtime_(runtime), format_(format), args_(args), out_(runtime) {}

  std::string run() {
    for (size_t at = 0; at < format_.size();) {
      const char c = format_[at];
      const bool doubled = at + 1 < format_.size() && format_[at + 1] == c;
      if ((c == '{' || c == '}') && doubled) {
        out_.append(c);
        at += 2;
      } else if (c == '{') {
        const size_t close = format_.find('}', at);
        if (close == std::string_view::npos) fail("expected '}' before end of string");
        field(format_.substr(at + 1, close - at - 1));
        at = close + 1;
      } else if (c == '}') {
        fail("single '}' encountered in format string");
      } else {
        const size_t next = std::min(format_.find_first_of("{}", at), format_.size());
        out_.append(format_.substr(at, next - at));
        at = next;
      }
    }
    return out_.take();
  }

 private:
  void field(std::string_view text) {
    runtime_.step();
    if (text.find('{') != std::string_view::npos) fail("nested format fields are not supported");
    const size_t colon = std::min(text.find(':'), text.size());
    const std::string_view spec = colon < text.size() ? text.substr(colon + 1) : "";
    std::string_view name = text.substr(0, colon);
    char conversion = 0;
    if (const size_t mark = name.find('!'); mark != std::string_view::npos) {
      if (mark + 2 != name.size()) fail("expected one conversion character after '!'");
      conversion = name[mark + 1];
      name = name.substr(0, mark);
    }
    const Value value = lookup(name);
    if (!conversion) return out_.append(format_value(runtime_, value, spec));
    TextBuilder converted(runtime_);
    conversion == 's' ? append_str(converted, value) : append_repr(converted, value);
    out_.append(format_value(runtime_, runtime_.text(converted.take()), spec));
  }

  Value lookup(std::string_view name) {
    const size_t end = std::min(name.find_first_of(".["), name.size());
    Value value = argument(name.substr(0, end));
    for (size_t at = end; at < name.size();) {
      if (name[at] == '.') {
        const size_t stop = std::min(name.find_first_of(".[", at + 1), name.size());
        value = attribute(runtime_, value, name.substr(at + 1, stop - at - 1));
        at = stop;
        continue;
      }
      if (name[at] != '[') fail("only '.' or '[' can follow ']' in a format field");
      const size_t close = name.find(']', at);
      if (close == std::string_view::npos) fail("missing ']' in format string");
      const std::string_view key = name.substr(at + 1, close - at - 1);
      Int index = 0;
      value = subscript(runtime_, value, parse_int(key, 10, index) ? Value(index) : runtime_.text(key));
      at = close + 1;
    }
    return value;
  }

  Value argument(std::string_view name) {
    Int index = 0;
    if (name.empty()) {
      index = static_cast<Int>(next_++);
    } else if (!parse_int(name, 10, index)) {
      runtime_.work(args_.keywords.size() * sizeof(args_.keywords[0]));
      for (const auto& [key, value] : args_.keywords) {
        if (key == name) return value;
      }
      fail("format argument '" + std::string(name) + "' is missing");
    }
    if (index < 0 || index >= static_cast<Int>(args_.positional.size())) fail("format index out of range");
    return args_.positional[static_cast<size_t>(index)];
  }

  Runtime& runtime_;
  std::string_view format_;
  const CallArgs& args_;
  TextBuilder out_;
  size_t next_ = 0;
};

}  // namespace

std::string percent_format(Runtime& runtime, std::string_view format, const Value& values) {
  return PercentFormatter(runtime, format, values).run();
}

std::string brace_format(Runtime& runtime, std::string_view format, const CallArgs& args) {
  return BraceFormatter(runtime, format, args).run();
}

}  // namespace serval::jinja
