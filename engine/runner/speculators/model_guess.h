// What the drafters with logits have in common: they draw as the target would, with the noise of the same seed and position,
// so that the two agree at any temperature as far as their logits do.
#pragma once

#include "engine/runner/slot_table.h"
#include "engine/runner/speculators/speculator.h"
#include "kernels/sample.h"

namespace serval {

// The draw of the guess that follows so many of a task's, from logits of `num_logits` tokens of which the target has the
// first `vocab`. Its best tokens are reported where guesses are wanted beside each other.
SampleRow guess_row(const DraftTask& task, const Slot& slot, int num_before, int num_logits, int vocab);

// Adds what was drawn behind `parent` (-1: the last token), and the next best ones beside it. Returns the place of what was
// drawn; -1: nothing can follow it.
int add_drawn(DraftTask& task, const Slot& slot, int parent, const SampleResult& result, const TopLogprob* top, int vocab,
              DrafterKind kind);

}  // namespace serval
