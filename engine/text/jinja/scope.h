// Where a template's variables live, and the objects that a template can change. Owned by the interpreter
// (see Interpreter::pin), never by the values that point to them: a namespace may hold itself, and a macro
// the scope that holds it.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "engine/text/jinja/runtime.h"
#include "engine/text/jinja/value.h"

namespace serval::jinja {

// One block's variables. Assignment is always to the innermost scope, as in Jinja; names point into the tree.
struct Scope {
  explicit Scope(std::shared_ptr<Scope> parent_scope) : parent(std::move(parent_scope)) {}

  const Value* find(std::string_view name) const {
    for (const Scope* scope = this; scope; scope = scope->parent.get()) {
      if (const auto found = scope->variables.find(name); found != scope->variables.end())
        return &found->second;
    }
    return nullptr;
  }
  void set(std::string_view name, Value value) { variables.insert_or_assign(name, std::move(value)); }

  const std::shared_ptr<Scope> parent;
  std::map<std::string_view, Value> variables;
  bool pinned = false;  // a macro keeps it
};

class Namespace : public Object {
 public:
  std::string_view type_name() const override { return "Namespace"; }
  Value attribute(Runtime& runtime, std::string_view name) override {
    const auto found = attributes_.find(name);
    return found != attributes_.end() ? found->second : Object::attribute(runtime, name);
  }
  void set(Runtime& runtime, std::string_view name, Value value) {
    if (name.starts_with('_')) fail("a namespace takes no attribute that starts with an underscore");
    if (const auto found = attributes_.find(name); found != attributes_.end()) {
      found->second = std::move(value);
      return;
    }
    constexpr size_t kNodeBytes = 128;
    runtime.charge(kNodeBytes + name.size());
    attributes_.emplace(name, std::move(value));
  }

 private:
  std::map<std::string, Value, std::less<>> attributes_;
};

}  // namespace serval::jinja
