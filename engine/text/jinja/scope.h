// Where a template's variables live, and the objects that a template can change. Owned by the interpreter
// (see Interpreter::pin), never by the values that point to them: a namespace may hold itself, and a macro
// the scope that holds it.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/text/jinja/runtime.h"
#include "engine/text/jinja/value.h"

namespace serval::jinja {

// One block's variables. Assignment is always to the innermost scope, as in Jinja; names point into the tree.
struct Scope {
  explicit Scope(std::shared_ptr<Scope> parent_scope) : parent(std::move(parent_scope)) {}

  const Value* find(std::string_view name) const {
    for (const Scope* scope = this; scope; scope = scope->parent.get()) {
      for (const auto& [key, value] : scope->variables) {
        if (key == name) return &value;
      }
    }
    return nullptr;
  }
  void set(std::string_view name, Value value) {
    for (auto& [key, old] : variables) {
      if (key == name) {
        old = std::move(value);
        return;
      }
    }
    variables.emplace_back(name, std::move(value));
  }

  const std::shared_ptr<Scope> parent;
  std::vector<std::pair<std::string_view, Value>> variables;
  bool pinned = false;  // a macro keeps it
};

class Namespace : public Object {
 public:
  std::string_view type_name() const override { return "Namespace"; }
  Value attribute(Runtime& runtime, std::string_view name) override {
    for (const auto& [key, value] : attributes_) {
      if (key == name) return value;
    }
    return Object::attribute(runtime, name);
  }
  void set(Runtime& runtime, std::string_view name, Value value) {
    if (name.starts_with('_')) fail("a namespace takes no attribute that starts with an underscore");
    for (auto& [key, old] : attributes_) {
      if (key == name) {
        old = std::move(value);
        return;
      }
    }
    runtime.charge(sizeof(attributes_[0]) + name.size());
    attributes_.emplace_back(name, std::move(value));
  }

 private:
  std::vector<std::pair<std::string, Value>> attributes_;
};

}  // namespace serval::jinja
