// What a model folder says of generation: generation_config.json, and the ids that config.json holds.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

namespace serval {

// Defaults a request starts from when it leaves a field out.
struct GenerationDefaults {
  std::optional<float> temperature, top_p, min_p, repetition_penalty;
  std::optional<int> top_k;
  std::vector<int32_t> eos_token_ids;  // generation_config.json, else config.json
  int32_t bos_token_id = -1;
};

// Numbers outside of the ranges a request is held to (sampling_ranges.h) are moved to the nearest end, ids
// from vocab_size on left out, each with a line in the log. Throws std::runtime_error with a sentence that
// names the file and the field.
GenerationDefaults read_generation_defaults(const std::filesystem::path& model_dir, int vocab_size);

}  // namespace serval
