// A vocabulary's tokens by their bytes, in the order of a walk that goes down before it goes on.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace serval {

class TokenTrie {
 public:
  struct Node {
    int32_t end;           // the first node behind its subtree
    int32_t tokens_begin;  // into tokens(): those that end here; the next node's begin ends them
    int16_t depth;         // bytes, from 1
    uint8_t byte;
  };
  // bytes[id]: what the token writes; empty: never to be drawn under a grammar. num_ids: width of a mask.
  TokenTrie(const std::vector<std::string_view>& bytes, int num_ids);

  const std::vector<Node>& nodes() const { return nodes_; }  // one more than there are, as an end
  const std::vector<int32_t>& tokens() const { return tokens_; }
  int max_depth() const { return max_depth_; }
  int num_ids() const { return num_ids_; }
  size_t num_words() const { return (static_cast<size_t>(num_ids_) + 31) / 32; }

  // The tokens that end at the node.
  void allow(int32_t node, uint32_t* mask) const {
    for (int32_t i = nodes_[node].tokens_begin; i < nodes_[node + 1].tokens_begin; ++i)
      mask[tokens_[i] / 32] |= 1u << tokens_[i] % 32;
  }

 private:
  std::vector<Node> nodes_;
  std::vector<int32_t> tokens_;
  int max_depth_ = 0;
  int num_ids_;
};

}  // namespace serval
