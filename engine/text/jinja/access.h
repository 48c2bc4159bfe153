// How items and attributes are found, by the sandbox's rules: a dictionary's keys, a sequence's items and the
// methods listed in methods.h are all there is. No "__class__" leads anywhere.
#pragma once

#include <string_view>

#include "engine/text/jinja/runtime.h"

namespace serval::jinja {

// object[key] and object.name: each falls back to the other, and gives Undefined when nothing is found. Fail
// on an Undefined object.
Value subscript(Runtime& runtime, const Value& object, const Value& key);
Value attribute(Runtime& runtime, const Value& object, std::string_view name);
// object[start:stop:step]; absent bounds are None. Fails, unlike other subscripts, for what has no order. A
// slice of a range is a list.
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

}  // namespace serval::jinja
