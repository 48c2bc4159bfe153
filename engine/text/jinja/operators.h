// What the operators of an expression do to values, by Python's rules.
#pragma once

#include <string>
#include <string_view>

#include "engine/text/jinja/runtime.h"

namespace serval::jinja {

enum class Binary { kAdd, kSubtract, kMultiply, kDivide, kFloorDivide, kModulo, kPower };
enum class Compare { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual, kIn, kNotIn };

Value binary(Runtime& runtime, Binary op, const Value& a, const Value& b);
Value negate(const Value& value);
Value plus(const Value& value);
bool compare(Runtime& runtime, Compare op, const Value& a, const Value& b);
bool contains(Runtime& runtime, const Value& container, const Value& item);

std::string escape_html(std::string_view text);

}  // namespace serval::jinja
