#include "engine/text/jinja/value.h"

#include <algorithm>
#include <cmath>

#include "engine/text/jinja/runtime.h"

namespace serval::jinja {
namespace {

int three_way(auto a, auto b) {
  return a < b ? -1 : b < a ? 1 : 0;
}

int compare_numbers(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) return three_way(a.integer(), b.integer());
  return three_way(a.number(), b.number());
}

// Keys of different kinds never compare equal; numbers of all types are one kind.
int key_rank(const Value& key) {
  if (key.is_text()) return 0;
  if (key.is_number()) return 1;
  if (key.is_none()) return 2;
  if (key.is_undefined()) return 3;
  if (key.is_sequence() && key.sequence().is_tuple()) return 4;
  if (key.is_object()) return 5;
  fail("unhashable type: '" + std::string(type_name(key)) + "'");
}

bool equal_items(Runtime& runtime, const std::vector<Value>& a, const std::vector<Value>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [&](const Value& x, const Value& y) { return equal(runtime, x, y); });
}

// Lists, tuples and ranges are equal only to their own kind.
int equality_class(const Sequence& s) {
  if (s.is_tuple()) return 0;
  return s.kind == Sequence::Kind::kList ? 1 : s.kind == Sequence::Kind::kRange ? 2 : 3;
}

}  // namespace

std::string_view Value::str() const {
  return text().bytes;
}

Value Object::call(Runtime&, const CallArgs&) {
  fail("'" + std::string(type_name()) + "' object is not callable");
}

Value Object::attribute(Runtime&, std::string_view name) {
  return Value::undefined("'" + std::string(type_name()) + " object' has no attribute '" + std::string(name) +
                          "'");
}

std::string_view type_name(const Value& value) {
  if (value.is_none()) return "NoneType";
  if (value.is_undefined()) return "Undefined";
  if (value.is_bool()) return "bool";
  if (value.is_int()) return "int";
  if (value.is_float()) return "float";
  if (value.is_text()) return "str";
  if (value.is_dict()) return "dict";
  if (value.is_object()) return value.object().type_name();
  switch (value.sequence().kind) {
    case Sequence::Kind::kList:
      return "list";
    case Sequence::Kind::kTuple:
    case Sequence::Kind::kGroup:
      return "tuple";
    case Sequence::Kind::kRange:
      return "range";
    case Sequence::Kind::kKeys:
      return "dict_keys";
    case Sequence::Kind::kValues:
      return "dict_values";
    case Sequence::Kind::kItems:
      return "dict_items";
    case Sequence::Kind::kGenerator:
      return "generator";
  }
  return "list";
}

int depth_of(const Value& value) {
  if (value.is_sequence()) return value.sequence().depth;
  if (value.is_dict()) return value.dict().depth;
  return value.is_object() ? value.object().depth() : 0;
}

bool is_true(const Value& value) {
  if (value.is_none() || value.is_undefined()) return false;
  if (value.is_number()) return value.number() != 0;
  if (value.is_text()) return !value.str().empty();
  if (value.is_dict()) return !value.dict().entries.empty();
  if (value.is_sequence()) {
    return value.sequence().kind == Sequence::Kind::kGenerator || !value.sequence().items.empty();
  }
  return true;
}

void require_defined(const Value& value) {
  if (value.is_undefined()) fail(*std::get<Undefined>(value.data()).why);
}

bool equal(Runtime& runtime, const Value& a, const Value& b) {
  runtime.step();
  if (a.is_number() && b.is_number()) {
    if (a.is_integral() && b.is_integral()) return a.integer() == b.integer();
    return a.number() == b.number();
  }
  if (a.data().index() != b.data().index()) return false;
  if (a.is_text()) {
    if (a.str().size() == b.str().size()) runtime.work(a.str().size());
    return a.str() == b.str();
  }
  if (a.is_sequence()) {
    if (&a.sequence() == &b.sequence()) return true;
    const int kind = equality_class(a.sequence());
    return kind < 3 && kind == equality_class(b.sequence()) &&
           equal_items(runtime, a.sequence().items, b.sequence().items);
  }
  if (a.is_dict()) {
    if (&a.dict() == &b.dict()) return true;
    if (a.dict().entries.size() != b.dict().entries.size()) return false;
    return std::all_of(a.dict().entries.begin(), a.dict().entries.end(), [&](const auto& entry) {
      const Value* other = find_key(runtime, b.dict(), entry.first);
      return other && equal(runtime, entry.second, *other);
    });
  }
  if (a.is_object()) return &a.object() == &b.object();
  return true;  // None, Undefined
}

bool less(Runtime& runtime, const Value& a, const Value& b) {
  runtime.step();
  require_defined(a);
  require_defined(b);
  if (a.is_number() && b.is_number()) {
    if (a.is_integral() && b.is_integral()) return a.integer() < b.integer();
    return a.number() < b.number();
  }
  if (a.is_text() && b.is_text()) {
    runtime.work(std::min(a.str().size(), b.str().size()));
    return a.str() < b.str();  // UTF-8 sorts as its code points do
  }
  if (a.is_sequence() && b.is_sequence() && equality_class(a.sequence()) == equality_class(b.sequence()) &&
      equality_class(a.sequence()) < 2) {
    const std::vector<Value>&x = a.sequence().items, &y = b.sequence().items;
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      if (!equal(runtime, x[i], y[i])) return less(runtime, x[i], y[i]);
    }
    return x.size() < y.size();
  }
  fail("'<' not supported between instances of '" + std::string(type_name(a)) + "' and '" +
       std::string(type_name(b)) + "'");
}

int compare_keys(Runtime& runtime, const Value& a, const Value& b) {
  runtime.step();
  const int rank = key_rank(a);
  if (const int order = three_way(rank, key_rank(b)); order != 0) return order;
  switch (rank) {
    case 0:
      runtime.work(std::min(a.str().size(), b.str().size()));
      return a.str().compare(b.str());
    case 1: {
      // NaN is a key of its own, after every number, so that the order stays total.
      const bool a_nan = std::isnan(a.number()), b_nan = std::isnan(b.number());
      return a_nan || b_nan ? three_way(a_nan, b_nan) : compare_numbers(a, b);
    }
    case 4: {
      const std::vector<Value>&x = a.sequence().items, &y = b.sequence().items;
      if (const int order = three_way(x.size(), y.size()); order != 0) return order;
      for (size_t i = 0; i < x.size(); ++i) {
        if (const int order = compare_keys(runtime, x[i], y[i]); order != 0) return order;
      }
      return 0;
    }
    case 5:
      return three_way(&a.object(), &b.object());
    default:
      return 0;
  }
}

const Value* find_key(Runtime& runtime, const Dict& dict, const Value& key) {
  key_rank(key);  // refuses an unhashable key even in an empty dictionary
  const auto at = std::lower_bound(
      dict.by_key.begin(), dict.by_key.end(), key,
      [&](uint32_t i, const Value& k) { return compare_keys(runtime, dict.entries[i].first, k) < 0; });
  if (at == dict.by_key.end() || compare_keys(runtime, dict.entries[*at].first, key) != 0) return nullptr;
  return &dict.entries[*at].second;
}

const Value* find_key(const Dict& dict, std::string_view key) {
  // Text keys sort before all others.
  const auto at =
      std::lower_bound(dict.by_key.begin(), dict.by_key.end(), key, [&](uint32_t i, std::string_view k) {
        const Value& other = dict.entries[i].first;
        return other.is_text() && other.str() < k;
      });
  if (at == dict.by_key.end()) return nullptr;
  const auto& [found, value] = dict.entries[*at];
  return found.is_text() && found.str() == key ? &value : nullptr;
}

}  // namespace serval::jinja
