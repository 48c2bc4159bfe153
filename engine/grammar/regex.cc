// A tree to a nondeterministic automaton (Thompson 1968), and that to a deterministic one by its sets of states
// (Rabin, Scott 1959). Assertions are empty moves that ask what stands before and behind.
#include "engine/grammar/regex.h"

#include <algorithm>
#include <map>

namespace serval::grammar {
namespace {

using Kind = Regex::Kind;

enum class Around : uint8_t { kEdge, kWord, kOther };  // the text's start or end, a word character, any other

struct Nfa {
  struct Move {
    Symbol low, high;
    int32_t to;
  };
  struct Silent {
    Kind when;  // kSequence: always; else an assertion
    int32_t to;
  };
  struct State {
    std::vector<Move> moves;
    std::vector<Silent> silent;
  };
  std::vector<State> states;
  bool asks_words = false, asks_edges = false;
};

class NfaBuilder {
 public:
  explicit NfaBuilder(Budget& budget) : budget_(budget) { add_state(); }

  // Appends what matches behind state `from`; returns the state where it ends.
  int32_t add(const Regex& regex, int32_t from) {
    budget_.spend(1);
    switch (regex.kind) {
      case Kind::kSet: {
        const int32_t to = add_state();
        for (const auto& [low, high] : regex.set) nfa_.states[from].moves.push_back({low, high, to});
        budget_.spend(regex.set.size());
        return to;
      }
      case Kind::kSequence:
        for (const Regex& part : regex.parts) from = add(part, from);
        return from;
      case Kind::kEither: {
        const int32_t to = add_state();
        for (const Regex& part : regex.parts) {
          const int32_t begin = add_state();
          link(from, begin);
          link(add(part, begin), to);
        }
        return to;
      }
      case Kind::kRepeat: {
        for (size_t i = 0; i < regex.low; ++i) from = add(regex.parts[0], from);
        const int32_t to = add_state();
        if (regex.high == kNoLimit) {
          const int32_t loop = add_state();
          link(from, loop);
          link(add(regex.parts[0], loop), loop);
          link(loop, to);
          return to;
        }
        link(from, to);
        for (size_t i = regex.low; i < regex.high; ++i) {
          from = add(regex.parts[0], from);
          link(from, to);
        }
        return to;
      }
      case Kind::kStart:
      case Kind::kEnd:
      case Kind::kBoundary:
      case Kind::kNoBoundary: {
        const int32_t to = add_state();
        link(from, to, regex.kind);
        const bool is_edge = regex.kind == Kind::kStart || regex.kind == Kind::kEnd;
        (is_edge ? nfa_.asks_edges : nfa_.asks_words) = true;
        return to;
      }
      case Kind::kAutomaton: {
        const Dfa& dfa = *regex.dfa;
        const int32_t to = add_state();
        std::vector<int32_t> places;
        for (int i = 0; i < dfa.size(); ++i) places.push_back(add_state());
        if (!dfa.empty()) link(from, places[0]);
        for (int i = 0; i < dfa.size(); ++i) {
          for (const Dfa::Edge* edge = dfa.begin(i); edge != dfa.end(i); ++edge)
            nfa_.states[places[i]].moves.push_back({edge->low, edge->high, places[edge->to]});
          if (dfa.accepts(i)) link(places[i], to);
        }
        return to;
      }
      case Kind::kAhead:
      case Kind::kNotAhead:
        throw Refusal("pattern", "looks ahead inside of a repetition");
    }
    return from;
  }

  Nfa take() { return std::move(nfa_); }

 private:
  int32_t add_state() {
    budget_.spend(1);
    nfa_.states.emplace_back();
    return static_cast<int32_t>(nfa_.states.size()) - 1;
  }
  void link(int32_t from, int32_t to, Kind when = Kind::kSequence) {
    nfa_.states[from].silent.push_back({when, to});
  }

  Nfa nfa_;
  Budget& budget_;
};

struct Subset {
  std::vector<int32_t> states;  // before the silent moves, in ascending order
  Around before = Around::kOther;
  bool operator==(const Subset&) const = default;
};
struct SubsetHash {
  size_t operator()(const Subset& subset) const {
    uint64_t hash = static_cast<uint64_t>(subset.before);
    for (const int32_t state : subset.states) hash = (hash ^ static_cast<uint64_t>(state)) * 0x100000001b3ull;
    return hash;
  }
};

class Determiniser {
 public:
  Determiniser(Nfa nfa, int32_t final, Budget& budget)
      : nfa_(std::move(nfa)), final_(final), budget_(budget), seen_(nfa_.states.size(), 0) {}

  Dfa run() {
    const bool asks = nfa_.asks_words || nfa_.asks_edges;
    return explore<Subset, SubsetHash>(
        Subset{{0}, asks ? Around::kEdge : Around::kOther}, budget_,
        [&](const Subset& subset, const auto& add) { follow(subset, add); },
        [&](const Subset& subset) {
          close(subset, Around::kEdge);
          return std::find(closed_.begin(), closed_.end(), final_) == closed_.end() ? -1 : 0;
        });
  }

 private:
  static bool holds(Kind when, Around before, Around behind) {
    switch (when) {
      case Kind::kStart:
        return before == Around::kEdge;
      case Kind::kEnd:
        return behind == Around::kEdge;
      case Kind::kBoundary:
        return (before == Around::kWord) != (behind == Around::kWord);
      case Kind::kNoBoundary:
        return (before == Around::kWord) == (behind == Around::kWord);
      default:
        return true;
    }
  }

  // closed_: what silent moves reach.
  void close(const Subset& subset, Around behind) {
    closed_ = subset.states;
    ++turn_;
    for (const int32_t state : closed_) seen_[state] = turn_;
    for (size_t i = 0; i < closed_.size(); ++i) {
      for (const Nfa::Silent& silent : nfa_.states[closed_[i]].silent) {
        if (seen_[silent.to] == turn_ || !holds(silent.when, subset.before, behind)) continue;
        seen_[silent.to] = turn_;
        closed_.push_back(silent.to);
      }
    }
    budget_.spend(closed_.size() / 16);
  }

  template <class Add>
  void follow(const Subset& subset, const Add& add) {
    std::vector<Nfa::Move> moves;
    if (!nfa_.asks_words) {
      close(subset, Around::kOther);
      for (const int32_t state : closed_)
        moves.insert(moves.end(), nfa_.states[state].moves.begin(), nfa_.states[state].moves.end());
    } else {
      static const SymbolSet others = complement(*class_of_letter('w'));
      for (const Around behind : {Around::kWord, Around::kOther}) {
        close(subset, behind);
        const SymbolSet& within = behind == Around::kWord ? *class_of_letter('w') : others;
        for (const int32_t state : closed_) {
          for (const Nfa::Move& move : nfa_.states[state].moves) {
            for (const auto& [low, high] : within) {
              if (move.low <= high && low <= move.high)
                moves.push_back({std::max(low, move.low), std::min(high, move.high), move.to});
            }
          }
        }
      }
    }
    // Sweep over where intervals begin and end.
    std::map<Symbol, std::vector<std::pair<int32_t, int32_t>>> changes;
    for (const Nfa::Move& move : moves) {
      changes[move.low].emplace_back(move.to, 1);
      changes[move.high + 1].emplace_back(move.to, -1);
    }
    std::map<int32_t, int32_t> active;
    for (auto change = changes.begin(); change != changes.end(); ++change) {
      for (const auto& [to, by] : change->second) {
        if ((active[to] += by) == 0) active.erase(to);
      }
      if (active.empty()) continue;
      budget_.spend(1 + active.size() / 8);
      Subset next;
      for (const auto& [to, count] : active) next.states.push_back(to);
      if (nfa_.asks_words && class_holds(change->first)) next.before = Around::kWord;
      add(change->first, std::next(change)->first - 1, next);
    }
  }

  static bool class_holds(Symbol symbol) {
    for (const auto& [low, high] : *class_of_letter('w')) {
      if (low <= symbol && symbol <= high) return true;
    }
    return false;
  }

  Nfa nfa_;
  int32_t final_;
  Budget& budget_;
  std::vector<int32_t> closed_;
  std::vector<uint32_t> seen_;
  uint32_t turn_ = 0;
};

Dfa without_looking(const Regex& regex, Budget& budget) {
  NfaBuilder builder(budget);
  const int32_t final = builder.add(regex, 0);
  return Determiniser(builder.take(), final, budget).run();
}

bool has(const Regex& regex, std::initializer_list<Kind> kinds) {
  return std::find(kinds.begin(), kinds.end(), regex.kind) != kinds.end() ||
         std::any_of(regex.parts.begin(), regex.parts.end(),
                     [&](const Regex& part) { return has(part, kinds); });
}
bool looks(const Regex& regex) { return has(regex, {Kind::kAhead, Kind::kNotAhead}); }

std::vector<Regex> behind(const std::vector<Regex>& parts, size_t from) {
  return {parts.begin() + static_cast<std::ptrdiff_t>(from), parts.end()};
}

// A sequence whose first part may be searched for (free_start) and whose end may be anywhere (free_end).
Dfa compile_parts(std::vector<Regex> parts, bool free_start, bool free_end, Budget& budget) {
  const Regex any = repeat(one_of({{0, kLastCodePoint}}), 0, kNoLimit);
  // The first part that looks comes to the top: inner sequences are laid open, choices multiplied out.
  for (size_t i = 0; i < parts.size(); ++i) {
    const Regex part = parts[i];
    if (!looks(part)) continue;
    budget.spend(parts.size());
    const auto replaced = [&](std::vector<Regex> by) {
      std::vector<Regex> all(parts.begin(), parts.begin() + static_cast<std::ptrdiff_t>(i));
      all.insert(all.end(), by.begin(), by.end());
      const std::vector<Regex> rest = behind(parts, i + 1);
      all.insert(all.end(), rest.begin(), rest.end());
      return compile_parts(std::move(all), free_start, free_end, budget);
    };
    if (part.kind == Kind::kSequence) return replaced(part.parts);
    if (part.kind == Kind::kRepeat && part.low <= 1 && part.high == 1) {
      Dfa with = replaced({part.parts[0]});
      return part.low == 1 ? with : unite(with, replaced({}), budget);
    }
    if (part.kind == Kind::kEither) {
      Dfa all;
      for (const Regex& choice : part.parts) all = unite(all, replaced({choice}), budget);
      return all;
    }
    if (part.kind == Kind::kRepeat) throw Refusal("pattern", "looks ahead inside of a repetition");
    const Dfa rest = compile_parts(behind(parts, i + 1), false, free_end, budget);
    const Dfa seen = compile_parts({part.parts[0]}, false, true, budget);
    Dfa both = part.kind == Kind::kAhead ? intersect(rest, seen, budget) : subtract(rest, seen, budget);
    std::vector<Regex> before(parts.begin(), parts.begin() + static_cast<std::ptrdiff_t>(i));
    const bool at_start = std::all_of(before.begin(), before.end(),
                                      [](const Regex& r) { return r.kind == Kind::kStart; }) &&
                          (!before.empty() || !free_start);
    if (at_start) return both;
    const std::vector<Regex> later = behind(parts, i);
    if (std::any_of(later.begin(), later.end(), [](const Regex& r) {
          return has(r, {Kind::kStart, Kind::kBoundary, Kind::kNoBoundary});
        }))
      throw Refusal("pattern", "looks ahead and asks what stands before");
    Regex automaton;
    automaton.kind = Kind::kAutomaton;
    automaton.dfa = std::make_shared<const Dfa>(std::move(both));
    before.push_back(std::move(automaton));
    return compile_parts(std::move(before), free_start, false, budget);
  }
  if (free_start) parts.insert(parts.begin(), any);
  if (free_end) parts.push_back(any);
  return without_looking(sequence(std::move(parts)), budget);
}

}  // namespace

Regex one_of(SymbolSet set) {
  Regex regex;
  regex.kind = Kind::kSet;
  regex.set = std::move(set);
  return regex;
}
Regex text(std::u32string_view text) {
  Regex regex;
  for (const char32_t c : text) regex.parts.push_back(one_of({{c, c}}));
  return regex;
}
Regex sequence(std::vector<Regex> parts) {
  Regex regex;
  regex.parts = std::move(parts);
  return regex;
}
Regex either(std::vector<Regex> parts) {
  Regex regex;
  regex.kind = Kind::kEither;
  regex.parts = std::move(parts);
  return regex;
}
Regex repeat(Regex part, size_t low, size_t high) {
  Regex regex;
  regex.kind = Kind::kRepeat;
  regex.parts.push_back(std::move(part));
  regex.low = low;
  regex.high = high;
  return regex;
}

Dfa compile_regex(const Regex& regex, MatchWhat what, Budget& budget) {
  const bool part = what == MatchWhat::kPart;
  return compile_parts({regex}, part, part, budget);
}
Dfa compile_regex(std::string_view utf8, RegexSyntax syntax, MatchWhat what, Budget& budget) {
  return compile_regex(parse_regex(utf8, syntax, budget), what, budget);
}

}  // namespace serval::grammar
