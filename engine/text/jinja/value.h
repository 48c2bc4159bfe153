// The values a template computes with: Python's data model, as far as templates see it, and nothing that
// reaches outside it. Values are immutable; the few objects that change (namespace, loop, cycler) are
// Objects. Every container knows how deeply it nests and none exceeds kMaxValueDepth (Runtime refuses to
// build it), so that walks over values, and their destruction, may recurse.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace serval::jinja {

class Runtime;
struct CallArgs;
struct Text;
struct Sequence;
struct Dict;
class Object;

inline constexpr int kMaxValueDepth = 128;

// Python's integers are unbounded, ours have 128 bits: a result beyond that is an error.
using Int = __int128;
struct None {};
// What a missing name or attribute gives: prints as nothing, is false, iterates as empty, and fails with
// `why` when used otherwise.
struct Undefined {
  std::shared_ptr<const std::string> why;
};

class Value {
 public:
  using Data =
      std::variant<None, Undefined, bool, Int, double, std::shared_ptr<const Text>,
                   std::shared_ptr<const Sequence>, std::shared_ptr<const Dict>, std::shared_ptr<Object>>;

  Value() = default;  // None
  template <class T>
  requires std::is_constructible_v<Data, T> Value(T&& data) : data_(std::forward<T>(data)) {}
  static Value of(int64_t n) { return Value(Data(static_cast<Int>(n))); }
  static Value undefined(std::string why) {
    return Undefined{std::make_shared<const std::string>(std::move(why))};
  }

  const Data& data() const { return data_; }
  bool is_none() const { return holds<None>(); }
  bool is_undefined() const { return holds<Undefined>(); }
  bool is_bool() const { return holds<bool>(); }
  bool is_int() const { return holds<Int>(); }
  bool is_float() const { return holds<double>(); }
  bool is_number() const { return is_bool() || is_int() || is_float(); }
  bool is_integral() const { return is_bool() || is_int(); }
  bool is_text() const { return holds<std::shared_ptr<const Text>>(); }
  bool is_sequence() const { return holds<std::shared_ptr<const Sequence>>(); }
  bool is_dict() const { return holds<std::shared_ptr<const Dict>>(); }
  bool is_object() const { return holds<std::shared_ptr<Object>>(); }

  // The caller has asked what it is.
  const Text& text() const { return *std::get<std::shared_ptr<const Text>>(data_); }
  std::string_view str() const;
  const Sequence& sequence() const { return *std::get<std::shared_ptr<const Sequence>>(data_); }
  const Dict& dict() const { return *std::get<std::shared_ptr<const Dict>>(data_); }
  Object& object() const { return *std::get<std::shared_ptr<Object>>(data_); }
  Int integer() const { return is_bool() ? Int{std::get<bool>(data_)} : std::get<Int>(data_); }
  double number() const { return is_float() ? std::get<double>(data_) : static_cast<double>(integer()); }

 private:
  template <class T>
  bool holds() const {
    return std::holds_alternative<T>(data_);
  }
  Data data_;
};

// Memory counted against a render's allowance for as long as the owner lives.
class Charge {
 public:
  Charge() = default;
  Charge(Runtime* runtime, size_t bytes);  // throws Failure when the allowance is spent
  Charge(Charge&& other) noexcept : runtime_(std::exchange(other.runtime_, nullptr)), bytes_(other.bytes_) {}
  Charge& operator=(Charge&&) = delete;
  ~Charge();

 private:
  Runtime* runtime_ = nullptr;
  size_t bytes_ = 0;
};

struct Text {
  std::string bytes;
  bool ascii;  // every byte is a character
  bool safe;   // Python's Markup: adding to it escapes what is added
  Charge charge;
};

// Everything that iterates over items one by one. One struct, because only printing and indexing tell these
// apart.
struct Sequence {
  enum class Kind {
    kList,
    kTuple,
    kGroup,  // groupby's pair: a tuple whose items are also .grouper and .list
    kRange,
    kKeys,  // dict views: no indexing
    kValues,
    kItems,
    kGenerator,  // what map, select and others give: can be walked once, from `cursor`
  };
  Kind kind;
  int depth;
  std::vector<Value> items;
  std::string label;  // kRange: how it prints
  Charge charge;
  mutable size_t cursor = 0;

  bool is_tuple() const { return kind == Kind::kTuple || kind == Kind::kGroup; }
  bool is_indexable() const { return kind == Kind::kList || kind == Kind::kRange || is_tuple(); }
};

// Insertion order for walking, an index sorted by key for looking up: no hash that chosen keys could attack.
struct Dict {
  std::vector<std::pair<Value, Value>> entries;
  std::vector<uint32_t> by_key;
  int depth;
  Charge charge;
};

// What has behaviour: functions, bound methods, macros, loops, namespaces.
class Object {
 public:
  virtual ~Object() = default;
  virtual std::string_view type_name() const = 0;
  virtual bool is_callable() const { return false; }
  virtual Value call(Runtime& runtime, const CallArgs& args);  // fails when it is not callable
  // Undefined when there is none of that name.
  virtual Value attribute(Runtime& runtime, std::string_view name);
  virtual int depth() const { return 0; }  // of the values it holds
};

// What a call passes. `keywords` keep their order; names are unique.
struct CallArgs {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> keywords;
};

std::string_view type_name(const Value& value);  // Python's: "str", "list", "NoneType"...
int depth_of(const Value& value);
bool is_true(const Value& value);
// An Undefined may be printed or tested but not computed with: fails with its reason.
void require_defined(const Value& value);

const Value* find_key(const Dict& dict, std::string_view key);

}  // namespace serval::jinja
