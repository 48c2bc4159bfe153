// From a model's folder to a runner that serves it: reads the config, plans, loads the weights. Start-up only.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>

#include "engine/config.h"
#include "engine/runner/model_runner.h"

namespace serval {

// What is being done, bytes done, bytes in all: while weights are read and a large KV cache is cleared. May
// throw to give up.
using LoadProgress = std::function<void(const char* what, size_t done, size_t total)>;

// The runner proposes what the drafters of config.speculation guess, and `speculator` where they do not,
// config.scheduler.num_draft_tokens at most.
// Throws std::runtime_error with a sentence: what plan_memory() and load_weights() throw, or that the folder's
// config.json is not a model's.
std::unique_ptr<ModelRunner> load_model(const std::filesystem::path& folder, const EngineConfig& config,
                                        Backend& backend, std::unique_ptr<Speculator> speculator = nullptr,
                                        const LoadProgress& progress = {});

}  // namespace serval
