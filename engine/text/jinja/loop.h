// The `loop` of a for statement. Items are drawn one by one, with as much looking ahead as the template asks
// for (loop.last, nextitem, length), because a filter condition may depend on what the body did.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>

#include "engine/text/jinja/runtime.h"
#include "engine/text/jinja/value.h"

namespace serval::jinja {

class Loop : public Object, public std::enable_shared_from_this<Loop> {
 public:
  using Keep = std::function<bool(const Value&)>;  // the condition of `for x in y if condition`
  // Null unless the loop is recursive.
  using Recurse = std::function<Value(const Value& iterable, int depth0)>;

  Loop(Runtime& runtime, const Value& iterable, Keep keep, Recurse recurse, int depth0);

  std::string_view type_name() const override { return "LoopContext"; }
  bool is_callable() const override { return true; }
  Value call(Runtime& runtime, const CallArgs& args) override;
  Value attribute(Runtime& runtime, std::string_view name) override;

  std::optional<Value> advance();
  // After this it holds no values and calls nothing: a template may have kept it beyond the statement.
  void finish();

  Value cycle(const CallArgs& args) const;
  bool changed(Runtime& runtime, const CallArgs& args);

 private:
  std::optional<Value> draw();
  bool look_ahead();
  Int length();

  Value source_;  // a generator, drawn from as the loop goes; otherwise None
  std::vector<Value> items_;
  size_t next_item_ = 0;
  Keep keep_;
  Recurse recurse_;
  const int depth0_;
  std::deque<Value> ahead_;
  Int index0_ = -1;
  Value current_, previous_;
  std::optional<Value> last_changed_;
  bool finished_ = false;
};

}  // namespace serval::jinja
