// What a JSON value may be, as a union of plain shapes: strings and numbers as automata, objects and arrays as
// conjunctions of constraints on their members. Closed under intersection, union and complement, so that every
// applicator of JSON Schema comes out as shapes (as Habib, Shinnar, Hirzel, Pradel 2021 do to compare schemas).
#pragma once

#include <boost/json/value.hpp>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/grammar/dfa.h"

namespace serval::grammar {

using SharedDfa = std::shared_ptr<const Dfa>;

// A conjunction of schemas and of complements of schemas that some value must be held to. Equal ones have one id.
using NodeId = int32_t;
inline constexpr NodeId kAnything = 0;

// What one schema's properties, patternProperties and additionalProperties ask for.
struct PropertyGroup {
  std::map<std::string, NodeId, std::less<>> names;
  std::vector<std::pair<SharedDfa, NodeId>> patterns;
  NodeId others = kAnything;
  bool covers_others = false;  // for unevaluatedProperties: `others` was asked for
  bool evaluates = true;       // for unevaluatedProperties: it counts
};

struct ObjectShape {
  std::vector<std::shared_ptr<const PropertyGroup>> groups;  // a key is held to each
  std::set<std::string, std::less<>> required;
  std::vector<SharedDfa> key_texts;  // a key is held to each
  std::vector<std::pair<std::string, std::string>> implications;
  std::vector<std::pair<SharedDfa, NodeId>> exists;  // some key of that text with such a value
  size_t min_keys = 0, max_keys = kNoLimit;
};

struct ArrayShape {
  struct Contains {
    NodeId node;
    size_t min, max;
    size_t from;  // items before this place do not count
  };
  std::vector<NodeId> first;
  NodeId rest = kAnything;
  size_t min_items = 0, max_items = kNoLimit;
  std::vector<Contains> contains;
  bool distinct = false;
  size_t num_evaluated = 0;  // for unevaluatedItems: so many, kNoLimit: all
  bool evaluates_some = false;  // for unevaluatedItems: contains does too, nobody knows which
};

// Null pointers: no such value.
struct Form {
  bool null = false, yes = false, no = false;
  SharedDfa string, number;
  std::vector<std::shared_ptr<const ObjectShape>> objects;
  std::vector<std::shared_ptr<const ArrayShape>> arrays;

  static Form nothing() { return {}; }
  static Form anything();
  bool is_nothing() const {
    return !null && !yes && !no && !string && !number && objects.empty() && arrays.empty();
  }
};

// Conjunctions, and the algebra over forms that needs them.
class Forms {
 public:
  struct Atom {
    enum class Kind : uint8_t { kSchema, kValue, kNode };  // a schema; equal to a value; a conjunction
    Kind kind;
    const boost::json::value* json = nullptr;
    NodeId node = 0;
    auto operator<=>(const Atom&) const = default;
  };
  explicit Forms(Budget& budget);

  NodeId node_of_schema(const boost::json::value& schema);  // true: kAnything
  NodeId node_of_value(const boost::json::value& value);
  NodeId both(NodeId a, NodeId b);
  NodeId complement(NodeId node);
  NodeId nothing() const { return nothing_; }
  // Pairs (atom, whether it is negated).
  const std::vector<std::pair<int32_t, bool>>& literals(NodeId node) const { return nodes_[node]; }
  const Atom& atom(int32_t number) const { return atoms_[number]; }
  size_t num_nodes() const { return nodes_.size(); }

  Form intersect(const Form& a, const Form& b);
  Form unite(Form a, const Form& b);
  Form complement(const Form& form);
  Form subtract(const Form& a, const Form& b);

  // True only when no object can be both: asks `is_never` about members.
  bool disjoint(const ObjectShape& a, const ObjectShape& b);
  bool disjoint(const ArrayShape& a, const ArrayShape& b);
  // Set by who expands nodes: true only when no value can be held to the node.
  std::function<bool(NodeId)> is_never = [](NodeId) { return false; };

  Budget& budget() { return budget_; }

 private:
  using Literals = std::vector<std::pair<int32_t, bool>>;
  NodeId node_of(Literals literals);
  int32_t number_of(const Atom& atom);
  NodeId key_node(const ObjectShape& shape, const std::string& key);

  std::vector<std::shared_ptr<const ObjectShape>> complement(const ObjectShape& shape);
  std::vector<std::shared_ptr<const ArrayShape>> complement(const ArrayShape& shape);
  template <class Shape>
  std::vector<std::shared_ptr<const Shape>> intersect(const std::vector<std::shared_ptr<const Shape>>& a,
                                                      const std::vector<std::shared_ptr<const Shape>>& b);
  template <class Shape>
  std::vector<std::shared_ptr<const Shape>> subtract(std::vector<std::shared_ptr<const Shape>> a,
                                                     const std::vector<std::shared_ptr<const Shape>>& b);
  std::shared_ptr<const ObjectShape> intersect(const ObjectShape& a, const ObjectShape& b);  // null: none
  std::shared_ptr<const ArrayShape> intersect(const ArrayShape& a, const ArrayShape& b);

  Budget& budget_;
  NodeId nothing_ = -1;
  std::vector<Atom> atoms_;
  std::map<Atom, int32_t> atom_numbers_;
  std::vector<Literals> nodes_;
  std::map<Literals, NodeId> node_ids_;
};

inline constexpr size_t kMaxShapes = 256;  // of one value

}  // namespace serval::grammar
