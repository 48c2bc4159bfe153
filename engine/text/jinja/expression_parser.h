// The grammar of expressions. Statements use it through expression() and tuple().
#pragma once

#include <string_view>
#include <vector>

#include "engine/text/jinja/ast.h"
#include "engine/text/jinja/token_cursor.h"

namespace serval::jinja {

class ExpressionParser : public TokenCursor {
 public:
  using TokenCursor::TokenCursor;

  ExprPtr expression();
  // One expression, or several with commas between them, up to the end of the tag, a closing parenthesis or
  // the name `end_name`.
  ExprPtr tuple(bool with_conditional = true, std::string_view end_name = "", bool in_parentheses = false);
  // value | filter(args) | ...; `name_first`: the first filter's bar is missing, as in {% filter upper %}.
  ExprPtr filter_chain(ExprPtr value, bool name_first = false);

  // Macros whose bodies are being read: they learn which of the special names these use. Innermost last.
  std::vector<MacroDef*> open_macros;

 private:
  template <class Node>
  ExprPtr make(Node node);

  ExprPtr logical_or();
  ExprPtr logical_and();
  ExprPtr logical_not();
  bool skip_comparison(Compare& op);
  ExprPtr comparison();
  template <class Operand>
  ExprPtr left_to_right(std::initializer_list<std::pair<std::string_view, Binary>> operators,
                        Operand operand);
  ExprPtr sum();
  ExprPtr concatenation();
  ExprPtr product();
  ExprPtr power();
  ExprPtr unary(bool with_filters);
  ExprPtr primary();
  ExprPtr name(Token token);
  ExprPtr list_display();
  ExprPtr dict_display();
  ExprPtr postfix(ExprPtr value);
  ExprPtr subscript(ExprPtr object);
  ExprPtr filtered(ExprPtr value);
  ExprPtr test(ExprPtr value);
  bool starts_test_argument() const;
  std::string dotted_name();
  Arguments arguments();
};

// Names that are values, and cannot be assigned to.
bool is_constant_name(std::string_view name);

}  // namespace serval::jinja
