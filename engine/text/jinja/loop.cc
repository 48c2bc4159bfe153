#include "engine/text/jinja/loop.h"

#include "engine/text/jinja/failure.h"
#include "engine/text/jinja/parameters.h"

namespace serval::jinja {
namespace {

class LoopMethod : public Object {
 public:
  LoopMethod(std::shared_ptr<Loop> loop, bool cycles) : loop_(std::move(loop)), cycles_(cycles) {}
  std::string_view type_name() const override { return "method"; }
  bool is_callable() const override { return true; }
  Value call(Runtime& runtime, const CallArgs& args) override {
    if (cycles_) return loop_->cycle(args);
    return loop_->changed(runtime, args);
  }

 private:
  const std::shared_ptr<Loop> loop_;
  const bool cycles_;
};

}  // namespace

Loop::Loop(Runtime& runtime, const Value& iterable, Keep keep, Recurse recurse, int depth0)
    : keep_(std::move(keep)), recurse_(std::move(recurse)), depth0_(depth0) {
  if (iterable.is_sequence() && iterable.sequence().kind == Sequence::Kind::kGenerator) {
    source_ = iterable;
  } else {
    items_ = iterate(runtime, iterable);
  }
}

std::optional<Value> Loop::draw() {
  const bool from_generator = source_.is_sequence();
  const std::vector<Value>& items = from_generator ? source_.sequence().items : items_;
  size_t& next = from_generator ? source_.sequence().cursor : next_item_;
  while (next < items.size()) {
    const Value item = items[next++];
    if (!keep_ || keep_(item)) return item;
  }
  return std::nullopt;
}

bool Loop::look_ahead() {
  if (!ahead_.empty()) return true;
  std::optional<Value> item = draw();
  if (item) ahead_.push_back(*std::move(item));
  return item.has_value();
}

std::optional<Value> Loop::advance() {
  if (!look_ahead()) return std::nullopt;
  previous_ = std::exchange(current_, std::move(ahead_.front()));
  ahead_.pop_front();
  ++index0_;
  return current_;
}

void Loop::finish() {
  finished_ = true;
  keep_ = nullptr;
  recurse_ = nullptr;
  items_.clear();
  ahead_.clear();
  source_ = current_ = previous_ = None{};
  last_changed_.reset();
}

Int Loop::length() {
  while (std::optional<Value> item = draw()) ahead_.push_back(*std::move(item));
  return index0_ + 1 + static_cast<Int>(ahead_.size());
}

Value Loop::attribute(Runtime& runtime, std::string_view name) {
  if (name == "index") return index0_ + 1;
  if (name == "index0") return index0_;
  if (name == "first") return index0_ == 0;
  if (name == "last") return !look_ahead();
  if (name == "length") return length();
  if (name == "revindex") return length() - index0_;
  if (name == "revindex0") return length() - index0_ - 1;
  if (name == "depth") return Value::of(depth0_ + 1);
  if (name == "depth0") return Value::of(depth0_);
  if (name == "previtem") return index0_ > 0 ? previous_ : Value::undefined("there is no previous item");
  if (name == "nextitem") return look_ahead() ? ahead_.front() : Value::undefined("there is no next item");
  if (name == "cycle" || name == "changed") {
    return std::shared_ptr<Object>(std::make_shared<LoopMethod>(shared_from_this(), name == "cycle"));
  }
  return Object::attribute(runtime, name);
}

Value Loop::call(Runtime&, const CallArgs& args) {
  if (finished_) fail("a loop that has ended cannot be called");
  if (!recurse_) fail("The loop must have the 'recursive' marker to be called recursively.");
  const Recurse recurse = recurse_;
  return recurse(Parameters("loop", args, {"iterable"}).required(0), depth0_ + 1);
}

Value Loop::cycle(const CallArgs& args) const {
  if (args.positional.empty()) fail("no items for cycling given");
  return args.positional[static_cast<size_t>(index0_ % static_cast<Int>(args.positional.size()))];
}

bool Loop::changed(Runtime& runtime, const CallArgs& args) {
  const Value value = runtime.sequence(Sequence::Kind::kTuple, args.positional);
  if (last_changed_ && equal(runtime, *last_changed_, value)) return false;
  if (!finished_) last_changed_ = value;
  return true;
}

}  // namespace serval::jinja
