#include "kernels/base/option_table.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "kernels/base/usage.h"

namespace serval {
namespace {

std::string shortest(double number) {
  char text[32];
  std::snprintf(text, sizeof text, "%.10g", number);
  return text;
}

const OptionRow* find(const std::vector<OptionRow>& rows, std::string_view name) {
  const auto row = std::find_if(rows.begin(), rows.end(), [&](const OptionRow& r) { return name == r.name; });
  return row == rows.end() ? nullptr : &*row;
}

[[noreturn]] void refuse_unknown(const std::vector<OptionRow>& rows, const CommandForm& form,
                                 const std::string& name) {
  std::vector<std::string> names;
  for (const OptionRow& row : rows) {
    if (row.forms & form.bit) names.push_back(row.name);
  }
  throw UsageError("unknown option " + name + did_you_mean(nearest_name(name, names)) + "; --help lists them");
}

}  // namespace

std::optional<std::string> GivenOptions::value_of(std::string_view name) const {
  for (const auto& [row, value] : options) {
    if (row->name == name) return value;
  }
  return std::nullopt;
}

GivenOptions read_options(const std::vector<OptionRow>& rows, const CommandForm& form,
                          const std::vector<std::string>& arguments) {
  GivenOptions given;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (!arguments[i].starts_with("-")) {
      if (!form.takes_words)
        throw UsageError(std::string(form.name) + " cannot use '" + arguments[i] + "'; options begin with --");
      given.words.push_back(arguments[i]);
      continue;
    }
    const size_t equals = arguments[i].find('=');
    const bool has_value = equals != std::string::npos;
    std::string name = arguments[i].substr(0, equals);
    std::replace(name.begin(), name.end(), '_', '-');
    const OptionRow* row = find(rows, name);
    const bool is_no = row == nullptr && !has_value && name.starts_with("--no-");
    if (is_no) {
      row = find(rows, "--" + name.substr(5));
      if (row != nullptr && !row->is_yes_or_no) row = nullptr;
    }
    if (row == nullptr) refuse_unknown(rows, form, name);
    if (!(row->forms & form.bit)) throw UsageError(name + " does not go with " + form.name);
    std::string value = has_value ? arguments[i].substr(equals + 1) : "";
    if (row->is_yes_or_no) {
      if (!has_value) value = is_no ? "false" : "true";
    } else if (row->value.empty()) {
      if (has_value) throw UsageError(name + " takes no value");
    } else if (!has_value) {
      if (i + 1 == arguments.size()) throw UsageError(name + " needs a value");
      value = arguments[++i];
    }
    given.options.emplace_back(row, std::move(value));
  }
  return given;
}

void set_options(const GivenOptions& given) {
  for (const auto& [row, value] : given.options) {
    try {
      row->set(value);
    } catch (const std::runtime_error& error) {
      throw std::runtime_error(row->name + " " + error.what());
    }
  }
}

void take_options(const std::vector<OptionRow>& rows, const CommandForm& form,
                  const std::vector<std::string>& arguments) {
  set_options(read_options(rows, form, arguments));
}

bool has_option(const std::vector<std::string>& arguments, const std::string& name) {
  return std::any_of(arguments.begin(), arguments.end(), [&](const std::string& argument) {
    return argument == name || argument.starts_with(name + "=");
  });
}

std::string options_help(const std::vector<OptionRow>& rows, unsigned forms) {
  std::string out;
  for (const OptionRow& row : rows) {
    if (!(row.forms & forms)) continue;
    std::string left = "  " + row.name + (row.value.empty() ? "" : " " + row.value);
    left.resize(std::max<size_t>(left.size() + 1, 32), ' ');
    out += left + row.help + "\n";
  }
  return out;
}

double to_number(const std::string& text, double low, double high, bool whole) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !(value >= low && value <= high) ||
      (whole && value != std::floor(value)))
    throw std::runtime_error("is '" + text + "'; it must be a " + (whole ? "whole " : "") + "number from " +
                             shortest(low) + " to " + shortest(high));
  return value;
}

}  // namespace serval
