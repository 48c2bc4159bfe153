// Options as rows of a table: parsed, refused and documented from it. Every option is honoured by the form of
// a command it is given to, or refused by name.
#pragma once

#include <functional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace serval::load {

// What a command is asked for; the bits make sets.
enum Form : unsigned {
  kBench = 1,
  kSearch = 2,
  kPeers = 4,
  kSimulate = 8,
  kFit = 16,
  kFitRecording = 32,
};

struct OptionRow {
  const char* name;
  const char* value;  // what it takes; empty: a flag
  const char* help;
  unsigned forms;                               // those that honour it
  std::function<void(const std::string&)> set;  // throws std::runtime_error("is '...'; it must be ...")
};

// Sets what the arguments say. Throws UsageError for an unknown option, one that the form does not honour, a
// missing or a needless value and an argument that belongs to no option; std::runtime_error, naming the
// option, for a value it cannot have.
void take_options(const std::vector<OptionRow>& rows, Form form, const std::vector<std::string>& arguments);

// Whether NAME or NAME=... is among the arguments.
bool has_option(const std::vector<std::string>& arguments, const std::string& name);

// A line an option that any of the forms honours.
std::string options_help(const std::vector<OptionRow>& rows, unsigned forms);

// The number in `text`; std::runtime_error when it is none, or out of range, or has a fraction and may not.
double to_number(const std::string& text, double low, double high, bool whole);

// What a row sets. The field outlives the row.
template <class T>
auto set_number(T& field, double low, double high) {
  return [&field, low, high](const std::string& text) {
    field = static_cast<T>(to_number(text, low, high, std::is_integral_v<T>));
  };
}
inline auto set_text(std::string& field) {
  return [&field](const std::string& text) { field = text; };
}
inline auto set_flag(bool& field) {
  return [&field](const std::string&) { field = true; };
}
template <class T>
auto set_choice(T& field, std::vector<std::pair<const char*, T>> choices) {
  return [&field, choices = std::move(choices)](const std::string& text) {
    std::string names;
    for (const auto& [name, value] : choices) {
      if (text == name) {
        field = value;
        return;
      }
      names += (names.empty() ? "" : ", ") + std::string(name);
    }
    throw std::runtime_error("is '" + text + "'; it must be one of " + names);
  };
}

}  // namespace serval::load
