// Where a parser is in its tokens, and how deep: what both halves of the grammar share.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/jinja/failure.h"
#include "engine/text/jinja/lexer.h"
#include "engine/text/jinja/limits.h"
#include "engine/text/jinja/runtime.h"

namespace serval::jinja {

class TokenCursor {
 public:
  TokenCursor(std::vector<Token> tokens, const TemplateLimits& limits)
      : tokens_(std::move(tokens)), limits_(limits) {}

  const Token& current() const { return tokens_[at_]; }
  const Token& next() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  Token take() {
    Token token = std::move(tokens_[at_]);
    if (token.kind == Token::Kind::kEnd) fail_here("unexpected end of template");
    ++at_;
    return token;
  }
  bool skip_operator(std::string_view symbol) { return current().is_operator(symbol) && (++at_, true); }
  bool skip_name(std::string_view name) { return current().is_name(name) && (++at_, true); }
  void expect_operator(std::string_view symbol) {
    if (!skip_operator(symbol)) fail_here("expected '" + std::string(symbol) + "'");
  }
  void expect(Token::Kind kind, std::string_view what) {
    if (current().kind != kind) fail_here("expected " + std::string(what));
    ++at_;
  }
  std::string expect_name() {
    if (current().kind != Token::Kind::kName) fail_here("expected a name");
    return take().text;
  }
  bool is_one_of(std::initializer_list<std::string_view> names) const {
    return current().kind == Token::Kind::kName &&
           std::find(names.begin(), names.end(), current().text) != names.end();
  }
  [[noreturn]] void fail_here(const std::string& what) const {
    const Token& token = current();
    std::string found = token.kind == Token::Kind::kEnd ? "the end"
                        : token.text.empty()            ? "a number or tag"
                                                        : "'" + token.text.substr(0, 60) + "'";
    fail("line " + std::to_string(token.line) + ": " + what + ", found " + found);
  }

  // Held while one level of the source is read.
  Runtime::Nesting enter() { return Runtime::Nesting(depth_, limits_.max_depth); }

  const TemplateLimits& limits() const { return limits_; }
  void skip(size_t count = 1) { at_ += count; }

 private:
  std::vector<Token> tokens_;
  const TemplateLimits& limits_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace serval::jinja
