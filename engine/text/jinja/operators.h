// What the operators of an expression do to values, by Python's rules; and how items and attributes are
// found, by the sandbox's: a dictionary's keys, a sequence's items and the methods listed in methods.h are
// all there is. No "__class__" leads anywhere.
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

// object[key] and object.name: each falls back to the other, and gives Undefined when nothing is found. Fail
// on an Undefined object.
Value subscript(Runtime& runtime, const Value& object, const Value& key);
Value attribute(Runtime& runtime, const Value& object, std::string_view name);
// object[start:stop:step]; absent bounds are None. Undefined for what has no order, as for any other failed
// subscript.
Value slice(Runtime& runtime, const Value& object, const Value& start, const Value& stop, const Value& step);
// The items start, start+step... of a sequence of `length`, with Python's clamping: first index and how many.
struct SliceRange {
  int64_t first;
  int64_t count;
  int64_t step;
};
SliceRange slice_range(int64_t length, const Value& start, const Value& stop, const Value& step);

// range(start, stop, step); a range that is too long is a limit, as are all lists.
Value make_range(Runtime& runtime, Int start, Int stop, Int step);

std::string escape_html(std::string_view text);
Int to_int(double x);  // towards zero; fails for NaN, infinities and what does not fit
// Python's int(text, base): white space around, sign, underscores between digits, a prefix when the base
// allows it.
bool parse_int(std::string_view text, int base, Int& out);
bool parse_float(std::string_view text, double& out);

}  // namespace serval::jinja
