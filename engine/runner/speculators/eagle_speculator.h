// Guesses by an EAGLE head (eagle_head.h). Behind each step it computes the positions that the step did, with the token that
// is now known to follow each; then it goes on from what it made itself, one forward a level of the tree.
//
// Of several layers each goes through the step too, behind the one before it, whose rows it reads: layer k (from 0) has at a
// position the token that stands k + 1 further on, so of each sequence it is k positions behind the step, and the first of
// its rows reads what the layer before made of the last position that it was sure of, in an earlier step. Behind these stand
// the rows whose tokens are guesses, which the next step computes again. From the last layer on it is as of one. Their trees are a
// chain, with the next best beside each of its guesses.
//
// Trees are those of EAGLE-2 (Li et al. 2024, section 4): of each level the best `width` guesses are gone on from, best by the
// product of their confidences from the root; of all that were made the best are verified. Guesses of one level beside
// each other are the tokens that would be drawn first with the noise of the target's own draw, so that a tree is of use
// at any temperature.
//
// Its keys and values stand where the target's do (model_speculator.h); at a position is what was made of it and the token
// behind, so the last of what the prefix cache gives may be that of another token: that costs guesses, no bits.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "engine/runner/draft_plan.h"
#include "engine/runner/model_input.h"
#include "engine/runner/speculators/draft_kv.h"
#include "engine/runner/speculators/eagle_head.h"
#include "engine/runner/speculators/followed_steps.h"
#include "engine/runner/speculators/speculator.h"

namespace serval {

class EagleSpeculator : public Speculator {
 public:
  // most: guesses of one sequence, of which `width` beside each other.
  EagleSpeculator(const DraftPlan& plan, EagleSpec spec, EagleWeights weights, int most, int width);
  // The largest forward; and what is taken beside the weights, the keys and values and the step context.
  static StepLimits limits_of(const EagleSpec& spec, const StepLimits& steps, int width);
  static size_t planned_bytes(const EagleSpec& spec, const StepLimits& limits, const StepLimits& steps, int most, int width,
                              const BlockGeometry& geometry, const Backend& backend);

  DrafterKind kind() const override { return DrafterKind::kEagle; }
  void start(const DraftHost& host) override;
  void admit(const Admission& newcomer) override {
    steps_.admit(newcomer.slot);
    num_before_[newcomer.slot] = 0;
  }
  void copy_kv(std::span<const GroupBlockCopy> copies) override { kv_->copy(copies); }
  void keep(const Tensor& hidden) override { steps_.keep(hidden); }
  int lag(const DraftTask& task) const override { return steps_.lag(task); }
  void propose(std::span<DraftTask> tasks) override;

 private:
  struct Candidate {
    TokenId token;
    int32_t parent;   // of the same task's; -1: the last token
    int32_t made_by;  // of nodes_, while its level is the last
    float score;         // logarithm of its confidence times those before it
  };
  // A sequence that is followed, as the last forward had it.
  struct Followed {
    SeqId seq;
    SlotId slot;
    int first, end;                  // positions of the step
    int begin, num_rows, first_row;  // of the forward: its first position, its rows
  };
  // A task whose tree grows.
  struct Growing {
    DraftTask* task;
    const Slot* slot;
    int followed;               // of followed_
    int first = 0, count = 0, level_begin = 0;  // of candidates_; level_begin: from the first on
    int width = 1, levels = 0;
    int num_places = 0, most_places = 0;  // of those that were gone on from
  };
  // One of the rows that are gone on from: the last known one, or a candidate's.
  struct Node {
    int growing, candidate;
    int32_t row;  // of the forward that made it
    uint64_t mask;
  };

  void lay_out(std::span<DraftTask> tasks);
  void lay_out_layer(int layer);
  void forward(int layer);
  // Levels of which each has a layer to itself, beyond the first.
  int num_further() const { return num_layers_ - 1; }
  int num_gone_on(const Growing& growing) const { return num_further() > 0 ? 1 : growing.width; }
  void add_candidates(int level);
  void choose_nodes(int level);
  void begin(const ForwardInput& input);
  void take_best(Growing& growing);
  size_t rank(const Growing& growing, int num_before, std::span<TopLogprob> top) const;

  // Reported beyond those that are wanted: noise may bring them up.
  static constexpr int kMoreReported = 6;

  const DraftPlan plan_;
  const int most_, width_, num_layers_;
  struct Loaded {
    EagleSpec spec;
    EagleWeights weights;
  };
  std::unique_ptr<Loaded> loaded_;  // until start()
  std::optional<EagleHead> head_;
  std::optional<DraftKv> kv_;
  SlotTable* slots_ = nullptr;
  int vocab_ = 0;  // of the head's logits
  int max_model_len_ = 0;
  std::unique_ptr<StepContext> context_;
  std::optional<ModelInput> input_;
  ForwardInput step_;  // as the head's layer reads it
  FollowedSteps steps_;
  std::vector<int> num_before_;  // by slot: the positions that were followed before the step, up to num_further()
  std::vector<Followed> followed_;
  Batch layer_batch_;  // its sequences alone
  std::vector<int32_t> rows_, aside_rows_;
  std::vector<SlotId> aside_slots_;  // of aside_rows_
  std::vector<Growing> growing_;
  std::vector<Node> nodes_, next_nodes_;
  std::vector<Candidate> candidates_;
  std::vector<int32_t> order_;
  std::vector<ModelInput::Guess> guesses_;
  std::vector<SampleRow> params_;
  std::vector<SampleResult> results_;
  std::vector<TopLogprob> top_;
};

}  // namespace serval
