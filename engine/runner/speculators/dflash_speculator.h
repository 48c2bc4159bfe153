// Guesses by a DFlash drafter (dflash_model.h). Behind each step it writes the keys and values of the positions that the step
// computed; then one forward over a block, the last token and masks, makes all guesses of a sequence, a chain.
//
// Its keys and values stand where the target's do (model_speculator.h), those of a block in the rest of the sequence's last
// block and in blocks of the slot's own: what the steps after it write comes in their place.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "engine/runner/draft_plan.h"
#include "engine/runner/model_input.h"
#include "engine/runner/speculators/dflash_model.h"
#include "engine/runner/speculators/draft_kv.h"
#include "engine/runner/speculators/followed_steps.h"
#include "engine/runner/speculators/speculator.h"

namespace serval {

class DflashSpeculator : public Speculator {
 public:
  DflashSpeculator(const DraftPlan& plan, DflashSpec spec, DflashWeights weights);
  // The largest forward, with room for its lists of rows in the step context; and what is taken beside the weights, the keys
  // and values and that context. steps: the target's.
  static StepLimits limits_of(const DflashSpec& spec, const StepLimits& steps);
  static StepLimits context_limits(const DflashSpec& spec, const StepLimits& limits);
  static size_t planned_bytes(const DflashSpec& spec, const StepLimits& limits, const StepLimits& steps,
                              const BlockGeometry& geometry, const Backend& backend);

  DrafterKind kind() const override { return DrafterKind::kDflash; }
  void start(const DraftHost& host) override;
  void admit(const Admission& newcomer) override { steps_.admit(newcomer.slot); }
  void copy_kv(std::span<const GroupBlockCopy> copies) override { kv_->copy(copies); }
  void keep(const Tensor& hidden) override { steps_.keep(hidden); }
  int lag(const DraftTask& task) const override { return steps_.lag(task); }
  // With a width, beside each guess the next best of its place.
  void propose(std::span<DraftTask> tasks) override;

 private:
  struct Drawing {
    DraftTask* task;
    const Slot* slot;
    int first_row, num_masks;  // of its block: the row of the last token
    int last = -1;             // place of the chain's last guess
    bool is_over = false;
  };
  // One of the masks' rows, from which a guess is drawn.
  struct Place {
    int drawing, num_before;
  };

  void lay_out(std::span<DraftTask> tasks);
  void add_block(DraftTask& task);
  void draw(std::span<const Place> places);
  void begin(const ForwardInput& input);

  const DraftPlan plan_;
  struct Loaded {
    DflashSpec spec;
    DflashWeights weights;
  };
  std::unique_ptr<Loaded> loaded_;  // until start()
  std::optional<DflashModel> model_;
  std::optional<DraftKv> kv_;
  SlotTable* slots_ = nullptr;
  int vocab_ = 0, max_model_len_ = 0;
  std::unique_ptr<StepContext> context_;
  std::optional<ModelInput> input_;
  ForwardInput step_;  // as the drafter's layers read it
  FollowedSteps steps_;
  std::vector<Drawing> drawing_;
  std::vector<Place> places_;
  std::vector<ModelInput::Guess> block_;
  std::vector<int32_t> rows_;
  std::vector<SampleRow> params_;
  std::vector<SampleResult> results_;
  std::vector<TopLogprob> top_;
};

}  // namespace serval
