// A model that guesses: a smaller one beside the target (Leviathan et al. 2023), or the target's own first layers
// (early exit, Elhoushi et al. 2024). It draws as the target would, with the noise of the same seed and positions, so
// that the two agree at any temperature as far as their logits do. For a request that takes its tokens unverified
// (Acceptance::kExit) it guesses as far as it is sure of them.
//
// Its keys and values stand under the same block ids as the target's, so the prefix cache, forks and preemption are
// its own without a word. A smaller model computes what each step has computed, one step behind, once it is known which
// guesses came true: it has nothing to take back. Where it was not followed for a while it catches up first, as many rows a step as it has. The target's layers need not: their keys and values are there. What
// lies behind the known tokens goes into the rest of the sequence's last block, and then into blocks of this drafter's
// own, which stand behind all that the scheduler knows of.
//
// Its chain may be guessed ahead of it by what followed its last tokens before, as the target's is by it (staged
// speculation: Spector & Re 2023): one forward then draws behind the chain's last token and behind each of those guesses, and
// a guess that was drawn makes the draw behind it one of the chain. So the chain is that of one forward a guess.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "engine/model/transformer.h"
#include "engine/runner/draft_plan.h"
#include "engine/runner/guess_probabilities.h"
#include "engine/runner/model_input.h"
#include "engine/runner/speculators/draft_kv.h"
#include "engine/runner/speculators/ngram_index.h"
#include "engine/runner/speculators/speculator.h"

namespace serval {

class ModelSpeculator : public Speculator {
 public:
  // A smaller model with its weights, planned beside the target.
  ModelSpeculator(const DraftPlan& plan, ModelSpec spec, ModelWeights weights);
  // The target's first layers, with its final norm and head.
  explicit ModelSpeculator(const DraftPlan& plan);
  // Of the host's memory, beside the input's.
  static size_t planned_table_bytes(int max_seqs, int rows_ahead, int max_model_len);

  DrafterKind kind() const override { return model_ ? DrafterKind::kDraft : DrafterKind::kSelf; }
  void start(const DraftHost& host) override;
  void admit(const Admission& newcomer) override;
  int lag(const DraftTask& task) const override;
  void copy_kv(std::span<const GroupBlockCopy> copies) override;
  // A chain, a forward for each of its guesses or for several, of all tasks together; with a width, beside each of its
  // guesses the model's next best.
  void propose(std::span<DraftTask> tasks) override;
  DraftWork work() const override { return work_; }

 private:
  // A task whose next guess is being drawn.
  struct Drawing {
    DraftTask* task = nullptr;
    int row = 0;          // of the forward: the last token's; behind it are those of what was guessed ahead
    int num_ahead = 0;
    int last = -1;        // place of the chain's last guess
    int num_chained = 0;  // of its guesses
  };
  void lay_out(std::span<DraftTask> tasks);
  void lay_out_next();
  int guess_ahead(const Drawing& drawing, int& left);
  void forward();
  void draw();
  void take(Drawing& drawing, size_t first, int stride);

  const DraftPlan plan_;
  // Of a smaller model, until start() makes it one.
  struct Model {
    ModelSpec spec;
    ModelWeights weights;
  };
  std::unique_ptr<Model> model_;
  std::optional<Transformer> own_transformer_;
  std::optional<DraftKv> own_kv_;

  Backend* backend_ = nullptr;
  Transformer* transformer_ = nullptr;
  SlotTable* slots_ = nullptr;
  GuessProbabilities* guessed_by_ = nullptr;
  std::span<const KvLayer> kv_;
  int vocab_ = 0;  // ids that both models have
  std::unique_ptr<StepContext> context_;
  std::optional<Workspace> workspace_;
  std::optional<ModelInput> input_;
  // By slot: the first position that is not computed. kFromTheStart: where the sequence's first step begins, as what
  // is before came from the cache.
  static constexpr int kFromTheStart = -1;
  std::vector<int> next_pos_;
  std::optional<NgramIndex> ahead_;  // of the known tokens
  DraftWork work_;
  Batch batch_;  // its sequences alone
  std::vector<Drawing> drawing_;
  std::vector<int32_t> rows_;
  std::vector<SampleRow> params_;
  std::vector<SampleResult> results_;
  std::vector<TopLogprob> top_;
};

}  // namespace serval
