// Automata of texts by the first of several patterns in them (Aho and Corasick 1975).
#pragma once

#include <map>
#include <string>
#include <vector>

#include "engine/grammar/dfa.h"

namespace serval::grammar {

class Seeker {
 public:
  // None is empty.
  Seeker(const std::vector<std::string>& patterns, Budget& budget);

  // Texts that end where the first pattern in them does, if that is one of [first, last).
  Dfa until(size_t first, size_t last) const;
  // Texts that have none of them.
  Dfa without() const;

 private:
  struct Node {
    std::map<Symbol, int32_t> next;  // all symbols that lead elsewhere than to the root
    int32_t fail = 0;
    int32_t found = -1;  // which pattern has just ended
  };
  Dfa make(size_t first, size_t last, bool without_any) const;

  std::vector<Node> nodes_;
};

}  // namespace serval::grammar
