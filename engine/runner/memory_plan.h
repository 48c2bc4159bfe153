// The sizes that the memory plan and the runner must agree on.
#pragma once

#include <string>

#include "engine/config.h"
#include "engine/kv_geometry.h"
#include "engine/model/model_spec.h"
#include "engine/model/transformer.h"
#include "engine/runner/model_runner.h"

namespace serval {

// "auto" is the backend's preference. Throws when the name is unknown.
DType kv_dtype_of(const std::string& name, const ModelSpec& spec, const Backend& backend);

// Rows of one Transformer::logits call: a step of plain decoding takes one call.
int max_logit_rows(const SchedulerConfig& config);

// Branches of drafts' trees that a step may have: sequences of its attention beside its own.
int max_branches(const EngineConfig& config);

// What the transformer's scratch is made for.
Transformer::Limits transformer_limits(const EngineConfig& config);

// plan_memory() when this much memory is available.
MemoryPlan plan_memory(const ModelSpec& spec, const EngineConfig& config, Backend& backend,
                       size_t available_bytes);

int largest_model_len(const ModelSpec& spec, const EngineConfig& config, Backend& backend,
                      size_t available_bytes);

}  // namespace serval
