#include "engine/grammar/grammar.h"

#include <algorithm>
#include <utility>

#include "engine/grammar/ebnf.h"
#include "engine/grammar/machine.h"
#include "engine/grammar/matcher_state.h"
#include "engine/grammar/regex.h"
#include "engine/grammar/schema_compiler.h"
#include "engine/grammar/structural_tag.h"
#include "engine/json/fields.h"
#include "engine/json/json_reader.h"
#include "kernels/base/utf8.h"

namespace serval {
namespace {

using grammar::Budget;
using grammar::Program;
using GrammarResult = Result<std::shared_ptr<const Grammar>>;

template <class Compile>
GrammarResult compiled(std::string_view text, const GrammarLimits& limits, const char* what, Compile compile) {
  if (text.size() > limits.max_bytes)
    return invalid("size", "grammar_too_complex",
                   std::string(what) + " has more than " + std::to_string(limits.max_bytes) + " bytes.");
  if (!is_valid_utf8(text)) return invalid("encoding", "grammar_refused", std::string(what) + " is not UTF-8.");
  Budget budget(limits.max_steps);
  try {
    auto program = std::make_unique<const Program>(compile(budget));
    return std::make_shared<const Grammar>(std::move(program));
  } catch (const grammar::Refusal& refusal) {
    const bool too_large = std::string_view(refusal.what()).ends_with("too large");
    return invalid(refusal.keyword(), too_large ? "grammar_too_complex" : "grammar_refused",
                   std::string(what) + " cannot be enforced: " + refusal.keyword() + " " + refusal.what() + ".");
  }
}

Program of_text(grammar::Dfa dfa, const char* keyword) {
  if (dfa.empty()) throw grammar::Refusal(keyword, "matches no text");
  Program program;
  program.text_rules.push_back(std::make_unique<grammar::TextRule>());
  program.text_rules.back()->text = std::move(dfa);
  program.text = program.text_rules.back().get();
  return program;
}

}  // namespace

Grammar::Grammar(std::unique_ptr<const Program> program) : program_(std::move(program)) {}
Grammar::~Grammar() = default;
bool Grammar::matches_nothing() const { return program_->matches_nothing; }

GrammarResult Grammar::json_schema(std::string_view schema, const GrammarLimits& limits) {
  if (schema.size() > limits.max_bytes) return compiled(schema, limits, "The schema", [](Budget&) { return Program(); });
  auto json = read_json(schema, {.max_depth = limits.max_depth, .max_values = 200'000}, "The schema");
  if (!json) {
    Error error = json.error();
    error.param = "schema";
    return error;
  }
  return compiled(schema, limits, "The schema",
                  [&](Budget& budget) { return grammar::compile_schema(std::move(*json), budget); });
}

GrammarResult Grammar::json_object(const GrammarLimits& limits) {
  return json_schema(R"({"type":"object"})", limits);
}

GrammarResult Grammar::regex(std::string_view regex, const GrammarLimits& limits) {
  return compiled(regex, limits, "The regular expression", [&](Budget& budget) {
    const auto blame = budget.blame("pattern");
    return of_text(grammar::compile_regex(regex, grammar::RegexSyntax::kPython, grammar::MatchWhat::kWhole, budget),
                   "pattern");
  });
}

GrammarResult Grammar::choice(const std::vector<std::string>& texts, const GrammarLimits& limits) {
  std::string all;
  for (const std::string& text : texts) all += text;
  return compiled(all, limits, "The choice", [&](Budget& budget) {
    const auto blame = budget.blame("choice");
    std::vector<std::u32string> choices;
    for (const std::string& text : texts) choices.push_back(grammar::code_points(text));
    const auto last = static_cast<int32_t>(choices.size());
    const grammar::Dfa labelled = grammar::one_of_or_other(choices, budget);
    return of_text(grammar::combine(labelled, labelled, budget,
                                    [&](int32_t label, int32_t) { return label < last ? 0 : -1; }),
                   "choice");
  });
}

GrammarResult Grammar::ebnf(std::string_view text, const GrammarLimits& limits) {
  return compiled(text, limits, "The grammar", [&](Budget& budget) { return grammar::compile_ebnf(text, budget); });
}

GrammarResult Grammar::structural_tag(std::string_view tag, const GrammarLimits& limits) {
  const char* const what = "The structural tag";
  if (tag.size() > limits.max_bytes) return compiled(tag, limits, what, [](Budget&) { return Program(); });
  const auto json = read_json_object(tag, {.max_depth = limits.max_depth, .max_values = 200'000}, what);
  if (!json) {
    Error error = json.error();
    error.param = "structural_tag";
    return error;
  }
  return compiled(tag, limits, what, [&](Budget& budget) {
    try {
      return grammar::compile_structural_tag(*json, budget);
    } catch (const FieldError& wrong) {
      const std::string& field = wrong.error().param;
      std::string_view why = wrong.what();
      if (why.starts_with(field)) why = why.substr(std::min(why.size(), field.size() + 1));
      throw grammar::Refusal(field, std::string(why));
    }
  });
}

GrammarMatcher::GrammarMatcher(std::shared_ptr<const Grammar> grammar)
    : grammar_(std::move(grammar)),
      state_(std::make_unique<grammar::MatcherState>(grammar::Machine(grammar_->program()).start())) {}
GrammarMatcher::GrammarMatcher(const GrammarMatcher& other)
    : grammar_(other.grammar_), state_(std::make_unique<grammar::MatcherState>(*other.state_)) {}
GrammarMatcher::GrammarMatcher(GrammarMatcher&&) noexcept = default;
GrammarMatcher& GrammarMatcher::operator=(GrammarMatcher other) noexcept {
  std::swap(grammar_, other.grammar_);
  std::swap(state_, other.state_);
  return *this;
}
GrammarMatcher::~GrammarMatcher() {
  state_.reset();  // before the program that it points into
}

bool GrammarMatcher::advance(std::string_view bytes) {
  grammar::Machine machine(grammar_->program());
  grammar::Places places = state_->places, next;
  for (const char byte : bytes) {
    machine.step(places, static_cast<uint8_t>(byte), next);
    if (next.empty()) return false;
    std::swap(places, next);
  }
  state_->places = std::move(places);
  return true;
}

bool GrammarMatcher::accepting() const { return grammar::Machine(grammar_->program()).may_end(state_->places); }

bool GrammarMatcher::finished() const {
  grammar::Machine machine(grammar_->program());
  grammar::Places next;
  for (int byte = 0; byte < 256; ++byte) {
    machine.step(state_->places, static_cast<uint8_t>(byte), next);
    if (!next.empty()) return false;
  }
  return true;
}

}  // namespace serval
