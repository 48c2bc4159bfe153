#include "loadtest/load/option_table.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "kernels/base/usage.h"

namespace serval::load {
namespace {

const char* command_of(Form form) {
  switch (form) {
    case kBench:
      return "serval bench";
    case kSearch:
      return "serval bench --search";
    case kPeers:
      return "serval bench peers";
    case kSimulate:
      return "serval simulate";
    case kFit:
      return "serval simulate --fit";
    case kFitRecording:
      return "serval simulate --fit-recording";
  }
  return "";
}

std::string shortest(double number) {
  char text[32];
  std::snprintf(text, sizeof text, "%.10g", number);
  return text;
}

const OptionRow& find(const std::vector<OptionRow>& rows, Form form, const std::string& name) {
  const std::string command = command_of(form);
  if (!name.starts_with("-")) throw UsageError(command + " cannot use '" + name + "'; options begin with --");
  const auto row = std::find_if(rows.begin(), rows.end(), [&](const OptionRow& r) { return name == r.name; });
  if (row == rows.end()) {
    std::vector<std::string> names;
    for (const OptionRow& known : rows) {
      if (known.forms & form) names.emplace_back(known.name);
    }
    throw UsageError("unknown option " + name + did_you_mean(nearest_name(name, names)) +
                     "; --help lists them");
  }
  if (!(row->forms & form)) throw UsageError(name + " does not go with " + command);
  return *row;
}

}  // namespace

void take_options(const std::vector<OptionRow>& rows, Form form, const std::vector<std::string>& arguments) {
  for (size_t i = 0; i < arguments.size(); ++i) {
    const size_t equals = arguments[i].find('=');
    const bool has_value = equals != std::string::npos;
    const std::string name = arguments[i].substr(0, equals);
    const OptionRow& row = find(rows, form, name);
    std::string value = has_value ? arguments[i].substr(equals + 1) : "";
    if (*row.value == '\0') {
      if (has_value) throw UsageError(name + " takes no value");
    } else if (!has_value) {
      if (i + 1 == arguments.size()) throw UsageError(name + " needs a value");
      value = arguments[++i];
    }
    try {
      row.set(value);
    } catch (const std::runtime_error& error) {
      throw std::runtime_error(name + " " + error.what());
    }
  }
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
    std::string left = std::string("  ") + row.name + (*row.value ? std::string(" ") + row.value : "");
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

}  // namespace serval::load
