#include "engine/grammar/dfa.h"

#include <algorithm>
#include <map>
#include <string>

#include "kernels/base/utf8.h"

namespace serval::grammar {
namespace {

constexpr size_t kFewStates = 256;

// Partition refinement (Moore 1956): the class of every state, classes in the order of their first states.
std::vector<int32_t> equal_states(const std::vector<Dfa::State>& states) {
  std::vector<int32_t> classes(states.size(), 0);
  size_t num_classes = 0;
  for (;;) {
    std::map<std::vector<int64_t>, int32_t> seen;
    std::vector<int32_t> refined(states.size());
    for (size_t i = 0; i < states.size(); ++i) {
      std::vector<int64_t> signature = {states[i].label};
      int64_t to = -1, high = -2;
      for (const Dfa::Edge& edge : states[i].edges) {
        if (classes[edge.to] == to && edge.low == high + 1) {
          signature.back() = high = edge.high;
          continue;
        }
        to = classes[edge.to];
        high = edge.high;
        signature.insert(signature.end(), {to, edge.low, edge.high});
      }
      refined[i] = seen.try_emplace(std::move(signature), static_cast<int32_t>(seen.size())).first->second;
    }
    classes = std::move(refined);
    if (seen.size() == num_classes) return classes;
    num_classes = seen.size();
  }
}

struct Pair {
  int32_t a, b;
  bool operator==(const Pair&) const = default;
};
struct PairHash {
  size_t operator()(const Pair& pair) const {
    return static_cast<size_t>((static_cast<uint64_t>(static_cast<uint32_t>(pair.a)) << 32 |
                                static_cast<uint32_t>(pair.b)) *
                               0x9e3779b97f4a7c15ull >> 7);
  }
};

}  // namespace

Dfa::Dfa(std::vector<State> states) {
  // Which states reach a label: backwards over the edges.
  std::vector<std::vector<int32_t>> from(states.size());
  std::vector<int32_t> work;
  std::vector<bool> lives(states.size(), false);
  for (size_t i = 0; i < states.size(); ++i) {
    for (const Edge& edge : states[i].edges) from[edge.to].push_back(static_cast<int32_t>(i));
    if (states[i].label >= 0) {
      lives[i] = true;
      work.push_back(static_cast<int32_t>(i));
    }
  }
  while (!work.empty()) {
    const int32_t state = work.back();
    work.pop_back();
    for (const int32_t before : from[state]) {
      if (lives[before]) continue;
      lives[before] = true;
      work.push_back(before);
    }
  }
  if (states.empty() || !lives[0]) return;
  // Those that live and are reached, in the order in which they are.
  std::vector<int32_t> number(states.size(), -1);
  std::vector<int32_t> order = {0};
  number[0] = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    std::erase_if(states[order[i]].edges, [&](const Edge& edge) { return !lives[edge.to]; });
    for (Edge& edge : states[order[i]].edges) {
      if (number[edge.to] < 0) {
        number[edge.to] = static_cast<int32_t>(order.size());
        order.push_back(edge.to);
      }
      edge.to = number[edge.to];
    }
  }
  std::vector<State> kept;
  kept.reserve(order.size());
  for (const int32_t state : order) kept.push_back(std::move(states[state]));
  if (kept.size() <= kFewStates) {
    const std::vector<int32_t> classes = equal_states(kept);
    std::vector<State> merged(static_cast<size_t>(*std::max_element(classes.begin(), classes.end())) + 1);
    std::vector<bool> done(merged.size(), false);
    for (size_t i = 0; i < kept.size(); ++i) {
      if (done[classes[i]]) continue;
      done[classes[i]] = true;
      merged[classes[i]] = std::move(kept[i]);
      for (Edge& edge : merged[classes[i]].edges) edge.to = classes[edge.to];
    }
    kept = std::move(merged);
  }
  for (const State& state : kept) {
    first_.push_back(static_cast<int32_t>(edges_.size()));
    labels_.push_back(state.label);
    for (const Edge& edge : state.edges) {
      if (edges_.size() > static_cast<size_t>(first_.back()) && edges_.back().to == edge.to &&
          edges_.back().high + 1 == edge.low)
        edges_.back().high = edge.high;
      else
        edges_.push_back(edge);
    }
  }
  first_.push_back(static_cast<int32_t>(edges_.size()));
  count_texts();
}

int Dfa::next(int state, Symbol symbol) const {
  const Edge* edge =
      std::lower_bound(begin(state), end(state), symbol, [](const Edge& e, Symbol s) { return e.high < s; });
  return edge != end(state) && edge->low <= symbol ? edge->to : kDead;
}

bool Dfa::leads_on(int state, Symbol low, Symbol high) const {
  const Edge* edge =
      std::lower_bound(begin(state), end(state), low, [](const Edge& e, Symbol s) { return e.high < s; });
  return edge != end(state) && edge->low <= high;
}

bool Dfa::matches(std::u32string_view text) const {
  int state = start();
  for (const char32_t c : text) {
    if (state == kDead) return false;
    state = next(state, c);
  }
  return accepts(state);
}

void Dfa::count_texts() {
  // From the ends backwards; what is on a cycle, or leads to one, is never reached so, and is without end.
  counts_.assign(static_cast<size_t>(size()), kManyTexts);
  std::vector<int32_t> waits_for(counts_.size(), 0), ready;
  std::vector<std::vector<int32_t>> before(counts_.size());
  for (int state = 0; state < size(); ++state) {
    waits_for[state] = static_cast<int32_t>(end(state) - begin(state));
    for (const Edge* edge = begin(state); edge != end(state); ++edge) before[edge->to].push_back(state);
    if (waits_for[state] == 0) ready.push_back(state);
  }
  while (!ready.empty()) {
    const int32_t state = ready.back();
    ready.pop_back();
    size_t sum = accepts(state) ? 1 : 0;
    for (const Edge* edge = begin(state); edge != end(state) && sum < kManyTexts; ++edge) {
      const size_t width = edge->high - edge->low + 1;
      sum = std::min(kManyTexts, sum + width * counts_[edge->to]);
    }
    counts_[state] = static_cast<uint16_t>(sum);
    for (const int32_t from : before[state]) {
      if (--waits_for[from] == 0) ready.push_back(from);
    }
  }
}

Dfa combine(const Dfa& a, const Dfa& b, Budget& budget,
            const std::function<int32_t(int32_t, int32_t)>& label) {
  const auto follow = [&](const Pair& state, const auto& add) {
    const Dfa::Edge *x = nullptr, *x_end = nullptr, *y = nullptr, *y_end = nullptr;
    if (state.a != Dfa::kDead) x = a.begin(state.a), x_end = a.end(state.a);
    if (state.b != Dfa::kDead) y = b.begin(state.b), y_end = b.end(state.b);
    Symbol at = 0;
    while (x != x_end || y != y_end) {
      const bool in_x = x != x_end && x->low <= at, in_y = y != y_end && y->low <= at;
      Symbol stop = static_cast<Symbol>(-1);  // first symbol where something changes
      if (x != x_end) stop = std::min(stop, in_x ? x->high + 1 : x->low);
      if (y != y_end) stop = std::min(stop, in_y ? y->high + 1 : y->low);
      if (in_x || in_y)
        add(at, stop - 1, Pair{in_x ? x->to : Dfa::kDead, in_y ? y->to : Dfa::kDead});
      at = stop;
      if (x != x_end && x->high < at) ++x;
      if (y != y_end && y->high < at) ++y;
    }
  };
  return explore<Pair, PairHash>(Pair{a.start(), b.start()}, budget, follow, [&](const Pair& state) {
    return label(state.a == Dfa::kDead ? -1 : a.label(state.a), state.b == Dfa::kDead ? -1 : b.label(state.b));
  });
}

Dfa intersect(const Dfa& a, const Dfa& b, Budget& budget) {
  if (a.empty() || b.empty()) return {};
  return combine(a, b, budget, [](int32_t x, int32_t y) { return x >= 0 && y >= 0 ? x : -1; });
}
Dfa unite(const Dfa& a, const Dfa& b, Budget& budget) {
  if (a.empty()) return b;
  if (b.empty()) return a;
  return combine(a, b, budget, [](int32_t x, int32_t y) { return x >= 0 ? x : y; });
}
Dfa subtract(const Dfa& a, const Dfa& b, Budget& budget) {
  if (a.empty() || b.empty()) return a;
  return combine(a, b, budget, [](int32_t x, int32_t y) { return y >= 0 ? -1 : x; });
}

const Dfa& any_text() {
  static const Dfa dfa({{{{0, kLastCodePoint, 0}}, 0}});
  return dfa;
}

Dfa only(std::u32string_view text) {
  std::vector<Dfa::State> states(text.size() + 1);
  for (size_t i = 0; i < text.size(); ++i)
    states[i].edges.push_back({text[i], text[i], static_cast<int32_t>(i + 1)});
  states.back().label = 0;
  return Dfa(std::move(states));
}

Dfa one_of_or_other(const std::vector<std::u32string>& texts, Budget& budget) {
  const auto other = static_cast<int32_t>(texts.size());
  // State 1 is any text that is on the way to none of them.
  std::vector<std::map<Symbol, int32_t>> trie(2);
  std::vector<int32_t> labels = {other, other};
  for (size_t i = 0; i < texts.size(); ++i) {
    int32_t state = 0;
    for (const char32_t c : texts[i]) {
      budget.spend(2);
      const auto [place, is_new] = trie[state].try_emplace(c, static_cast<int32_t>(trie.size()));
      state = place->second;
      if (is_new) {
        trie.emplace_back();
        labels.push_back(other);
      }
    }
    if (labels[state] == other) labels[state] = static_cast<int32_t>(i);
  }
  std::vector<Dfa::State> states(trie.size());
  for (size_t i = 0; i < trie.size(); ++i) {
    Symbol at = 0;
    for (const auto& [symbol, to] : trie[i]) {
      if (at < symbol) states[i].edges.push_back({at, symbol - 1, 1});
      states[i].edges.push_back({symbol, symbol, to});
      at = symbol + 1;
    }
    if (at <= kLastCodePoint) states[i].edges.push_back({at, kLastCodePoint, 1});
    states[i].label = labels[i];
  }
  return Dfa(std::move(states));
}

Dfa of_length(size_t low, size_t high, Budget& budget) {
  if (low > high) return {};
  const size_t num_states = (high == kNoLimit ? low : high) + 1;
  budget.spend(num_states);
  std::vector<Dfa::State> states(num_states);
  for (size_t i = 0; i < num_states; ++i) {
    if (i + 1 < num_states)
      states[i].edges.push_back({0, kLastCodePoint, static_cast<int32_t>(i + 1)});
    else if (high == kNoLimit)
      states[i].edges.push_back({0, kLastCodePoint, static_cast<int32_t>(i)});
    if (i >= low) states[i].label = 0;
  }
  return Dfa(std::move(states));
}

std::u32string code_points(std::string_view utf8) {
  std::u32string text;
  for (size_t pos = 0; pos < utf8.size();) text.push_back(static_cast<char32_t>(read_utf8(utf8, pos)));
  return text;
}

std::string to_utf8(std::u32string_view text) {
  std::string utf8;
  for (const char32_t c : text) append_utf8(c, utf8);
  return utf8;
}

}  // namespace serval::grammar
