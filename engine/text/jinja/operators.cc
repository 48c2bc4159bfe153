#include "engine/text/jinja/operators.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "engine/text/jinja/format.h"
#include "engine/text/jinja/methods.h"
#include "engine/text/jinja/unicode.h"

namespace serval::jinja {
namespace {

constexpr Int kIntMin = std::numeric_limits<Int>::min();
constexpr int64_t kMaxRange = 100'000;  // as Jinja's sandbox

constexpr std::string_view kBinaryNames[] = {"+", "-", "*", "/", "//", "%", "**"};

[[noreturn]] void unsupported(Binary op, const Value& a, const Value& b) {
  fail("unsupported operand type(s) for " + std::string(kBinaryNames[static_cast<int>(op)]) + ": '" +
       std::string(type_name(a)) + "' and '" + std::string(type_name(b)) + "'");
}

// By reference: the call that says whether it overflowed is the one that sets it.
Int checked(bool overflowed, const Int& result) {
  if (overflowed) fail("integer overflow");
  return result;
}

Int floor_divide(Int a, Int b) {
  if (b == 0) fail("division by zero");
  if (a == kIntMin && b == -1) fail("integer overflow");
  const Int quotient = a / b;
  return quotient - (a % b != 0 && (a < 0) != (b < 0));
}

double floor_modulo(double a, double b) {
  if (b == 0) fail("division by zero");
  const double rest = std::fmod(a, b);
  if (rest == 0) return std::copysign(0.0, b);
  return (rest < 0) != (b < 0) ? rest + b : rest;
}

Int int_power(Int base, Int exponent) {
  Int result = 1;
  // |base| >= 2 overflows within 127 turns; 0, 1 and -1 need only the exponent's parity.
  if (base >= -1 && base <= 1) return exponent == 0 ? 1 : base == -1 && exponent % 2 == 0 ? 1 : base;
  for (Int i = 0; i < exponent; ++i) {
    result = checked(__builtin_mul_overflow(result, base, &result), result);
  }
  return result;
}

Value int_arithmetic(Binary op, Int a, Int b) {
  Int result = 0;
  switch (op) {
    case Binary::kAdd:
      return checked(__builtin_add_overflow(a, b, &result), result);
    case Binary::kSubtract:
      return checked(__builtin_sub_overflow(a, b, &result), result);
    case Binary::kMultiply:
      return checked(__builtin_mul_overflow(a, b, &result), result);
    case Binary::kDivide:
      if (b == 0) fail("division by zero");
      return static_cast<double>(a) / static_cast<double>(b);
    case Binary::kFloorDivide:
      return floor_divide(a, b);
    case Binary::kModulo:
      return a - floor_divide(a, b) * b;
    case Binary::kPower:
      if (b < 0 && a == 0) fail("0.0 cannot be raised to a negative power");
      if (b < 0) return std::pow(static_cast<double>(a), static_cast<double>(b));
      return int_power(a, b);
  }
  return None{};
}

Value float_arithmetic(Binary op, double a, double b) {
  switch (op) {
    case Binary::kAdd:
      return a + b;
    case Binary::kSubtract:
      return a - b;
    case Binary::kMultiply:
      return a * b;
    case Binary::kDivide:
      if (b == 0) fail("division by zero");
      return a / b;
    case Binary::kFloorDivide: {
      const double rest = floor_modulo(a, b);
      return std::round((a - rest) / b);
    }
    case Binary::kModulo:
      return floor_modulo(a, b);
    case Binary::kPower: {
      const double result = std::pow(a, b);
      if (std::isnan(result) && !std::isnan(a) && !std::isnan(b)) fail("the power is a complex number");
      if (a == 0 && b < 0) fail("0.0 cannot be raised to a negative power");
      if (std::isinf(result) && std::isfinite(a) && std::isfinite(b)) fail("the power is too large");
      return result;
    }
  }
  return None{};
}

Value add_texts(Runtime& runtime, const Text& a, const Text& b) {
  const bool safe = a.safe || b.safe;
  const std::string left = safe && !a.safe ? escape_html(a.bytes) : "";
  const std::string right = safe && !b.safe ? escape_html(b.bytes) : "";
  const std::string_view x = left.empty() ? std::string_view(a.bytes) : left;
  const std::string_view y = right.empty() ? std::string_view(b.bytes) : right;
  runtime.require_size(x.size() + y.size());
  std::string sum;
  sum.reserve(x.size() + y.size());
  sum.append(x).append(y);
  return runtime.text(std::move(sum), safe);
}

Value repeat(Runtime& runtime, const Value& value, Int times) {
  const size_t unit = value.is_text() ? value.str().size() : value.sequence().items.size() * sizeof(Value);
  if (times < 0 || unit == 0) times = 0;
  if (times > 0) runtime.require_size(times > INT32_MAX ? SIZE_MAX : unit * static_cast<size_t>(times));
  const auto count = static_cast<size_t>(times);
  if (value.is_text()) {
    std::string text;
    text.reserve(unit * count);
    for (size_t i = 0; i < count; ++i) text += value.str();
    return runtime.text(std::move(text), value.text().safe);
  }
  std::vector<Value> items;
  items.reserve(value.sequence().items.size() * count);
  for (size_t i = 0; i < count; ++i) {
    items.insert(items.end(), value.sequence().items.begin(), value.sequence().items.end());
  }
  return runtime.sequence(value.sequence().kind, std::move(items));
}

bool is_repeatable(const Value& value) {
  return value.is_text() || (value.is_sequence() &&
                             (value.sequence().kind == Sequence::Kind::kList || value.sequence().is_tuple()));
}

Value add_sequences(Runtime& runtime, const Value& a, const Value& b) {
  const Sequence &x = a.sequence(), &y = b.sequence();
  const bool lists = x.kind == Sequence::Kind::kList && y.kind == Sequence::Kind::kList;
  if (!lists && !(x.is_tuple() && y.is_tuple())) unsupported(Binary::kAdd, a, b);
  runtime.require_size((x.items.size() + y.items.size()) * sizeof(Value));
  std::vector<Value> items = x.items;
  items.insert(items.end(), y.items.begin(), y.items.end());
  return runtime.sequence(lists ? Sequence::Kind::kList : Sequence::Kind::kTuple, std::move(items));
}

// A bound of a slice as an index, clamped to int64; None stays `absent`.
int64_t slice_bound(const Value& bound, int64_t absent) {
  if (bound.is_none()) return absent;
  if (!bound.is_integral()) fail("slice indices must be integers or None");
  return static_cast<int64_t>(std::clamp(bound.integer(), Int{INT32_MIN}, Int{INT32_MAX}));
}

// The character at `index` of a text, which may count from the end.
Value char_item(Runtime& runtime, const Text& text, Int index) {
  const auto length = static_cast<Int>(text.ascii ? text.bytes.size() : num_chars(text.bytes));
  if (index < 0) index += length;
  if (index < 0 || index >= length) return Value::undefined("string index out of range");
  size_t at = static_cast<size_t>(index);
  if (!text.ascii) {
    runtime.step(text.bytes.size());
    at = 0;
    for (Int i = 0; i < index; ++i) at += char_bytes(text.bytes, at);
  }
  return runtime.text(std::string_view(text.bytes).substr(at, char_bytes(text.bytes, at)), text.safe);
}

Value missing_item(const Value& object, const Value& key) {
  if (key.is_text()) {
    return Value::undefined("'" + std::string(type_name(object)) + " object' has no attribute '" +
                            std::string(key.str().substr(0, 100)) + "'");
  }
  return Value::undefined("'" + std::string(type_name(object)) + " object' has no such element");
}

// object[key] alone; Undefined when there is none.
Value item(Runtime& runtime, const Value& object, const Value& key) {
  if (object.is_dict()) {
    if (key.is_text()) {
      if (const Value* found = find_key(object.dict(), key.str())) return *found;
    } else if (!key.is_dict() && !(key.is_sequence() && !key.sequence().is_tuple())) {
      if (const Value* found = find_key(runtime, object.dict(), key)) return *found;
    }
  } else if (key.is_integral()) {
    if (object.is_text()) return char_item(runtime, object.text(), key.integer());
    if (object.is_sequence() && object.sequence().is_indexable()) {
      const std::vector<Value>& items = object.sequence().items;
      const Int index = key.integer() < 0 ? key.integer() + static_cast<Int>(items.size()) : key.integer();
      if (index >= 0 && index < static_cast<Int>(items.size())) return items[static_cast<size_t>(index)];
    }
  }
  return missing_item(object, key);
}

// object.name alone: a method, an object's attribute, a group's halves.
Value member(Runtime& runtime, const Value& object, std::string_view name) {
  if (object.is_object()) return object.object().attribute(runtime, name);
  if (object.is_sequence() && object.sequence().kind == Sequence::Kind::kGroup) {
    if (name == "grouper") return object.sequence().items[0];
    if (name == "list") return object.sequence().items[1];
  }
  return bind_method(object, name);
}

}  // namespace

Value binary(Runtime& runtime, Binary op, const Value& a, const Value& b) {
  require_defined(a);
  if (op == Binary::kModulo && a.is_text())
    return runtime.text(percent_format(runtime, a.str(), b), a.text().safe);
  require_defined(b);
  if (a.is_number() && b.is_number()) {
    return a.is_float() || b.is_float() ? float_arithmetic(op, a.number(), b.number())
                                        : int_arithmetic(op, a.integer(), b.integer());
  }
  if (op == Binary::kAdd && a.is_text() && b.is_text()) return add_texts(runtime, a.text(), b.text());
  if (op == Binary::kAdd && a.is_text()) {
    fail("can only concatenate str (not \"" + std::string(type_name(b)) + "\") to str");
  }
  if (op == Binary::kAdd && a.is_sequence() && b.is_sequence()) return add_sequences(runtime, a, b);
  if (op == Binary::kMultiply && is_repeatable(a) && b.is_integral()) return repeat(runtime, a, b.integer());
  if (op == Binary::kMultiply && a.is_integral() && is_repeatable(b)) return repeat(runtime, b, a.integer());
  unsupported(op, a, b);
}

Value negate(const Value& value) {
  require_defined(value);
  if (value.is_float()) return -value.number();
  if (!value.is_integral()) fail("bad operand type for unary -: '" + std::string(type_name(value)) + "'");
  Int result = 0;
  return checked(__builtin_sub_overflow(Int{0}, value.integer(), &result), result);
}

Value plus(const Value& value) {
  require_defined(value);
  if (value.is_float()) return value;
  if (!value.is_integral()) fail("bad operand type for unary +: '" + std::string(type_name(value)) + "'");
  return value.integer();
}

bool compare(Runtime& runtime, Compare op, const Value& a, const Value& b) {
  const bool unordered = a.is_number() && b.is_number() && (std::isnan(a.number()) || std::isnan(b.number()));
  switch (op) {
    case Compare::kEqual:
      return equal(runtime, a, b);
    case Compare::kNotEqual:
      return !equal(runtime, a, b);
    case Compare::kLess:
      return less(runtime, a, b);
    case Compare::kGreater:
      return less(runtime, b, a);
    case Compare::kLessEqual:
      return !unordered && !less(runtime, b, a);
    case Compare::kGreaterEqual:
      return !unordered && !less(runtime, a, b);
    case Compare::kIn:
      return contains(runtime, b, a);
    case Compare::kNotIn:
      return !contains(runtime, b, a);
  }
  return false;
}

bool contains(Runtime& runtime, const Value& container, const Value& item) {
  if (container.is_text()) {
    if (!item.is_text())
      fail("'in <string>' requires string as left operand, not " + std::string(type_name(item)));
    runtime.step(container.str().size());
    return find(container.str(), item.str()) != std::string_view::npos;
  }
  if (container.is_dict()) return find_key(runtime, container.dict(), item) != nullptr;
  if (container.is_undefined()) return false;
  if (!container.is_sequence())
    fail("argument of type '" + std::string(type_name(container)) + "' is not iterable");
  const Sequence& sequence = container.sequence();
  if (sequence.kind != Sequence::Kind::kGenerator) {
    return std::any_of(sequence.items.begin(), sequence.items.end(),
                       [&](const Value& other) { return equal(runtime, other, item); });
  }
  while (sequence.cursor < sequence.items.size()) {
    if (equal(runtime, sequence.items[sequence.cursor++], item)) return true;
  }
  return false;
}

Value subscript(Runtime& runtime, const Value& object, const Value& key) {
  require_defined(object);
  Value found = item(runtime, object, key);
  if (!found.is_undefined() || !key.is_text()) return found;
  const Value method = member(runtime, object, key.str());
  return method.is_undefined() ? found : method;
}

Value attribute(Runtime& runtime, const Value& object, std::string_view name) {
  require_defined(object);
  Value found = member(runtime, object, name);
  if (!found.is_undefined() || !object.is_dict()) return found;
  if (const Value* value = find_key(object.dict(), name)) return *value;
  return found;
}

SliceRange slice_range(int64_t length, const Value& start, const Value& stop, const Value& step_value) {
  const int64_t step = slice_bound(step_value, 1);
  if (step == 0) fail("slice step cannot be zero");
  const bool forward = step > 0;
  const auto clamp = [&](int64_t index) {
    if (index < 0) index += length;
    return std::clamp(index, forward ? int64_t{0} : int64_t{-1}, forward ? length : length - 1);
  };
  const int64_t first = start.is_none() ? (forward ? 0 : length - 1) : clamp(slice_bound(start, 0));
  const int64_t last = stop.is_none() ? (forward ? length : -1) : clamp(slice_bound(stop, 0));
  const int64_t distance = forward ? last - first : first - last;
  const int64_t stride = forward ? step : -step;
  return {first, distance <= 0 ? 0 : (distance + stride - 1) / stride, step};
}

Value slice(Runtime& runtime, const Value& object, const Value& start, const Value& stop, const Value& step) {
  require_defined(object);
  if (object.is_text()) {
    const std::string_view text = object.str();
    runtime.step(text.size());
    std::vector<uint32_t> starts;  // of each character; not needed for ASCII
    if (!object.text().ascii) {
      for (size_t at = 0; at < text.size(); at += char_bytes(text, at))
        starts.push_back(static_cast<uint32_t>(at));
    }
    const auto length = static_cast<int64_t>(object.text().ascii ? text.size() : starts.size());
    const SliceRange range = slice_range(length, start, stop, step);
    std::string out;
    for (int64_t i = 0, at = range.first; i < range.count; ++i, at += range.step) {
      const size_t byte = object.text().ascii ? static_cast<size_t>(at) : starts[static_cast<size_t>(at)];
      out += text.substr(byte, char_bytes(text, byte));
    }
    return runtime.text(std::move(out), object.text().safe);
  }
  if (!object.is_sequence() || !object.sequence().is_indexable()) {
    fail("'" + std::string(type_name(object)) + "' object cannot be sliced");
  }
  const Sequence& sequence = object.sequence();
  const SliceRange range = slice_range(static_cast<int64_t>(sequence.items.size()), start, stop, step);
  std::vector<Value> items;
  for (int64_t i = 0, at = range.first; i < range.count; ++i, at += range.step) {
    items.push_back(sequence.items[static_cast<size_t>(at)]);
  }
  const bool tuple = sequence.is_tuple();
  return runtime.sequence(tuple ? Sequence::Kind::kTuple : Sequence::Kind::kList, std::move(items));
}

Value make_range(Runtime& runtime, Int start, Int stop, Int step) {
  if (step == 0) fail("range() arg 3 must not be zero");
  constexpr Int kFar = Int{1} << 100;  // so that the arithmetic below cannot overflow
  if (start < -kFar || start > kFar || stop < -kFar || stop > kFar || step < -kFar || step > kFar) {
    fail("integer overflow");
  }
  const Int distance = step > 0 ? stop - start : start - stop;
  const Int stride = step > 0 ? step : -step;
  const Int count = distance <= 0 ? 0 : (distance + stride - 1) / stride;
  if (count > kMaxRange) fail_limit("range() is longer than " + std::to_string(kMaxRange));
  runtime.require_size(static_cast<size_t>(count) * sizeof(Value));
  std::vector<Value> items;
  items.reserve(static_cast<size_t>(count));
  for (Int i = 0; i < count; ++i) items.push_back(start + i * step);
  std::string label = "range(" + int_text(start) + ", " + int_text(stop);
  if (step != 1) label += ", " + int_text(step);
  return runtime.sequence(Sequence::Kind::kRange, std::move(items), label + ")");
}

std::string escape_html(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

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
