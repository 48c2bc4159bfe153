#include "engine/text/jinja/builtins.h"

#include <time.h>

#include <algorithm>

#include "engine/text/jinja/access.h"
#include "engine/text/jinja/format.h"
#include "engine/text/jinja/methods.h"
#include "engine/text/jinja/numbers.h"
#include "engine/text/jinja/operators.h"
#include "engine/text/jinja/parameters.h"
#include "engine/text/jinja/pieces.h"
#include "engine/text/jinja/unicode.h"

namespace serval::jinja {
namespace {

// ---- tests

const Value& argument(std::string_view name, const CallArgs& args) {
  return Parameters(name, args, {"other"}).required(0);
}

// value % divisor == rest, floats too.
bool leaves(Runtime& rt, const Value& value, const Value& divisor, int rest) {
  return equal(rt, binary(rt, Binary::kModulo, value, divisor), Value::of(rest));
}

template <Compare op>
bool compares(Runtime& rt, const Value& v, const CallArgs& args) {
  return compare(rt, op, v, argument("comparison", args));
}

bool text_case(Runtime& rt, const Value& value, std::string_view method) {
  return is_true(bind_method(rt.text(str_of(rt, value)), method).object().call(rt, {}));
}

bool is_sequence_like(const Value& v) {
  return v.is_text() || v.is_dict() || v.is_undefined() || (v.is_sequence() && v.sequence().is_indexable());
}

bool same_object(Runtime& rt, const Value& a, const Value& b) {
  if (a.data().index() != b.data().index()) return false;
  if (a.is_sequence()) return &a.sequence() == &b.sequence();
  if (a.is_dict()) return &a.dict() == &b.dict();
  return equal(rt, a, b);
}

using Test = bool (*)(Runtime&, const Value&, const CallArgs&);
struct NamedTest {
  std::string_view name;
  Test test;
};

constexpr NamedTest kTests[] = {
    {"!=", compares<Compare::kNotEqual>},
    {"<", compares<Compare::kLess>},
    {"<=", compares<Compare::kLessEqual>},
    {"==", compares<Compare::kEqual>},
    {">", compares<Compare::kGreater>},
    {">=", compares<Compare::kGreaterEqual>},
    {"boolean", [](Runtime&, const Value& v, const CallArgs&) { return v.is_bool(); }},
    {"callable",
     [](Runtime&, const Value& v, const CallArgs&) {
       return v.is_undefined() || (v.is_object() && v.object().is_callable());
     }},
    {"defined", [](Runtime&, const Value& v, const CallArgs&) { return !v.is_undefined(); }},
    {"divisibleby", [](Runtime& rt, const Value& v,
                       const CallArgs& args) { return leaves(rt, v, argument("divisibleby", args), 0); }},
    {"eq", compares<Compare::kEqual>},
    {"equalto", compares<Compare::kEqual>},
    {"escaped", [](Runtime&, const Value& v, const CallArgs&) { return v.is_text() && v.text().safe; }},
    {"even", [](Runtime& rt, const Value& v, const CallArgs&) { return leaves(rt, v, Value::of(2), 0); }},
    {"false", [](Runtime&, const Value& v, const CallArgs&) { return v.is_bool() && v.integer() == 0; }},
    {"filter", [](Runtime&, const Value& v, const CallArgs&) { return v.is_text() && has_filter(v.str()); }},
    {"float", [](Runtime&, const Value& v, const CallArgs&) { return v.is_float(); }},
    {"ge", compares<Compare::kGreaterEqual>},
    {"greaterthan", compares<Compare::kGreater>},
    {"gt", compares<Compare::kGreater>},
    {"in", compares<Compare::kIn>},
    {"integer", [](Runtime&, const Value& v, const CallArgs&) { return v.is_int(); }},
    {"iterable",
     [](Runtime&, const Value& v, const CallArgs&) {
       return v.is_text() || v.is_dict() || v.is_sequence() || v.is_undefined();
     }},
    {"le", compares<Compare::kLessEqual>},
    {"lessthan", compares<Compare::kLess>},
    {"lower", [](Runtime& rt, const Value& v, const CallArgs&) { return text_case(rt, v, "islower"); }},
    {"lt", compares<Compare::kLess>},
    {"mapping", [](Runtime&, const Value& v, const CallArgs&) { return v.is_dict(); }},
    {"ne", compares<Compare::kNotEqual>},
    {"none", [](Runtime&, const Value& v, const CallArgs&) { return v.is_none(); }},
    {"number", [](Runtime&, const Value& v, const CallArgs&) { return v.is_number(); }},
    {"odd", [](Runtime& rt, const Value& v, const CallArgs&) { return leaves(rt, v, Value::of(2), 1); }},
    {"sameas", [](Runtime& rt, const Value& v,
                  const CallArgs& args) { return same_object(rt, v, argument("sameas", args)); }},
    {"sequence", [](Runtime&, const Value& v, const CallArgs&) { return is_sequence_like(v); }},
    {"string", [](Runtime&, const Value& v, const CallArgs&) { return v.is_text(); }},
    {"test", [](Runtime&, const Value& v, const CallArgs&) { return v.is_text() && has_test(v.str()); }},
    {"true", [](Runtime&, const Value& v, const CallArgs&) { return v.is_bool() && v.integer() == 1; }},
    {"undefined", [](Runtime&, const Value& v, const CallArgs&) { return v.is_undefined(); }},
    {"upper", [](Runtime& rt, const Value& v, const CallArgs&) { return text_case(rt, v, "isupper"); }},
};

Test find_test(std::string_view name) {
  const auto at =
      std::find_if(std::begin(kTests), std::end(kTests), [&](const NamedTest& t) { return t.name == name; });
  return at == std::end(kTests) ? nullptr : at->test;
}

Filter find_filter(std::string_view name) {
  const Filter filter = find_text_filter(name);
  return filter ? filter : find_sequence_filter(name);
}

// ---- global functions

Value range_function(Runtime& rt, const CallArgs& args) {
  const Parameters p("range", args, {"start", "stop", "step"});
  p.required(0);
  return p[1] ? make_range(rt, p.integer(0, 0), p.integer(1, 0), p.integer(2, 1))
              : make_range(rt, 0, p.integer(0, 0), 1);
}

Value dict_function(Runtime& rt, const CallArgs& args) {
  std::vector<std::pair<Value, Value>> entries;
  if (args.positional.size() > 1) fail("dict expected at most 1 argument");
  if (!args.positional.empty()) {
    const Value& from = args.positional[0];
    if (from.is_dict()) {
      entries = from.dict().entries;
    } else {
      for (const Value& pair : iterate(rt, from)) {
        std::vector<Value> halves = iterate(rt, pair);
        if (halves.size() != 2) fail("a dictionary is made of pairs");
        entries.emplace_back(std::move(halves[0]), std::move(halves[1]));
      }
    }
  }
  for (const auto& [name, value] : args.keywords) entries.emplace_back(rt.text(name), value);
  return rt.dict(std::move(entries));
}

Value raise_exception_function(Runtime& rt, const CallArgs& args) {
  throw Failure{Failure::Kind::kRaised,
                str_of(rt, Parameters("raise_exception", args, {"message"}).required(0))};
}

// What Python's datetime.strftime adds to the C library's: %f, and %z and %Z of a time without a zone.
std::string python_directives(std::string_view format) {
  std::string out;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%' || i + 1 == format.size()) {
      out += format[i];
      continue;
    }
    const char directive = format[++i];
    if (directive == 'f') {
      out += "000000";
    } else if (directive != 'z' && directive != 'Z') {
      (out += '%') += directive;
    }
  }
  return out;
}

Value strftime_now_function(Runtime& rt, const CallArgs& args) {
  const Parameters p("strftime_now", args, {"format"});
  constexpr size_t kMaxFormat = 1024;
  if (p.text(0).size() > kMaxFormat)
    fail_limit("a time format is longer than " + std::to_string(kMaxFormat) + " bytes");
  const time_t seconds = static_cast<time_t>(rt.now_unix_s());
  struct tm utc {};
  if (!gmtime_r(&seconds, &utc)) fail("the time is out of range");
  // The leading mark tells an empty result from one that did not fit. A NUL ends the format, as it does in C.
  const std::string format = "|" + python_directives(p.text(0));
  std::string out(64 * kMaxFormat, '\0');
  out.resize(strftime(out.data(), out.size(), format.c_str(), &utc));
  if (out.empty()) fail_limit("a formatted time is too long");
  return rt.text(out.substr(1));
}

int checked_depth(int depth) {
  if (depth > kMaxValueDepth) fail_limit("the template nests values too deeply");
  return depth;
}

class Cycler : public Object, public std::enable_shared_from_this<Cycler> {
 public:
  explicit Cycler(std::vector<Value> items) : items_(std::move(items)) {
    for (const Value& item : items_) depth_ = std::max(depth_, checked_depth(1 + depth_of(item)));
  }
  std::string_view type_name() const override { return "Cycler"; }
  int depth() const override { return depth_; }
  Value attribute(Runtime& runtime, std::string_view name) override;
  Value next() {
    const size_t now = std::exchange(at_, (at_ + 1) % items_.size());
    return items_[now];
  }
  void reset() { at_ = 0; }

 private:
  const std::vector<Value> items_;
  size_t at_ = 0;
  int depth_ = 1;
};

class CyclerMethod : public Object {
 public:
  CyclerMethod(std::shared_ptr<Cycler> cycler, bool resets) : cycler_(std::move(cycler)), resets_(resets) {}
  std::string_view type_name() const override { return "method"; }
  bool is_callable() const override { return true; }
  int depth() const override { return 1 + cycler_->depth(); }
  Value call(Runtime&, const CallArgs&) override {
    if (!resets_) return cycler_->next();
    cycler_->reset();
    return None{};
  }

 private:
  const std::shared_ptr<Cycler> cycler_;
  const bool resets_;
};

Value Cycler::attribute(Runtime& runtime, std::string_view name) {
  if (name == "current") return items_[at_];
  if (name != "next" && name != "reset") return Object::attribute(runtime, name);
  return std::shared_ptr<Object>(std::make_shared<CyclerMethod>(shared_from_this(), name == "reset"));
}

Value cycler_function(Runtime&, const CallArgs& args) {
  if (args.positional.empty() || !args.keywords.empty()) fail("at least one item has to be provided");
  return std::shared_ptr<Object>(std::make_shared<Cycler>(args.positional));
}

class Joiner : public Object {
 public:
  explicit Joiner(Value separator)
      : separator_(std::move(separator)), depth_(checked_depth(1 + depth_of(separator_))) {}
  std::string_view type_name() const override { return "Joiner"; }
  bool is_callable() const override { return true; }
  int depth() const override { return depth_; }
  Value call(Runtime& runtime, const CallArgs&) override {
    return std::exchange(used_, true) ? separator_ : runtime.text(std::string());
  }

 private:
  const Value separator_;
  const int depth_;
  bool used_ = false;
};

Value joiner_function(Runtime& runtime, const CallArgs& args) {
  const Parameters p("joiner", args, {"sep"});
  return std::shared_ptr<Object>(std::make_shared<Joiner>(p[0] ? *p[0] : runtime.text(std::string(", "))));
}

class GlobalFunction : public Object {
 public:
  using Body = Value (*)(Runtime&, const CallArgs&);
  explicit GlobalFunction(Body body) : body_(body) {}
  std::string_view type_name() const override { return "function"; }
  bool is_callable() const override { return true; }
  Value call(Runtime& runtime, const CallArgs& args) override {
    runtime.work_on(args);
    return body_(runtime, args);
  }

 private:
  const Body body_;
};

struct NamedFunction {
  std::string_view name;
  GlobalFunction::Body body;
};

constexpr NamedFunction kFunctions[] = {
    {"cycler", cycler_function}, {"dict", dict_function},
    {"joiner", joiner_function}, {"raise_exception", raise_exception_function},
    {"range", range_function},   {"strftime_now", strftime_now_function},
};

}  // namespace

Value global_function(std::string_view name) {
  for (const NamedFunction& function : kFunctions) {
    if (function.name == name)
      return std::shared_ptr<Object>(std::make_shared<GlobalFunction>(function.body));
  }
  return Value::undefined("'" + std::string(name.substr(0, 100)) + "' is undefined");
}

bool has_filter(std::string_view name) {
  return find_filter(name) != nullptr;
}
bool has_test(std::string_view name) {
  return find_test(name) != nullptr;
}

Value apply_filter(Runtime& runtime, std::string_view name, const Value& value, const CallArgs& args) {
  runtime.step();
  const Filter filter = find_filter(name);
  runtime.work_on(value);
  runtime.work_on(args);
  if (!filter) fail("no filter named '" + std::string(name.substr(0, 100)) + "'");
  return filter(runtime, value, args);
}

bool apply_test(Runtime& runtime, std::string_view name, const Value& value, const CallArgs& args) {
  runtime.step();
  const Test test = find_test(name);
  runtime.work_on(value);
  runtime.work_on(args);
  if (!test) fail("no test named '" + std::string(name.substr(0, 100)) + "'");
  return test(runtime, value, args);
}

AttributePath::AttributePath(Runtime& runtime, const Value* attribute) {
  if (!attribute || attribute->is_none()) return;
  if (!attribute->is_text()) {
    parts_.push_back(*attribute);
    return;
  }
  for (std::string_view part : split_on(runtime, attribute->str(), ".", -1)) {
    const bool digits = !part.empty() && part.find_first_not_of("0123456789") == std::string_view::npos;
    Int index = 0;
    parts_.push_back(digits && parse_int(part, 10, index) ? Value(index) : runtime.text(part));
  }
}

Value AttributePath::of(Runtime& runtime, const Value& item, const Value* fallback) const {
  Value found = item;
  for (const Value& part : parts_) {
    found = subscript(runtime, found, part);
    if (fallback && found.is_undefined()) found = *fallback;
  }
  return found;
}

}  // namespace serval::jinja
