// Medusa's heads (Cai et al. 2024, section 2.1): each reads the target's last hidden row at a position and says, in logits,
// which token stands a fixed number of positions behind the one that the target draws there. Files are those of
// FasterDecoding: medusa_lm_head.safetensors, of head K the layer K.0.linear.weight and .bias, x + SiLU(linear(x)), and
// K.1.weight for its logits (one layer, as all published ones have). Knows no sequence.
#pragma once

#include <filesystem>
#include <vector>

#include "engine/model/model_spec.h"
#include "kernels/backend.h"

namespace serval {

struct MedusaSpec {
  int num_heads = 0;
};

bool has_medusa(const std::filesystem::path& folder);
// From the names in the file: configurations in the wild say other numbers. Throws std::runtime_error with a sentence that
// names file and tensor, where these are not heads for a target of this shape.
MedusaSpec read_medusa_spec(const std::filesystem::path& folder, const ModelSpec& target);

struct MedusaHead {
  LinearWeight layer;   // [hidden, hidden], with a bias
  LinearWeight logits;  // [vocab, hidden]
};

std::vector<MedusaHead> load_medusa(const std::filesystem::path& folder, const MedusaSpec& spec, const ModelSpec& target,
                                    Backend& backend);
// What load_medusa() will hold: matrices of the target's type.
size_t planned_medusa_bytes(const MedusaSpec& spec, const ModelSpec& target, const Backend& backend);

}  // namespace serval
