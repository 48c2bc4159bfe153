#include "engine/grammar/schema_forms.h"

#include <algorithm>

#include "engine/grammar/numbers.h"

namespace serval::grammar {
namespace {

SharedDfa shared(Dfa dfa) { return dfa.empty() ? nullptr : std::make_shared<const Dfa>(std::move(dfa)); }
SharedDfa unowned(const Dfa& dfa) { return {std::shared_ptr<void>(), &dfa}; }

template <class List>
void append_missing(List& to, const List& from) {
  for (const auto& element : from) {
    if (std::find(to.begin(), to.end(), element) == to.end()) to.push_back(element);
  }
}

}  // namespace

Form Form::anything() {
  static const auto object = std::make_shared<const ObjectShape>();
  static const auto array = std::make_shared<const ArrayShape>();
  return {true, true, true, unowned(any_text()), unowned(any_number()), {object}, {array}};
}

Forms::Forms(Budget& budget) : budget_(budget) {
  node_of({});
  nothing_ = node_of({{number_of({Atom::Kind::kNode, nullptr, kAnything}), true}});  // atom 0
}

NodeId Forms::node_of(Literals literals) {
  std::sort(literals.begin(), literals.end());
  literals.erase(std::unique(literals.begin(), literals.end()), literals.end());
  for (size_t i = 1; i < literals.size(); ++i) {
    if (literals[i].first == literals[i - 1].first) return nothing();  // a schema and its complement
  }
  if (literals.size() > 1 && literals[0].first == 0) return nothing();
  const auto [place, is_new] = node_ids_.try_emplace(literals, static_cast<NodeId>(nodes_.size()));
  if (is_new) {
    budget_.spend(32 + literals.size());
    nodes_.push_back(std::move(literals));
  }
  return place->second;
}

int32_t Forms::number_of(const Atom& atom) {
  const auto [place, is_new] = atom_numbers_.try_emplace(atom, static_cast<int32_t>(atoms_.size()));
  if (is_new) atoms_.push_back(atom);
  return place->second;
}

NodeId Forms::node_of_schema(const boost::json::value& schema) {
  if (const bool* truth = schema.if_bool()) return *truth ? kAnything : nothing();
  if (const auto* object = schema.if_object(); object && object->empty()) return kAnything;
  return node_of({{number_of({Atom::Kind::kSchema, &schema}), false}});
}
NodeId Forms::node_of_value(const boost::json::value& value) {
  return node_of({{number_of({Atom::Kind::kValue, &value}), false}});
}
NodeId Forms::both(NodeId a, NodeId b) {
  if (a == b || b == kAnything) return a;
  if (a == kAnything) return b;
  Literals literals = nodes_[a];
  literals.insert(literals.end(), nodes_[b].begin(), nodes_[b].end());
  return node_of(std::move(literals));
}
NodeId Forms::complement(NodeId node) {
  if (node == nothing()) return kAnything;
  const Literals& literals = nodes_[node];
  if (literals.size() == 1) return node_of({{literals[0].first, !literals[0].second}});
  return node_of({{number_of({Atom::Kind::kNode, nullptr, node}), true}});
}

Form Forms::unite(Form a, const Form& b) {
  a.null |= b.null;
  a.yes |= b.yes;
  a.no |= b.no;
  if (b.string) a.string = a.string ? shared(grammar::unite(*a.string, *b.string, budget_)) : b.string;
  if (b.number) a.number = a.number ? shared(grammar::unite(*a.number, *b.number, budget_)) : b.number;
  append_missing(a.objects, b.objects);
  append_missing(a.arrays, b.arrays);
  if (a.objects.size() > kMaxShapes || a.arrays.size() > kMaxShapes) budget_.spend(budget_.left() + 1);
  return a;
}

template <class Shape>
std::vector<std::shared_ptr<const Shape>> Forms::intersect(
    const std::vector<std::shared_ptr<const Shape>>& a, const std::vector<std::shared_ptr<const Shape>>& b) {
  std::vector<std::shared_ptr<const Shape>> all;
  for (const auto& x : a) {
    for (const auto& y : b) {
      auto both = x == y ? x : intersect(*x, *y);
      if (both && std::find(all.begin(), all.end(), both) == all.end()) all.push_back(std::move(both));
      if (all.size() > kMaxShapes) budget_.spend(budget_.left() + 1);
    }
  }
  return all;
}

Form Forms::intersect(const Form& a, const Form& b) {
  Form form;
  form.null = a.null && b.null;
  form.yes = a.yes && b.yes;
  form.no = a.no && b.no;
  const auto both = [&](const SharedDfa& x, const SharedDfa& y, const Dfa& all) -> SharedDfa {
    if (!x || !y) return nullptr;
    if (x.get() == &all || x == y) return y;
    if (y.get() == &all) return x;
    return shared(grammar::intersect(*x, *y, budget_));
  };
  form.string = both(a.string, b.string, any_text());
  form.number = both(a.number, b.number, any_number());
  form.objects = intersect(a.objects, b.objects);
  form.arrays = intersect(a.arrays, b.arrays);
  return form;
}

std::shared_ptr<const ObjectShape> Forms::intersect(const ObjectShape& a, const ObjectShape& b) {
  budget_.spend(8 + a.groups.size() + b.groups.size() + a.required.size() + b.required.size());
  auto both = std::make_shared<ObjectShape>(a);
  append_missing(both->groups, b.groups);
  both->required.insert(b.required.begin(), b.required.end());
  append_missing(both->key_texts, b.key_texts);
  append_missing(both->implications, b.implications);
  append_missing(both->exists, b.exists);
  both->min_keys = std::max({a.min_keys, b.min_keys, both->required.size()});
  both->max_keys = std::min(a.max_keys, b.max_keys);
  if (both->min_keys > both->max_keys) return nullptr;
  for (const std::string& key : both->required) {
    if (key_node(*both, key) == nothing()) return nullptr;
  }
  return both;
}

std::shared_ptr<const ArrayShape> Forms::intersect(const ArrayShape& a, const ArrayShape& b) {
  auto both = std::make_shared<ArrayShape>();
  const auto item = [](const ArrayShape& shape, size_t i) {
    return i < shape.first.size() ? shape.first[i] : shape.rest;
  };
  const size_t num_first = std::max(a.first.size(), b.first.size());
  budget_.spend(8 + num_first);
  for (size_t i = 0; i < num_first; ++i) both->first.push_back(this->both(item(a, i), item(b, i)));
  both->rest = this->both(a.rest, b.rest);
  both->min_items = std::max(a.min_items, b.min_items);
  both->max_items = std::min(a.max_items, b.max_items);
  both->contains = a.contains;
  for (const ArrayShape::Contains& contains : b.contains) {
    const auto equal = [&](const ArrayShape::Contains& c) {
      return c.node == contains.node && c.min == contains.min && c.max == contains.max &&
             c.from == contains.from;
    };
    if (std::none_of(a.contains.begin(), a.contains.end(), equal)) both->contains.push_back(contains);
  }
  both->distinct = a.distinct || b.distinct;
  both->num_evaluated = std::max(a.num_evaluated, b.num_evaluated);
  both->evaluates_some = a.evaluates_some || b.evaluates_some;
  return both->min_items > both->max_items ? nullptr : both;
}

NodeId Forms::key_node(const ObjectShape& shape, const std::string& key) {
  const std::u32string text = code_points(key);
  NodeId node = kAnything;
  for (const auto& group : shape.groups) {
    bool is_other = true;
    if (const auto named = group->names.find(key); named != group->names.end()) {
      node = both(node, named->second);
      is_other = false;
    }
    for (const auto& [pattern, constraint] : group->patterns) {
      if (!pattern->matches(text)) continue;
      node = both(node, constraint);
      is_other = false;
    }
    if (is_other) node = both(node, group->others);
  }
  for (const SharedDfa& allowed : shape.key_texts) {
    if (!allowed || !allowed->matches(text)) return nothing();
  }
  return node;
}

bool Forms::disjoint(const ObjectShape& a, const ObjectShape& b) {
  const auto shape = intersect(a, b);
  if (!shape) return true;
  return std::any_of(shape->required.begin(), shape->required.end(),
                     [&](const std::string& key) { return is_never(key_node(*shape, key)); });
}
bool Forms::disjoint(const ArrayShape& a, const ArrayShape& b) {
  const auto shape = intersect(a, b);
  if (!shape) return true;
  for (size_t i = 0; i < shape->min_items && i <= shape->first.size(); ++i) {
    if (is_never(i < shape->first.size() ? shape->first[i] : shape->rest)) return true;
  }
  return false;
}

std::vector<std::shared_ptr<const ObjectShape>> Forms::complement(const ObjectShape& shape) {
  std::vector<std::shared_ptr<const ObjectShape>> all;
  const auto add = [&](ObjectShape part) {
    budget_.spend(8);
    all.push_back(std::make_shared<const ObjectShape>(std::move(part)));
  };
  // Some key of `keys` has a value that is none of the node's.
  const auto add_witness = [&](SharedDfa keys, NodeId node) {
    if (node == kAnything || !keys) return;
    ObjectShape part;
    part.min_keys = 1;
    part.exists.emplace_back(std::move(keys), complement(node));
    add(std::move(part));
  };
  const auto with_key = [&](const std::string& key, NodeId node, bool required) {
    ObjectShape part;
    auto group = std::make_shared<PropertyGroup>();
    group->names[key] = node;
    group->evaluates = false;
    if (required) {
      part.required.insert(key);
      part.min_keys = 1;
    }
    part.groups.push_back(std::move(group));
    return part;
  };
  for (const auto& group : shape.groups) {
    std::vector<std::u32string> names;
    for (const auto& [name, node] : group->names) {
      names.push_back(code_points(name));
      if (node != kAnything) add(with_key(name, complement(node), true));
    }
    for (const auto& [pattern, node] : group->patterns) add_witness(pattern, node);
    if (group->others == kAnything) continue;
    const auto last = static_cast<int32_t>(names.size());
    const Dfa labelled = one_of_or_other(names, budget_);
    Dfa others = combine(labelled, labelled, budget_,
                         [&](int32_t label, int32_t) { return label == last ? 0 : -1; });
    for (const auto& [pattern, node] : group->patterns) others = grammar::subtract(others, *pattern, budget_);
    add_witness(shared(std::move(others)), group->others);
  }
  for (const std::string& key : shape.required) add(with_key(key, nothing(), false));
  for (const SharedDfa& allowed : shape.key_texts) {
    ObjectShape part;
    part.min_keys = 1;
    SharedDfa outside =
        allowed ? shared(grammar::subtract(any_text(), *allowed, budget_)) : unowned(any_text());
    if (!outside) continue;
    part.exists.emplace_back(std::move(outside), kAnything);
    add(std::move(part));
  }
  for (const auto& [when, then] : shape.implications) {
    const auto both = intersect(with_key(when, kAnything, true), with_key(then, nothing(), false));
    if (both) all.push_back(both);
  }
  for (const auto& [keys, node] : shape.exists) {
    ObjectShape part;
    auto group = std::make_shared<PropertyGroup>();
    group->patterns.emplace_back(keys, complement(node));
    group->evaluates = false;
    part.groups.push_back(std::move(group));
    add(std::move(part));
  }
  // Where required keys imply the count, their own parts say it.
  if (shape.min_keys > shape.required.size() && (shape.exists.empty() || shape.min_keys > 1)) {
    ObjectShape part;
    part.max_keys = shape.min_keys - 1;
    add(std::move(part));
  }
  if (shape.max_keys != kNoLimit) {
    ObjectShape part;
    part.min_keys = shape.max_keys + 1;
    add(std::move(part));
  }
  return all;
}

std::vector<std::shared_ptr<const ArrayShape>> Forms::complement(const ArrayShape& shape) {
  std::vector<std::shared_ptr<const ArrayShape>> all;
  const auto add = [&](ArrayShape part) {
    budget_.spend(8);
    all.push_back(std::make_shared<const ArrayShape>(std::move(part)));
  };
  if (shape.distinct) throw Refusal("uniqueItems", "cannot be negated");
  for (size_t i = 0; i < shape.first.size(); ++i) {
    if (shape.first[i] == kAnything) continue;
    ArrayShape part;
    part.first.assign(i, kAnything);
    part.first.push_back(complement(shape.first[i]));
    part.min_items = i + 1;
    add(std::move(part));
  }
  if (shape.rest != kAnything) {
    ArrayShape part;
    part.contains.push_back({complement(shape.rest), 1, kNoLimit, shape.first.size()});
    part.min_items = shape.first.size() + 1;
    add(std::move(part));
  }
  for (const ArrayShape::Contains& contains : shape.contains) {
    if (contains.min > 0) {
      ArrayShape part;
      part.contains.push_back({contains.node, 0, contains.min - 1, contains.from});
      add(std::move(part));
    }
    if (contains.max != kNoLimit) {
      ArrayShape part;
      part.contains.push_back({contains.node, contains.max + 1, kNoLimit, contains.from});
      add(std::move(part));
    }
  }
  if (shape.min_items > 0) {
    ArrayShape part;
    part.max_items = shape.min_items - 1;
    add(std::move(part));
  }
  if (shape.max_items != kNoLimit) {
    ArrayShape part;
    part.min_items = shape.max_items + 1;
    add(std::move(part));
  }
  return all;
}

template <class Shape>
std::vector<std::shared_ptr<const Shape>> Forms::subtract(std::vector<std::shared_ptr<const Shape>> a,
                                                          const std::vector<std::shared_ptr<const Shape>>& b) {
  for (const auto& taken : b) {
    std::vector<std::shared_ptr<const Shape>> left;
    std::vector<std::shared_ptr<const Shape>> outside;
    bool has_outside = false;
    for (const auto& shape : a) {
      if (shape == taken) continue;
      if (disjoint(*shape, *taken)) {
        left.push_back(shape);
        continue;
      }
      if (!has_outside) outside = complement(*taken);
      has_outside = true;
      append_missing(left, intersect(std::vector{shape}, outside));
      if (left.size() > kMaxShapes) budget_.spend(budget_.left() + 1);
    }
    a = std::move(left);
  }
  return a;
}

Form Forms::subtract(const Form& a, const Form& b) {
  Form form;
  form.null = a.null && !b.null;
  form.yes = a.yes && !b.yes;
  form.no = a.no && !b.no;
  form.string = a.string && b.string ? shared(grammar::subtract(*a.string, *b.string, budget_)) : a.string;
  if (a.number && b.number) {
    // What is held to a bound has no exponents: neither has what is outside of it.
    const Dfa plain = grammar::intersect(*a.number, plain_number(), budget_);
    form.number = shared(grammar::subtract(plain, *b.number, budget_));
  } else {
    form.number = a.number;
  }
  form.objects = subtract(a.objects, b.objects);
  form.arrays = subtract(a.arrays, b.arrays);
  return form;
}

Form Forms::complement(const Form& form) { return subtract(Form::anything(), form); }

}  // namespace serval::grammar
