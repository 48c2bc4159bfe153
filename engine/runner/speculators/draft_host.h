// What a drafter may use of the runner that it guesses for.
#pragma once

#include <span>

#include "engine/kv_geometry.h"
#include "engine/model/transformer.h"
#include "engine/runner/guess_probabilities.h"
#include "engine/runner/slot_table.h"
#include "kernels/backend.h"

namespace serval {

struct DraftHost {
  const StepLimits& steps;  // the largest there will be
  const BlockGeometry& geometry;
  DType kv_dtype;
  Backend& backend;
  Transformer& transformer;     // the target
  std::span<const KvLayer> kv;  // its keys and values
  SlotTable& slots;
  GuessProbabilities& guessed_by;
};

}  // namespace serval
