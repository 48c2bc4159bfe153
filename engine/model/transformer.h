// The one forward pass that executes a ModelSpec on a Backend. Knows nothing of sequences, blocks or
// sampling: it is handed flat rows, the KV memory of each layer and a workspace. Engine thread only;
// forward() and logits() allocate nothing.
#pragma once

#include <span>
#include <vector>

#include "engine/model/model_spec.h"
#include "engine/model/weights.h"
#include "engine/model/workspace.h"
#include "kernels/backend.h"

namespace serval {

class Transformer {
 public:
  // max_positions: of the sequences there will be, at most spec.max_positions. The backend outlives the transformer.
  Transformer(ModelSpec spec, ModelWeights weights, int max_positions, Backend& backend);

  // Runs input's rows through every layer, writing their K and V into `kv` (one entry per layer). Leaves the
  // final-norm hidden rows in ws.h. 1 <= num_rows <= ws.max_rows(). The step has begun (StepContext::begin_step).
  void forward(const ForwardInput& input, std::span<const KvLayer> kv, Workspace& ws) {
    forward(input, kv, ws, spec_.num_layers());
  }
  // Through the first layers alone: what the final norm makes of them (early exit).
  void forward(const ForwardInput& input, std::span<const KvLayer> kv, Workspace& ws, int num_layers);

  // The two halves of that, for a layer that stands behind another model's: rows [ids.size(), hidden] of the embedding
  // into ws.residual (ws.x may be used); and ws.residual through the layers, where read_first, if it is there, is what the
  // first mixer reads in place of the residual's norm. Leaves what the final norm reads in ws.residual.
  void embed(std::span<const int32_t> ids, Workspace& ws);
  void run_layers(const ForwardInput& input, std::span<const KvLayer> kv, Workspace& ws, int num_layers,
                  const Tensor& read_first = {});
  // Of a model whose layers attend to another's rows beside their own: writes the keys and values that every layer makes of
  // `rows`, [rows, hidden], read as its mixer reads what is normalised.
  void write_keys(const Tensor& rows, const ForwardInput& input, std::span<const KvLayer> kv, Workspace& ws);
  // From now on each forward() puts what these layers read, before their norms, into `rows`, [layers, rows.dim(0) /
  // layers, hidden]: of each layer as many rows as the step has.
  void tap(std::vector<int> layers, const Tensor& rows);

  // Logits of some rows of the last forward: [rows.size(), vocab] f32 in ws.logits, valid until the next
  // call. At most ws.max_logit_rows() rows a call; more of them (prompt log-probabilities) take more calls.
  Tensor logits(std::span<const int32_t> rows, Workspace& ws);
  // Of every row of the last forward, at most ws.max_logit_rows() of them.
  Tensor all_logits(Workspace& ws);

  const ModelSpec& spec() const { return spec_; }
  const ModelWeights& weights() const { return weights_; }

  // The rotation tables: what the constructor allocates beside the weights it was given.
  static size_t planned_bytes(const ModelSpec& spec, int max_positions);
  // The limits of steps of this model: `sizes` says how many rows, sequences and positions there may be, and what the
  // model's own shapes ask for is filled in.
  static StepLimits step_limits(const ModelSpec& spec, StepLimits sizes);

 private:
  // What a part left in ws.x, made ready there to be added to the residual; returns it, or nothing where it has been
  // added.
  Tensor finish_part(const LayerSpec& layer, const NormSpec& post_norm, const NormWeights& weights, float scale,
                     Workspace& ws);
  // What a part reads: the residual, to which `pending` has been added, normalised.
  Tensor norm_before(const LayerSpec& layer, const NormSpec& norm, const NormWeights& weights, const Tensor& pending,
                     Workspace& ws);
  // h -> out, of layer l.
  void run_mixer(int l, const Tensor& h, const Tensor& out, const ForwardInput& in, std::span<const KvLayer> kv, Workspace& ws);
  // The table of one of spec_.ropes; nothing for kNoRope.
  Tensor rotation(int rope) const;
  // Logits of the rows of h, which are as many as the workspace's logits; ws.x may be used.
  Tensor run_head(const Tensor& h, Workspace& ws);

  ModelSpec spec_;
  ModelWeights weights_;
  Backend& backend_;
  Buffer rope_memory_;
  std::vector<int> tapped_;  // layers, ascending
  Tensor taps_;
  std::vector<float> output_scales_;  // of the layers
  std::vector<Tensor> cos_sin_;  // of each of spec_.ropes: [rows of all classes of lengths, rotary_dim] f32
};

}  // namespace serval
