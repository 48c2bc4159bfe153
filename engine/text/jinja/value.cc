#include "engine/text/jinja/value.h"

#include <algorithm>

#include "engine/text/jinja/failure.h"

namespace serval::jinja {

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
