#include "engine/grammar/structural_tag.h"

#include <algorithm>
#include <boost/json.hpp>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "engine/grammar/ebnf.h"
#include "engine/grammar/regex.h"
#include "engine/grammar/schema_compiler.h"
#include "engine/grammar/seeker.h"
#include "engine/json/fields.h"

namespace serval::grammar {
namespace {

namespace json = boost::json;

constexpr size_t kMaxDepth = 32;
// Arguments come in any order up to so many, which takes an automaton of their subsets; more come in the schema's.
constexpr size_t kMaxUnordered = 8;

// Arguments of a call that are written otherwise than as one JSON object.
struct Style {
  std::string_view name, argument, key_end, value, argument_end;
};
constexpr Style kStyles[] = {
    {"qwen_xml", "<parameter=", ">", "", "</parameter>"},
    {"minimax_xml", "<parameter name=\"", "\">", "", "</parameter>"},
    {"glm_xml", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"},
    // key=value, …: JSON but for the words of Python.
    {"python", "", "=", "", ""},
};

Regex literal(std::string_view utf8) {
  return text(code_points(utf8));
}
Regex empty() {
  return sequence({});
}
Regex optional(Regex regex) {
  return repeat(std::move(regex), 0, 1);
}
Regex automaton(Dfa dfa) {
  Regex regex;
  regex.kind = Regex::Kind::kAutomaton;
  regex.dfa = std::make_shared<const Dfa>(std::move(dfa));
  return regex;
}
Regex one_of_texts(const std::vector<std::string>& texts) {
  std::vector<Regex> parts;
  for (const std::string& each : texts) parts.push_back(literal(each));
  return either(std::move(parts));
}

class Compiler {
 public:
  explicit Compiler(Budget& budget) : budget_(budget) { program_.text_rules.push_back(std::make_unique<TextRule>()); }

  Program compile(const Fields& tag) {
    Regex root;
    if (tag.find("structures")) {
      root = legacy(tag);
    } else if (tag.find("format")) {
      tag.find("type");
      if (const std::optional<Fields> definitions = tag.find_object("definitions"))
        for (const auto& [name, definition] : definitions->object()) definitions_.emplace(name, call(format_of(definitions->get_object(name), {})));
      root = format_of(tag.get_object("format"), {});
    } else {
      root = format_of(tag, {});
    }
    refuse_unknown(tag);
    set_text(*program_.text_rules[0], root);
    program_.text = program_.text_rules[0].get();
    return std::move(program_);
  }

 private:
  using Ends = std::vector<std::string>;
  // What is behind any of these.
  struct Rule {
    std::vector<std::string> patterns;
    Regex behind;
  };
  // Of one trigger: the tags that begin with it, and what they are without it, as a text.
  struct Triggered {
    std::vector<Regex> tags;
    std::string key;
  };

  static void refuse_unknown(const Fields& fields) {
    const std::vector<std::string> unknown = fields.unknown();
    if (!unknown.empty()) fields.refuse(unknown.front(), "is not a field of such a format");
  }

  // --- calls ---

  void set_text(TextRule& rule, const Regex& body) {
    rule.text = compile_regex(body, MatchWhat::kWhole, budget_);
    if (rule.text.empty()) throw Refusal("format", "matches no text");
    rule.is_prefix_free = true;
    for (int state = 0; state < rule.text.size(); ++state) {
      if (rule.text.begin(state) == rule.text.end(state)) continue;
      rule.calls |= (rule.text.end(state) - 1)->high >= kFirstCall;
      rule.is_prefix_free &= !rule.text.accepts(state);
    }
  }
  static Regex call_of(size_t place) {
    const auto symbol = static_cast<Symbol>(kFirstCall + place);
    return one_of({{symbol, symbol}});
  }
  // A call of what is compiled for itself. A callee reads something, so that a call within a loop gets on: an empty text is none's.
  Regex call(const Regex& body) {
    const size_t place = program_.text_rules.size();
    program_.text_rules.push_back(std::make_unique<TextRule>());
    TextRule& rule = *program_.text_rules[place];
    set_text(rule, body);
    if (!rule.text.accepts(0)) return call_of(place);
    rule.text = subtract(rule.text, only({}), budget_);
    return rule.text.empty() ? empty() : optional(call_of(place));
  }
  Regex call_value(const ValueRule* value) {
    const auto symbol = static_cast<Symbol>(kFirstValueCall + program_.called_values.size());
    program_.called_values.push_back(value);
    return one_of({{symbol, symbol}});
  }
  const ValueRule* value_of(const json::value& schema) {
    Program of_schema = compile_schema(schema, budget_);
    if (of_schema.matches_nothing) throw Refusal("json_schema", "is false for every value");
    const ValueRule* const start = of_schema.value;
    const auto take = [](auto& from, auto& to) { std::move(from.begin(), from.end(), std::back_inserter(to)); };
    take(of_schema.values, program_.values);
    take(of_schema.objects, program_.objects);
    take(of_schema.arrays, program_.arrays);
    return start;
  }
  Regex call_grammar(std::string_view ebnf) {
    Program of_grammar = compile_ebnf(ebnf, budget_);
    if (of_grammar.text->may_be_empty) throw Refusal("grammar", "matches the empty text, which is not enforced among other formats");
    const size_t before = program_.text_rules.size();
    size_t start = 0;
    for (size_t i = 0; i < of_grammar.text_rules.size(); ++i) {
      std::unique_ptr<TextRule>& rule = of_grammar.text_rules[i];
      if (rule.get() == of_grammar.text) start = before + i;
      if (rule->calls) rule->text = with_later_calls(rule->text, before);
      program_.text_rules.push_back(std::move(rule));
    }
    return call_of(start);
  }
  static Dfa with_later_calls(const Dfa& dfa, size_t by) {
    std::vector<Dfa::State> states(static_cast<size_t>(dfa.size()));
    for (int i = 0; i < dfa.size(); ++i) {
      states[i].label = dfa.label(i);
      for (const Dfa::Edge* edge = dfa.begin(i); edge != dfa.end(i); ++edge) {
        const auto shift = static_cast<Symbol>(edge->low >= kFirstCall ? by : 0);
        states[i].edges.push_back({edge->low + shift, edge->high + shift, edge->to});
      }
    }
    return Dfa(std::move(states));
  }

  // --- formats ---

  // With one of `ends` behind it, if there are any.
  Regex format_of(const Fields& format, const Ends& ends) {
    if (++depth_ > kMaxDepth) throw Refusal("format", "is nested more than " + std::to_string(kMaxDepth) + " deep");
    Regex regex = read_format(format, ends);
    refuse_unknown(format);
    --depth_;
    return regex;
  }

  Regex read_format(const Fields& format, const Ends& ends) {
    const std::string type = format.get_string("type");
    if (type == "any_text") return dispatch({}, find_texts(format, "excludes"), ends, false, false);
    if (type == "triggered_tags") return triggered_tags(format, ends);
    if (type == "dispatch") return dispatch_format(format, ends);
    if (type == "sequence") {
      const json::array& elements = elements_of(format);
      std::vector<Regex> parts;
      for (size_t i = 0; i < elements.size(); ++i)
        parts.push_back(format_of(format.inside(elements[i], place("elements", i)), i + 1 == elements.size() ? ends : Ends{}));
      return sequence(std::move(parts));
    }
    if (type == "or") {
      const json::array& elements = elements_of(format);
      std::vector<Regex> parts;
      for (size_t i = 0; i < elements.size(); ++i) parts.push_back(format_of(format.inside(elements[i], place("elements", i)), ends));
      return either(std::move(parts));
    }
    Regex regex = bounded_format(format, type);
    return ends.empty() ? regex : sequence({std::move(regex), one_of_texts(ends)});
  }

  // Formats whose end shows itself.
  Regex bounded_format(const Fields& format, const std::string& type) {
    if (type == "const_string") return literal(format.get_string("value"));
    if (type == "json_schema") return json_schema(format);
    if (type == "regex") {
      const auto blame = budget_.blame("regex");
      return automaton(compile_regex(format.get_string("pattern"), RegexSyntax::kPython, MatchWhat::kWhole, budget_));
    }
    if (type == "grammar") return call_grammar(format.get_string("grammar"));
    if (type == "tag") return tag(format, format.get_string("begin"));
    if (type == "defined") {
      const auto found = definitions_.find(format.get_string("name"));
      if (found == definitions_.end()) format.refuse("name", "is not defined before it");
      return found->second;
    }
    if (type == "tags_with_separator") return tags_with_separator(format);
    if (type == "optional" || type == "plus" || type == "star" || type == "repeat") {
      Regex content = format_of(format.get_object("content"), {});
      if (type == "optional") return optional(std::move(content));
      if (type != "repeat") return repeat(std::move(content), type == "plus" ? 1 : 0, kNoLimit);
      const int low = format.get_int("min", 0, 10'000), high = format.get_int("max", -1, 10'000);
      if (high >= 0 && high < low) format.refuse("max", "is below min");
      return repeat(std::move(content), static_cast<size_t>(low), high < 0 ? kNoLimit : static_cast<size_t>(high));
    }
    format.refuse("type", "is \"" + type + "\", which is not enforced here");
  }

  static std::string place(std::string_view list, size_t i) { return std::string(list) + "[" + std::to_string(i) + "]"; }
  static const json::array& elements_of(const Fields& format) {
    const json::array& elements = format.get_array("elements");
    if (elements.empty()) format.refuse("elements", "must have at least one");
    return elements;
  }
  static std::vector<std::string> find_texts(const Fields& format, std::string_view field) {
    std::vector<std::string> texts = format.find_strings(field, 1024);
    for (const std::string& each : texts)
      if (each.empty()) format.refuse(field, "has an empty text");
    return texts;
  }

  // What is behind the first `skipped` bytes of a tag's beginning.
  Regex tag(const Fields& fields, std::string_view rest_of_begin) {
    fields.find("type");
    fields.find("begin");
    Ends ends = fields.find_strings("end", 1024);
    if (ends.empty()) fields.refuse("end", "is missing");
    const bool may_lack = std::ranges::find(ends, "") != ends.end();
    Regex content = format_of(fields.get_object("content"), may_lack ? Ends{} : ends);
    std::erase(ends, "");
    if (may_lack && !ends.empty()) content = sequence({std::move(content), optional(one_of_texts(ends))});
    return sequence({literal(rest_of_begin), std::move(content)});
  }

  Regex tags_with_separator(const Fields& format) {
    std::vector<Regex> tags;
    const json::array& list = format.get_array("tags");
    for (size_t i = 0; i < list.size(); ++i) {
      const Fields each = format.inside(list[i], place("tags", i));
      tags.push_back(tag(each, each.get_string("begin")));
      refuse_unknown(each);
    }
    const Regex one = either(std::move(tags));
    Regex all = one;
    const std::string separator = format.get_string("separator");
    if (!format.get_bool("stop_after_first", false)) all = sequence({one, repeat(sequence({literal(separator), one}), 0, kNoLimit)});
    return format.get_bool("at_least_one", false) ? all : optional(std::move(all));
  }

  Regex triggered_tags(const Fields& format, const Ends& ends) {
    const std::vector<std::string> triggers = find_texts(format, "triggers");
    if (triggers.empty()) format.refuse("triggers", "must have at least one");
    std::vector<Triggered> behind(triggers.size());
    const json::array& tags = format.get_array("tags");
    for (size_t i = 0; i < tags.size(); ++i) add_tag(format.inside(tags[i], place("tags", i)), triggers, behind);
    return dispatch(rules_of(triggers, std::move(behind)), find_texts(format, "excludes"), ends, format.get_bool("at_least_one", false),
                    format.get_bool("stop_after_first", false), format.get_bool("ends_with_tag", false));
  }
  void add_tag(const Fields& fields, const std::vector<std::string>& triggers, std::vector<Triggered>& behind) {
    const std::string begin = fields.get_string("begin");
    const auto trigger = std::ranges::find_if(triggers, [&](const std::string& each) { return begin.starts_with(each); });
    if (trigger == triggers.end()) fields.refuse("begin", "begins with none of the triggers");
    Triggered& of_trigger = behind[static_cast<size_t>(trigger - triggers.begin())];
    const std::string_view rest = std::string_view(begin).substr(trigger->size());
    of_trigger.tags.push_back(tag(fields, rest));
    refuse_unknown(fields);
    json::object without_trigger = fields.object();
    without_trigger["begin"] = rest;
    of_trigger.key += json::serialize(without_trigger);
  }
  // Triggers that lead to the same are one rule.
  static std::vector<Rule> rules_of(const std::vector<std::string>& triggers, std::vector<Triggered> behind) {
    std::vector<Rule> rules;
    for (size_t i = 0; i < triggers.size(); ++i) {
      if (i > 0 && behind[i].key == behind[i - 1].key)
        rules.back().patterns.push_back(triggers[i]);
      else
        rules.push_back({{triggers[i]}, either(std::move(behind[i].tags))});
    }
    return rules;
  }

  Regex dispatch_format(const Fields& format, const Ends& ends) {
    std::vector<Rule> rules;
    const json::array& list = format.get_array("rules");
    for (size_t i = 0; i < list.size(); ++i) {
      const json::array* const pair = list[i].if_array();
      if (pair == nullptr || pair->size() != 2 || !(*pair)[0].is_string() || (*pair)[0].get_string().empty()) format.refuse("rules", "must hold pairs of a text and a format");
      rules.push_back({{std::string((*pair)[0].get_string())}, format_of(format.inside((*pair)[1], place("rules", i)), {})});
    }
    return dispatch(std::move(rules), find_texts(format, "excludes"), ends, false, !format.get_bool("loop", true));
  }

  // {"structures": [{"begin", "schema", "end"}], "triggers": […]}
  Regex legacy(const Fields& fields) {
    fields.find("type");
    const std::vector<std::string> triggers = find_texts(fields, "triggers");
    if (triggers.empty()) fields.refuse("triggers", "must have at least one");
    std::vector<Triggered> behind(triggers.size());
    const json::array& structures = fields.get_array("structures");
    for (size_t i = 0; i < structures.size(); ++i) {
      const Fields each = fields.inside(structures[i], place("structures", i));
      const json::value* const schema = each.find("schema");
      const json::object as_tag{{"type", "tag"}, {"begin", each.get("begin")}, {"end", each.get("end")},
                                {"content", {{"type", "json_schema"}, {"json_schema", schema ? *schema : json::value(json::object())}}}};
      refuse_unknown(each);
      add_tag(Fields(as_tag, "", place("structures", i) + "."), triggers, behind);
    }
    return dispatch(rules_of(triggers, std::move(behind)), {}, {}, false, false);
  }

  // Equal free texts are one call, so that the ways to go on from there are told apart behind it.
  template <class Make>
  Regex free_text(const std::vector<std::string>& patterns, size_t first, size_t last, Make make) {
    const auto [known, is_new] = free_texts_.try_emplace({patterns, first, last});
    if (is_new) known->second = call(automaton(make()));
    return known->second;
  }
  // Free text in which each pattern leads to what is behind it. ends_with_tag: of our own, it has no text behind the last, for what follows.
  Regex dispatch(std::vector<Rule> rules, const std::vector<std::string>& excludes, const Ends& ends, bool at_least_one, bool only_once, bool ends_with_tag = false) {
    std::vector<std::string> patterns;
    for (const Rule& rule : rules) patterns.insert(patterns.end(), rule.patterns.begin(), rule.patterns.end());
    const size_t first_end = patterns.size();
    patterns.insert(patterns.end(), ends.begin(), ends.end());
    patterns.insert(patterns.end(), excludes.begin(), excludes.end());
    const Seeker seeker(patterns, budget_);
    std::vector<Regex> at_once, later;
    size_t first = 0;
    for (Rule& rule : rules) {
      const size_t last = first + rule.patterns.size();
      if (at_least_one) at_once.push_back(sequence({one_of_texts(rule.patterns), rule.behind}));
      later.push_back(sequence({free_text(patterns, first, last, [&] { return seeker.until(first, last); }), std::move(rule.behind)}));
      first = last;
    }
    // The end of it: free text, up to an end where there is one.
    const auto tail = [&] {
      if (ends.empty()) return free_text(patterns, 0, 0, [&] { return seeker.without(); });
      return free_text(patterns, first_end, first_end + ends.size(), [&] { return seeker.until(first_end, first_end + ends.size()); });
    };
    if (only_once) {
      Regex end = ends.empty() ? empty() : one_of_texts(ends);
      if (at_least_one) return sequence({either(std::move(at_once)), std::move(end)});
      return either({tail(), sequence({either(std::move(later)), std::move(end)})});
    }
    std::vector<Regex> all;
    if (at_least_one) all.push_back(either(std::move(at_once)));
    if (!later.empty()) all.push_back(repeat(either(std::move(later)), 0, kNoLimit));
    if (!ends_with_tag) all.push_back(tail());
    if (ends_with_tag && !ends.empty()) all.push_back(one_of_texts(ends));
    return sequence(std::move(all));
  }

  // --- values ---

  Regex json_schema(const Fields& format) {
    const json::value& schema = format.get("json_schema");
    format.find("any_order");  // they come in any order here
    const std::string name = format.find_string("style").value_or("json");
    const std::vector<std::string> texts = format.find_strings("texts", 1024);
    if (name == "json") return call_value(value_of(schema));
    const auto* const style = std::ranges::find(kStyles, name, &Style::name);
    if (style == std::end(kStyles)) format.refuse("style", "is \"" + name + "\", which is not enforced here");
    if (!schema.is_object()) format.refuse("json_schema", "must be an object for arguments of such a style");
    return arguments(schema.get_object(), *style, format.find("texts") ? &texts : nullptr);
  }

  // `texts`: the arguments that are written as they are; null: those that may be strings.
  Regex arguments(const json::object& schema, const Style& style, const std::vector<std::string>* texts) {
    constexpr std::string_view kKnown[] = {"type", "properties", "required", "additionalProperties", "$defs", "definitions", "description", "title", "$schema", "$id", "$comment", "examples", "default", "strict"};
    for (const auto& member : schema)
      if (std::ranges::find(kKnown, std::string_view(member.key())) == std::end(kKnown))
        throw Refusal(std::string(member.key()), "is not enforced of arguments that are no JSON");
    std::vector<Symbol> first, later;  // calls, an argument each
    uint64_t required = 0;
    std::set<std::string> required_names;
    if (const json::value* const names = schema.if_contains("required"); names && names->is_array())
      for (const json::value& each : names->get_array())
        if (each.is_string()) required_names.emplace(each.get_string());
    const json::value* const properties = schema.if_contains("properties");
    if (properties && properties->is_object()) {
      for (const auto& [key, property] : properties->get_object()) {
        json::value whole = property;
        for (const char* const definitions : {"$defs", "definitions"})
          if (const json::value* const found = schema.if_contains(definitions); found && whole.is_object()) whole.get_object().emplace(definitions, *found);
        const Regex regex = argument(key, *value_of(whole), style, texts);
        if (required_names.erase(std::string(key)) > 0) required |= uint64_t{1} << first.size();
        first.push_back(symbol_of(regex));
        later.push_back(style.argument.empty() ? symbol_of(sequence({literal(","), optional(literal(" ")), regex})) : first.back());
        if (first.size() > 60) throw Refusal("properties", "has more than 60 arguments");
      }
    }
    if (!required_names.empty()) throw Refusal("required", "names an argument that is none of properties");
    Regex all = automaton(any_order(first, later, required));
    return style.argument.empty() ? all : sequence({std::move(all), optional(literal("\n"))});
  }
  Symbol symbol_of(const Regex& body) {
    const Regex called = call(body);
    return called.set.at(0).first;
  }

  // Each at most once, those that are required in any case.
  Dfa any_order(const std::vector<Symbol>& first, const std::vector<Symbol>& later, uint64_t required) {
    const size_t count = first.size();
    const bool is_ordered = count > kMaxUnordered;
    // Of ordered ones the state is how many are over and whether there was one: required ones cannot be passed over.
    return explore<uint64_t, std::hash<uint64_t>>(
        0, budget_,
        [&](uint64_t state, auto add) {
          const bool has_any = state != 0;
          std::vector<std::pair<Symbol, uint64_t>> edges;
          if (is_ordered) {
            for (size_t i = state >> 1; i < count; ++i) {
              edges.emplace_back((has_any ? later : first)[i], (i + 1) << 1 | 1);
              if (required >> i & 1) break;
            }
          } else {
            for (size_t i = 0; i < count; ++i)
              if (!(state >> i & 1)) edges.emplace_back((has_any ? later : first)[i], state | uint64_t{1} << i);
          }
          std::ranges::sort(edges);
          for (const auto& [symbol, next] : edges) add(symbol, symbol, next);
        },
        [&](uint64_t state) {
          const uint64_t missing = is_ordered ? required >> (state >> 1) : required & ~state;
          return missing == 0 ? 0 : -1;
        });
  }

  Regex argument(std::string_view key, const ValueRule& value, const Style& style, const std::vector<std::string>* texts) {
    const Regex space = optional(literal("\n"));
    Regex begin = sequence({literal(style.argument), literal(key), literal(style.key_end)});
    if (style.argument.empty()) {
      std::vector<Regex> words{call_value(&value)};
      if (value.yes) words.push_back(literal("True"));
      if (value.no) words.push_back(literal("False"));
      if (value.null) words.push_back(literal("None"));
      return sequence({std::move(begin), either(std::move(words))});
    }
    if (!style.value.empty()) begin = sequence({std::move(begin), space, literal(style.value)});
    const bool is_text = texts ? std::ranges::find(*texts, key) != texts->end() : value.string != nullptr;
    Regex content;
    if (!is_text) {
      content = sequence({call_value(&value), space});
    } else {
      if (!value.string) throw Refusal("properties", "has a text that its schema does not allow");
      // Whoever reads it takes one line break off either end.
      const Dfa whole = intersect(*value.string, Seeker({std::string(style.argument_end)}, budget_).without(), budget_);
      if (whole.empty()) throw Refusal("properties", "has a text that cannot be written between its tags");
      const auto with = [&](const Dfa& dfa, const char* pattern) { return intersect(dfa, compile_regex(pattern, RegexSyntax::kPython, MatchWhat::kWhole, budget_), budget_); };
      const Dfa no_break_first = with(whole, R"(([^\n][\s\S]*)?)");
      const Dfa no_break_last = with(whole, R"(([\s\S]*[^\n])?)");
      const Dfa no_breaks = with(no_break_first, R"(([\s\S]*[^\n])?)");
      std::vector<Regex> forms;
      const auto add = [&](const char* before, const Dfa& dfa, const char* behind) {
        if (!dfa.empty()) forms.push_back(sequence({literal(before), automaton(dfa), literal(behind)}));
      };
      add("\n", whole, "\n");
      add("", no_break_first, "\n");
      add("\n", no_break_last, "");
      add("", no_breaks, "");
      content = either(std::move(forms));
    }
    return sequence({space, std::move(begin), std::move(content), literal(style.argument_end)});
  }

  Budget& budget_;
  Program program_;
  std::map<std::string, Regex, std::less<>> definitions_;  // calls
  std::map<std::tuple<std::vector<std::string>, size_t, size_t>, Regex> free_texts_;  // calls, too
  size_t depth_ = 0;
};

}  // namespace

Program compile_structural_tag(const json::object& tag, Budget& budget) {
  const auto blame = budget.blame("structural_tag");
  return Compiler(budget).compile(Fields(tag));
}

}  // namespace serval::grammar
