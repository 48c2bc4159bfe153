// config.json -> ModelSpec.
#pragma once

#include <filesystem>

#include "engine/model/model_spec.h"

namespace serval {

// By the row of architectures/ that the file names. Throws std::runtime_error with a sentence that names the
// file and the field: one that is missing or out of bounds, or one that nobody asked for and that is not
// known to change no output.
ModelSpec read_model_spec(const std::filesystem::path& model_dir);

// What a checkpoint has behind its last hidden rows. A decoder may be stored without the head that gives logits, to
// make vectors of texts ("Qwen3Model", or tensors without the prefix and the head), or with one that gives scores
// ("Qwen3ForSequenceClassification").
enum class ModelHead { kWords, kScores, kNone };
ModelHead read_model_head(const std::filesystem::path& model_dir);

}  // namespace serval
