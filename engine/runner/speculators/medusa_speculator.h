// Guesses by Medusa's heads (medusa_heads.h): all of them from the hidden row that the target drew the last token from, so a
// guess costs a head and no forward, and none knows of the one before it.
#pragma once

#include <optional>
#include <vector>

#include "engine/runner/model_input.h"
#include "engine/runner/speculators/kept_rows.h"
#include "engine/runner/speculators/medusa_heads.h"
#include "engine/runner/speculators/speculator.h"

namespace serval {

class MedusaSpeculator : public Speculator {
 public:
  explicit MedusaSpeculator(std::vector<MedusaHead> heads);
  // Beside the heads; steps: the target's.
  static size_t planned_bytes(const ModelSpec& target, const StepLimits& steps, const Backend& backend);

  DrafterKind kind() const override { return DrafterKind::kMedusa; }
  void start(const DraftHost& host) override;
  void keep(const Tensor& hidden) override { kept_.keep({&hidden, 1}); }
  // A chain, a head a guess; with a width, beside each the head's next best.
  void propose(std::span<DraftTask> tasks) override;

 private:
  struct Drawing {
    DraftTask* task;
    int last;  // place of the chain's last guess
  };
  static StepLimits limits_of(const ModelSpec& target, const StepLimits& steps);
  void gather(std::span<DraftTask> tasks, const Tensor& kept);
  void run(const MedusaHead& head, int num_before);

  const std::vector<MedusaHead> heads_;
  Backend* backend_ = nullptr;
  const SlotTable* slots_ = nullptr;
  int vocab_ = 0;
  std::unique_ptr<StepContext> context_;
  std::optional<ModelInput> input_;
  Buffer memory_;
  KeptRows kept_;  // the last hidden rows
  Tensor x_, h_;     // [max_seqs, hidden]: the rows that draw, and a head's
  Tensor logits_;    // f32 [max_seqs, vocab]
  std::vector<Drawing> drawing_;
  std::vector<int32_t> rows_;
  std::vector<SampleRow> params_;
  std::vector<SampleResult> results_;
  std::vector<TopLogprob> top_;
};

}  // namespace serval
