// Who guesses what follows a sequence's last token. Knows nothing of verification: the target draws its own tokens,
// and a guess that is wrong costs a row and no more (Leviathan et al. 2023, with draws keyed by position, so that
// the tokens are the same with and without). Engine thread only; propose() allocates nothing.
#pragma once

#include <span>
#include <vector>

#include "engine/batch.h"

namespace serval {

class Speculator {
 public:
  virtual ~Speculator() = default;
  // Appends to `drafts` at most `most` guesses of what follows `known`, the prompt and output of one sequence: a
  // tree, parents first. None where there is nothing to go by. A function of its arguments, so that a recorded
  // day is that of any run.
  virtual void propose(std::span<const TokenId> known, int most, std::vector<Draft>& drafts) = 0;
};

}  // namespace serval
