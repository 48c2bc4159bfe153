#include "engine/text/jinja/parser.h"

#include <algorithm>
#include <initializer_list>

#include "engine/text/jinja/failure.h"
#include "engine/text/jinja/lexer.h"
#include "engine/text/jinja/runtime.h"
#include "engine/text/jinja/unicode.h"
#include "kernels/base/utf8.h"

namespace serval::jinja {
namespace {

using Kind = Token::Kind;
using Words = std::initializer_list<std::string_view>;

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

bool is_constant_name(std::string_view name) {
  return name == "true" || name == "True" || name == "false" || name == "False" || name == "none" ||
         name == "None";
}

class Parser {
 public:
  Parser(std::vector<Token> tokens, const TemplateLimits& limits)
      : tokens_(std::move(tokens)), limits_(limits) {}

  Body run() { return body_until({}); }

 private:
  // ---- tokens

  const Token& current() const { return tokens_[at_]; }
  const Token& next() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  Token take() {
    Token token = std::move(tokens_[at_]);
    if (token.kind == Kind::kEnd) fail_here("unexpected end of template");
    ++at_;
    return token;
  }
  bool skip_operator(std::string_view symbol) { return current().is_operator(symbol) && (++at_, true); }
  bool skip_name(std::string_view name) { return current().is_name(name) && (++at_, true); }
  void expect_operator(std::string_view symbol) {
    if (!skip_operator(symbol)) fail_here("expected '" + std::string(symbol) + "'");
  }
  void expect(Kind kind, std::string_view what) {
    if (current().kind != kind) fail_here("expected " + std::string(what));
    ++at_;
  }
  std::string expect_name() {
    if (current().kind != Kind::kName) fail_here("expected a name");
    return take().text;
  }
  bool is_one_of(Words names) const {
    return current().kind == Kind::kName &&
           std::find(names.begin(), names.end(), current().text) != names.end();
  }
  [[noreturn]] void fail_here(const std::string& what) const {
    const Token& token = current();
    std::string found = token.kind == Kind::kEnd ? "the end"
                        : token.text.empty()     ? "a number or tag"
                                                 : "'" + token.text.substr(0, 60) + "'";
    fail("line " + std::to_string(token.line) + ": " + what + ", found " + found);
  }

  Runtime::Nesting enter() { return Runtime::Nesting(depth_, limits_.max_depth); }

  template <class Node>
  ExprPtr make(Node node) {
    const int h = 1 + ChildHeight()(node);
    if (h >= Runtime::max_node_depth(limits_)) fail_limit("an expression of the template is too long");
    return std::make_unique<Expr>(h, std::move(node));
  }

  // ---- statements

  // Up to a block that starts with one of `ends`, of which `{%` is consumed; up to the end of the template
  // when there are none.
  Body body_until(Words ends) {
    const auto level = enter();
    Body body;
    for (;;) {
      const int line = current().line;
      switch (current().kind) {
        case Kind::kEnd:
          if (ends.size() > 0) fail_here("expected {% " + std::string(*ends.begin()) + " %}");
          return body;
        case Kind::kData:
          body.push_back(Stmt{line, TextStmt{take().text}});
          break;
        case Kind::kVariableBegin:
          ++at_;
          body.push_back(Stmt{line, OutputStmt{tuple()}});
          expect(Kind::kVariableEnd, "}}");
          break;
        case Kind::kBlockBegin:
          ++at_;
          if (is_one_of(ends)) return body;
          body.push_back(statement(line));
          expect(Kind::kBlockEnd, "%}");
          break;
        default:
          fail_here("unexpected token");
      }
    }
  }

  // The body of a tag whose own tokens have been read.
  Body block_until(Words ends) {
    skip_operator(":");
    expect(Kind::kBlockEnd, "%}");
    return body_until(ends);
  }
  Body block_until_and_skip(std::string_view end) {
    Body body = block_until({end});
    ++at_;
    return body;
  }

  // Python would see a function there: no break leaves it.
  template <class Parse>
  auto outside_loop(Parse parse) {
    const int loops = std::exchange(loop_depth_, 0);
    auto node = parse();
    loop_depth_ = loops;
    return node;
  }

  Stmt statement(int line) {
    const std::string tag = expect_name();
    if (tag == "if") return {line, if_statement()};
    if (tag == "for") return {line, for_statement()};
    if (tag == "set") return set_statement(line);
    if (tag == "macro") return {line, MacroStmt{macro()}};
    if (tag == "call") return {line, call_block()};
    if (tag == "filter") return {line, filter_block()};
    if (tag == "with") return {line, with_block()};
    if (tag == "block") return {line, named_block()};
    if (tag == "generation")
      return {line, outside_loop([&] { return WithStmt{{}, block_until_and_skip("endgeneration")}; })};
    if (tag == "break" || tag == "continue") {
      if (loop_depth_ == 0) fail_here("'" + tag + "' outside a loop");
      if (tag == "break") return {line, BreakStmt{}};
      return {line, ContinueStmt{}};
    }
    fail_here("unknown or unsupported tag '" + tag.substr(0, 60) + "'");
  }

  IfStmt if_statement() {
    IfStmt node;
    do {
      ExprPtr condition = tuple(false);
      Body body = block_until({"endif", "elif", "else"});
      node.branches.emplace_back(std::move(condition), std::move(body));
    } while (skip_name("elif"));
    if (skip_name("else")) node.otherwise = block_until({"endif"});
    ++at_;  // endif
    return node;
  }

  ForStmt for_statement() {
    ForStmt node;
    node.target = target_tuple(false);
    if (!skip_name("in")) fail_here("expected 'in'");
    node.iterable = tuple(false, "recursive");
    if (skip_name("if")) node.condition = expression();
    node.recursive = skip_name("recursive");
    ++loop_depth_;
    node.body = block_until({"endfor", "else"});
    --loop_depth_;
    if (skip_name("else")) node.otherwise = block_until({"endfor"});
    ++at_;  // endfor
    return node;
  }

  Stmt set_statement(int line) {
    Target target = target_tuple(true);
    if (skip_operator("=")) return {line, SetStmt{std::move(target), tuple()}};
    ExprPtr filters = current().is_operator("|") ? filter_chain(nullptr) : nullptr;
    return {line, SetBlockStmt{std::move(target), std::move(filters), block_until_and_skip("endset")}};
  }

  void signature(MacroDef& macro) {
    expect_operator("(");
    while (!current().is_operator(")")) {
      if (!macro.parameters.empty()) expect_operator(",");
      Parameter parameter{expect_name(), nullptr};
      if (skip_operator("=")) {
        parameter.fallback = expression();
      } else if (!macro.parameters.empty() && macro.parameters.back().fallback) {
        fail_here("a parameter without default follows one with a default");
      }
      macro.parameters.push_back(std::move(parameter));
    }
    expect_operator(")");
  }

  void macro_body(MacroDef& macro, std::string_view end) {
    open_macros_.push_back(&macro);
    macro.body = outside_loop([&] { return block_until_and_skip(end); });
    open_macros_.pop_back();
  }

  MacroDef macro() {
    MacroDef node;
    node.name = expect_name();
    signature(node);
    macro_body(node, "endmacro");
    return node;
  }

  CallStmt call_block() {
    CallStmt node;
    node.caller.name = "caller";
    if (current().is_operator("(")) signature(node.caller);
    node.call = expression();
    if (!std::holds_alternative<Call>(node.call->node)) fail_here("expected a call");
    macro_body(node.caller, "endcall");
    return node;
  }

  FilterStmt filter_block() {
    ExprPtr filters = filter_chain(nullptr, true);
    return {std::move(filters), block_until_and_skip("endfilter")};
  }

  WithStmt with_block() {
    WithStmt node;
    while (current().kind != Kind::kBlockEnd) {
      if (!node.bindings.empty()) expect_operator(",");
      Target target = target_tuple(false);
      expect_operator("=");
      node.bindings.emplace_back(std::move(target), expression());
    }
    node.body = block_until_and_skip("endwith");
    return node;
  }

  WithStmt named_block() {
    const std::string name = expect_name();
    while (skip_name("scoped") || skip_name("required")) continue;
    WithStmt node = outside_loop([&] { return WithStmt{{}, block_until_and_skip("endblock")}; });
    skip_name(name);
    return node;
  }

  // ---- targets

  Target target(bool with_attribute) {
    const auto level = enter();
    if (skip_operator("(")) {
      Target inside = target_tuple(with_attribute);
      expect_operator(")");
      return inside;
    }
    Target node{Target::Kind::kName, expect_name(), "", {}};
    if (is_constant_name(node.name)) fail_here("can't assign to '" + node.name + "'");
    if (with_attribute && skip_operator(".")) {
      node.kind = Target::Kind::kAttribute;
      node.attribute = expect_name();
    }
    return node;
  }

  Target target_tuple(bool with_attribute) {
    Target first = target(with_attribute);
    if (!current().is_operator(",")) return first;
    Target node{Target::Kind::kTuple, "", "", {}};
    node.parts.push_back(std::move(first));
    while (skip_operator(",")) {
      if (current().is_operator(")") || current().is_operator("=") || current().is_name("in") ||
          current().kind == Kind::kBlockEnd)
        break;
      node.parts.push_back(target(with_attribute));
    }
    return node;
  }

  // ---- expressions, loosest first

  ExprPtr tuple(bool with_conditional = true, std::string_view end_name = "", bool in_parentheses = false) {
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

  ExprPtr expression() {
    const auto level = enter();
    ExprPtr value = logical_or();
    while (skip_name("if")) {
      ExprPtr condition = logical_or();
      ExprPtr otherwise = skip_name("else") ? expression() : nullptr;
      value = make(Conditional{std::move(condition), std::move(value), std::move(otherwise)});
    }
    return value;
  }

  ExprPtr logical_or() {
    const auto level = enter();
    ExprPtr left = logical_and();
    while (skip_name("or")) {
      ExprPtr right = logical_and();
      left = make(Logic{false, std::move(left), std::move(right)});
    }
    return left;
  }

  ExprPtr logical_and() {
    ExprPtr left = logical_not();
    while (skip_name("and")) {
      ExprPtr right = logical_not();
      left = make(Logic{true, std::move(left), std::move(right)});
    }
    return left;
  }

  ExprPtr logical_not() {
    if (!skip_name("not")) return comparison();
    const auto level = enter();
    return make(Not{logical_not()});
  }

  bool skip_comparison(Compare& op) {
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
    at_ += 2;
    op = Compare::kNotIn;
    return true;
  }

  ExprPtr comparison() {
    ExprPtr first = sum();
    std::vector<std::pair<Compare, ExprPtr>> rest;
    for (Compare op; skip_comparison(op);) rest.emplace_back(op, sum());
    return rest.empty() ? std::move(first) : make(Comparison{std::move(first), std::move(rest)});
  }

  // left op right op right...; all of Jinja's arithmetic groups to the left, powers too.
  template <class Operand>
  ExprPtr left_to_right(std::initializer_list<std::pair<std::string_view, Binary>> operators,
                        Operand operand) {
    ExprPtr left = operand();
    for (;;) {
      const auto op = std::find_if(operators.begin(), operators.end(),
                                   [&](const auto& o) { return current().is_operator(o.first); });
      if (op == operators.end()) return left;
      ++at_;
      ExprPtr right = operand();
      left = make(Arithmetic{op->second, std::move(left), std::move(right)});
    }
  }

  ExprPtr sum() {
    return left_to_right({{"+", Binary::kAdd}, {"-", Binary::kSubtract}}, [&] { return concatenation(); });
  }

  ExprPtr concatenation() {
    ExprPtr first = product();
    if (!current().is_operator("~")) return first;
    Concat node;
    node.parts.push_back(std::move(first));
    while (skip_operator("~")) node.parts.push_back(product());
    return make(std::move(node));
  }

  ExprPtr product() {
    return left_to_right({{"*", Binary::kMultiply},
                          {"/", Binary::kDivide},
                          {"//", Binary::kFloorDivide},
                          {"%", Binary::kModulo}},
                         [&] { return power(); });
  }

  ExprPtr power() {
    return left_to_right({{"**", Binary::kPower}}, [&] { return unary(true); });
  }

  ExprPtr unary(bool with_filters) {
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

  ExprPtr primary() {
    Token token = current();
    switch (token.kind) {
      case Kind::kName:
        ++at_;
        return name(std::move(token));
      case Kind::kString: {
        std::string text = take().text;
        while (current().kind == Kind::kString) text += take().text;
        const bool ascii = is_ascii(text);
        return make(Literal{std::make_shared<const Text>(std::move(text), ascii, false, Charge())});
      }
      case Kind::kInteger:
        ++at_;
        return make(Literal{token.integer});
      case Kind::kFloat:
        ++at_;
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

  ExprPtr name(Token token) {
    const std::string& name = token.text;
    if (name == "true" || name == "True") return make(Literal{true});
    if (name == "false" || name == "False") return make(Literal{false});
    if (name == "none" || name == "None") return make(Literal{None{}});
    for (MacroDef* macro : open_macros_) {
      macro->uses_caller |= name == "caller";
      macro->uses_varargs |= name == "varargs";
      macro->uses_kwargs |= name == "kwargs";
    }
    return make(Name{std::move(token.text)});
  }

  ExprPtr list_display() {
    ListDisplay node{{}, false};
    while (!current().is_operator("]")) {
      node.items.push_back(expression());
      if (!skip_operator(",")) break;
    }
    expect_operator("]");
    return make(std::move(node));
  }

  ExprPtr dict_display() {
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

  ExprPtr postfix(ExprPtr value) {
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

  ExprPtr subscript(ExprPtr object) {
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

  ExprPtr filtered(ExprPtr value) {
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

  std::string dotted_name() {
    std::string name = expect_name();
    while (skip_operator(".")) name += "." + expect_name();
    return name;
  }

  // value | filter(args) | ...; `name_first`: the first filter's bar is missing, as in {% filter upper %}.
  ExprPtr filter_chain(ExprPtr value, bool name_first = false) {
    for (bool starts = name_first; starts || current().is_operator("|"); starts = false) {
      if (!starts) ++at_;
      std::string name = dotted_name();
      Arguments args = current().is_operator("(") ? arguments() : Arguments();
      value = make(FilterCall{std::move(value), std::move(name), std::move(args)});
    }
    return value;
  }

  ExprPtr test(ExprPtr value) {
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

  bool starts_test_argument() const {
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

  Arguments arguments() {
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
        ++at_;
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

  std::vector<Token> tokens_;
  const TemplateLimits& limits_;
  size_t at_ = 0;
  int depth_ = 0;
  int loop_depth_ = 0;
  std::vector<MacroDef*> open_macros_;  // innermost last
};

}  // namespace

Body parse(std::string_view source, const TemplateLimits& limits) {
  if (source.size() > limits.max_output_bytes)
    fail_limit("the template is longer than " + std::to_string(limits.max_output_bytes) + " bytes");
  if (!is_valid_utf8(source)) fail("the template is not valid UTF-8");
  return Parser(tokenize(source), limits).run();
}

}  // namespace serval::jinja
