#include "engine/grammar/token_trie.h"

#include <algorithm>
#include <numeric>

namespace serval {
namespace {

constexpr size_t kMaxTokenBytes = 512;  // a longer one is not offered

}  // namespace

TokenTrie::TokenTrie(const std::vector<std::string_view>& bytes, int num_ids) : num_ids_(num_ids) {
  std::vector<int32_t> order;
  for (int32_t id = 0; id < std::min<int32_t>(num_ids, static_cast<int32_t>(bytes.size())); ++id) {
    if (!bytes[id].empty() && bytes[id].size() <= kMaxTokenBytes) order.push_back(id);
  }
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return bytes[a] < bytes[b]; });
  std::vector<int32_t> path;  // open nodes, by depth
  std::string_view before;
  const auto close = [&](size_t depth) {
    for (; path.size() > depth; path.pop_back()) nodes_[path.back()].end = static_cast<int32_t>(nodes_.size());
  };
  for (const int32_t id : order) {
    const std::string_view token = bytes[id];
    const auto common = static_cast<size_t>(
        std::mismatch(token.begin(), token.end(), before.begin(), before.end()).first - token.begin());
    close(common);
    for (size_t i = common; i < token.size(); ++i) {
      path.push_back(static_cast<int32_t>(nodes_.size()));
      nodes_.push_back({0, static_cast<int32_t>(tokens_.size()), static_cast<int16_t>(i + 1),
                        static_cast<uint8_t>(token[i])});
    }
    tokens_.push_back(id);
    max_depth_ = std::max(max_depth_, static_cast<int>(token.size()));
    before = token;
  }
  close(0);
  nodes_.push_back({static_cast<int32_t>(nodes_.size()), static_cast<int32_t>(tokens_.size()), 0, 0});
}

}  // namespace serval
