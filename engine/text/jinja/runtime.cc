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

int three_way(auto a, auto b) {
  return a < b ? -1 : b < a ? 1 : 0;
}

int compare_numbers(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) return three_way(a.integer(), b.integer());
  return three_way(a.number(), b.number());
}

// Keys of different kinds never compare equal; numbers of all types are one kind.
int key_rank(const Value& key) {
  if (key.is_text()) return 0;
  if (key.is_number()) return 1;
  if (key.is_none()) return 2;
  if (key.is_undefined()) return 3;
  if (key.is_sequence() && key.sequence().is_tuple()) return 4;
  if (key.is_object()) return 5;
  fail("unhashable type: '" + std::string(type_name(key)) + "'");
}

bool equal_items(Runtime& runtime, const std::vector<Value>& a, const std::vector<Value>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [&](const Value& x, const Value& y) { return equal(runtime, x, y); });
}

// Lists, tuples and ranges are equal only to their own kind.
int equality_class(const Sequence& s) {
  if (s.is_tuple()) return 0;
  return s.kind == Sequence::Kind::kList ? 1 : s.kind == Sequence::Kind::kRange ? 2 : 3;
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

bool equal(Runtime& runtime, const Value& a, const Value& b) {
  runtime.step();
  if (a.is_number() && b.is_number()) {
    if (a.is_integral() && b.is_integral()) return a.integer() == b.integer();
    return a.number() == b.number();
  }
  if (a.data().index() != b.data().index()) return false;
  if (a.is_text()) {
    if (a.str().size() == b.str().size()) runtime.work(a.str().size());
    return a.str() == b.str();
  }
  if (a.is_sequence()) {
    if (&a.sequence() == &b.sequence()) return true;
    const int kind = equality_class(a.sequence());
    return kind < 3 && kind == equality_class(b.sequence()) &&
           equal_items(runtime, a.sequence().items, b.sequence().items);
  }
  if (a.is_dict()) {
    if (&a.dict() == &b.dict()) return true;
    if (a.dict().entries.size() != b.dict().entries.size()) return false;
    return std::all_of(a.dict().entries.begin(), a.dict().entries.end(), [&](const auto& entry) {
      const Value* other = find_key(runtime, b.dict(), entry.first);
      return other && equal(runtime, entry.second, *other);
    });
  }
  if (a.is_object()) return &a.object() == &b.object();
  return true;  // None, Undefined
}

bool less(Runtime& runtime, const Value& a, const Value& b) {
  runtime.step();
  require_defined(a);
  require_defined(b);
  if (a.is_number() && b.is_number()) {
    if (a.is_integral() && b.is_integral()) return a.integer() < b.integer();
    return a.number() < b.number();
  }
  if (a.is_text() && b.is_text()) {
    runtime.work(std::min(a.str().size(), b.str().size()));
    return a.str() < b.str();  // UTF-8 sorts as its code points do
  }
  if (a.is_sequence() && b.is_sequence() && equality_class(a.sequence()) == equality_class(b.sequence()) &&
      equality_class(a.sequence()) < 2) {
    const std::vector<Value>&x = a.sequence().items, &y = b.sequence().items;
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      if (!equal(runtime, x[i], y[i])) return less(runtime, x[i], y[i]);
    }
    return x.size() < y.size();
  }
  fail("'<' not supported between instances of '" + std::string(type_name(a)) + "' and '" +
       std::string(type_name(b)) + "'");
}

int compare_keys(Runtime& runtime, const Value& a, const Value& b) {
  runtime.step();
  const int rank = key_rank(a);
  if (const int order = three_way(rank, key_rank(b)); order != 0) return order;
  switch (rank) {
    case 0:
      runtime.work(std::min(a.str().size(), b.str().size()));
      return a.str().compare(b.str());
    case 1: {
      // NaN is a key of its own, after every number, so that the order stays total.
      const bool a_nan = std::isnan(a.number()), b_nan = std::isnan(b.number());
      return a_nan || b_nan ? three_way(a_nan, b_nan) : compare_numbers(a, b);
    }
    case 4: {
      const std::vector<Value>&x = a.sequence().items, &y = b.sequence().items;
      if (const int order = three_way(x.size(), y.size()); order != 0) return order;
      for (size_t i = 0; i < x.size(); ++i) {
        if (const int order = compare_keys(runtime, x[i], y[i]); order != 0) return order;
      }
      return 0;
    }
    case 5:
      return three_way(&a.object(), &b.object());
    default:
      return 0;
  }
}

const Value* find_key(Runtime& runtime, const Dict& dict, const Value& key) {
  key_rank(key);  // refuses an unhashable key even in an empty dictionary
  const auto at = std::lower_bound(
      dict.by_key.begin(), dict.by_key.end(), key,
      [&](uint32_t i, const Value& k) { return compare_keys(runtime, dict.entries[i].first, k) < 0; });
  if (at == dict.by_key.end() || compare_keys(runtime, dict.entries[*at].first, key) != 0) return nullptr;
  return &dict.entries[*at].second;
}

}  // namespace serval::jinja
