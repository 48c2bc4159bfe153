#include "engine/text/tokenizer/prefix_trie.h"

#include <algorithm>
#include <cstring>

namespace serval {

PrefixTrie::PrefixTrie(std::vector<std::pair<std::string_view, int32_t>> names) {
  std::erase_if(names, [](const auto& name) { return name.first.empty(); });
  std::stable_sort(names.begin(), names.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  // Of each node the names that go through it, all alike in the first `depth` bytes.
  struct Range {
    size_t begin, end, depth;
  };
  std::vector<Range> ranges = {{0, names.size(), 0}};
  nodes_.emplace_back();
  labels_.push_back('\0');
  for (size_t node = 0; node < ranges.size(); ++node) {
    auto [begin, end, depth] = ranges[node];
    while (begin < end && names[begin].first.size() == depth) {
      if (nodes_[node].value < 0) nodes_[node].value = names[begin].second;
      ++begin;
    }
    nodes_[node].first_child = static_cast<int32_t>(nodes_.size());
    while (begin < end) {
      const char byte = names[begin].first[depth];
      const size_t first = begin;
      while (begin < end && names[begin].first[depth] == byte) ++begin;
      ranges.push_back({first, begin, depth + 1});
      nodes_.emplace_back();
      labels_.push_back(byte);
      ++nodes_[node].num_children;
    }
  }
}

int32_t PrefixTrie::child(int32_t node, char byte) const {
  const Node& parent = nodes_[node];
  const char* const labels = labels_.data() + parent.first_child;
  const void* found = std::memchr(labels, byte, static_cast<size_t>(parent.num_children));
  if (found == nullptr) return -1;
  return parent.first_child + static_cast<int32_t>(static_cast<const char*>(found) - labels);
}

std::pair<int32_t, size_t> PrefixTrie::longest(std::string_view text) const {
  std::pair<int32_t, size_t> found = {-1, 0};
  int32_t node = kRoot;
  for (size_t next = 0; next < text.size();) {
    node = child(node, text[next++]);
    if (node < 0) break;
    if (value(node) >= 0) found = {value(node), next};
  }
  return found;
}

}  // namespace serval
