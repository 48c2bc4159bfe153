#include "engine/text/jinja/methods.h"

#include <algorithm>
#include <cmath>

#include "engine/text/jinja/parameters.h"

namespace serval::jinja {
namespace {

Value get_method(Runtime& rt, const Value& self, const CallArgs& args) {
  const Parameters p("get", args, {"key", "default"});
  if (const Value* found = find_key(rt, self.dict(), p.required(0))) return *found;
  return p[1] ? *p[1] : Value();
}

Value keys_method(Runtime& rt, const Value& self, const CallArgs& args) {
  Parameters("keys", args, {});
  return rt.sequence(Sequence::Kind::kKeys, iterate(rt, self));
}

Value values_method(Runtime& rt, const Value& self, const CallArgs& args) {
  Parameters("values", args, {});
  std::vector<Value> items;
  for (const auto& entry : self.dict().entries) items.push_back(entry.second);
  return rt.sequence(Sequence::Kind::kValues, std::move(items));
}

Value items_method(Runtime& rt, const Value& self, const CallArgs& args) {
  Parameters("items", args, {});
  std::vector<Value> items;
  for (const auto& [key, value] : self.dict().entries) {
    items.push_back(rt.sequence(Sequence::Kind::kTuple, {key, value}));
  }
  return rt.sequence(Sequence::Kind::kItems, std::move(items));
}

Value copy_method(Runtime&, const Value& self, const CallArgs& args) {
  Parameters("copy", args, {});
  return self;  // nothing can change it
}

Value item_index_method(Runtime& rt, const Value& self, const CallArgs& args) {
  const Parameters p("index", args, {"value"});
  const std::vector<Value>& items = self.sequence().items;
  for (size_t i = 0; i < items.size(); ++i) {
    if (equal(rt, items[i], p.required(0))) return static_cast<Int>(i);
  }
  fail("the value is not in the list");
}

Value item_count_method(Runtime& rt, const Value& self, const CallArgs& args) {
  const Parameters p("count", args, {"value"});
  const std::vector<Value>& items = self.sequence().items;
  return static_cast<Int>(
      std::count_if(items.begin(), items.end(), [&](const Value& v) { return equal(rt, v, p.required(0)); }));
}

Value is_integer_method(Runtime&, const Value& self, const CallArgs& args) {
  Parameters("is_integer", args, {});
  return std::isfinite(self.number()) && std::trunc(self.number()) == self.number();
}

constexpr NamedMethod kDictMethods[] = {
    {"copy", copy_method}, {"get", get_method},       {"items", items_method},
    {"keys", keys_method}, {"values", values_method},
};
constexpr NamedMethod kListMethods[] = {
    {"copy", copy_method}, {"count", item_count_method}, {"index", item_index_method}};
constexpr NamedMethod kTupleMethods[] = {{"count", item_count_method}, {"index", item_index_method}};
constexpr NamedMethod kFloatMethods[] = {{"is_integer", is_integer_method}};

class BoundMethod : public Object {
 public:
  BoundMethod(Value self, const NamedMethod& method) : self_(std::move(self)), method_(method) {}
  std::string_view type_name() const override { return "builtin_function_or_method"; }
  bool is_callable() const override { return true; }
  int depth() const override { return 1 + depth_of(self_); }
  Value call(Runtime& runtime, const CallArgs& args) override {
    runtime.work_on(self_);
    runtime.work_on(args);
    return method_.call(runtime, self_, args);
  }

 private:
  const Value self_;
  const NamedMethod& method_;
};

std::span<const NamedMethod> methods_of(const Value& value) {
  if (value.is_text()) return text_methods();
  if (value.is_dict()) return kDictMethods;
  if (value.is_float()) return kFloatMethods;
  if (!value.is_sequence() || !value.sequence().is_indexable()) return {};
  if (value.sequence().kind == Sequence::Kind::kList) return kListMethods;
  return kTupleMethods;
}

}  // namespace

Value bind_method(const Value& receiver, std::string_view name) {
  for (const NamedMethod& method : methods_of(receiver)) {
    if (method.name == name) return std::shared_ptr<Object>(std::make_shared<BoundMethod>(receiver, method));
  }
  return Value::undefined("'" + std::string(type_name(receiver)) + " object' has no attribute '" +
                          std::string(name.substr(0, 100)) + "'");
}

}  // namespace serval::jinja
