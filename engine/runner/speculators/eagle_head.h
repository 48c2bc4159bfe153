// EAGLE's head (Li et al. 2024, section 3; EAGLE-3: Li et al. 2025, section 3): one decoder layer that reads, at each position,
// what the target made of it and the embedding of the token behind it, and says in logits what follows that token. Behind
// the rows that the target has computed it reads those that it made itself. Knows no sequence.
//
// Files are those of the published checkpoints, by the names of their tensors:
//  - EAGLE-1 and -2: fc.weight [hidden, 2 hidden], layers.0.*, a Llama layer without a norm before attention; embedding and
//    output head are the target's (embed_tokens.weight, where it is repeated, is not read)
//  - EAGLE-3: fc.weight [hidden, 3 hidden] over what three of the target's layers read, midlayer.*, in which attention reads
//    the normalised embedding beside the normalised row, norm, lm_head over fewer tokens; d2t: what is added to such an id to
//    have the target's
//  - the layers that DeepSeek V3 and its kin predict further tokens with (MTP; DeepSeek-AI 2024, section 2.2), behind those
//    of the model in its own folder: eh_proj over both, normalised by enorm and hnorm; shared_head.norm before the target's
//    output head. Of several each reads the rows that the one before it made, and of every row the token that stands one
//    further on: layer k makes guess k, and the last one those behind
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "engine/batch.h"
#include "engine/model/transformer.h"
#include "engine/runner/speculators/kept_rows.h"

namespace serval {

struct EagleSpec {
  // Its layers, which are alike, as a model of them: with the target's rows and numbers; its tokens are those of its own
  // output head where it has one. More than one only of those that predict further tokens.
  ModelSpec model;
  // Attention reads the embedding beside the row, and the row goes round it; else fc makes one row of the two.
  bool reads_beside = false;
  bool has_fc_bias = false;
  bool goes_on_normed = false;  // its own rows are read behind the norm before the output head, as the target's are
  bool has_own_head = false;
  bool has_own_ids = false;         // d2t
  NormSpec embedding_norm, row_norm;  // of the two
  // The target's layers of which it has what they read, through fc; none: it has what the target's output head reads.
  std::vector<int> read_layers;
  struct Names {
    std::string fc, layer, embedding_norm, row_norm, norm, head;  // layer: with the point
  };
  std::vector<Names> names;  // of each layer, and what stands around it
  // Parts of the names of tensors that the folder has and the head does not need.
  std::vector<std::string_view> ignored;

  int num_layers() const { return model.num_layers(); }
  int num_read() const { return read_layers.empty() ? 1 : static_cast<int>(read_layers.size()); }
};

// Whether the folder holds a head that stands by itself.
bool has_eagle(const std::filesystem::path& folder);
// Whether it has layers that predict further tokens (MTP), as wide as the target.
bool has_mtp(const std::filesystem::path& folder, const ModelSpec& target);
// From the folder's config.json and the names in its file; of layers that predict further tokens no more than there are
// guesses, `most`. Throws std::runtime_error with a sentence where this is no head for the target.
EagleSpec read_eagle_spec(const std::filesystem::path& folder, const ModelSpec& target, int most = kMaxDrafts);

struct EagleWeights {
  struct Layer {
    LinearWeight fc;
    NormWeights embedding_norm, row_norm;  // [hidden]
    ModelWeights model;                    // the layer, the norm before the output head, and that head
  };
  std::vector<Layer> layers;
  std::vector<int32_t> own_ids;  // of its own head's tokens the target's
};
EagleWeights load_eagle(const std::filesystem::path& folder, const EagleSpec& spec, int vocab, Backend& backend);
// What load_eagle() will hold of the device's memory.
size_t planned_eagle_bytes(const EagleSpec& spec, const Backend& backend);

class EagleHead {
 public:
  EagleHead(EagleSpec spec, EagleWeights weights, const StepLimits& steps, Transformer& target, Backend& backend);
  // Beside the weights; steps: the largest it is made for.
  static size_t planned_bytes(const EagleSpec& spec, const StepLimits& steps, const Backend& backend);
  // Rows of a step that its lists of rows need, beside those that it computes.
  static constexpr int kListsOfRows = 6;

  // Takes the rows that a forward() reads: of what the target computed in a step; or of those of the last forward() itself,
  // where kSetAside - slot is the one that was set aside of that layer.
  void read(const Tensor& kept, const KeptRows& places, std::span<const int32_t> rows);
  void read_own(std::span<const int32_t> rows);
  static constexpr int32_t kSetAside = -1;
  // Of a layer; input.token_ids are those of the tokens behind the rows, one further on with each layer.
  void forward(int layer, const ForwardInput& input, std::span<const KvLayer> kv);
  // Keeps rows of the last forward(), one for each of these slots, until the next ones of the same layer and slot.
  void set_aside(std::span<const int32_t> rows, std::span<const SlotId> slots);
  // Of rows of the last forward(): [rows, tokens] f32.
  Tensor logits(std::span<const int32_t> rows);
  int num_logits() const { return spec_.model.vocab_size; }
  TokenId token_of(int32_t id) const { return own_ids_.empty() ? id : own_ids_[id]; }

 private:
  Tensor part_of(const Tensor& memory, int64_t first_row, int64_t rows, int times = 1) const;
  void put(const NormSpec& norm, const NormWeights& weights, const Tensor& from, const Tensor& to);

  const Tensor& own_rows() const { return spec_.goes_on_normed ? ws_.h : ws_.residual; }
  // Rows that are set aside: all of them but the last layer's.
  static int64_t num_aside(const EagleSpec& spec, const StepLimits& steps) {
    return int64_t{spec.num_layers() - 1} * steps.max_seqs;
  }

  const EagleSpec spec_;
  const int max_seqs_;
  std::vector<EagleWeights::Layer> weights_;  // but for what layers_ took
  const std::vector<int32_t> own_ids_;
  Transformer& target_;
  Backend& backend_;
  std::vector<Transformer> layers_;  // of one layer each
  Workspace ws_;
  Buffer memory_;
  Tensor rows_;             // [max_rows, hidden]
  Tensor stacked_, paired_;  // [max_rows * 2, hidden]; [max_rows * most read beside each other, hidden]
  Tensor aside_;             // [(layers - 1) * max_seqs, hidden]
  int num_rows_ = 0, last_layer_ = 0;
  std::vector<int32_t> order_;
};

}  // namespace serval
