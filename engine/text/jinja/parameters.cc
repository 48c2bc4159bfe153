#include "engine/text/jinja/parameters.h"

#include <algorithm>

#include "engine/text/jinja/failure.h"

namespace serval::jinja {

Parameters::Parameters(std::string_view function, const CallArgs& args,
                       std::initializer_list<std::string_view> names)
    : function_(function), values_(names.size()) {
  if (args.positional.size() > names.size()) {
    fail(std::string(function) + "() takes at most " + std::to_string(names.size()) + " arguments");
  }
  for (size_t i = 0; i < args.positional.size(); ++i) values_[i] = &args.positional[i];
  for (const auto& [name, value] : args.keywords) {
    const auto at = std::find(names.begin(), names.end(), name);
    if (at == names.end())
      fail(std::string(function) + "() got an unexpected keyword argument '" + name + "'");
    const Value*& slot = values_[static_cast<size_t>(at - names.begin())];
    if (slot) fail(std::string(function) + "() got multiple values for argument '" + name + "'");
    slot = &value;
  }
}

const Value& Parameters::required(size_t i) const {
  if (!values_[i]) fail(std::string(function_) + "() misses an argument");
  return *values_[i];
}

bool Parameters::flag(size_t i, bool fallback) const {
  return values_[i] ? is_true(*values_[i]) : fallback;
}

Int Parameters::integer(size_t i, Int fallback) const {
  if (!values_[i]) return fallback;
  require_defined(*values_[i]);
  if (!values_[i]->is_integral()) {
    fail(std::string(function_) + "(): '" + std::string(type_name(*values_[i])) +
         "' object cannot be interpreted as an integer");
  }
  return values_[i]->integer();
}

std::string_view Parameters::text(size_t i) const {
  require_defined(required(i));
  if (!values_[i]->is_text()) {
    fail(std::string(function_) + "() takes a str, not " + std::string(type_name(*values_[i])));
  }
  return values_[i]->str();
}

}  // namespace serval::jinja
