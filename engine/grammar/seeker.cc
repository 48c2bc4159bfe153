#include "engine/grammar/seeker.h"

#include <deque>

namespace serval::grammar {

Seeker::Seeker(const std::vector<std::string>& patterns, Budget& budget) : nodes_(1) {
  for (size_t i = 0; i < patterns.size(); ++i) {
    int32_t node = 0;
    for (const char32_t c : code_points(patterns[i])) {
      budget.spend(1);
      const auto [place, is_new] = nodes_[node].next.try_emplace(c, static_cast<int32_t>(nodes_.size()));
      node = place->second;
      if (is_new) nodes_.emplace_back();
    }
    if (nodes_[node].found < 0) nodes_[node].found = static_cast<int32_t>(i);
  }
  // Breadth first: where a node's failure leads, all is known already.
  std::deque<int32_t> order;
  for (const auto& [symbol, to] : nodes_[0].next) order.push_back(to);
  for (; !order.empty(); order.pop_front()) {
    Node& node = nodes_[order.front()];
    const Node& shorter = nodes_[node.fail];
    if (node.found < 0) node.found = shorter.found;
    for (const auto& [symbol, to] : node.next) {
      const auto found = shorter.next.find(symbol);
      nodes_[to].fail = found == shorter.next.end() ? 0 : found->second;
      order.push_back(to);
    }
    budget.spend(node.next.size() + shorter.next.size());
    node.next.insert(shorter.next.begin(), shorter.next.end());
  }
}

Dfa Seeker::make(size_t first, size_t last, bool without_any) const {
  std::vector<Dfa::State> states(nodes_.size());
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const Node& node = nodes_[i];
    if (node.found >= 0) {  // whatever it is, the text is over
      if (!without_any && static_cast<size_t>(node.found) >= first && static_cast<size_t>(node.found) < last) states[i].label = 0;
      continue;
    }
    if (without_any) states[i].label = 0;
    Symbol at = 0;
    for (const auto& [symbol, to] : node.next) {
      if (at < symbol) states[i].edges.push_back({at, symbol - 1, 0});
      states[i].edges.push_back({symbol, symbol, to});
      at = symbol + 1;
    }
    if (at <= kLastCodePoint) states[i].edges.push_back({at, kLastCodePoint, 0});
  }
  return Dfa(std::move(states));
}

Dfa Seeker::until(size_t first, size_t last) const {
  return make(first, last, false);
}

Dfa Seeker::without() const {
  return make(0, 0, true);
}

}  // namespace serval::grammar
