// Every byte a runner will hold after ready, by arithmetic, before anything is loaded; and with it the sizes that the
// runner's parts are made for.
#pragma once

#include <optional>
#include <string>

#include "engine/config.h"
#include "engine/kv_geometry.h"
#include "engine/model/model_spec.h"
#include "engine/runner/draft_plan.h"
#include "kernels/backend.h"

namespace serval {

struct MemoryPlan {
  size_t weight_bytes = 0;
  size_t kv_cache_bytes = 0;
  size_t workspace_bytes = 0;  // activations, logits, the rotation table
  size_t scratch_bytes = 0;    // of the device's step context
  size_t table_bytes = 0;      // histories, block tables, input arrays, parameters of draws
  size_t draft_bytes = 0;      // of those who guess: their tables, and all of a model's
  size_t total_bytes() const {
    return weight_bytes + kv_cache_bytes + workspace_bytes + scratch_bytes + table_bytes + draft_bytes;
  }

  StepLimits steps;  // the largest steps there will be
  BlockGeometry geometry;
  // Of the KV memory: behind the blocks of `geometry` are those that the model's own layers guess in.
  BlockGeometry kv_geometry;
  std::optional<DraftPlan> draft;  // of a model that guesses
  int kept_guesses = 0;            // of a slot, by whose probabilities they are taken (GuessProbabilities)
  DType kv_dtype = DType::kF32;
  int full_sequences = 0;      // of max_model_len positions that the KV cache holds at once
  size_t available_bytes = 0;  // of memory, when the plan was made
};

// The plan for a backend with this much memory available. draft: what is in config.speculation_model. Throws std::runtime_error with a sentence when the configuration cannot fit; it names a max_model_len that would,
// if there is one.
MemoryPlan plan_memory(const ModelSpec& spec, const EngineConfig& config, const Backend& backend,
                       size_t available_bytes, const DraftModels& draft = {});

// The largest max_model_len with which plan_memory() does not throw, up to what the model was made for; 0: none.
int largest_model_len(const ModelSpec& spec, const EngineConfig& config, const Backend& backend,
                      size_t available_bytes, const DraftModels& draft = {});

}  // namespace serval
