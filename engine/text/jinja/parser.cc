#include "engine/text/jinja/parser.h"

#include <initializer_list>

#include "engine/text/jinja/expression_parser.h"
#include "engine/text/jinja/lexer.h"
#include "engine/text/jinja/unicode.h"
#include "kernels/base/utf8.h"

namespace serval::jinja {
namespace {

using Kind = Token::Kind;

class StatementParser : private ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  Body run() { return body_until({}); }

 private:
  // Up to a block that starts with one of `ends`, of which `{%` is consumed; up to the end of the template
  // when there are none.
  Body body_until(std::initializer_list<std::string_view> ends) {
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
          skip();
          body.push_back(Stmt{line, OutputStmt{tuple()}});
          expect(Kind::kVariableEnd, "}}");
          break;
        case Kind::kBlockBegin:
          skip();
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
  Body block_until(std::initializer_list<std::string_view> ends) {
    skip_operator(":");
    expect(Kind::kBlockEnd, "%}");
    return body_until(ends);
  }
  Body block_until_and_skip(std::string_view end) {
    Body body = block_until({end});
    skip();
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
    skip();  // endif
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
    skip();  // endfor
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
    open_macros.push_back(&macro);
    macro.body = outside_loop([&] { return block_until_and_skip(end); });
    open_macros.pop_back();
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

  int loop_depth_ = 0;
};

}  // namespace

Body parse(std::string_view source, const TemplateLimits& limits) {
  if (source.size() > limits.max_output_bytes)
    fail_limit("the template is longer than " + std::to_string(limits.max_output_bytes) + " bytes");
  if (!is_valid_utf8(source)) fail("the template is not valid UTF-8");
  return StatementParser(tokenize(source), limits).run();
}

}  // namespace serval::jinja
