// From the settings to those who guess. One line a drafter.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "engine/config.h"
#include "engine/model/model_spec.h"
#include "engine/runner/draft_plan.h"
#include "engine/runner/drafting.h"

namespace serval {

// The set of them.
uint32_t drafters_of(const EngineConfig& config, const ModelSpec& target);

// Whether the target's own first layers guess.
bool guesses_by_itself(const EngineConfig& config);

// Where the setting is eagle, or auto and no first layers, and it names no folder, and the model's own has layers that predict
// further tokens (MTP): config.speculation_model becomes that folder, so that all that follows counts them. Says so in the log,
// and why not where they cannot be used; eagle throws std::runtime_error with that sentence.
void find_own_layers(const std::filesystem::path& folder, const ModelSpec& target, EngineConfig& config);

// What is in config.speculation_model, where one of them needs it. Throws std::runtime_error with a sentence where it is
// missing, or there and nobody needs it.
DraftModels read_draft_models(const EngineConfig& config, const ModelSpec& target);

// Nobody where config.speculation is off. plan: of a model that guesses; draft: whose weights are loaded. Throws
// std::runtime_error with a sentence.
Drafters make_drafters(const EngineConfig& config, const ModelSpec& target, const std::optional<DraftPlan>& plan,
                       DraftModels draft, Backend& backend);

// Of the host's memory: what they and Drafting take.
size_t planned_draft_bytes(const EngineConfig& config);

}  // namespace serval
