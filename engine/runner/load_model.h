// From a model's folder to a runner that serves it: reads the config, plans, loads the weights. Start-up only.
#pragma once

#include <filesystem>
#include <memory>

#include "engine/config.h"
#include "engine/runner/model_runner.h"

namespace serval {

// The runner proposes what the drafters of config.speculation guess, and `speculator` where they do not,
// config.scheduler.num_draft_tokens at most. `progress`: of the weights, as load_weights() has it.
// Throws std::runtime_error with a sentence: what plan_memory() and load_weights() throw, or that the folder's
// config.json is not a model's.
std::unique_ptr<ModelRunner> load_model(const std::filesystem::path& folder, const EngineConfig& config,
                                        Backend& backend, std::unique_ptr<Speculator> speculator = nullptr,
                                        const Progress& progress = {});

}  // namespace serval
