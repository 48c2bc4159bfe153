#include "engine/grammar/schema_compiler.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "engine/grammar/schema_document.h"
#include "engine/grammar/schema_expander.h"

namespace serval::grammar {
namespace {

constexpr size_t kMaxObligations = 4;  // of one object or array: every set of them is a choice
constexpr size_t kMaxNames = 4096;

class Compiler {
 public:
  Compiler(boost::json::value schema, Budget& budget)
      : budget_(budget), document_(std::move(schema)), expander_(document_, budget), forms_(expander_.forms()) {}

  Program compile() {
    program_.value = value_of(forms_.node_of_schema(document_.root()));
    while (!waiting_.empty()) {
      const auto [node, rule] = waiting_.back();
      waiting_.pop_back();
      const Form form = expander_.expand(node);
      rule->null = form.null;
      rule->yes = form.yes;
      rule->no = form.no;
      rule->string = form.string;
      rule->number = form.number;
      for (const auto& shape : form.objects) rule->objects.push_back(object_of(shape));
      for (const auto& shape : form.arrays) rule->arrays.push_back(array_of(shape));
    }
    find_possible();
    program_.matches_nothing = !possible_.contains(program_.value);
    prune();
    return std::move(program_);
  }

 private:
  ValueRule* value_of(NodeId node) {
    const auto [place, is_new] = values_.try_emplace(node, nullptr);
    if (is_new) {
      budget_.spend(16);
      place->second = program_.values.emplace_back(std::make_unique<ValueRule>()).get();
      waiting_.emplace_back(node, place->second);
    }
    return place->second;
  }

  // Choices for a member that is held to `node`: it may claim any of the obligations, each with a node of its own.
  // `exact`: those whose claims are limited, so that what does not claim them must not be such a value.
  std::vector<Choice> choices_for(NodeId node, const std::vector<std::pair<uint32_t, NodeId>>& obligations,
                                  uint32_t exact) {
    if (obligations.size() > kMaxObligations) throw Refusal("contains", "is asked for too often at once");
    std::vector<Choice> choices;
    for (size_t set = 0; set < size_t{1} << obligations.size(); ++set) {
      Choice choice;
      NodeId all = node;
      for (size_t i = 0; i < obligations.size(); ++i) {
        const auto& [bit, wanted] = obligations[i];
        if (set >> i & 1) {
          choice.claims |= bit;
          all = forms_.both(all, wanted);
        } else if (exact & bit) {
          all = forms_.both(all, forms_.complement(wanted));
        }
      }
      if (all == forms_.nothing()) continue;
      choice.value = value_of(all);
      choices.push_back(choice);
    }
    return choices;
  }

  const ObjectRule* object_of(const std::shared_ptr<const ObjectShape>& shape) {
    const auto [place, is_new] = objects_.try_emplace(shape, nullptr);
    if (!is_new) return place->second;
    ObjectRule& rule = *program_.objects.emplace_back(std::make_unique<ObjectRule>());
    place->second = &rule;

    std::set<std::string, std::less<>> names(shape->required);
    for (const auto& group : shape->groups) {
      for (const auto& [name, node] : group->names) names.insert(name);
    }
    for (const auto& [when, then] : shape->implications) names.insert({when, then});
    if (names.size() > kMaxNames) throw Refusal("properties", "are too many");
    std::vector<std::u32string> texts;
    std::map<std::string_view, int32_t> places;
    for (const std::string& name : names) {
      places.emplace(name, static_cast<int32_t>(texts.size()));
      texts.push_back(code_points(name));
    }
    rule.num_names = static_cast<int32_t>(texts.size());

    // One automaton tells a key's name and which patterns and obligations it is for.
    Dfa keys = one_of_or_other(texts, budget_);
    for (const SharedDfa& allowed : shape->key_texts) keys = allowed ? intersect(keys, *allowed, budget_) : Dfa();
    std::vector<SharedDfa> patterns;
    const auto pattern_place = [&](const SharedDfa& pattern) {
      const auto found = std::find(patterns.begin(), patterns.end(), pattern);
      if (found != patterns.end()) return static_cast<size_t>(found - patterns.begin());
      patterns.push_back(pattern);
      return patterns.size() - 1;
    };
    for (const auto& group : shape->groups) {
      for (const auto& [pattern, node] : group->patterns) pattern_place(pattern);
    }
    for (const auto& [pattern, node] : shape->exists) pattern_place(pattern);
    struct Class {
      int32_t name;
      std::vector<bool> matches;
      auto operator<=>(const Class&) const = default;
    };
    std::vector<Class> classes;
    for (int32_t i = 0; i <= rule.num_names; ++i) classes.push_back({i, {}});
    for (const SharedDfa& pattern : patterns) {
      std::vector<Class> refined;
      std::map<std::pair<int32_t, bool>, int32_t> numbers;
      keys = combine(keys, *pattern, budget_, [&](int32_t a, int32_t b) {
        if (a < 0) return -1;
        const auto [number, added] =
            numbers.try_emplace({a, b >= 0}, static_cast<int32_t>(refined.size()));
        if (added) {
          refined.push_back(classes[a]);
          refined.back().matches.push_back(b >= 0);
        }
        return number->second;
      });
      classes = std::move(refined);
    }
    for (const Class& key_class : classes) {
      budget_.spend(1 + shape->groups.size());
      NodeId node = kAnything;
      const bool is_named = key_class.name < rule.num_names;
      const std::string name = is_named ? to_utf8(texts[key_class.name]) : "";
      for (const auto& group : shape->groups) {
        bool is_other = true;
        if (const auto named = group->names.find(name); is_named && named != group->names.end()) {
          node = forms_.both(node, named->second);
          is_other = false;
        }
        for (const auto& [pattern, constraint] : group->patterns) {
          if (!key_class.matches[pattern_place(pattern)]) continue;
          node = forms_.both(node, constraint);
          is_other = false;
        }
        if (is_other) node = forms_.both(node, group->others);
      }
      std::vector<std::pair<uint32_t, NodeId>> obligations;
      for (size_t i = 0; i < shape->exists.size(); ++i) {
        if (key_class.matches[pattern_place(shape->exists[i].first)])
          obligations.emplace_back(uint32_t{1} << i, shape->exists[i].second);
      }
      ObjectRule::Key key;
      key.name = is_named ? key_class.name : -1;
      key.choices = choices_for(node, obligations, 0);
      rule.keys.push_back(std::move(key));
    }
    rule.key_text = std::move(keys);
    rule.num_words = (rule.num_names + 63) / 64;
    rule.required.assign(static_cast<size_t>(rule.num_words), 0);
    for (const std::string& name : shape->required)
      rule.required[places.at(name) / 64] |= uint64_t{1} << places.at(name) % 64;
    for (const auto& [when, then] : shape->implications)
      rule.implications.push_back({places.at(when), places.at(then)});
    rule.min_keys = shape->min_keys;
    rule.max_keys = shape->max_keys;
    if (shape->exists.size() > kMaxObligations) throw Refusal("not", "asks for too many keys at once");
    rule.obligations = (uint32_t{1} << shape->exists.size()) - 1;
    rule.distinct = rule.obligations != 0 || rule.min_keys > std::max<size_t>(1, shape->required.size());
    return &rule;
  }

  const ArrayRule* array_of(const std::shared_ptr<const ArrayShape>& shape) {
    const auto [place, is_new] = arrays_.try_emplace(shape, nullptr);
    if (!is_new) return place->second;
    ArrayRule& rule = *program_.arrays.emplace_back(std::make_unique<ArrayRule>());
    place->second = &rule;
    if (shape->contains.size() > kMaxObligations) throw Refusal("contains", "is asked for too often at once");
    size_t num_first = shape->first.size();
    uint32_t exact = 0;
    for (size_t i = 0; i < shape->contains.size(); ++i) {
      const ArrayShape::Contains& contains = shape->contains[i];
      num_first = std::max(num_first, contains.from);
      if (contains.min >= 0xFFFF || (contains.max != kNoLimit && contains.max >= 0xFFFF))
        throw Refusal("minContains", "is too large");
      rule.obligations.push_back(
          {static_cast<uint16_t>(contains.min),
           contains.max == kNoLimit ? uint16_t{0xFFFF} : static_cast<uint16_t>(contains.max)});
      if (contains.max != kNoLimit) exact |= uint32_t{1} << i;
    }
    for (size_t at = 0; at <= num_first; ++at) {
      std::vector<std::pair<uint32_t, NodeId>> obligations;
      for (size_t i = 0; i < shape->contains.size(); ++i) {
        if (at >= shape->contains[i].from) obligations.emplace_back(uint32_t{1} << i, shape->contains[i].node);
      }
      const NodeId node = at < shape->first.size() ? shape->first[at] : shape->rest;
      auto choices = choices_for(node, obligations, exact);
      if (at < num_first)
        rule.first.push_back(std::move(choices));
      else
        rule.rest = std::move(choices);
    }
    rule.min_items = shape->min_items;
    rule.max_items = shape->max_items;
    rule.distinct = shape->distinct;
    return &rule;
  }

  bool can_be(const std::vector<Choice>& choices, uint32_t claim = 0) const {
    return std::any_of(choices.begin(), choices.end(), [&](const Choice& choice) {
      return (choice.claims & claim) == claim && possible_.contains(choice.value);
    });
  }

  bool is_possible(const ObjectRule& rule) {
    std::vector<bool> needed(static_cast<size_t>(rule.num_names), false), named(needed);
    for (int32_t i = 0; i < rule.num_names; ++i) needed[i] = rule.required[i / 64] >> i % 64 & 1;
    for (bool more = true; more;) {
      more = false;
      for (const auto& [when, then] : rule.implications) {
        if (!needed[when] || needed[then]) continue;
        needed[then] = more = true;
      }
    }
    for (const ObjectRule::Key& key : rule.keys) {
      if (key.name >= 0 && can_be(key.choices)) named[key.name] = true;
    }
    size_t num_needed = 0;
    for (int32_t i = 0; i < rule.num_names; ++i) {
      if (needed[i] && !named[i]) return false;
      if (needed[i]) ++num_needed;
    }
    if (num_needed > rule.max_keys) return false;
    for (uint32_t bit = 1; bit != 0 && bit <= rule.obligations; bit <<= 1) {
      if (std::none_of(rule.keys.begin(), rule.keys.end(),
                       [&](const ObjectRule::Key& key) { return can_be(key.choices, bit); }))
        return false;
    }
    if (rule.min_keys <= num_needed) return true;
    return possible_keys(rule).count() >= rule.min_keys;
  }
  Dfa possible_keys(const ObjectRule& rule) {
    return combine(rule.key_text, rule.key_text, budget_, [&](int32_t label, int32_t) {
      return label >= 0 && can_be(rule.keys[label].choices) ? label : -1;
    });
  }

  bool is_possible(const ArrayRule& rule) const {
    size_t num_items = 0;  // that there can be
    while (num_items < rule.first.size() && can_be(rule.first[num_items])) ++num_items;
    if (num_items == rule.first.size() && can_be(rule.rest)) num_items = kNoLimit;
    num_items = std::min(num_items, rule.max_items);
    if (num_items < rule.min_items) return false;
    for (size_t i = 0; i < rule.obligations.size(); ++i) {
      const uint32_t bit = uint32_t{1} << i;
      size_t can = 0;
      for (size_t at = 0; at < std::min(num_items, rule.first.size()); ++at) can += can_be(rule.first[at], bit);
      if (num_items > rule.first.size() && can_be(rule.rest, bit)) can += num_items - rule.first.size();
      if (can < rule.obligations[i].min) return false;
    }
    return true;
  }

  // What has values at all: the least fixed point, as what is made of itself alone has none.
  void find_possible() {
    for (bool more = true; more;) {
      more = false;
      budget_.spend(program_.values.size() + program_.objects.size() + program_.arrays.size());
      for (const auto& rule : program_.objects) {
        if (!possible_.contains(rule.get()) && is_possible(*rule)) more |= possible_.insert(rule.get()).second;
      }
      for (const auto& rule : program_.arrays) {
        if (!possible_.contains(rule.get()) && is_possible(*rule)) more |= possible_.insert(rule.get()).second;
      }
      const auto known = [&](const auto* rule) { return possible_.contains(rule); };
      for (const auto& rule : program_.values) {
        if (possible_.contains(rule.get())) continue;
        if (rule->null || rule->yes || rule->no || rule->string || rule->number ||
            std::any_of(rule->objects.begin(), rule->objects.end(), known) ||
            std::any_of(rule->arrays.begin(), rule->arrays.end(), known))
          more |= possible_.insert(rule.get()).second;
      }
    }
  }

  void prune() {
    const auto prune_choices = [&](std::vector<Choice>& choices) {
      std::erase_if(choices, [&](const Choice& choice) { return !possible_.contains(choice.value); });
    };
    for (const auto& rule : program_.objects) {
      rule->key_text = possible_keys(*rule);
      for (ObjectRule::Key& key : rule->keys) prune_choices(key.choices);
      find_reachable(*rule);
    }
    for (const auto& rule : program_.arrays) {
      for (auto& choices : rule->first) prune_choices(choices);
      prune_choices(rule->rest);
      const auto never = std::find_if(rule->first.begin(), rule->first.end(),
                                      [](const auto& choices) { return choices.empty(); });
      size_t most = kNoLimit;
      if (never != rule->first.end())
        most = static_cast<size_t>(never - rule->first.begin());
      else if (rule->rest.empty())
        most = rule->first.size();
      rule->max_items = std::min(rule->max_items, most);
    }
    for (const auto& rule : program_.values) {
      std::erase_if(rule->objects, [&](const ObjectRule* o) { return !possible_.contains(o); });
      std::erase_if(rule->arrays, [&](const ArrayRule* a) { return !possible_.contains(a); });
      rule->num_values = static_cast<size_t>(rule->null) + rule->yes + rule->no;
      if (rule->string) rule->num_values += rule->string->count();
      if (rule->number || !rule->objects.empty() || !rule->arrays.empty() || rule->num_values >= Dfa::kManyTexts)
        rule->num_values = kNoLimit;
    }
  }

  void find_reachable(ObjectRule& rule) {
    const auto num_states = static_cast<size_t>(rule.key_text.size());
    const auto words = static_cast<size_t>(rule.num_words);
    budget_.spend(num_states * (1 + words / 4));
    rule.reachable.assign(num_states * words, 0);
    rule.reaches_other.assign(num_states, false);
    std::vector<std::vector<int32_t>> before(num_states);
    for (size_t i = 0; i < num_states; ++i) {
      const auto state = static_cast<int>(i);
      for (const Dfa::Edge* edge = rule.key_text.begin(state); edge != rule.key_text.end(state); ++edge)
        before[edge->to].push_back(state);
    }
    // Backwards from every label, each kind of label once.
    std::map<int32_t, std::vector<int32_t>> ends;  // by name; -1: without one
    for (size_t i = 0; i < num_states; ++i) {
      const int32_t label = rule.key_text.label(static_cast<int>(i));
      if (label >= 0) ends[rule.keys[label].name].push_back(static_cast<int32_t>(i));
    }
    for (auto& [name, work] : ends) {
      std::vector<bool> seen(num_states, false);
      for (const int32_t state : work) seen[state] = true;
      while (!work.empty()) {
        const auto state = static_cast<size_t>(work.back());
        work.pop_back();
        budget_.spend(1);
        if (name < 0)
          rule.reaches_other[state] = true;
        else
          rule.reachable[state * words + static_cast<size_t>(name) / 64] |= uint64_t{1} << name % 64;
        for (const int32_t from : before[state]) {
          if (seen[from]) continue;
          seen[from] = true;
          work.push_back(from);
        }
      }
    }
    rule.is_open = rule.max_keys == kNoLimit && num_states > 0 &&
                   std::find(rule.reaches_other.begin(), rule.reaches_other.end(), false) == rule.reaches_other.end();
  }

  Budget& budget_;
  SchemaDocument document_;
  SchemaExpander expander_;
  Forms& forms_;
  Program program_;
  std::map<NodeId, ValueRule*> values_;
  std::vector<std::pair<NodeId, ValueRule*>> waiting_;
  std::map<std::shared_ptr<const ObjectShape>, const ObjectRule*> objects_;
  std::map<std::shared_ptr<const ArrayShape>, const ArrayRule*> arrays_;
  std::set<const void*> possible_;
};

}  // namespace

Program compile_schema(boost::json::value schema, Budget& budget) {
  return Compiler(std::move(schema), budget).compile();
}

}  // namespace serval::grammar
