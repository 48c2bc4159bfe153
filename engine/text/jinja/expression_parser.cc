#include "engine/text/jinja/expression_parser.h"

#include <algorithm>

#include "engine/text/jinja/unicode.h"

namespace serval::jinja {
namespace {

using Kind = Token::Kind;

// ---- heights: how far a walk from a node can recurse

int height(const ExprPtr& e) {
  return e ? e->height : 0;
}

int height(const Arguments& args) {
  int h = std::max(height(args.spread), height(args.spread_keywords));
  for (const ExprPtr& e : args.positional) h = std::max(h, height(e));
  for (const auto& [name, e] : args.keywords) h = std::max(h, height(e));
  return h;
}

int height(const std::vector<ExprPtr>& items) {
  int h = 0;
  for (const ExprPtr& e : items) h = std::max(h, height(e));
  return h;
}

struct ChildHeight {
  int operator()(const Literal&) const { return 0; }
  int operator()(const Name&) const { return 0; }
  int operator()(const ListDisplay& n) const { return height(n.items); }
  int operator()(const DictDisplay& n) const {
    int h = 0;
    for (const auto& [key, value] : n.entries) h = std::max({h, height(key), height(value)});
    return h;
  }
  int operator()(const Attribute& n) const { return height(n.object); }
  int operator()(const Subscript& n) const { return std::max(height(n.object), height(n.key)); }
  int operator()(const Slice& n) const {
    return std::max({height(n.object), height(n.start), height(n.stop), height(n.step)});
  }
  int operator()(const Call& n) const { return std::max(height(n.callee), height(n.args)); }
  int operator()(const FilterCall& n) const { return std::max(height(n.value), height(n.args)); }
  int operator()(const TestCall& n) const { return std::max(height(n.value), height(n.args)); }
  int operator()(const Not& n) const { return height(n.value); }
  int operator()(const Sign& n) const { return height(n.value); }
  int operator()(const Arithmetic& n) const { return std::max(height(n.left), height(n.right)); }
  int operator()(const Concat& n) const { return height(n.parts); }
  int operator()(const Comparison& n) const {
    int h = height(n.first);
    for (const auto& [op, e] : n.rest) h = std::max(h, height(e));
    return h;
  }
  int operator()(const Logic& n) const { return std::max(height(n.left), height(n.right)); }
  int operator()(const Conditional& n) const {
    return std::max({height(n.condition), height(n.then), height(n.otherwise)});
  }
};

}  // namespace

bool is_constant_name(std::string_view name) {
  return name == "true" || name == "True" || name == "false" || name == "False" || name == "none" ||
         name == "None";
}

template <class Node>
ExprPtr ExpressionParser::make(Node node) {
  const int h = 1 + ChildHeight()(node);
  if (h >= Runtime::max_node_depth(limits())) fail_limit("an expression of the template is too long");
  return std::make_unique<Expr>(h, std::move(node));
}

// ---- loosest first

ExprPtr ExpressionParser::tuple(bool with_conditional, std::string_view end_name, bool in_parentheses) {
  std::vector<ExprPtr> items;
  bool is_tuple = false;
  for (;;) {
    const bool ends = current().kind == Kind::kVariableEnd || current().kind == Kind::kBlockEnd ||
                      current().is_operator(")") || (!end_name.empty() && current().is_name(end_name));
    if (ends) break;
    items.push_back(with_conditional ? expression() : logical_or());
    if (!skip_operator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && !items.empty()) return std::move(items[0]);
  if (!is_tuple && !in_parentheses) fail_here("expected an expression");
  return make(ListDisplay{std::move(items), true});
}

ExprPtr ExpressionParser::expression() {
  ExprPtr value = logical_or();
  while (skip_name("if")) {
    ExprPtr condition = logical_or();
    ExprPtr otherwise;
    if (skip_name("else")) {
      const auto level = enter();
      otherwise = expression();
    }
    value = make(Conditional{std::move(condition), std::move(value), std::move(otherwise)});
  }
  return value;
}

ExprPtr ExpressionParser::logical_or() {
  const auto level = enter();
  ExprPtr left = logical_and();
  while (skip_name("or")) {
    ExprPtr right = logical_and();
    left = make(Logic{false, std::move(left), std::move(right)});
  }
  return left;
}

ExprPtr ExpressionParser::logical_and() {
  ExprPtr left = logical_not();
  while (skip_name("and")) {
    ExprPtr right = logical_not();
    left = make(Logic{true, std::move(left), std::move(right)});
  }
  return left;
}

ExprPtr ExpressionParser::logical_not() {
  if (!skip_name("not")) return comparison();
  const auto level = enter();
  return make(Not{logical_not()});
}

bool ExpressionParser::skip_comparison(Compare& op) {
  constexpr std::pair<std::string_view, Compare> kSymbols[] = {
      {"==", Compare::kEqual},     {"!=", Compare::kNotEqual}, {"<", Compare::kLess},
      {"<=", Compare::kLessEqual}, {">", Compare::kGreater},   {">=", Compare::kGreaterEqual}};
  for (const auto& [symbol, meaning] : kSymbols) {
    op = meaning;
    if (skip_operator(symbol)) return true;
  }
  op = Compare::kIn;
  if (skip_name("in")) return true;
  if (!current().is_name("not") || !next().is_name("in")) return false;
  skip(2);
  op = Compare::kNotIn;
  return true;
}

ExprPtr ExpressionParser::comparison() {
  ExprPtr first = sum();
  std::vector<std::pair<Compare, ExprPtr>> rest;
  for (Compare op; skip_comparison(op);) rest.emplace_back(op, sum());
  return rest.empty() ? std::move(first) : make(Comparison{std::move(first), std::move(rest)});
}

// left op right op right...; all of Jinja's arithmetic groups to the left, powers too.
template <class Operand>
ExprPtr ExpressionParser::left_to_right(std::initializer_list<std::pair<std::string_view, Binary>> operators,
                                        Operand operand) {
  ExprPtr left = operand();
  for (;;) {
    const auto op = std::find_if(operators.begin(), operators.end(),
                                 [&](const auto& o) { return current().is_operator(o.first); });
    if (op == operators.end()) return left;
    skip();
    ExprPtr right = operand();
    left = make(Arithmetic{op->second, std::move(left), std::move(right)});
  }
}

ExprPtr ExpressionParser::sum() {
  return left_to_right({{"+", Binary::kAdd}, {"-", Binary::kSubtract}}, [&] { return concatenation(); });
}

ExprPtr ExpressionParser::concatenation() {
  ExprPtr first = product();
  if (!current().is_operator("~")) return first;
  Concat node;
  node.parts.push_back(std::move(first));
  while (skip_operator("~")) node.parts.push_back(product());
  return make(std::move(node));
}

ExprPtr ExpressionParser::product() {
  return left_to_right({{"*", Binary::kMultiply},
                        {"/", Binary::kDivide},
                        {"//", Binary::kFloorDivide},
                        {"%", Binary::kModulo}},
                       [&] { return power(); });
}

ExprPtr ExpressionParser::power() {
  return left_to_right({{"**", Binary::kPower}}, [&] { return unary(true); });
}

ExprPtr ExpressionParser::unary(bool with_filters) {
  ExprPtr value;
  if (current().is_operator("-") || current().is_operator("+")) {
    const auto level = enter();
    const bool negative = take().text == "-";
    value = make(Sign{unary(false), negative});
  } else {
    value = primary();
  }
  value = postfix(std::move(value));
  return with_filters ? filtered(std::move(value)) : std::move(value);
}

ExprPtr ExpressionParser::primary() {
  Token token = current();
  switch (token.kind) {
    case Kind::kName:
      skip();
      return name(std::move(token));
    case Kind::kString: {
      std::string text = take().text;
      while (current().kind == Kind::kString) text += take().text;
      const bool ascii = is_ascii(text);
      return make(Literal{std::make_shared<const Text>(std::move(text), ascii, false, Charge())});
    }
    case Kind::kInteger:
      skip();
      return make(Literal{token.integer});
    case Kind::kFloat:
      skip();
      return make(Literal{token.real});
    default:
      break;
  }
  if (skip_operator("(")) {
    ExprPtr inside = tuple(true, "", true);
    expect_operator(")");
    return inside;
  }
  if (skip_operator("[")) return list_display();
  if (skip_operator("{")) return dict_display();
  fail_here("expected an expression");
}

ExprPtr ExpressionParser::name(Token token) {
  const std::string& name = token.text;
  if (name == "true" || name == "True") return make(Literal{true});
  if (name == "false" || name == "False") return make(Literal{false});
  if (name == "none" || name == "None") return make(Literal{None{}});
  for (MacroDef* macro : open_macros) {
    macro->uses_caller |= name == "caller";
    macro->uses_varargs |= name == "varargs";
    macro->uses_kwargs |= name == "kwargs";
  }
  return make(Name{std::move(token.text)});
}

ExprPtr ExpressionParser::list_display() {
  ListDisplay node{{}, false};
  while (!current().is_operator("]")) {
    node.items.push_back(expression());
    if (!skip_operator(",")) break;
  }
  expect_operator("]");
  return make(std::move(node));
}

ExprPtr ExpressionParser::dict_display() {
  DictDisplay node;
  while (!current().is_operator("}")) {
    ExprPtr key = expression();
    expect_operator(":");
    node.entries.emplace_back(std::move(key), expression());
    if (!skip_operator(",")) break;
  }
  expect_operator("}");
  return make(std::move(node));
}

ExprPtr ExpressionParser::postfix(ExprPtr value) {
  for (;;) {
    if (skip_operator(".")) {
      if (current().kind == Kind::kInteger) {
        ExprPtr index = make(Literal{take().integer});
        value = make(Subscript{std::move(value), std::move(index)});
      } else {
        value = make(Attribute{std::move(value), expect_name()});
      }
    } else if (skip_operator("[")) {
      value = subscript(std::move(value));
    } else if (current().is_operator("(")) {
      value = make(Call{std::move(value), arguments()});
    } else {
      return value;
    }
  }
}

ExprPtr ExpressionParser::subscript(ExprPtr object) {
  if (current().is_operator("]")) fail_here("expected a subscript");
  ExprPtr start = current().is_operator(":") ? nullptr : expression();
  if (!skip_operator(":")) {
    if (current().is_operator(",")) {
      ListDisplay key{{}, true};
      key.items.push_back(std::move(start));
      while (skip_operator(",")) key.items.push_back(expression());
      start = make(std::move(key));
    }
    expect_operator("]");
    return make(Subscript{std::move(object), std::move(start)});
  }
  const auto bound = [&]() -> ExprPtr {
    return current().is_operator(":") || current().is_operator("]") ? nullptr : expression();
  };
  ExprPtr stop = bound();
  ExprPtr step = skip_operator(":") ? bound() : nullptr;
  expect_operator("]");
  return make(Slice{std::move(object), std::move(start), std::move(stop), std::move(step)});
}

ExprPtr ExpressionParser::filtered(ExprPtr value) {
  for (;;) {
    if (current().is_operator("|")) {
      value = filter_chain(std::move(value));
    } else if (skip_name("is")) {
      value = test(std::move(value));
    } else if (current().is_operator("(")) {
      value = make(Call{std::move(value), arguments()});
    } else {
      return value;
    }
  }
}

std::string ExpressionParser::dotted_name() {
  std::string name = expect_name();
  while (skip_operator(".")) name += "." + expect_name();
  return name;
}

ExprPtr ExpressionParser::filter_chain(ExprPtr value, bool name_first) {
  for (bool starts = name_first; starts || current().is_operator("|"); starts = false) {
    if (!starts) skip();
    std::string name = dotted_name();
    Arguments args = current().is_operator("(") ? arguments() : Arguments();
    value = make(FilterCall{std::move(value), std::move(name), std::move(args)});
  }
  return value;
}

ExprPtr ExpressionParser::test(ExprPtr value) {
  const bool negated = skip_name("not");
  TestCall node{std::move(value), dotted_name(), {}};
  if (current().is_operator("(")) {
    node.args = arguments();
  } else if (starts_test_argument()) {
    if (current().is_name("is")) fail_here("tests can't be chained");
    node.args.positional.push_back(postfix(primary()));
  }
  ExprPtr result = make(std::move(node));
  return negated ? make(Not{std::move(result)}) : std::move(result);
}

bool ExpressionParser::starts_test_argument() const {
  switch (current().kind) {
    case Kind::kName:
      return !is_one_of({"else", "or", "and"});
    case Kind::kString:
    case Kind::kInteger:
    case Kind::kFloat:
      return true;
    default:
      return current().is_operator("[") || current().is_operator("{");
  }
}

Arguments ExpressionParser::arguments() {
  Arguments args;
  expect_operator("(");
  while (!current().is_operator(")")) {
    if (skip_operator("**")) {
      if (args.spread_keywords) fail_here("invalid arguments");
      args.spread_keywords = expression();
    } else if (args.spread_keywords) {
      fail_here("nothing may follow **arguments");
    } else if (skip_operator("*")) {
      if (args.spread) fail_here("invalid arguments");
      args.spread = expression();
    } else if (current().kind == Kind::kName && next().is_operator("=")) {
      std::string name = take().text;
      skip();
      constexpr size_t kMaxKeywords = 255;
      if (args.keywords.size() == kMaxKeywords) fail_limit("a call of the template has too many keywords");
      const bool repeated = std::any_of(args.keywords.begin(), args.keywords.end(),
                                        [&](const auto& k) { return k.first == name; });
      if (repeated) fail_here("keyword argument '" + name + "' is repeated");
      args.keywords.emplace_back(std::move(name), expression());
    } else {
      if (args.spread || !args.keywords.empty()) fail_here("a positional argument follows others");
      args.positional.push_back(expression());
    }
    if (!skip_operator(",")) break;
  }
  expect_operator(")");
  return args;
}

}  // namespace serval::jinja
