// What a model that guesses will hold beside the target, by arithmetic (memory_plan.h).
#pragma once

#include <optional>

#include "engine/config.h"
#include "engine/kv_geometry.h"
#include "engine/model/model_spec.h"
#include "engine/runner/speculators/dflash_model.h"
#include "engine/runner/speculators/draft_heads.h"
#include "engine/runner/speculators/eagle_head.h"
#include "kernels/backend.h"

namespace serval {

// What the folder of EngineConfig::speculation_model holds: a model, or heads for the target.
struct DraftModels {
  std::optional<ModelSpec> model;
  std::optional<HeadsSpec> heads;
  std::optional<EagleSpec> eagle;
  std::optional<DflashSpec> dflash;

  // What has keys and values of its own.
  const ModelSpec* with_kv() const {
    return model ? &*model : eagle ? &eagle->model : dflash ? &dflash->model : heads && heads->prefix ? &*heads->prefix : nullptr;
  }
};

struct DraftPlan {
  int num_layers = 0;         // of the target's, or all of the smaller model's
  StepLimits steps;           // the largest there will be
  int rows_ahead = 0;         // of its rows, for what is guessed ahead of a model that guesses
  BlockGeometry geometry;     // of its KV groups: the blocks of the target's, then its own
  int target_groups[kMaxKvGroups] = {};  // whose block tables each of its groups reads
  int own_blocks[kMaxKvGroups] = {};     // of a slot, by the target's groups; behind all of the target's
  int first_own_block[kMaxKvGroups] = {};
  DType kv_dtype = DType::kF32;
  size_t weight_bytes = 0, kv_cache_bytes = 0, workspace_bytes = 0, scratch_bytes = 0, table_bytes = 0;
  size_t total_bytes() const {
    return weight_bytes + kv_cache_bytes + workspace_bytes + scratch_bytes + table_bytes;
  }
};

}  // namespace serval
