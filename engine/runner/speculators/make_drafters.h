// From the settings to those who guess. One line a drafter.
#pragma once

#include "engine/config.h"
#include "engine/runner/drafting.h"

namespace serval {

// The set of them by the setting's name.
uint32_t drafters_of(const std::string& speculation);

// Nobody where config.speculation is off. Throws std::runtime_error with a sentence for another name.
Drafters make_drafters(const EngineConfig& config);

// Beside their models: what they and Drafting take.
size_t planned_draft_bytes(const EngineConfig& config);

}  // namespace serval
