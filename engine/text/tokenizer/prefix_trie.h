// Names by their first bytes: which of them a text begins with. Built once, then read by any thread. Knows
// nothing of what the names mean.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace serval {

// A trie over bytes, a level after the other, so that the children of a node are neighbours.
class PrefixTrie {
 public:
  static constexpr int32_t kRoot = 0;

  // Values are not negative. Of equal names the first counts; empty ones are left out.
  explicit PrefixTrie(std::vector<std::pair<std::string_view, int32_t>> names = {});

  // -1 for none.
  int32_t child(int32_t node, char byte) const;
  // Of the name that ends in this node; -1: none does.
  int32_t value(int32_t node) const { return nodes_[node].value; }
  // The longest name that the text begins with: its value, -1 where there is none, and its length.
  std::pair<int32_t, size_t> longest(std::string_view text) const;

 private:
  struct Node {
    int32_t value = -1;
    int32_t first_child = 0;
    int32_t num_children = 0;
  };
  std::vector<Node> nodes_;
  std::vector<char> labels_;  // [node]: the byte that leads to it
};

}  // namespace serval
