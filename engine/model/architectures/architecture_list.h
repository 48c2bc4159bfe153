// What models are served, and what shows that each is served right: `serval models` and docs/models.md, from the
// table of architectures.
#pragma once

#include <string>

namespace serval {

struct Architecture;

// Whether no model of the row runs on CUDA yet: a part that all have lacks a kernel there.
bool runs_on_cpu_only(const Architecture& row);
// A row a line, in columns, for a terminal.
std::string models_text();
// An array of {"models", "architecture", "model_type", "devices", "goldens"}.
std::string models_json();
// docs/models.md.
std::string models_markdown();

}  // namespace serval
