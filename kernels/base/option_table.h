// The options of every program as rows of a table: parsed, refused and documented from it. Every option is
// honoured by the form of a command it is given to, or refused by name.
#pragma once

#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace serval {

inline constexpr unsigned kAnyForm = ~0u;

struct OptionRow {
  // With its dashes; "_" in what is given stands for "-".
  std::string name;
  // What it takes; empty: a flag.
  std::string value;
  std::string help;
  // Those that honour it, as bits.
  unsigned forms;
  // Throws std::runtime_error("is '...'; it must be ...").
  std::function<void(const std::string&)> set;
  // A flag that is also --no-NAME, --NAME=true and --NAME=false: set() gets "true" or "false".
  bool is_yes_or_no = false;
};

// A command in one of its forms.
struct CommandForm {
  const char* name;
  unsigned bit = kAnyForm;
  // Arguments that are no options are its own; otherwise they are refused.
  bool takes_words = false;
};

// A command line that was understood; refers to the rows it was read by.
struct GivenOptions {
  std::vector<std::string> words;
  std::vector<std::pair<const OptionRow*, std::string>> options;

  std::optional<std::string> value_of(std::string_view name) const;
};

// Throws UsageError for an unknown option (suggesting the nearest), one that the form does not honour, a missing or
// a needless value and an argument that belongs to no option.
GivenOptions read_options(const std::vector<OptionRow>& rows, const CommandForm& form,
                          const std::vector<std::string>& arguments);
// Sets what they say, in order. Throws std::runtime_error, naming the option, for a value it cannot have.
void set_options(const GivenOptions& given);
// Both, for a form without words.
void take_options(const std::vector<OptionRow>& rows, const CommandForm& form,
                  const std::vector<std::string>& arguments);

// Whether NAME or NAME=... is among the arguments.
bool has_option(const std::vector<std::string>& arguments, const std::string& name);

// A line for each option that any of the forms honours.
std::string options_help(const std::vector<OptionRow>& rows, unsigned forms = kAnyForm);

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
inline auto set_flag(bool& field, bool value = true) {
  return [&field, value](const std::string&) { field = value; };
}
inline auto add_text(std::vector<std::string>& field) {
  return [&field](const std::string& text) { field.push_back(text); };
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

}  // namespace serval
