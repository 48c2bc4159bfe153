// Prompt lookup (Saxena 2023): what followed the last tokens when they stood in the prompt or output before.
#pragma once

#include "engine/runner/speculators/speculator.h"

namespace serval {

class NgramSpeculator : public Speculator {
 public:
  // A chain: from the place where most of the last tokens stand again, the latest of those, as many tokens as
  // match, at least two. A longer match is a better reason to go on. Reads `known` once.
  void propose(std::span<const TokenId> known, int most, std::vector<Draft>& drafts) override;
};

}  // namespace serval
