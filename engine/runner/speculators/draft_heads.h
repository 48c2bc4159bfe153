// Heads that guess from the target's last hidden row at a position, each which token stands a fixed number of positions
// behind the one that the target draws there: Medusa's (Cai et al. 2024, section 2.1), none of which knows of another's
// guess, and Hydra's (Ankner et al. 2024, section 3), which read the tokens that were drawn and guessed so far beside the
// row. A head is layers, around(x) + SiLU(linear(x)), and logits. Knows no sequence.
//
// Files are those of the published checkpoints, as safetensors:
//  - Medusa (FasterDecoding): medusa_lm_head, of head K the layers K.0.linear, K.1.linear, ... and behind them the logits,
//    K.n.weight; a layer goes around itself
//  - Hydra (hydra_head_arch "mlp"): hydra_lm_head, of head K the layers hydra_mlp.K.0, ... and the logits hydra_lm_head.K;
//    its first layer reads K + 2 rows beside each other, the target's and those of the embedding, and goes around by a matrix of
//    its own, res_connection. Without that (grounded_heads false) they read what Medusa's do
//  - Hydra++ (hydra_head_arch "prefix-mlp"): the same, each name one further for what was left out in training (hydra_mlp.K.1, .3,
//    ..., hydra_lm_head.K.1); its heads read the rows that prefix_embeding_layer makes of the target's (prefix_layer.h)
#pragma once

#include <filesystem>
#include <optional>
#include <vector>

#include "engine/model/model_spec.h"
#include "engine/model/weights.h"
#include "engine/request.h"
#include "kernels/backend.h"

namespace serval {

struct HeadsSpec {
  DrafterKind kind = DrafterKind::kMedusa;
  int num_heads = 0;
  int num_layers = 1;           // of each head
  bool reads_tokens = false;    // the embeddings of tokens beside the row
  bool has_logits_bias = false;
  std::optional<ModelSpec> prefix;  // of one layer

  // Rows beside each other that head h reads.
  int num_read(int h) const { return reads_tokens ? h + 2 : 1; }
};

// Of which kind the folder's heads are, if it has any.
std::optional<DrafterKind> find_heads(const std::filesystem::path& folder);
// From the names in the file: configurations in the wild say other numbers. Throws std::runtime_error with a sentence that
// names file and tensor, where these are not heads for a target of this shape.
HeadsSpec read_heads_spec(DrafterKind kind, const std::filesystem::path& folder, const ModelSpec& target);

struct DraftHead {
  struct Layer {
    LinearWeight linear;  // [hidden, what it reads], with a bias
    LinearWeight around;  // the same; empty: what it reads is added as it is
  };
  std::vector<Layer> layers;
  LinearWeight logits;  // [vocab, hidden]
};

std::vector<DraftHead> load_heads(const std::filesystem::path& folder, const HeadsSpec& spec, const ModelSpec& target,
                                  Backend& backend);
// What load_heads() will hold: matrices of the target's type.
size_t planned_heads_bytes(const HeadsSpec& spec, const ModelSpec& target, const Backend& backend);

// The same of the layer that is before them.
ModelWeights load_prefix(const std::filesystem::path& folder, const HeadsSpec& spec, Backend& backend);
size_t planned_prefix_bytes(const HeadsSpec& spec, const Backend& backend);

}  // namespace serval
