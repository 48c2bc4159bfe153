// The client's own guess of the output (OpenAI's "predicted outputs"): what comes next in it.
#pragma once

#include <vector>

#include "engine/runner/speculators/speculator.h"

namespace serval {

class PredictionSpeculator : public Speculator {
 public:
  static size_t planned_bytes(int num_slots, int max_model_len);

  DrafterKind kind() const override { return DrafterKind::kPrediction; }
  void start(const DraftHost& host) override;
  void start(int num_slots, int max_model_len);
  void admit(const Admission& newcomer) override;
  // A chain, as long as is wanted. While the output is what was predicted it goes on there; when it departs, from the
  // place where most of the last tokens stand, at least kLeastMatch of them, the next one behind where it departed first.
  void propose(std::span<DraftTask> tasks) override;

 private:
  static constexpr int kLeastMatch = 2, kLongestMatch = 16;
  struct Slot {
    int begin = 0, size = 0;  // of the prediction, in tokens_
    int next = 0;             // in it: what follows the output so far; its size: nothing
    int departed = 0;         // in it: where the output was last
    int num_output = 0;       // tokens of the output that were looked at
  };
  void follow(Slot& slot, std::span<const TokenId> output) const;

  std::vector<TokenId> tokens_;  // [slots, max_model_len]
  std::vector<Slot> slots_;
};

}  // namespace serval
