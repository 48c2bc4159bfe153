#include "tests/engine/grammar/suite.h"

#include <array>
#include <charconv>
#include <cmath>

#include <boost/json/serialize.hpp>

namespace serval::test {

std::filesystem::path grammar_data(const std::string& name) {
  return std::filesystem::path(SERVAL_SOURCE_DIR) / "../shared/data" / name;
}

std::string json_text(const boost::json::value& value) {
  if (const auto* object = value.if_object()) {
    std::string text = "{";
    for (const auto& member : *object) {
      if (text.size() > 1) text += ", ";
      text += boost::json::serialize(member.key()) + ": " + json_text(member.value());
    }
    return text + "}";
  }
  if (const auto* array = value.if_array()) {
    std::string text = "[";
    for (const auto& element : *array) {
      if (text.size() > 1) text += ", ";
      text += json_text(element);
    }
    return text + "]";
  }
  if (const auto* number = value.if_double()) {
    std::array<char, 64> text{};
    const double size = std::abs(*number);
    const auto format = size != 0 && (size < 1e-4 || size >= 1e17) ? std::chars_format::scientific
                                                                   : std::chars_format::fixed;
    std::string out(text.data(), std::to_chars(text.begin(), text.end(), *number, format).ptr);
    return out.find_first_of(".e") == std::string::npos ? out + ".0" : out;
  }
  return boost::json::serialize(value);
}

bool accepts(const Grammar& grammar, const std::string& text) {
  // Nobody deletes it before the matcher is gone.
  GrammarMatcher matcher(std::shared_ptr<const Grammar>(std::shared_ptr<void>(), &grammar));
  return matcher.advance(text) && matcher.accepting();
}

}  // namespace serval::test
