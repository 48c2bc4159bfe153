#include "engine/text/jinja/runtime.h"

#include <time.h>

#include <algorithm>
#include <boost/json.hpp>

#include "engine/text/jinja/unicode.h"

namespace serval::jinja {
namespace {

// Steps between looks at the clock.
constexpr int64_t kClockSteps = 256;
// Live memory of a render, its converted context included, in units of the longest output.
constexpr size_t kLiveOutputs = 16;

// What this thread has spent on a core.
std::chrono::nanoseconds running_time() {
  struct timespec time {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

}  // namespace

Runtime::Runtime(const TemplateLimits& limits, int64_t now_unix_s)
    : limits_(limits),
      now_unix_s_(now_unix_s),
      max_live_bytes_(kLiveOutputs * limits.max_output_bytes),
      started_running_(running_time()),
      deadline_(std::chrono::steady_clock::now() + std::chrono::milliseconds(limits.max_wall_ms)) {}

void Runtime::work_on(const Value& value) {
  if (value.is_text()) {
    work(value.str().size());
  } else if (value.is_sequence()) {
    work(value.sequence().items.size() * sizeof(Value));
  } else if (value.is_dict()) {
    work(value.dict().entries.size() * sizeof(value.dict().entries[0]));
  }
}

void Runtime::work_on(const CallArgs& args) {
  for (const Value& argument : args.positional) work_on(argument);
  for (const auto& [name, argument] : args.keywords) {
    work(name.size());
    work_on(argument);
  }
}

void Runtime::look() {
  if (steps_ > limits_.max_steps) {
    fail_limit("the template takes more than " + std::to_string(limits_.max_steps) + " steps");
  }
  next_look_ = std::min(steps_ + kClockSteps, limits_.max_steps);
  if (limits_.max_wall_ms <= 0) return;
  const auto now = std::chrono::steady_clock::now();
  if (now <= deadline_) return;
  // On a busy machine the thread may have waited for most of that time, which is not the template's doing.
  const auto left = std::chrono::milliseconds(limits_.max_wall_ms) - (running_time() - started_running_);
  if (left.count() <= 0) {
    fail_limit("the template takes more than " + std::to_string(limits_.max_wall_ms) + " ms");
  }
  deadline_ = now + left;
}

void Runtime::require_size(size_t bytes) const {
  if (bytes > limits_.max_output_bytes) {
    fail_limit("the template builds a text or list of more than " + std::to_string(limits_.max_output_bytes) +
               " bytes");
  }
}

void Runtime::charge(size_t bytes) {
  if (bytes > max_live_bytes_ - live_bytes_) {
    fail_limit("the template holds more than " + std::to_string(max_live_bytes_) + " bytes of values");
  }
  live_bytes_ += bytes;
}

Charge::Charge(Runtime* runtime, size_t bytes) : bytes_(bytes) {
  runtime->charge(bytes);
  runtime_ = runtime;
}

Charge::~Charge() {
  if (runtime_) runtime_->release(bytes_);
}

Value Runtime::text(std::string bytes, bool safe) {
  require_size(bytes.size());
  step(bytes.size());
  const bool ascii = is_ascii(bytes);
  Charge charge(this, sizeof(Text) + bytes.size());
  return std::make_shared<const Text>(std::move(bytes), ascii, safe, std::move(charge));
}

Value Runtime::sequence(Sequence::Kind kind, std::vector<Value> items, std::string label) {
  const size_t bytes = items.size() * sizeof(Value);
  require_size(bytes);
  step(bytes);
  int depth = 1;
  for (const Value& item : items) depth = std::max(depth, 1 + depth_of(item));
  if (depth > kMaxValueDepth) fail_limit("the template nests lists too deeply");
  Charge charge(this, sizeof(Sequence) + bytes);
  return std::make_shared<const Sequence>(kind, depth, std::move(items), std::move(label), std::move(charge));
}

Value Runtime::dict(std::vector<std::pair<Value, Value>> entries) {
  require_size(entries.size() * sizeof(entries[0]));
  step(entries.size() * sizeof(entries[0]));
  std::vector<uint32_t> by_key(entries.size());
  for (uint32_t i = 0; i < by_key.size(); ++i) by_key[i] = i;
  std::stable_sort(by_key.begin(), by_key.end(), [&](uint32_t a, uint32_t b) {
    return compare_keys(*this, entries[a].first, entries[b].first) < 0;
  });
  if (entries.size() == 1)
    compare_keys(*this, entries[0].first, entries[0].first);  // refuses an unhashable key

  // Equal keys stand together, the earliest first: it stays and takes the value of the latest.
  std::vector<bool> dropped(entries.size());
  size_t kept = 0;
  for (size_t i = 0; i < by_key.size(); ++i) {
    if (i > 0 && compare_keys(*this, entries[by_key[kept - 1]].first, entries[by_key[i]].first) == 0) {
      entries[by_key[kept - 1]].second = entries[by_key[i]].second;
      dropped[by_key[i]] = true;
    } else {
      by_key[kept++] = by_key[i];
    }
  }
  if (kept < entries.size()) {
    by_key.resize(kept);
    std::vector<uint32_t> new_place(entries.size());
    uint32_t place = 0;
    for (uint32_t i = 0; i < entries.size(); ++i) {
      new_place[i] = place;
      if (dropped[i]) continue;
      if (place != i) entries[place] = std::move(entries[i]);
      ++place;
    }
    entries.resize(place);
    for (uint32_t& index : by_key) index = new_place[index];
  }

  int depth = 1;
  for (const auto& [key, value] : entries) {
    depth = std::max(depth, 1 + std::max(depth_of(key), depth_of(value)));
  }
  if (depth > kMaxValueDepth) fail_limit("the template nests dictionaries too deeply");
  Charge charge(this, sizeof(Dict) + entries.size() * (sizeof(entries[0]) + sizeof(uint32_t)));
  return std::make_shared<const Dict>(std::move(entries), std::move(by_key), depth, std::move(charge));
}

Value Runtime::from_json(const boost::json::value& json, int depth) {
  if (depth > kMaxValueDepth) fail_limit("the template's variables nest too deeply");
  switch (json.kind()) {
    case boost::json::kind::null:
      return None{};
    case boost::json::kind::bool_:
      return json.get_bool();
    case boost::json::kind::int64:
      return Int{json.get_int64()};
    case boost::json::kind::uint64:
      return static_cast<Int>(json.get_uint64());
    case boost::json::kind::double_:
      return json.get_double();
    case boost::json::kind::string:
      return text(std::string_view(json.get_string().data(), json.get_string().size()));
    case boost::json::kind::array: {
      require_size(json.get_array().size() * sizeof(Value));
      std::vector<Value> items;
      items.reserve(json.get_array().size());
      for (const boost::json::value& item : json.get_array()) items.push_back(from_json(item, depth + 1));
      return list(std::move(items));
    }
    case boost::json::kind::object:
      return from_json(json.get_object(), depth);
  }
  return None{};
}

Value Runtime::from_json(const boost::json::object& json, int depth) {
  require_size(json.size() * sizeof(std::pair<Value, Value>));
  std::vector<std::pair<Value, Value>> entries;
  entries.reserve(json.size());
  for (const auto& [key, value] : json) {
    entries.emplace_back(text(std::string_view(key.data(), key.size())), from_json(value, depth + 1));
  }
  return dict(std::move(entries));
}

std::vector<Value> iterate(Runtime& runtime, const Value& value) {
  std::vector<Value> items;
  if (value.is_sequence()) {
    const Sequence& sequence = value.sequence();
    runtime.step(sequence.items.size() * sizeof(Value));
    if (sequence.kind != Sequence::Kind::kGenerator) return sequence.items;
    const size_t from = std::exchange(sequence.cursor, sequence.items.size());
    items.assign(sequence.items.begin() + static_cast<ptrdiff_t>(from), sequence.items.end());
  } else if (value.is_dict()) {
    runtime.step(value.dict().entries.size() * sizeof(Value));
    for (const auto& entry : value.dict().entries) items.push_back(entry.first);
  } else if (value.is_text()) {
    const std::string_view text = value.str();
    runtime.require_size(text.size());
    for (size_t at = 0; at < text.size();) {
      const size_t bytes = char_bytes(text, at);
      items.push_back(runtime.text(text.substr(at, bytes)));
      at += bytes;
    }
  } else if (!value.is_undefined()) {
    fail("'" + std::string(type_name(value)) + "' object is not iterable");
  }
  return items;
}

}  // namespace serval::jinja
