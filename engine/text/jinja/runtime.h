// One render's allowances (steps, depth, memory, wall clock) and the only factory of values that own memory:
// nothing can be built without being counted. Knows nothing of syntax. One thread.
#pragma once

#include <boost/json/fwd.hpp>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/jinja/failure.h"
#include "engine/text/jinja/limits.h"
#include "engine/text/jinja/value.h"

namespace serval::jinja {

class Runtime {
 public:
  Runtime(const TemplateLimits& limits, int64_t now_unix_s);
  Runtime(const Runtime&) = delete;

  // Counts one evaluated node, or one item looked at by a builtin, and bytes read or written on top of that.
  void step(size_t bytes = 0) {
    ++steps_;
    work(bytes);
    if (steps_ >= next_look_) look();
  }
  // Counts bytes read or written: a KiB of them is a step, however small the pieces. Call before the work,
  // and from within it where a byte costs more than copying it, so that the clock is looked at on the way.
  void work(size_t bytes) {
    pending_bytes_ += bytes;
    if (pending_bytes_ < kStepBytes) return;
    steps_ += static_cast<int64_t>(pending_bytes_ / kStepBytes);
    pending_bytes_ %= kStepBytes;
    if (steps_ >= next_look_) look();
  }
  // Counts what a builtin is given, whether it will read it or not: the bytes of texts, the items of lists.
  void work_on(const Value& value);
  void work_on(const CallArgs& args);
  // Fails unless a string or list of this many bytes may be built. Call before allocating.
  void require_size(size_t bytes) const;
  void charge(size_t bytes);
  void release(size_t bytes) { live_bytes_ -= bytes; }

  Value text(std::string bytes, bool safe = false);
  Value text(std::string_view bytes, bool safe = false) { return text(std::string(bytes), safe); }
  Value sequence(Sequence::Kind kind, std::vector<Value> items, std::string label = {});
  Value list(std::vector<Value> items) { return sequence(Sequence::Kind::kList, std::move(items)); }
  Value generator(std::vector<Value> items) { return sequence(Sequence::Kind::kGenerator, std::move(items)); }
  // A key that comes twice keeps its first place and its last value.
  Value dict(std::vector<std::pair<Value, Value>> entries);
  Value from_json(const boost::json::value& json, int depth = 0);
  Value from_json(const boost::json::object& json, int depth = 0);

  int64_t now_unix_s() const { return now_unix_s_; }

  // Held while a node is evaluated or a macro runs.
  class Nesting {
   public:
    Nesting(int& depth, int max_depth) : depth_(depth) {
      if (depth_ >= max_depth) fail_limit("the template nests too deeply");
      ++depth_;
    }
    Nesting(const Nesting&) = delete;
    ~Nesting() { --depth_; }

   private:
    int& depth_;
  };
  Nesting enter_node() { return Nesting(node_depth_, max_node_depth(limits_)); }
  Nesting enter_macro() { return Nesting(macro_depth_, limits_.max_depth); }

  // A level of source nesting (a block, a parenthesis) is a few nodes; nodes bound the stack, levels are what
  // a person counts.
  static int max_node_depth(const TemplateLimits& limits) { return 8 * limits.max_depth; }

 private:
  static constexpr size_t kStepBytes = 1024;

  void look();  // at the limit of steps, and at the clock

  const TemplateLimits limits_;
  const int64_t now_unix_s_;
  const size_t max_live_bytes_;
  const std::chrono::nanoseconds started_running_;
  std::chrono::steady_clock::time_point deadline_;
  int64_t steps_ = 0;
  int64_t next_look_ = 0;
  size_t pending_bytes_ = 0;  // less than kStepBytes
  size_t live_bytes_ = 0;
  int node_depth_ = 0;
  int macro_depth_ = 0;
};

// Text that grows, refused as soon as it is too long, and counted while it grows.
class TextBuilder {
 public:
  explicit TextBuilder(Runtime& runtime) : runtime_(runtime) {}
  TextBuilder(const TextBuilder&) = delete;
  ~TextBuilder() { runtime_.release(bytes_.size()); }

  void append(std::string_view piece) {
    constexpr size_t kCallBytes = 16;  // what a call costs on top
    runtime_.require_size(bytes_.size() + piece.size());
    runtime_.work(piece.size() + kCallBytes);
    runtime_.charge(piece.size());
    bytes_.append(piece);
  }
  void append(char c) { append(std::string_view(&c, 1)); }
  void append(size_t count, char c) {
    runtime_.require_size(count);
    append(std::string(count, c));
  }
  size_t size() const { return bytes_.size(); }
  std::string take() {
    runtime_.release(bytes_.size());
    return std::exchange(bytes_, {});
  }
  Runtime& runtime() { return runtime_; }

 private:
  Runtime& runtime_;
  std::string bytes_;
};

// The items a for loop, a filter or an unpacking sees; fails for what does not iterate. A generator is used
// up.
std::vector<Value> iterate(Runtime& runtime, const Value& value);

// Python's == and <. Walks count as work, because shared parts can make a small value exponentially large to
// walk.
bool equal(Runtime& runtime, const Value& a, const Value& b);
bool less(Runtime& runtime, const Value& a, const Value& b);  // fails for types that have no order
// A total order over everything that may be a dictionary key, equal where Python's keys are equal (1, 1.0 and
// true are one key). Fails for unhashable values.
int compare_keys(Runtime& runtime, const Value& a, const Value& b);
const Value* find_key(Runtime& runtime, const Dict& dict, const Value& key);

}  // namespace serval::jinja
