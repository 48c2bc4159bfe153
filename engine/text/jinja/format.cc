#include "engine/text/jinja/format.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "engine/text/jinja/unicode.h"

namespace serval::jinja {
namespace {

constexpr char kHexDigits[] = "0123456789abcdef";

void append_hex(std::string& out, uint32_t value, int digits) {
  for (int shift = 4 * (digits - 1); shift >= 0; shift -= 4) out += kHexDigits[value >> shift & 15];
}

std::string quoted(std::string_view text) {
  const bool double_quotes =
      text.find('\'') != std::string_view::npos && text.find('"') == std::string_view::npos;
  const char quote = double_quotes ? '"' : '\'';
  std::string out(1, quote);
  for (size_t at = 0; at < text.size();) {
    const size_t bytes = char_bytes(text, at);
    const char32_t c = char_at(text, at);
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      (out += '\\') += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (!is_printable(c)) {
      out += c < 0x100 ? "\\x" : c < 0x10000 ? "\\u" : "\\U";
      append_hex(out, c, c < 0x100 ? 2 : c < 0x10000 ? 4 : 8);
    } else {
      out += text.substr(at, bytes);
    }
    at += bytes;
  }
  return out += quote;
}

void append_items(TextBuilder& out, const std::vector<Value>& items) {
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out.append(", ");
    append_repr(out, items[i]);
  }
}

void append_sequence(TextBuilder& out, const Sequence& sequence) {
  using Kind = Sequence::Kind;
  const auto wrap = [&](std::string_view open, std::string_view close) {
    out.append(open);
    append_items(out, sequence.items);
    out.append(close);
  };
  switch (sequence.kind) {
    case Kind::kList:
      return wrap("[", "]");
    case Kind::kTuple:
    case Kind::kGroup:
      return wrap("(", sequence.items.size() == 1 ? ",)" : ")");
    case Kind::kKeys:
      return wrap("dict_keys([", "])");
    case Kind::kValues:
      return wrap("dict_values([", "])");
    case Kind::kItems:
      return wrap("dict_items([", "])");
    case Kind::kRange:
      return out.append(sequence.label);
    case Kind::kGenerator:
      return out.append("<generator object>");
  }
}

void append_json_text(TextBuilder& out, std::string_view text, bool ensure_ascii) {
  std::string escaped = "\"";
  for (size_t at = 0; at < text.size();) {
    const size_t bytes = char_bytes(text, at);
    const char32_t c = char_at(text, at);
    switch (c) {
      case '"':
        escaped += "\\\"";
        break;
      case '\\':
        escaped += "\\\\";
        break;
      case '\n':
        escaped += "\\n";
        break;
      case '\r':
        escaped += "\\r";
        break;
      case '\t':
        escaped += "\\t";
        break;
      case '\f':
        escaped += "\\f";
        break;
      case '\b':
        escaped += "\\b";
        break;
      default:
        if (c < 0x20 || (ensure_ascii && c >= 0x7F && c < 0x10000)) {
          append_hex(escaped += "\\u", c, 4);
        } else if (ensure_ascii && c >= 0x10000) {
          append_hex(escaped += "\\u", 0xD800 + ((c - 0x10000) >> 10), 4);
          append_hex(escaped += "\\u", 0xDC00 + (c & 0x3FF), 4);
        } else {
          escaped += text.substr(at, bytes);
        }
    }
    at += bytes;
  }
  out.append(escaped += '"');
}

std::string json_number(double x) {
  if (std::isnan(x)) return "NaN";
  if (std::isinf(x)) return x > 0 ? "Infinity" : "-Infinity";
  return float_text(x);
}

class JsonWriter {
 public:
  JsonWriter(TextBuilder& out, const JsonStyle& style) : out_(out), style_(style) {}

  void write(const Value& value, int level) {
    out_.runtime().step();
    if (value.is_none()) {
      out_.append("null");
    } else if (value.is_bool()) {
      out_.append(value.integer() ? "true" : "false");
    } else if (value.is_int()) {
      out_.append(int_text(value.integer()));
    } else if (value.is_float()) {
      out_.append(json_number(value.number()));
    } else if (value.is_text()) {
      append_json_text(out_, value.str(), style_.ensure_ascii);
    } else if (value.is_dict()) {
      write_dict(value.dict(), level);
    } else if (value.is_sequence() &&
               (value.sequence().kind == Sequence::Kind::kList || value.sequence().is_tuple())) {
      const std::vector<Value>& items = value.sequence().items;
      write_all('[', ']', items.size(), level, [&](size_t i) { write(items[i], level + 1); });
    } else {
      fail("Object of type " + std::string(type_name(value)) + " is not JSON serializable");
    }
  }

 private:
  void write_dict(const Dict& dict, int level) {
    std::vector<uint32_t> order(dict.entries.size());
    for (uint32_t i = 0; i < order.size(); ++i) order[i] = i;
    if (style_.sort_keys) {
      std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
        return less(out_.runtime(), dict.entries[a].first, dict.entries[b].first);
      });
    }
    write_all('{', '}', order.size(), level, [&](size_t i) {
      const auto& [key, value] = dict.entries[order[i]];
      append_json_text(out_, key_text(key), style_.ensure_ascii);
      out_.append(style_.key_separator);
      write(value, level + 1);
    });
  }

  static std::string key_text(const Value& key) {
    if (key.is_text()) return std::string(key.str());
    if (key.is_none()) return "null";
    if (key.is_bool()) return key.integer() ? "true" : "false";
    if (key.is_int()) return int_text(key.integer());
    if (key.is_float()) return json_number(key.number());
    fail("keys must be str, int, float, bool or None, not " + std::string(type_name(key)));
  }

  template <class WriteItem>
  void write_all(char open, char close, size_t count, int level, WriteItem write_item) {
    out_.append(open);
    for (size_t i = 0; i < count; ++i) {
      if (i > 0) out_.append(style_.item_separator);
      new_line(level + 1);
      write_item(i);
    }
    if (count > 0) new_line(level);
    out_.append(close);
  }

  void new_line(int level) {
    if (!style_.multiline) return;
    out_.append('\n');
    for (int i = 0; i < level; ++i) out_.append(style_.indent);
  }

  TextBuilder& out_;
  const JsonStyle& style_;
};

}  // namespace

std::string int_text(Int n) {
  if (n == 0) return "0";
  std::string digits;
  for (Int rest = n; rest != 0; rest /= 10) {
    const int digit = static_cast<int>(rest % 10);
    digits += static_cast<char>('0' + (digit < 0 ? -digit : digit));
  }
  if (n < 0) digits += '-';
  return {digits.rbegin(), digits.rend()};
}

std::string float_text(double x) {
  if (std::isnan(x)) return "nan";
  if (std::isinf(x)) return x > 0 ? "inf" : "-inf";
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, x, std::chars_format::scientific).ptr;
  const std::string_view shortest(buffer, static_cast<size_t>(end - buffer));
  const size_t e = shortest.find('e');
  int exponent = 0;
  const char* first = shortest.data() + e + (shortest[e + 1] == '+' ? 2 : 1);
  std::from_chars(first, end, exponent);

  std::string digits;
  for (char c : shortest.substr(0, e)) {
    if (c >= '0' && c <= '9') digits += c;
  }
  std::string out = std::signbit(x) ? "-" : "";
  const int num_digits = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    out += digits[0];
    if (num_digits > 1) (out += '.') += digits.substr(1);
    const std::string power = std::to_string(std::abs(exponent));
    return (out += exponent < 0 ? "e-" : "e+") += (power.size() < 2 ? "0" : "") + power;
  }
  if (exponent < 0) return out + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  if (num_digits <= exponent + 1) {
    return out + digits + std::string(static_cast<size_t>(exponent + 1 - num_digits), '0') + ".0";
  }
  const auto whole = static_cast<size_t>(exponent + 1);
  return out + digits.substr(0, whole) + "." + digits.substr(whole);
}

void append_str(TextBuilder& out, const Value& value) {
  if (value.is_text()) {
    out.append(value.str());
  } else if (!value.is_undefined()) {
    append_repr(out, value);
  }
}

void append_repr(TextBuilder& out, const Value& value) {
  out.runtime().step();
  if (value.is_none()) {
    out.append("None");
  } else if (value.is_undefined()) {
    out.append("Undefined");
  } else if (value.is_bool()) {
    out.append(value.integer() ? "True" : "False");
  } else if (value.is_int()) {
    out.append(int_text(value.integer()));
  } else if (value.is_float()) {
    out.append(float_text(value.number()));
  } else if (value.is_text()) {
    const std::string text = quoted(value.str());
    out.append(value.text().safe ? "Markup(" + text + ")" : text);
  } else if (value.is_sequence()) {
    append_sequence(out, value.sequence());
  } else if (value.is_dict()) {
    out.append('{');
    for (size_t i = 0; i < value.dict().entries.size(); ++i) {
      if (i > 0) out.append(", ");
      append_repr(out, value.dict().entries[i].first);
      out.append(": ");
      append_repr(out, value.dict().entries[i].second);
    }
    out.append('}');
  } else {
    // Python prints an address here, which no template can mean.
    out.append("<" + std::string(value.object().type_name()) + " object>");
  }
}

std::string str_of(Runtime& runtime, const Value& value) {
  runtime.work_on(value);
  if (value.is_text()) return value.text().bytes;
  TextBuilder out(runtime);
  append_str(out, value);
  return out.take();
}

void append_json(TextBuilder& out, const Value& value, const JsonStyle& style) {
  JsonWriter(out, style).write(value, 0);
}

}  // namespace serval::jinja
