// Template source to tokens, with all of Jinja's white space rules: trim_blocks, lstrip_blocks, the minus and
// plus signs, raw blocks.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/text/jinja/value.h"

namespace serval::jinja {

struct Token {
  enum class Kind {
    kData,
    kVariableBegin,
    kVariableEnd,
    kBlockBegin,
    kBlockEnd,
    kName,
    kString,
    kInteger,
    kFloat,
    kOperator,
    kEnd
  };
  Kind kind;
  int line;
  std::string text;  // data, name, string (escapes resolved), operator
  Int integer = 0;
  double real = 0;

  bool is_operator(std::string_view symbol) const { return kind == Kind::kOperator && text == symbol; }
  bool is_name(std::string_view name) const { return kind == Kind::kName && text == name; }
};

// Linear; the last token is kEnd. Throws Failure for an unfinished tag, string or bracket.
std::vector<Token> tokenize(std::string_view source);

}  // namespace serval::jinja
