#include "engine/text/jinja/operators.h"

#include <algorithm>
#include <cmath>

#include "engine/text/jinja/format.h"
#include "engine/text/jinja/unicode.h"

namespace serval::jinja {
namespace {

constexpr Int kIntMin = std::numeric_limits<Int>::min();

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
    runtime.step(container.str().size() + item.str().size());
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

}  // namespace serval::jinja
