// Deterministic finite automata over code points, with intervals on the edges, and the Boolean algebra of what they
// accept. Above the code points are symbols of our own: a call of a grammar's rule is an edge too (regex.h).
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/grammar/refusal.h"

namespace serval::grammar {

using Symbol = uint32_t;
inline constexpr Symbol kLastCodePoint = 0x10FFFF;

class Dfa {
 public:
  static constexpr int kDead = -1;
  struct Edge {
    Symbol low, high;  // both inclusive
    int32_t to;
  };
  struct State {
    std::vector<Edge> edges;  // in ascending order, disjoint
    int32_t label = -1;       // -1: not accepting
  };

  Dfa() = default;
  // State 0 is the start. Drops states that reach no label or are never reached; merges equal ones where few.
  explicit Dfa(std::vector<State> states);

  bool empty() const { return first_.empty(); }
  int size() const { return static_cast<int>(labels_.size()); }
  int start() const { return empty() ? kDead : 0; }
  int label(int state) const { return labels_[state]; }
  bool accepts(int state) const { return state != kDead && labels_[state] >= 0; }
  const Edge* begin(int state) const { return edges_.data() + first_[state]; }
  const Edge* end(int state) const { return edges_.data() + first_[state + 1]; }
  int next(int state, Symbol symbol) const;
  // Some symbol of [low, high] leads on. Every state leads to an accepting one.
  bool leads_on(int state, Symbol low, Symbol high) const;
  bool matches(std::u32string_view text) const;

  // How many texts are accepted from a state on; kManyTexts or more, also without end: kManyTexts.
  static constexpr size_t kManyTexts = 0xFFFF;
  size_t count(int state) const { return counts_[state]; }
  size_t count() const { return empty() ? 0 : count(0); }
  size_t bytes() const { return edges_.size() * sizeof(Edge) + labels_.size() * 8; }

 private:
  void count_texts();

  std::vector<int32_t> first_;  // of edges_, one more than states
  std::vector<Edge> edges_;
  std::vector<int32_t> labels_;
  std::vector<uint16_t> counts_;
};

// The automaton of both at once. label(a, b): of a state that is both, -1 standing for not accepting; it is not
// asked for two dead states.
Dfa combine(const Dfa& a, const Dfa& b, Budget& budget, const std::function<int32_t(int32_t, int32_t)>& label);
Dfa intersect(const Dfa& a, const Dfa& b, Budget& budget);
Dfa unite(const Dfa& a, const Dfa& b, Budget& budget);
Dfa subtract(const Dfa& a, const Dfa& b, Budget& budget);

const Dfa& any_text();  // every text of code points
Dfa only(std::u32string_view text);
// Labels of the listed texts are their places in the list; any other text is labelled texts.size().
Dfa one_of_or_other(const std::vector<std::u32string>& texts, Budget& budget);
// Texts of low to high code points.
Dfa of_length(size_t low, size_t high, Budget& budget);
inline constexpr size_t kNoLimit = static_cast<size_t>(-1);

// Makes an automaton from a start state and what follows each: State must be hashable by Hash.
// follow(state, add): calls add(low, high, next) for disjoint intervals in ascending order; label(state).
template <class State, class Hash, class Follow, class Label>
Dfa explore(const State& start, Budget& budget, Follow follow, Label label) {
  std::unordered_map<State, int32_t, Hash> numbers;
  std::deque<const State*> order;
  std::vector<Dfa::State> states;
  const auto number = [&](const State& state) {
    const auto [place, is_new] = numbers.try_emplace(state, static_cast<int32_t>(states.size()));
    if (is_new) {
      budget.spend(1);
      states.emplace_back();
      order.push_back(&place->first);
    }
    return place->second;
  };
  number(start);
  for (size_t i = 0; i < order.size(); ++i) {
    const State& state = *order[i];
    std::vector<Dfa::Edge> edges;
    follow(state, [&](Symbol low, Symbol high, const State& next) {
      budget.spend(1);
      const int32_t to = number(next);
      if (!edges.empty() && edges.back().to == to && edges.back().high + 1 == low)
        edges.back().high = high;
      else
        edges.push_back({low, high, to});
    });
    states[i].label = label(state);
    states[i].edges = std::move(edges);
  }
  return Dfa(std::move(states));
}

std::u32string code_points(std::string_view utf8);  // what is broken becomes U+FFFD
std::string to_utf8(std::u32string_view text);

}  // namespace serval::grammar
