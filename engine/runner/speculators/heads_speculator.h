// Guesses by heads (draft_heads.h): all of them from the hidden row that the target drew the last token from, so a guess costs
// a head and no forward.
#pragma once

#include <optional>
#include <vector>

#include "engine/runner/model_input.h"
#include "engine/runner/speculators/draft_heads.h"
#include "engine/runner/speculators/kept_rows.h"
#include "engine/runner/speculators/speculator.h"

namespace serval {

class HeadsSpeculator : public Speculator {
 public:
  HeadsSpeculator(const HeadsSpec& spec, std::vector<DraftHead> heads);
  // Beside the heads; steps: the target's.
  static size_t planned_bytes(const HeadsSpec& spec, const ModelSpec& target, const StepLimits& steps, const Backend& backend);

  DrafterKind kind() const override { return spec_.kind; }
  void start(const DraftHost& host) override;
  void keep(const Tensor& hidden) override { kept_.keep({&hidden, 1}); }
  // A chain, a head a guess; with a width, beside each the head's next best.
  void propose(std::span<DraftTask> tasks) override;

 private:
  struct Drawing {
    DraftTask* task;
    int last;  // place of the chain's last guess
  };
  void gather(std::span<DraftTask> tasks, const Tensor& kept);
  void run(int number);
  Tensor input_of(int number);
  void draw(int num_before);
  void read_tokens(int part);

  const HeadsSpec spec_;
  const std::vector<DraftHead> heads_;
  Backend* backend_ = nullptr;
  const SlotTable* slots_ = nullptr;
  const LinearWeight* embedding_ = nullptr;  // the target's
  float embedding_scale_ = 1;
  int vocab_ = 0;
  std::unique_ptr<StepContext> context_;
  std::optional<ModelInput> input_;
  Buffer memory_;
  KeptRows kept_;  // the last hidden rows
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
