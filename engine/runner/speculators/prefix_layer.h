// The decoder layer of Hydra++ (Ankner et al. 2024, section 3.3), through which its heads read the target's last rows: like one of
// the target's, with a norm behind it and keys and values of its own, which stand where the target's do. It goes through every
// step behind the target.
#pragma once

#include <memory>
#include <optional>

#include "engine/runner/draft_plan.h"
#include "engine/runner/model_input.h"
#include "engine/runner/speculators/draft_kv.h"
#include "engine/runner/speculators/followed_steps.h"

namespace serval {

class PrefixLayer {
 public:
  PrefixLayer(const DraftPlan& plan, ModelSpec spec, ModelWeights weights);
  // The largest forward, with room for its list of rows in the step context; and what is taken beside the weights, the keys
  // and values and that context. steps: the target's.
  static StepLimits limits_of(const ModelSpec& spec, const StepLimits& steps);
  static StepLimits context_limits(const StepLimits& limits);
  static size_t planned_bytes(const ModelSpec& spec, const StepLimits& limits, const StepLimits& steps,
                              const BlockGeometry& geometry, const Backend& backend);

  // As Speculator's.
  void start(const DraftHost& host);
  void copy_kv(std::span<const GroupBlockCopy> copies) { kv_->copy(copies); }
  FollowedSteps& steps() { return steps_; }

  // What it makes of the rows that are followed since steps().begin(): [rows, hidden]. data null: none are.
  Tensor run();

 private:
  const DraftPlan plan_;
  struct Loaded {
    ModelSpec spec;
    ModelWeights weights;
  };
  std::unique_ptr<Loaded> loaded_;  // until start()
  Backend* backend_ = nullptr;
  SlotTable* slots_ = nullptr;
  std::optional<Transformer> layer_;
  std::optional<Workspace> ws_;
  std::optional<DraftKv> kv_;
  std::unique_ptr<StepContext> context_;
  std::optional<ModelInput> input_;
  ForwardInput step_;  // as the layer reads it
  FollowedSteps steps_;
};

}  // namespace serval
