// The table of architectures: for each, how its configuration reads and how its checkpoints spell names. A
// family has a file of its own in this folder; a new one is such a file and a row in architectures.cc.
#pragma once

#include <span>
#include <string_view>

#include "engine/model/config_fields.h"
#include "engine/model/model_spec.h"
#include "engine/model/tensor_names.h"

namespace serval {

struct Architecture {
  std::string_view name;        // as config.json's "architectures" spells it
  std::string_view model_type;  // its "model_type", which decides where "architectures" says nothing
  // Asks the configuration for everything that it may say of the forward pass; what is not asked for and is
  // not known to be harmless is refused afterwards. Throws std::runtime_error that names the field. Of the result's
  // names the modules, where there are any, stand in place of the row's: for a variant that stores others.
  ModelSpec (*read)(const Fields& config);
  TensorNames names;
  // For `serval models` and docs/models.md.
  std::string_view models;   // as people call them: "Qwen3 0.6B to 32B"
  std::string_view goldens;  // folders of tests/fixtures/models that hold it to the reference, with spaces between
  std::string_view old_name = {};  // another name, which older files have
  bool is_encoder = false;  // it has the name of the class without a head, "BertModel", and makes vectors or scores alone
};

std::span<const Architecture* const> architectures();
// Throw std::runtime_error with a sentence: why it is not served, or the nearest name.
const Architecture& find_architecture(std::string_view name);
const Architecture& find_architecture_of_type(std::string_view model_type);

}  // namespace serval
