#include "engine/text/jinja/access.h"

#include <algorithm>

#include "engine/text/jinja/format.h"
#include "engine/text/jinja/methods.h"
#include "engine/text/jinja/unicode.h"

namespace serval::jinja {
namespace {

constexpr int64_t kMaxRange = 100'000;  // as Jinja's sandbox

// A bound of a slice as an index, clamped to int64; None stays `absent`.
int64_t slice_bound(const Value& bound, int64_t absent) {
  if (bound.is_none()) return absent;
  if (!bound.is_integral()) fail("slice indices must be integers or None");
  return static_cast<int64_t>(std::clamp(bound.integer(), Int{INT32_MIN}, Int{INT32_MAX}));
}

// The character at `index` of a text, which may count from the end.
Value char_item(Runtime& runtime, const Text& text, Int index) {
  if (!text.ascii) runtime.work(2 * text.bytes.size());
  const auto length = static_cast<Int>(text.ascii ? text.bytes.size() : num_chars(text.bytes));
  if (index < 0) index += length;
  if (index < 0 || index >= length) return Value::undefined("string index out of range");
  size_t at = static_cast<size_t>(index);
  if (!text.ascii) {
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
      runtime.work(key.str().size());
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

// A dictionary's methods that the sandbox withholds. They are there all the same, so that object.name finds
// one of them, undefined, before it would look for a key.
bool changes_dictionary(std::string_view name) {
  constexpr std::string_view kMethods[] = {"clear", "pop", "popitem", "setdefault", "update"};
  return std::find(std::begin(kMethods), std::end(kMethods), name) != std::end(kMethods);
}

}  // namespace

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
  if (!found.is_undefined() || !object.is_dict() || changes_dictionary(name)) return found;
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
      runtime.work(1);
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

}  // namespace serval::jinja
