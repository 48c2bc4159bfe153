// A block drafter in the manner of DFlash (Chen et al. 2026): a few layers that read the embeddings of the last token and of
// masks behind it, which all see each other, and as further keys and values in every layer what some of the target's layers made
// of each position before. One forward says a whole block: at each mask the token that stands there. Embedding and output
// head are the target's. Knows no sequence.
//
// Files are those of the published checkpoints (z-lab/*-DFlash-*), by the names of their tensors: fc.weight [hidden, rows read *
// hidden] over what dflash_config.target_layer_ids made, hidden_norm, layers.K.* as Qwen3's, norm. config.json is a Qwen3's with
// block_size (the last token and the masks) and dflash_config.mask_token_id.
#pragma once

#include <filesystem>
#include <vector>

#include "engine/model/transformer.h"
#include "engine/runner/speculators/kept_rows.h"

namespace serval {

struct DflashSpec {
  ModelSpec model;  // its layers, with the target's rows, numbers and tokens
  std::vector<int> read_layers;  // of the target, of which it has what they read
  int block_size = 0;
  TokenId mask = 0;
};

bool has_dflash(const std::filesystem::path& folder);
// Throws std::runtime_error with a sentence that names folder or field, where this is no such drafter for the target.
DflashSpec read_dflash_spec(const std::filesystem::path& folder, const ModelSpec& target);

struct DflashWeights {
  LinearWeight fc;
  NormWeights row_norm;  // [hidden]
  ModelWeights model;    // its layers and the last norm
};
DflashWeights load_dflash(const std::filesystem::path& folder, const DflashSpec& spec, Backend& backend);
// What load_dflash() will hold of the device's memory.
size_t planned_dflash_bytes(const DflashSpec& spec, const Backend& backend);

class DflashModel {
 public:
  // steps: the largest it is made for.
  DflashModel(DflashSpec spec, DflashWeights weights, const StepLimits& steps, Transformer& target, Backend& backend);
  // Beside the weights.
  static size_t planned_bytes(const DflashSpec& spec, const StepLimits& steps, const Backend& backend);
  // Rows of a step that its lists of rows need, beside those that it computes.
  static int lists_of_rows(const DflashSpec& spec) { return 3 + static_cast<int>(spec.read_layers.size()); }

  // Writes the keys and values of what the target computed: these rows of a step, which are the input's.
  void read(const Tensor& kept, const KeptRows& places, std::span<const int32_t> rows, const ForwardInput& input,
            std::span<const KvLayer> kv);
  // Blocks: input.token_ids are their tokens.
  void forward(const ForwardInput& input, std::span<const KvLayer> kv);
  // Of rows of the last forward(): [rows, tokens] f32.
  Tensor logits(std::span<const int32_t> rows) { return target_.logits(rows, ws_); }

  const DflashSpec& spec() const { return spec_; }

 private:
  const DflashSpec spec_;
  const LinearWeight fc_;
  const NormWeights row_norm_;
  Transformer& target_;
  Backend& backend_;
  Transformer layers_;
  Workspace ws_;
  Buffer memory_;
  Tensor paired_;  // [max_rows * rows read beside each other, hidden]
  std::vector<int32_t> order_;
};

}  // namespace serval
