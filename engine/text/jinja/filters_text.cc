// Filters that work on texts and numbers.
#include <algorithm>
#include <cmath>

#include "engine/text/jinja/access.h"
#include "engine/text/jinja/builtins.h"
#include "engine/text/jinja/format.h"
#include "engine/text/jinja/methods.h"
#include "engine/text/jinja/numbers.h"
#include "engine/text/jinja/operators.h"
#include "engine/text/jinja/parameters.h"
#include "engine/text/jinja/pieces.h"
#include "engine/text/jinja/unicode.h"

namespace serval::jinja {
namespace {

bool is_safe(const Value& value) {
  return value.is_text() && value.text().safe;
}

Value upper_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  Parameters("upper", args, {});
  return rt.text(to_upper(str_of(rt, v)), is_safe(v));
}

Value lower_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  Parameters("lower", args, {});
  return rt.text(to_lower(str_of(rt, v)), is_safe(v));
}

Value capitalize_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  Parameters("capitalize", args, {});
  return rt.text(capitalize(str_of(rt, v)), is_safe(v));
}

// Unlike str.title, only white space, hyphens and opening brackets begin a word: "they're" stays one.
Value title_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  Parameters("title", args, {});
  const std::string text = str_of(rt, v);
  std::string out;
  const auto begins_word = [&](size_t at) {
    const char32_t c = char_at(text, at);
    return is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
  };
  for (size_t at = 0; at < text.size();) {
    constexpr size_t kPieceBytes = 64;  // what changing the case of a short word costs
    rt.work(kPieceBytes);
    size_t end = at;
    if (begins_word(at)) {
      end += char_bytes(text, at);
      out += text.substr(at, end - at);
    } else {
      while (end < text.size() && !begins_word(end)) end += char_bytes(text, end);
      const size_t first = char_bytes(text, at);
      out += to_upper(text.substr(at, first)) + to_lower(text.substr(at + first, end - at - first));
    }
    at = end;
  }
  return rt.text(std::move(out));
}

Value trim_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  const Parameters p("trim", args, {"chars"});
  const std::string text = str_of(rt, v);
  return rt.text(p.present(0) ? strip(text, Side::kBoth, p.text(0)) : strip(text, Side::kBoth), is_safe(v));
}

Value replace_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  const Parameters p("replace", args, {"old", "new", "count"});
  const auto count =
      p.present(2) ? static_cast<int64_t>(std::clamp(p.integer(2, -1), Int{-1}, Int{INT32_MAX})) : -1;
  return rt.text(replace_all(rt, str_of(rt, v), str_of(rt, p.required(0)), str_of(rt, p.required(1)), count));
}

Value string_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  Parameters("string", args, {});
  return v.is_text() ? v : rt.text(str_of(rt, v));
}

Value safe_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  Parameters("safe", args, {});
  return rt.text(str_of(rt, v), true);
}

Value escape_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  Parameters("escape", args, {});
  return is_safe(v) ? v : rt.text(escape_html(str_of(rt, v)), true);
}

Value forceescape_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  Parameters("forceescape", args, {});
  return rt.text(escape_html(str_of(rt, v)), true);
}

Value indent_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  const Parameters p("indent", args, {"width", "first", "blank"});
  require_defined(v);
  if (!v.is_text()) fail("indent() takes a str, not " + std::string(type_name(v)));
  std::string indention;
  if (p[0] && p[0]->is_text()) {
    indention = p[0]->str();
  } else {
    const Int width = std::clamp(p.integer(0, 4), Int{0}, Int{INT32_MAX});
    rt.require_size(static_cast<size_t>(width));
    indention.assign(static_cast<size_t>(width), ' ');
  }
  // The newline that Jinja appends, for the last line's sake.
  const std::string text = v.text().bytes + "\n";
  TextBuilder out(rt);
  bool first_line = true;
  if (p.flag(1, false)) out.append(indention);
  for (std::string_view line : split_lines(rt, text, false)) {
    rt.step();
    if (!std::exchange(first_line, false)) {
      out.append('\n');
      if (p.flag(2, false) || !line.empty()) out.append(indention);
    }
    out.append(line);
  }
  return rt.text(out.take(), is_safe(v));
}

Value center_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  const Parameters p("center", args, {"width"});
  const Value width = p[0] ? *p[0] : Value::of(80);
  return bind_method(rt.text(str_of(rt, v), is_safe(v)), "center").object().call(rt, CallArgs{{width}, {}});
}

Value truncate_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  const Parameters p("truncate", args, {"length", "killwords", "end", "leeway"});
  if (v.is_undefined()) return v;
  if (!v.is_text()) fail("truncate() takes a str, not " + std::string(type_name(v)));
  const std::string_view end = p[2] ? p.text(2) : "...";
  const Int length = p.integer(0, 255), leeway = p.present(3) ? p.integer(3, 0) : 5;
  const auto end_length = static_cast<Int>(num_chars(end));
  if (length < end_length || leeway < 0)
    fail("truncate() got a length shorter than its end, or a negative leeway");
  if (static_cast<Int>(num_chars(v.str())) <= length + leeway) return v;
  const Value head = slice(rt, v, None{}, length - end_length, None{});
  std::string_view kept = head.str();
  if (!p.flag(1, false)) kept = kept.substr(0, kept.rfind(' '));
  return rt.text(std::string(kept) + std::string(end), is_safe(v));
}

Value wordcount_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  Parameters("wordcount", args, {});
  const std::string text = str_of(rt, v);
  Int words = 0;
  bool in_word = false;
  for (size_t at = 0; at < text.size(); at += char_bytes(text, at)) {
    const char32_t c = char_at(text, at);
    rt.work(kLetterBytes);
    const bool letter = is_alpha(c) || is_digit(c) || c == '_';
    words += letter && !in_word;
    in_word = letter;
  }
  return words;
}

Value format_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  if (!args.positional.empty() && !args.keywords.empty()) {
    fail("format() takes positional or keyword arguments, not both");
  }
  const std::string format = str_of(rt, v);
  if (args.keywords.empty()) {
    return rt.text(percent_format(rt, format, rt.sequence(Sequence::Kind::kTuple, args.positional)),
                   is_safe(v));
  }
  std::vector<std::pair<Value, Value>> named;
  for (const auto& [name, value] : args.keywords) named.emplace_back(rt.text(name), value);
  return rt.text(percent_format(rt, format, rt.dict(std::move(named))), is_safe(v));
}

Value urlencode_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  Parameters("urlencode", args, {});
  const auto quote = [](std::string_view text, bool for_query) {
    std::string out;
    for (char c : text) {
      const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                         c == '_' || c == '.' || c == '-' || c == '~' || (c == '/' && !for_query);
      if (plain) {
        out += c;
      } else if (c == ' ' && for_query) {
        out += '+';
      } else {
        const auto byte = static_cast<uint8_t>(c);
        ((out += '%') += "0123456789ABCDEF"[byte >> 4]) += "0123456789ABCDEF"[byte & 15];
      }
    }
    return out;
  };
  if (v.is_text() || (!v.is_dict() && !v.is_sequence())) return rt.text(quote(str_of(rt, v), false));
  TextBuilder out(rt);
  const auto add = [&](const Value& key, const Value& value) {
    if (out.size() > 0) out.append('&');
    out.append(quote(str_of(rt, key), true) + "=" + quote(str_of(rt, value), true));
  };
  if (v.is_dict()) {
    for (const auto& [key, value] : v.dict().entries) add(key, value);
  } else {
    for (const Value& pair : iterate(rt, v)) {
      const std::vector<Value> halves = iterate(rt, pair);
      if (halves.size() != 2) fail("urlencode() takes pairs");
      add(halves[0], halves[1]);
    }
  }
  return rt.text(out.take());
}

Value tojson_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  const Parameters p("tojson", args, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ensure_ascii = p.flag(0, false);
  style.sort_keys = p.flag(3, false);
  if (p.present(1)) {
    style.multiline = true;
    style.item_separator = ",";
    if (p[1]->is_text()) {
      style.indent = p[1]->str();
    } else {
      const Int width = std::clamp(p.integer(1, 0), Int{0}, Int{INT32_MAX});
      rt.require_size(static_cast<size_t>(width));
      style.indent.assign(static_cast<size_t>(width), ' ');
    }
  }
  if (p.present(2)) {
    const std::vector<Value> separators = iterate(rt, *p[2]);
    if (separators.size() != 2 || !separators[0].is_text() || !separators[1].is_text()) {
      fail("separators are a pair of texts");
    }
    style.item_separator = separators[0].str();
    style.key_separator = separators[1].str();
  }
  TextBuilder out(rt);
  append_json(out, v, style);
  return rt.text(out.take());
}

// ---- numbers

Value int_filter(Runtime&, const Value& v, const CallArgs& args) {
  const Parameters p("int", args, {"default", "base"});
  require_defined(v);
  const Value fallback = p[0] ? *p[0] : Value::of(0);
  if (v.is_integral()) return v.integer();
  double x = 0;
  if (v.is_text()) {
    const Int base = p.integer(1, 10);
    if (base != 0 && (base < 2 || base > 36)) fail("int() base must be >= 2 and <= 36, or 0");
    Int n = 0;
    if (parse_int(v.str(), static_cast<int>(base), n)) return n;
    if (!parse_float(v.str(), x)) return fallback;
  } else if (v.is_float()) {
    x = v.number();
  } else {
    return fallback;
  }
  return std::isfinite(x) ? Value(to_int(x)) : fallback;
}

Value float_filter(Runtime&, const Value& v, const CallArgs& args) {
  const Parameters p("float", args, {"default"});
  require_defined(v);
  if (v.is_number()) return v.number();
  double x = 0;
  if (v.is_text() && parse_float(v.str(), x)) return x;
  return p[0] ? *p[0] : Value(0.0);
}

Value abs_filter(Runtime&, const Value& v, const CallArgs& args) {
  Parameters("abs", args, {});
  require_defined(v);
  if (v.is_float()) return std::fabs(v.number());
  if (!v.is_integral()) fail("bad operand type for abs(): '" + std::string(type_name(v)) + "'");
  return v.integer() < 0 ? negate(v) : Value(v.integer());
}

// Python's round(x, digits): to the nearest decimal, exact ties to even, as printing with that many digits
// does.
double round_to(double x, int digits) {
  if (!std::isfinite(x)) return x;
  if (digits >= 0) {
    char buffer[400];
    const int length = std::snprintf(buffer, sizeof buffer, "%.*f", std::min(digits, 60), x);
    double out = x;
    return parse_float(std::string_view(buffer, static_cast<size_t>(length)), out) ? out : x;
  }
  const double scale = std::pow(10.0, -digits);
  return std::isinf(scale) ? std::copysign(0.0, x) : std::nearbyint(x / scale) * scale;
}

Value round_filter(Runtime& rt, const Value& v, const CallArgs& args) {
  const Parameters p("round", args, {"precision", "method"});
  require_defined(v);
  if (!v.is_number()) fail("type " + std::string(type_name(v)) + " doesn't define __round__ method");
  const std::string_view method = p[1] ? p.text(1) : "common";
  const auto digits = static_cast<int>(std::clamp(p.integer(0, 0), Int{-400}, Int{400}));
  if (method == "common") {
    if (v.is_integral() && digits >= 0) return v.integer();
    const double rounded = round_to(v.number(), digits);
    return v.is_integral() ? Value(to_int(rounded)) : Value(rounded);
  }
  if (method != "ceil" && method != "floor") fail("method must be common, ceil or floor");
  const Value scale = binary(rt, Binary::kPower, Value::of(10), Value::of(digits));
  const double scaled = binary(rt, Binary::kMultiply, v, scale).number();
  const Int whole = to_int(method == "ceil" ? std::ceil(scaled) : std::floor(scaled));
  return binary(rt, Binary::kDivide, Value(whole), scale);
}

struct NamedFilter {
  std::string_view name;
  Filter filter;
};

constexpr NamedFilter kTextFilters[] = {
    {"abs", abs_filter},
    {"capitalize", capitalize_filter},
    {"center", center_filter},
    {"e", escape_filter},
    {"escape", escape_filter},
    {"float", float_filter},
    {"forceescape", forceescape_filter},
    {"format", format_filter},
    {"indent", indent_filter},
    {"int", int_filter},
    {"lower", lower_filter},
    {"replace", replace_filter},
    {"round", round_filter},
    {"safe", safe_filter},
    {"string", string_filter},
    {"title", title_filter},
    {"tojson", tojson_filter},
    {"trim", trim_filter},
    {"truncate", truncate_filter},
    {"upper", upper_filter},
    {"urlencode", urlencode_filter},
    {"wordcount", wordcount_filter},
};

}  // namespace

Filter find_text_filter(std::string_view name) {
  const auto at = std::find_if(std::begin(kTextFilters), std::end(kTextFilters),
                               [&](const NamedFilter& f) { return f.name == name; });
  return at == std::end(kTextFilters) ? nullptr : at->filter;
}

}  // namespace serval::jinja
