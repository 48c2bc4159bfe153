// A parsed template. Trees are bounded in height by the parser, so that walking and destroying them may
// recurse.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "engine/text/jinja/operators.h"
#include "engine/text/jinja/value.h"

namespace serval::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

// What a call, a filter or a test passes. `spread` and `spread_keywords` (*list, **dict) may be null.
struct Arguments {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> keywords;
  ExprPtr spread, spread_keywords;
};

struct Literal {
  Value value;
};
struct Name {
  std::string name;
};
struct ListDisplay {
  std::vector<ExprPtr> items;
  bool is_tuple;
};
struct DictDisplay {
  std::vector<std::pair<ExprPtr, ExprPtr>> entries;
};
struct Attribute {
  ExprPtr object;
  std::string name;
};
struct Subscript {
  ExprPtr object, key;
};
struct Slice {
  ExprPtr object, start, stop, step;
};  // absent bounds are null
struct Call {
  ExprPtr callee;
  Arguments args;
};
struct FilterCall {
  ExprPtr value;
  std::string name;
  Arguments args;
};  // value is null where a block's text goes in
struct TestCall {
  ExprPtr value;
  std::string name;
  Arguments args;
};
struct Not {
  ExprPtr value;
};
struct Sign {
  ExprPtr value;
  bool negative;
};
struct Arithmetic {
  Binary op;
  ExprPtr left, right;
};
struct Concat {
  std::vector<ExprPtr> parts;
};
struct Comparison {
  ExprPtr first;
  std::vector<std::pair<Compare, ExprPtr>> rest;
};  // a < b < c
struct Logic {
  bool is_and;
  ExprPtr left, right;
};
struct Conditional {
  ExprPtr condition, then, otherwise;
};  // otherwise may be null

struct Expr {
  int height;  // 1 for a leaf
  std::variant<Literal, Name, ListDisplay, DictDisplay, Attribute, Subscript, Slice, Call, FilterCall,
               TestCall, Not, Sign, Arithmetic, Concat, Comparison, Logic, Conditional>
      node;
};

// Where an assignment goes: a name, a namespace's attribute, or several targets for the parts of a sequence.
struct Target {
  enum class Kind { kName, kAttribute, kTuple } kind;
  std::string name;
  std::string attribute;
  std::vector<Target> parts;
};

struct Stmt;
using Body = std::vector<Stmt>;

struct Parameter {
  std::string name;
  ExprPtr fallback;
};  // no fallback: null

// The body of a macro, or of a block that passes itself as `caller`.
struct MacroDef {
  std::string name;
  std::vector<Parameter> parameters;
  Body body;
  bool uses_caller = false, uses_varargs = false, uses_kwargs = false;
};

struct TextStmt {
  std::string text;
};
struct OutputStmt {
  ExprPtr value;
};
struct IfStmt {
  std::vector<std::pair<ExprPtr, Body>> branches;
  Body otherwise;
};
struct ForStmt {
  Target target;
  ExprPtr iterable, condition;
  bool recursive;
  Body body, otherwise;
};  // condition may be null
struct SetStmt {
  Target target;
  ExprPtr value;
};
struct SetBlockStmt {
  Target target;
  ExprPtr filters;
  Body body;
};  // filters may be null
struct MacroStmt {
  MacroDef macro;
};
struct CallStmt {
  MacroDef caller;
  ExprPtr call;
};  // call is a Call
struct FilterStmt {
  ExprPtr filters;
  Body body;
};
struct WithStmt {
  std::vector<std::pair<Target, ExprPtr>> bindings;
  Body body;
};  // also block and generation: a scope of its own
struct BreakStmt {};
struct ContinueStmt {};

struct Stmt {
  int line;
  std::variant<TextStmt, OutputStmt, IfStmt, ForStmt, SetStmt, SetBlockStmt, MacroStmt, CallStmt, FilterStmt,
               WithStmt, BreakStmt, ContinueStmt>
      node;
};

}  // namespace serval::jinja
