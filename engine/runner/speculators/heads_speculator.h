// Guesses by heads (draft_heads.h): all of them from the hidden row that the target drew the last token from, so a guess costs
// a head and no forward.
#pragma once

#include <optional>
#include <vector>

#include "engine/runner/model_input.h"
#include "engine/runner/speculators/draft_heads.h"
#include "engine/runner/speculators/kept_rows.h"
#include "engine/runner/speculators/prefix_layer.h"
#include "engine/runner/speculators/speculator.h"

namespace serval {

class HeadsSpeculator : public Speculator {
 public:
  // prefix: what is before the heads, where they have that.
  HeadsSpeculator(const HeadsSpec& spec, std::vector<DraftHead> heads, std::unique_ptr<PrefixLayer> prefix);
  // Beside the heads and what is before them; steps: the target's.
  static size_t planned_bytes(const HeadsSpec& spec, const ModelSpec& target, const StepLimits& steps, const Backend& backend);

  DrafterKind kind() const override { return spec_.kind; }
  void start(const DraftHost& host) override;
  void admit(const Admission& newcomer) override {
    if (prefix_) prefix_->steps().admit(newcomer.slot);
  }
  void copy_kv(std::span<const GroupBlockCopy> copies) override {
    if (prefix_) prefix_->copy_kv(copies);
  }
  void keep(const Tensor& hidden) override { prefix_ ? prefix_->steps().keep(hidden) : kept_.keep({&hidden, 1}); }
  int lag(const DraftTask& task) const override { return prefix_ ? prefix_->steps().lag(task) : 0; }
  // A chain, a head a guess; with a width, beside each the head's next best.
  void propose(std::span<DraftTask> tasks) override;

 private:
  struct Drawing {
    DraftTask* task;
    int last;  // place of the chain's last guess
  };
  Tensor choose(std::span<DraftTask> tasks);
  void gather(const Tensor& from);
  void run(int number);
  Tensor input_of(int number);
  void draw(int num_before);
  void read_tokens(int part);

  const HeadsSpec spec_;
  const std::vector<DraftHead> heads_;
  const std::unique_ptr<PrefixLayer> prefix_;
  Backend* backend_ = nullptr;
  const SlotTable* slots_ = nullptr;
  const LinearWeight* embedding_ = nullptr;  // the target's
  float embedding_scale_ = 1;
  int vocab_ = 0;
  std::unique_ptr<StepContext> context_;
  std::optional<ModelInput> input_;
  Buffer memory_;
  KeptRows kept_;  // the last hidden rows, where nothing is before the heads
  // [parts * max_seqs, hidden]: the rows that draw, then the embeddings of the tokens behind them; all of a sequence beside
  // each other, where there are several.
  Tensor read_, paired_;
  Tensor h_[3];    // [max_seqs, hidden]: what layers make
  Tensor logits_;  // f32 [max_seqs, vocab]
  std::vector<Drawing> drawing_;
  std::vector<int32_t> rows_, tokens_;
  std::vector<SampleRow> params_;
  std::vector<SampleResult> results_;
  std::vector<TopLogprob> top_;
};

}  // namespace serval
