#include "engine/text/jinja/interpreter.h"

#include <algorithm>
#include <map>
#include <set>

#include "engine/text/jinja/access.h"
#include "engine/text/jinja/builtins.h"
#include "engine/text/jinja/format.h"
#include "engine/text/jinja/loop.h"
#include "engine/text/jinja/operators.h"
#include "engine/text/jinja/scope.h"

namespace serval::jinja {
namespace {

using ScopePtr = std::shared_ptr<Scope>;

// An object that someone else owns, as a value.
Value borrowed(Object& object) {
  return std::shared_ptr<Object>(std::shared_ptr<void>(), &object);
}

class Interpreter {
 public:
  Interpreter(const boost::json::object& context, const TemplateLimits& limits, int64_t now_unix_s)
      : runtime_(limits, now_unix_s), context_(runtime_.from_json(context)), make_namespace_(*this) {}

  ~Interpreter() {
    // Macros point to scopes that hold macros: let go of the values before the scopes.
    for (const ScopePtr& scope : pinned_) scope->variables.clear();
  }

  std::string run(const Body& body) {
    TextBuilder out(runtime_);
    execute(body, std::make_shared<Scope>(nullptr), out);
    return out.take();
  }

 private:
  enum class Flow { kNormal, kBreak, kContinue };

  class Macro : public Object {
   public:
    Macro(Interpreter& interpreter, const MacroDef& definition, const ScopePtr& scope)
        : interpreter_(interpreter), definition_(definition), scope_(scope) {}
    std::string_view type_name() const override { return "Macro"; }
    bool is_callable() const override { return true; }
    Value call(Runtime&, const CallArgs& args) override {
      return interpreter_.call_macro(definition_, scope_.lock(), args);
    }

   private:
    Interpreter& interpreter_;
    const MacroDef& definition_;
    const std::weak_ptr<Scope> scope_;  // pinned, so that it is there
  };

  class MakeNamespace : public Object {
   public:
    explicit MakeNamespace(Interpreter& interpreter) : interpreter_(interpreter) {}
    std::string_view type_name() const override { return "type"; }
    bool is_callable() const override { return true; }
    Value call(Runtime& runtime, const CallArgs& args) override {
      runtime.charge(sizeof(Namespace));
      interpreter_.owned_.push_back(std::make_unique<Namespace>());
      auto& made = static_cast<Namespace&>(*interpreter_.owned_.back());
      const Value attributes = global_function("dict").object().call(runtime, args);
      for (const auto& [key, value] : attributes.dict().entries) {
        if (!key.is_text()) fail("the names of a namespace's attributes are texts");
        made.set(runtime, key.str(), value);
      }
      return borrowed(made);
    }

   private:
    Interpreter& interpreter_;
  };

  // ---- statements

  Flow execute(const Body& body, const ScopePtr& scope, TextBuilder& out) {
    for (const Stmt& statement : body) {
      const auto level = runtime_.enter_node();
      runtime_.step();
      try {
        const Flow flow =
            std::visit([&](const auto& node) { return execute(node, scope, out); }, statement.node);
        if (flow != Flow::kNormal) return flow;
      } catch (Failure& failure) {
        if (failure.line == 0) failure.line = statement.line;
        throw;
      }
    }
    return Flow::kNormal;
  }

  Flow execute(const TextStmt& node, const ScopePtr&, TextBuilder& out) {
    out.append(node.text);
    return Flow::kNormal;
  }

  Flow execute(const OutputStmt& node, const ScopePtr& scope, TextBuilder& out) {
    append_str(out, evaluate(*node.value, scope));
    return Flow::kNormal;
  }

  Flow execute(const IfStmt& node, const ScopePtr& scope, TextBuilder& out) {
    for (const auto& [condition, body] : node.branches) {
      if (is_true(evaluate(*condition, scope))) return execute(body, scope, out);
    }
    return execute(node.otherwise, scope, out);
  }

  Flow execute(const ForStmt& node, const ScopePtr& scope, TextBuilder& out) {
    run_loop(node, evaluate(*node.iterable, scope), scope, out, 0);
    return Flow::kNormal;
  }

  void run_loop(const ForStmt& node, const Value& iterable, const ScopePtr& scope, TextBuilder& out,
                int depth0) {
    Loop::Keep keep;
    if (node.condition) {
      keep = [&](const Value& item) {
        const ScopePtr inner = std::make_shared<Scope>(scope);
        assign(node.target, item, inner);
        return is_true(evaluate(*node.condition, inner));
      };
    }
    Loop::Recurse recurse;
    if (node.recursive) {
      recurse = [&](const Value& inner_iterable, int inner_depth0) {
        const auto level = runtime_.enter_macro();
        TextBuilder text(runtime_);
        run_loop(node, inner_iterable, scope, text, inner_depth0);
        return runtime_.text(text.take());
      };
    }
    const auto loop = std::make_shared<Loop>(runtime_, iterable, std::move(keep), std::move(recurse), depth0);
    struct Finish {
      Loop& loop;
      ~Finish() { loop.finish(); }
    } finish{*loop};

    bool completed = false;
    while (const std::optional<Value> item = loop->advance()) {
      runtime_.step();
      const ScopePtr inner = std::make_shared<Scope>(scope);
      assign(node.target, *item, inner);
      inner->set("loop", std::shared_ptr<Object>(loop));
      const Flow flow = execute(node.body, inner, out);
      if (flow == Flow::kBreak) break;
      completed |= flow == Flow::kNormal;
    }
    // As in Jinja, an iteration that was cut short does not count: "else" runs unless one came to its end.
    if (!completed) execute(node.otherwise, std::make_shared<Scope>(scope), out);
  }

  Flow execute(const SetStmt& node, const ScopePtr& scope, TextBuilder&) {
    assign(node.target, evaluate(*node.value, scope), scope);
    return Flow::kNormal;
  }

  Flow execute(const SetBlockStmt& node, const ScopePtr& scope, TextBuilder&) {
    Value text = capture(node.body, scope);
    if (node.filters) text = apply_filters(*node.filters, std::move(text), scope);
    assign(node.target, text, scope);
    return Flow::kNormal;
  }

  Flow execute(const MacroStmt& node, const ScopePtr& scope, TextBuilder&) {
    scope->set(node.macro.name, make_macro(node.macro, scope));
    return Flow::kNormal;
  }

  Flow execute(const CallStmt& node, const ScopePtr& scope, TextBuilder& out) {
    const auto& call = std::get<Call>(node.call->node);
    const Value callee = evaluate(*call.callee, scope);
    CallArgs args = arguments(call.args, scope);
    args.keywords.emplace_back("caller", make_macro(node.caller, scope));
    append_str(out, call_value(callee, args));
    return Flow::kNormal;
  }

  Flow execute(const FilterStmt& node, const ScopePtr& scope, TextBuilder& out) {
    append_str(out, apply_filters(*node.filters, capture(node.body, scope), scope));
    return Flow::kNormal;
  }

  Flow execute(const WithStmt& node, const ScopePtr& scope, TextBuilder& out) {
    const ScopePtr inner = std::make_shared<Scope>(scope);
    for (const auto& [target, value] : node.bindings) assign(target, evaluate(*value, scope), inner);
    return execute(node.body, inner, out);
  }

  Flow execute(const BreakStmt&, const ScopePtr&, TextBuilder&) { return Flow::kBreak; }
  Flow execute(const ContinueStmt&, const ScopePtr&, TextBuilder&) { return Flow::kContinue; }

  // What a body would print, in a scope of its own.
  Value capture(const Body& body, const ScopePtr& scope) {
    TextBuilder text(runtime_);
    execute(body, std::make_shared<Scope>(scope), text);
    return runtime_.text(text.take());
  }

  void assign(const Target& target, const Value& value, const ScopePtr& scope) {
    switch (target.kind) {
      case Target::Kind::kName:
        scope->set(target.name, value);
        return;
      case Target::Kind::kAttribute: {
        const Value holder = lookup(target.name, scope);
        auto* made = holder.is_object() ? dynamic_cast<Namespace*>(&holder.object()) : nullptr;
        if (!made) fail("cannot assign attribute on non-namespace object");
        made->set(runtime_, target.attribute, value);
        return;
      }
      case Target::Kind::kTuple: {
        const std::vector<Value> items = iterate(runtime_, value);
        if (items.size() != target.parts.size()) {
          fail("cannot unpack " + std::to_string(items.size()) + " values into " +
               std::to_string(target.parts.size()) + " names");
        }
        for (size_t i = 0; i < items.size(); ++i) assign(target.parts[i], items[i], scope);
        return;
      }
    }
  }

  // ---- macros

  Value make_macro(const MacroDef& definition, const ScopePtr& scope) {
    pin(scope);
    runtime_.charge(sizeof(Macro));
    owned_.push_back(std::make_unique<Macro>(*this, definition, scope));
    return borrowed(*owned_.back());
  }

  // Keeps a scope, and those around it, until the end of the render.
  void pin(ScopePtr scope) {
    for (; scope && !scope->pinned; scope = scope->parent) {
      runtime_.charge(sizeof(Scope));
      scope->pinned = true;
      pinned_.push_back(scope);
    }
  }

  Value call_macro(const MacroDef& macro, const ScopePtr& scope, const CallArgs& args) {
    const auto level = runtime_.enter_macro();
    const ScopePtr inner = std::make_shared<Scope>(scope);
    // Keywords by name, and which of them a parameter took.
    std::map<std::string_view, size_t> by_name;
    std::vector<bool> taken(args.keywords.size());
    for (size_t i = 0; i < args.keywords.size(); ++i) {
      runtime_.step(args.keywords[i].first.size());
      by_name.emplace(args.keywords[i].first, i);
    }
    const auto take_keyword = [&](std::string_view name) -> std::optional<Value> {
      const auto found = by_name.find(name);
      if (found == by_name.end() || taken[found->second]) return std::nullopt;
      taken[found->second] = true;
      return args.keywords[found->second].second;
    };

    bool has_caller_parameter = false;
    for (size_t i = 0; i < macro.parameters.size(); ++i) {
      const Parameter& parameter = macro.parameters[i];
      runtime_.step(parameter.name.size());
      has_caller_parameter |= parameter.name == "caller";
      std::optional<Value> value;
      if (i < args.positional.size()) {
        value = args.positional[i];
      } else {
        value = take_keyword(parameter.name);
      }
      if (!value) {
        value = parameter.fallback ? evaluate(*parameter.fallback, inner)
                                   : Value::undefined("parameter '" + parameter.name + "' was not provided");
      }
      inner->set(parameter.name, *std::move(value));
    }
    if (macro.uses_caller && !has_caller_parameter) {
      inner->set("caller", take_keyword("caller").value_or(Value::undefined("No caller defined")));
    }
    if (macro.uses_kwargs) {
      std::vector<std::pair<Value, Value>> entries;
      for (size_t i = 0; i < args.keywords.size(); ++i) {
        const auto& [name, value] = args.keywords[i];
        if (!taken[i]) entries.emplace_back(runtime_.text(name), value);
      }
      inner->set("kwargs", runtime_.dict(std::move(entries)));
    } else if (const auto left = std::find(taken.begin(), taken.end(), false); left != taken.end()) {
      fail("macro '" + macro.name + "' takes no keyword argument '" +
           args.keywords[static_cast<size_t>(left - taken.begin())].first + "'");
    }
    const size_t num_taken = std::min(args.positional.size(), macro.parameters.size());
    if (macro.uses_varargs) {
      inner->set("varargs", runtime_.sequence(Sequence::Kind::kTuple,
                                              {args.positional.begin() + static_cast<ptrdiff_t>(num_taken),
                                               args.positional.end()}));
    } else if (args.positional.size() > num_taken) {
      fail("macro '" + macro.name + "' takes not more than " + std::to_string(num_taken) + " argument(s)");
    }

    TextBuilder out(runtime_);
    execute(macro.body, inner, out);
    return runtime_.text(out.take());
  }

  // ---- expressions

  Value evaluate(const Expr& expression, const ScopePtr& scope) {
    const auto level = runtime_.enter_node();
    runtime_.step();
    return std::visit([&](const auto& node) { return evaluate(node, scope); }, expression.node);
  }

  Value evaluate(const Literal& node, const ScopePtr&) { return node.value; }
  Value evaluate(const Name& node, const ScopePtr& scope) { return lookup(node.name, scope); }

  Value lookup(std::string_view name, const ScopePtr& scope) {
    if (const Value* found = scope->find(name)) return *found;
    if (const Value* found = find_key(context_.dict(), name)) return *found;
    return name == "namespace" ? borrowed(make_namespace_) : global_function(name);
  }

  Value evaluate(const ListDisplay& node, const ScopePtr& scope) {
    std::vector<Value> items;
    items.reserve(node.items.size());
    for (const ExprPtr& item : node.items) items.push_back(evaluate(*item, scope));
    return runtime_.sequence(node.is_tuple ? Sequence::Kind::kTuple : Sequence::Kind::kList,
                             std::move(items));
  }

  Value evaluate(const DictDisplay& node, const ScopePtr& scope) {
    std::vector<std::pair<Value, Value>> entries;
    for (const auto& [key, value] : node.entries) {
      Value k = evaluate(*key, scope);
      entries.emplace_back(std::move(k), evaluate(*value, scope));
    }
    return runtime_.dict(std::move(entries));
  }

  Value evaluate(const Attribute& node, const ScopePtr& scope) {
    return attribute(runtime_, evaluate(*node.object, scope), node.name);
  }

  Value evaluate(const Subscript& node, const ScopePtr& scope) {
    const Value object = evaluate(*node.object, scope);
    return subscript(runtime_, object, evaluate(*node.key, scope));
  }

  Value evaluate(const Slice& node, const ScopePtr& scope) {
    const Value object = evaluate(*node.object, scope);
    const auto bound = [&](const ExprPtr& e) { return e ? evaluate(*e, scope) : Value(); };
    const Value start = bound(node.start), stop = bound(node.stop), step = bound(node.step);
    return slice(runtime_, object, start, stop, step);
  }

  Value evaluate(const Call& node, const ScopePtr& scope) {
    const Value callee = evaluate(*node.callee, scope);
    return call_value(callee, arguments(node.args, scope));
  }

  Value call_value(const Value& callee, const CallArgs& args) {
    require_defined(callee);
    if (!callee.is_object()) fail("'" + std::string(type_name(callee)) + "' object is not callable");
    return callee.object().call(runtime_, args);
  }

  CallArgs arguments(const Arguments& node, const ScopePtr& scope) {
    CallArgs args;
    for (const ExprPtr& argument : node.positional) args.positional.push_back(evaluate(*argument, scope));
    for (const auto& [name, value] : node.keywords) {
      runtime_.work(name.size());
      args.keywords.emplace_back(name, evaluate(*value, scope));
    }
    if (node.spread) {
      std::vector<Value> items = iterate(runtime_, evaluate(*node.spread, scope));
      std::move(items.begin(), items.end(), std::back_inserter(args.positional));
    }
    if (node.spread_keywords) spread_keywords(evaluate(*node.spread_keywords, scope), args);
    return args;
  }

  void spread_keywords(const Value& value, CallArgs& args) {
    if (!value.is_dict())
      fail("the argument after ** must be a mapping, not " + std::string(type_name(value)));
    std::set<std::string> named;
    for (const auto& [name, given] : args.keywords) named.insert(name);
    for (const auto& [key, item] : value.dict().entries) {
      if (!key.is_text()) fail("keywords must be strings");
      runtime_.step(key.str().size());
      if (named.contains(std::string(key.str()))) {
        fail("got multiple values for keyword argument '" + std::string(key.str()) + "'");
      }
      args.keywords.emplace_back(key.str(), item);
    }
  }

  Value evaluate(const FilterCall& node, const ScopePtr& scope) {
    const Value value = evaluate(*node.value, scope);
    return apply_filter(runtime_, node.name, value, arguments(node.args, scope));
  }

  // A chain of filters whose innermost value is a block's text.
  Value apply_filters(const Expr& chain, Value text, const ScopePtr& scope) {
    const auto level = runtime_.enter_node();
    const auto& node = std::get<FilterCall>(chain.node);
    const Value value = node.value ? apply_filters(*node.value, std::move(text), scope) : std::move(text);
    return apply_filter(runtime_, node.name, value, arguments(node.args, scope));
  }

  Value evaluate(const TestCall& node, const ScopePtr& scope) {
    const Value value = evaluate(*node.value, scope);
    return apply_test(runtime_, node.name, value, arguments(node.args, scope));
  }

  Value evaluate(const Not& node, const ScopePtr& scope) { return !is_true(evaluate(*node.value, scope)); }

  Value evaluate(const Sign& node, const ScopePtr& scope) {
    const Value value = evaluate(*node.value, scope);
    return node.negative ? negate(value) : plus(value);
  }

  Value evaluate(const Arithmetic& node, const ScopePtr& scope) {
    const Value left = evaluate(*node.left, scope);
    return binary(runtime_, node.op, left, evaluate(*node.right, scope));
  }

  Value evaluate(const Concat& node, const ScopePtr& scope) {
    TextBuilder out(runtime_);
    for (const ExprPtr& part : node.parts) append_str(out, evaluate(*part, scope));
    return runtime_.text(out.take());
  }

  Value evaluate(const Comparison& node, const ScopePtr& scope) {
    Value left = evaluate(*node.first, scope);
    for (const auto& [op, operand] : node.rest) {
      Value right = evaluate(*operand, scope);
      if (!compare(runtime_, op, left, right)) return false;
      left = std::move(right);
    }
    return true;
  }

  Value evaluate(const Logic& node, const ScopePtr& scope) {
    Value left = evaluate(*node.left, scope);
    return is_true(left) == node.is_and ? evaluate(*node.right, scope) : left;
  }

  Value evaluate(const Conditional& node, const ScopePtr& scope) {
    if (is_true(evaluate(*node.condition, scope))) return evaluate(*node.then, scope);
    if (node.otherwise) return evaluate(*node.otherwise, scope);
    return Value::undefined("the inline if-expression evaluated to false and no else section was defined");
  }

  Runtime runtime_;  // first, so that it outlives every value
  const Value context_;
  MakeNamespace make_namespace_;
  std::vector<std::unique_ptr<Object>> owned_;  // namespaces and macros
  std::vector<ScopePtr> pinned_;
};

}  // namespace

std::string interpret(const Body& body, const boost::json::object& context, const TemplateLimits& limits,
                      int64_t now_unix_s) {
  return Interpreter(context, limits, now_unix_s).run(body);
}

}  // namespace serval::jinja
