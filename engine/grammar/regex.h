// Regular expressions to automata: the syntax of ECMA-262 (with the u flag) and what Python adds to it, without
// backtracking, so without backreferences. Lookaheads are intersections where they look at the rest of the text.
#pragma once

#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/grammar/dfa.h"

namespace serval::grammar {

using SymbolSet = std::vector<std::pair<Symbol, Symbol>>;  // intervals, both ends inclusive
SymbolSet joined(SymbolSet set);                           // in ascending order, disjoint
SymbolSet complement(SymbolSet set);                       // within the code points

// A syntax tree of it.
struct Regex {
  enum class Kind : uint8_t {
    kSet,        // one symbol of `set`; an empty one matches nothing
    kSequence,   // of parts; none: the empty text
    kEither,     // of parts
    kRepeat,     // parts[0], at least `low` and at most `high` times
    kStart,      // of the text
    kEnd,        // of the text
    kBoundary,   // of a word
    kNoBoundary,
    kAhead,      // parts[0] follows
    kNotAhead,   // it does not
    kAutomaton,  // what `dfa` accepts
  };
  Kind kind = Kind::kSequence;
  SymbolSet set;
  std::vector<Regex> parts;
  size_t low = 0, high = 0;
  std::shared_ptr<const Dfa> dfa;
};
Regex one_of(SymbolSet set);
Regex text(std::u32string_view text);
Regex sequence(std::vector<Regex> parts);
Regex either(std::vector<Regex> parts);
Regex repeat(Regex part, size_t low, size_t high);

// Throws Refusal("pattern"): it is malformed, or needs what no automaton has. `max_depth` nested groups.
enum class RegexSyntax : uint8_t { kEcma, kPython };
Regex parse_regex(std::string_view utf8, RegexSyntax syntax, Budget& budget);

// Texts that it matches from end to end, or some part of which it matches.
enum class MatchWhat : uint8_t { kWhole, kPart };
Dfa compile_regex(const Regex& regex, MatchWhat what, Budget& budget);
Dfa compile_regex(std::string_view utf8, RegexSyntax syntax, MatchWhat what, Budget& budget);

// The symbols that an escape's letter stands for (d, D, w, W, s, S). Null: another letter.
const SymbolSet* class_of_letter(char32_t letter);
// Of Unicode: a general category by its long or short name, or a binary property. Empty: unknown.
SymbolSet unicode_property(std::string_view name);

}  // namespace serval::grammar
