// What a matcher is inside, for the masks (token_mask.h).
#pragma once

#include "engine/grammar/frame.h"

namespace serval::grammar {

struct MatcherState {
  Places places;
};

}  // namespace serval::grammar
