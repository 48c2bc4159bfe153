// Which tokens of a vocabulary may come next, for a place in a grammar: a walk of the trie beside the machine, with
// what does not depend on the rest of the stack kept (Dong et al. 2024, XGrammar, sections 3.1 to 3.3; here found out
// while walking, by how deep the machine looked into the stack).
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "engine/grammar/grammar.h"
#include "engine/grammar/token_trie.h"

namespace serval {

// Of one grammar and one vocabulary. One thread at a time.
class TokenMasks {
 public:
  // Both outlive it. max_bytes: of what is kept.
  TokenMasks(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const TokenTrie> trie, size_t max_bytes);
  ~TokenMasks();

  // Sets bit t for each token t whose bytes the matcher, one of the grammar's, could advance by. mask:
  // [trie.num_words()].
  void fill(const GrammarMatcher& matcher, std::span<uint32_t> mask);
  size_t kept_bytes() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace serval
