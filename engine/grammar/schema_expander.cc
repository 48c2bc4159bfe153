#include "engine/grammar/schema_expander.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "engine/grammar/formats.h"
#include "engine/grammar/numbers.h"
#include "engine/grammar/regex.h"

namespace serval::grammar {
namespace {

using boost::json::array;
using boost::json::object;
using boost::json::value;

constexpr int kMaxNesting = 200;
constexpr size_t kMaxTextLength = 20'000;
constexpr size_t kMaxItems = 60'000;

SharedDfa shared(Dfa dfa) { return dfa.empty() ? nullptr : std::make_shared<const Dfa>(std::move(dfa)); }

[[noreturn]] void refuse(std::string_view keyword, const std::string& why) {
  throw Refusal(std::string(keyword), why);
}

std::string text_of(const value& json, std::string_view keyword) {
  if (!json.is_string()) refuse(keyword, "is no string");
  return std::string(json.get_string());
}
const array& list_of(const value& json, std::string_view keyword) {
  if (!json.is_array()) refuse(keyword, "is no array");
  return json.get_array();
}
const object& map_of(const value& json, std::string_view keyword) {
  if (!json.is_object()) refuse(keyword, "is no object");
  return json.get_object();
}
void check_schema(const value& json, std::string_view keyword) {
  if (!json.is_object() && !json.is_bool()) refuse(keyword, "is no schema");
}

size_t count_of(const value& json, std::string_view keyword, size_t most) {
  double number = -1;
  if (const auto* integer = json.if_int64()) number = static_cast<double>(*integer);
  if (const auto* large = json.if_uint64()) number = static_cast<double>(*large);
  if (const auto* real = json.if_double()) number = *real;
  if (number < 0 || number != std::floor(number)) refuse(keyword, "is no count");
  if (number > static_cast<double>(most)) refuse(keyword, "is more than " + std::to_string(most));
  return static_cast<size_t>(number);
}
// An upper bound that nothing reaches is none.
size_t limit_of(const value& json, std::string_view keyword, size_t most) {
  const auto* integer = json.if_int64();
  const auto* large = json.if_uint64();
  if ((integer && *integer > 1'000'000'000) || (large && *large > 1'000'000'000)) return kNoLimit;
  return count_of(json, keyword, most);
}

bool asks_for_evaluated(const value& json) {
  if (const auto* list = json.if_array()) return std::any_of(list->begin(), list->end(), asks_for_evaluated);
  const auto* map = json.if_object();
  return map && std::any_of(map->begin(), map->end(), [](const auto& member) {
    return member.key() == "unevaluatedProperties" || member.key() == "unevaluatedItems" ||
           asks_for_evaluated(member.value());
  });
}

Form of_type(std::string_view type) {
  const Form all = Form::anything();
  Form form;
  if (type == "null") {
    form.null = true;
  } else if (type == "boolean") {
    form.yes = form.no = true;
  } else if (type == "string") {
    form.string = all.string;
  } else if (type == "number") {
    form.number = all.number;
  } else if (type == "integer") {
    static const SharedDfa integers(std::shared_ptr<void>(), &any_integer());
    form.number = integers;
  } else if (type == "object") {
    form.objects = all.objects;
  } else if (type == "array") {
    form.arrays = all.arrays;
  } else {
    refuse("type", "names no type: \"" + std::string(type) + "\"");
  }
  return form;
}

// What would change what is valid and is not done here.
constexpr std::array<std::string_view, 2> kRefused = {"$recursiveRef", "extends"};

}  // namespace

SchemaExpander::SchemaExpander(SchemaDocument& document, Budget& budget)
    : document_(document), forms_(budget), tracks_evaluated_(asks_for_evaluated(document.root())) {
  // Looks as deep as is cheap: what is in progress may be something.
  forms_.is_never = [this](NodeId node) {
    if (node == forms_.nothing()) return true;
    if (depth_ > 24) return false;
    for (const auto& [number, negated] : forms_.literals(node)) {
      const Forms::Atom& atom = forms_.atom(number);
      if (atom.kind == Forms::Atom::Kind::kSchema && in_progress_.contains(atom.json)) return false;
    }
    try {
      return expand(node).is_nothing();
    } catch (const Refusal&) {
      if (forms_.budget().left() == 0) throw;
      return false;
    }
  };
}

const Form& SchemaExpander::expand(NodeId node) {
  if (const auto done = expanded_.find(node); done != expanded_.end()) return done->second;
  Form form = Form::anything();
  // By value: expanding makes more nodes.
  const auto literals = forms_.literals(node);
  for (const auto& [number, negated] : literals) {
    const Forms::Atom atom = forms_.atom(number);
    Form one;
    switch (atom.kind) {
      case Forms::Atom::Kind::kSchema:
        one = expand_schema(*atom.json);
        break;
      case Forms::Atom::Kind::kValue:
        one = expand_value(*atom.json);
        break;
      case Forms::Atom::Kind::kNode:
        one = expand(atom.node);
        break;
    }
    form = negated ? forms_.subtract(form, one) : forms_.intersect(form, one);
  }
  return expanded_.insert_or_assign(node, std::move(form)).first->second;
}

Form SchemaExpander::expand_schema(const value& schema) {
  if (const bool* truth = schema.if_bool()) return *truth ? Form::anything() : Form::nothing();
  if (const auto done = schemas_.find(&schema); done != schemas_.end()) return done->second;
  const object& keywords = map_of(schema, "schema");
  if (in_progress_.contains(&schema)) refuse("$ref", "leads back to itself with nothing in between");
  if (depth_ > kMaxNesting) refuse("$ref", "nests too deep");
  const Inside inside(*this, &schema);
  forms_.budget().spend(16);
  for (const std::string_view keyword : kRefused) {
    if (keywords.contains(keyword)) refuse(keyword, "is not enforced here");
  }
  if (const value* dialect = keywords.if_contains("$schema");
      dialect && dialect->is_string() &&
      std::string_view(dialect->get_string()).find("json-schema.org/") == std::string_view::npos)
    refuse("$schema", "names a dialect that is not known here");
  Form form = applicators(schema, keywords, plain_keywords(keywords));
  if (const value* rest = keywords.if_contains("unevaluatedProperties")) unevaluated_properties(*rest, form);
  if (const value* rest = keywords.if_contains("unevaluatedItems")) unevaluated_items(*rest, form);
  return schemas_.insert_or_assign(&schema, std::move(form)).first->second;
}

// Equal to it: 1 is 1.0.
Form SchemaExpander::expand_value(const value& json) {
  Form form;
  if (json.is_null()) {
    form.null = true;
  } else if (const bool* truth = json.if_bool()) {
    (*truth ? form.yes : form.no) = true;
  } else if (const auto* string = json.if_string()) {
    const std::u32string text = code_points({string->data(), string->size()});
    forms_.budget().spend(text.size());
    form.string = shared(only(text));
  } else if (const auto* list = json.if_array()) {
    ArrayShape shape;
    for (const value& element : *list) shape.first.push_back(forms_.node_of_value(element));
    shape.min_items = shape.max_items = list->size();
    form.arrays.push_back(std::make_shared<const ArrayShape>(std::move(shape)));
  } else if (const auto* map = json.if_object()) {
    ObjectShape shape;
    auto group = std::make_shared<PropertyGroup>();
    for (const auto& member : *map) {
      group->names[std::string(member.key())] = forms_.node_of_value(member.value());
      shape.required.emplace(member.key());
    }
    group->others = forms_.nothing();
    group->evaluates = false;
    shape.groups.push_back(std::move(group));
    shape.min_keys = shape.max_keys = map->size();
    form.objects.push_back(std::make_shared<const ObjectShape>(std::move(shape)));
  } else {
    form.number = shared(equal_to(decimal_of(json, "const"), forms_.budget()));
  }
  return form;
}

Form SchemaExpander::plain_keywords(const object& schema) {
  Form form = Form::anything();
  if (const value* type = schema.if_contains("type")) {
    if (type->is_string()) {
      form = of_type(text_of(*type, "type"));
    } else {
      form = Form::nothing();
      bool number = false;
      for (const value& one : list_of(*type, "type")) number |= text_of(one, "type") == "number";
      for (const value& one : list_of(*type, "type")) {
        if (number && text_of(one, "type") == "integer") continue;
        form = forms_.unite(std::move(form), of_type(text_of(one, "type")));
      }
    }
  }
  if (const value* constant = schema.if_contains("const"))
    form = forms_.intersect(form, expand_value(*constant));
  if (const value* choices = schema.if_contains("enum")) {
    const auto blame = forms_.budget().blame("enum");
    Form any;
    std::vector<std::u32string> texts;
    for (const value& choice : list_of(*choices, "enum")) {
      if (const auto* string = choice.if_string())
        texts.push_back(code_points({string->data(), string->size()}));
      else
        any = forms_.unite(std::move(any), expand_value(choice));
    }
    if (!texts.empty()) {
      const auto last = static_cast<int32_t>(texts.size());
      const Dfa labelled = one_of_or_other(texts, forms_.budget());
      any.string = shared(combine(labelled, labelled, forms_.budget(),
                                  [&](int32_t label, int32_t) { return label < last ? 0 : -1; }));
    }
    form = forms_.intersect(form, any);
  }
  Form rest = Form::anything();
  rest.string = string_keywords(schema);
  rest.number = number_keywords(schema);
  object_keywords(schema, rest);
  array_keywords(schema, rest);
  return forms_.intersect(form, rest);
}

SharedDfa SchemaExpander::string_keywords(const object& schema) {
  SharedDfa text = Form::anything().string;
  Budget& budget = forms_.budget();
  const auto hold_to = [&](const Dfa& dfa) {
    if (text) text = shared(intersect(*text, dfa, budget));
  };
  size_t low = 0, high = kNoLimit;
  if (const value* least = schema.if_contains("minLength")) low = count_of(*least, "minLength", kMaxTextLength);
  if (const value* most = schema.if_contains("maxLength")) high = limit_of(*most, "maxLength", kMaxTextLength);
  if (const value* pattern = schema.if_contains("pattern")) {
    const auto blame = budget.blame("pattern");
    hold_to(compile_regex(text_of(*pattern, "pattern"), RegexSyntax::kEcma, MatchWhat::kPart, budget));
  }
  if (const value* format = schema.if_contains("format"); format && format->is_string()) {
    const auto blame = budget.blame("format");
    if (const Dfa* named = format_named(text_of(*format, "format"))) hold_to(*named);
  }
  if (low > 0 || high != kNoLimit) {
    const auto blame = budget.blame(high != kNoLimit ? "maxLength" : "minLength");
    hold_to(of_length(low, high, budget));
  }
  return text;
}

SharedDfa SchemaExpander::number_keywords(const object& schema) {
  SharedDfa number = Form::anything().number;
  Budget& budget = forms_.budget();
  const auto hold_to = [&](const Dfa& dfa) {
    if (number) number = shared(intersect(*number, dfa, budget));
  };
  // Draft 4 says whether a bound is exclusive by a flag beside it.
  const auto is_flagged = [&](std::string_view keyword) {
    const value* flag = schema.if_contains(keyword);
    return flag && flag->is_bool() && flag->get_bool();
  };
  for (const std::string_view keyword : {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"}) {
    const value* bound = schema.if_contains(keyword);
    if (bound == nullptr || bound->is_bool()) continue;
    const auto blame = budget.blame(std::string(keyword));
    const Decimal decimal = decimal_of(*bound, std::string(keyword));
    if (keyword.ends_with("inimum"))
      hold_to(above(decimal, keyword == "minimum" && !is_flagged("exclusiveMinimum"), budget));
    else
      hold_to(below(decimal, keyword == "maximum" && !is_flagged("exclusiveMaximum"), budget));
  }
  for (const std::string_view keyword : {"multipleOf", "divisibleBy"}) {
    const value* step = schema.if_contains(keyword);
    if (step == nullptr) continue;
    const auto blame = budget.blame(std::string(keyword));
    hold_to(multiples_of(decimal_of(*step, std::string(keyword)), budget));
  }
  return number;
}

void SchemaExpander::object_keywords(const object& schema, Form& form) {
  ObjectShape shape;
  auto group = std::make_shared<PropertyGroup>();
  bool has_group = false;
  if (const value* properties = schema.if_contains("properties")) {
    has_group = true;
    for (const auto& member : map_of(*properties, "properties")) {
      check_schema(member.value(), "properties");
      group->names[std::string(member.key())] = forms_.node_of_schema(member.value());
    }
  }
  if (const value* patterns = schema.if_contains("patternProperties")) {
    has_group = true;
    const auto blame = forms_.budget().blame("patternProperties");
    for (const auto& member : map_of(*patterns, "patternProperties")) {
      check_schema(member.value(), "patternProperties");
      Dfa keys = compile_regex(std::string_view(member.key()), RegexSyntax::kEcma, MatchWhat::kPart,
                               forms_.budget());
      if (!keys.empty())
        group->patterns.emplace_back(shared(std::move(keys)), forms_.node_of_schema(member.value()));
    }
  }
  if (const value* others = schema.if_contains("additionalProperties")) {
    has_group = true;
    check_schema(*others, "additionalProperties");
    group->others = forms_.node_of_schema(*others);
    group->covers_others = true;
  }
  if (has_group) shape.groups.push_back(std::move(group));
  if (const value* names = schema.if_contains("propertyNames")) {
    check_schema(*names, "propertyNames");
    shape.key_texts.push_back(expand(forms_.node_of_schema(*names)).string);
  }
  if (const value* required = schema.if_contains("required"); required && !required->is_bool()) {
    for (const value& name : list_of(*required, "required")) shape.required.insert(text_of(name, "required"));
  }
  if (const value* least = schema.if_contains("minProperties"))
    shape.min_keys = count_of(*least, "minProperties", kMaxItems);
  if (const value* most = schema.if_contains("maxProperties"))
    shape.max_keys = limit_of(*most, "maxProperties", kMaxItems);
  for (const std::string_view keyword : {"dependentRequired", "dependencies"}) {
    const value* dependencies = schema.if_contains(keyword);
    if (dependencies == nullptr) continue;
    for (const auto& member : map_of(*dependencies, keyword)) {
      if (const auto* names = member.value().if_array()) {
        for (const value& name : *names)
          shape.implications.emplace_back(member.key(), text_of(name, keyword));
      } else if (member.value().is_string()) {
        shape.implications.emplace_back(member.key(), text_of(member.value(), keyword));
      }
    }
  }
  shape.min_keys = std::max(shape.min_keys, shape.required.size());
  form.objects.clear();
  if (shape.min_keys <= shape.max_keys)
    form.objects.push_back(std::make_shared<const ObjectShape>(std::move(shape)));
}

void SchemaExpander::array_keywords(const object& schema, Form& form) {
  ArrayShape shape;
  const value* items = schema.if_contains("items");
  const value* first = schema.if_contains("prefixItems");
  const value* rest = items;
  if (items && items->is_array()) {  // until draft 2019-09
    first = items;
    rest = schema.if_contains("additionalItems");
  }
  if (first) {
    for (const value& item : list_of(*first, "prefixItems")) {
      check_schema(item, "prefixItems");
      shape.first.push_back(forms_.node_of_schema(item));
    }
    shape.num_evaluated = shape.first.size();
  }
  if (rest) {
    check_schema(*rest, "items");
    shape.rest = forms_.node_of_schema(*rest);
    shape.num_evaluated = kNoLimit;
  }
  if (const value* least = schema.if_contains("minItems"))
    shape.min_items = count_of(*least, "minItems", kMaxItems);
  if (const value* most = schema.if_contains("maxItems"))
    shape.max_items = limit_of(*most, "maxItems", kMaxItems);
  if (const value* contains = schema.if_contains("contains")) {
    check_schema(*contains, "contains");
    size_t min = 1, max = kNoLimit;
    if (const value* least = schema.if_contains("minContains")) min = count_of(*least, "minContains", kMaxItems);
    if (const value* most = schema.if_contains("maxContains")) max = limit_of(*most, "maxContains", kMaxItems);
    if (min > 0 || max != kNoLimit) shape.contains.push_back({forms_.node_of_schema(*contains), min, max, 0});
    shape.evaluates_some = true;
  }
  if (const value* unique = schema.if_contains("uniqueItems"))
    shape.distinct = unique->is_bool() && unique->get_bool();
  form.arrays.clear();
  if (shape.min_items <= shape.max_items)
    form.arrays.push_back(std::make_shared<const ArrayShape>(std::move(shape)));
}

Form SchemaExpander::applicators(const value& schema, const object& keywords, Form form) {
  const auto hold_to = [&](const Form& other) { form = forms_.intersect(form, other); };
  if (const value* reference = keywords.if_contains("$ref"); reference && reference->is_string())
    hold_to(expand_schema(document_.resolve(schema, text_of(*reference, "$ref"), "$ref")));
  if (const value* reference = keywords.if_contains("$dynamicRef"); reference && reference->is_string())
    hold_to(expand_schema(document_.resolve_dynamic(schema, text_of(*reference, "$dynamicRef"))));
  if (const value* all = keywords.if_contains("allOf")) {
    for (const value& part : list_of(*all, "allOf")) {
      check_schema(part, "allOf");
      hold_to(expand_schema(part));
    }
  }
  if (const value* any = keywords.if_contains("anyOf")) {
    const auto blame = forms_.budget().blame("anyOf");
    hold_to(any_of(list_of(*any, "anyOf")));
  }
  if (const value* one = keywords.if_contains("oneOf")) {
    const auto blame = forms_.budget().blame("oneOf");
    hold_to(one_of(list_of(*one, "oneOf")));
  }
  if (const value* none = keywords.if_contains("not")) {
    const auto blame = forms_.budget().blame("not");
    check_schema(*none, "not");
    form = forms_.subtract(form, expand_schema(*none));
  }
  if (keywords.contains("if")) {
    const auto blame = forms_.budget().blame("if");
    hold_to(conditional(keywords));
  }
  for (const std::string_view keyword : {"dependentSchemas", "dependencies"}) {
    const value* dependencies = keywords.if_contains(keyword);
    if (dependencies == nullptr) continue;
    const auto blame = forms_.budget().blame(std::string(keyword));
    for (const auto& member : map_of(*dependencies, keyword)) {
      if (member.value().is_object() || member.value().is_bool())
        hold_to(dependent(std::string(member.key()), member.value()));
    }
  }
  return form;
}

Form SchemaExpander::any_of(const array& choices) {
  Form any;
  std::vector<Form> all;
  for (const value& choice : choices) {
    check_schema(choice, "anyOf");
    all.push_back(expand_schema(choice));
  }
  if (!tracks_evaluated_) {
    for (const Form& choice : all) any = forms_.unite(std::move(any), choice);
    return any;
  }
  // What several of them evaluate together counts: each set of them is a choice.
  if (all.size() > 6) refuse("anyOf", "has too many choices beside unevaluatedProperties or unevaluatedItems");
  for (size_t set = 1; set < size_t{1} << all.size(); ++set) {
    Form both = Form::anything();
    for (size_t i = 0; i < all.size(); ++i) {
      if (set >> i & 1) both = forms_.intersect(both, all[i]);
    }
    any = forms_.unite(std::move(any), both);
  }
  return any;
}

Form SchemaExpander::one_of(const array& choices) {
  std::vector<Form> all;
  for (const value& choice : choices) {
    check_schema(choice, "oneOf");
    all.push_back(expand_schema(choice));
  }
  Form any;
  for (size_t i = 0; i < all.size(); ++i) {
    Form alone = all[i];
    for (size_t j = 0; j < all.size(); ++j) {
      if (j != i) alone = forms_.subtract(alone, all[j]);
    }
    any = forms_.unite(std::move(any), alone);
  }
  return any;
}

Form SchemaExpander::conditional(const object& schema) {
  const value& condition = schema.at("if");
  check_schema(condition, "if");
  const value* then = schema.if_contains("then");
  const value* otherwise = schema.if_contains("else");
  if (!then && !otherwise && !tracks_evaluated_) return Form::anything();
  const Form when = expand_schema(condition);
  const Form yes = then ? forms_.intersect(when, expand_schema(*then)) : when;
  const Form no = forms_.complement(when);
  return forms_.unite(yes, otherwise ? forms_.intersect(no, expand_schema(*otherwise)) : no);
}

// Where the object has the key it is held to the schema.
Form SchemaExpander::dependent(const std::string& name, const value& schema) {
  Form with = Form::anything(), without = Form::anything();
  ObjectShape has, lacks;
  has.required.insert(name);
  has.min_keys = 1;
  auto group = std::make_shared<PropertyGroup>();
  group->names[name] = forms_.nothing();
  group->evaluates = false;
  lacks.groups.push_back(std::move(group));
  with.objects = {std::make_shared<const ObjectShape>(std::move(has))};
  without.objects = {std::make_shared<const ObjectShape>(std::move(lacks))};
  with = forms_.intersect(with, expand_schema(schema));
  without.objects.insert(without.objects.end(), with.objects.begin(), with.objects.end());
  return without;
}

void SchemaExpander::unevaluated_properties(const value& schema, Form& form) {
  check_schema(schema, "unevaluatedProperties");
  for (auto& shape : form.objects) {
    auto group = std::make_shared<PropertyGroup>();
    bool all = false;
    for (const auto& other : shape->groups) {
      if (!other->evaluates) continue;
      all |= other->covers_others;
      for (const auto& [name, node] : other->names) group->names[name] = kAnything;
      for (const auto& [pattern, node] : other->patterns) group->patterns.emplace_back(pattern, kAnything);
    }
    if (all) continue;
    group->others = forms_.node_of_schema(schema);
    group->covers_others = true;
    auto held = std::make_shared<ObjectShape>(*shape);
    held->groups.push_back(std::move(group));
    shape = std::move(held);
  }
}

void SchemaExpander::unevaluated_items(const value& schema, Form& form) {
  check_schema(schema, "unevaluatedItems");
  const NodeId node = forms_.node_of_schema(schema);
  for (auto& shape : form.arrays) {
    if (shape->num_evaluated == kNoLimit) continue;
    if (shape->evaluates_some && node != kAnything)
      refuse("unevaluatedItems", "stands beside contains, which is not enforced here");
    auto held = std::make_shared<ArrayShape>(*shape);
    const size_t num_first = std::max(shape->num_evaluated, shape->first.size());
    while (held->first.size() < num_first) held->first.push_back(shape->rest);
    for (size_t i = shape->num_evaluated; i < held->first.size(); ++i)
      held->first[i] = forms_.both(held->first[i], node);
    held->rest = forms_.both(shape->rest, node);
    held->num_evaluated = kNoLimit;
    shape = std::move(held);
  }
}

}  // namespace serval::grammar
