// Prompt lookup (Saxena 2023): what followed the last tokens when they stood in the prompt or output before.
#pragma once

#include "engine/runner/speculators/ngram_index.h"
#include "engine/runner/speculators/speculator.h"

namespace serval {

class NgramSpeculator : public Speculator {
 public:
  static size_t planned_bytes(int num_slots, int max_model_len) { return NgramIndex::planned_bytes(num_slots, max_model_len); }

  DrafterKind kind() const override { return DrafterKind::kNgram; }
  void start(const DraftHost& host) override;
  void start(int num_slots, int max_model_len) { index_.start(num_slots, max_model_len); }
  void admit(const Admission& newcomer) override { index_.clear(newcomer.slot); }
  // A chain.
  void propose(std::span<DraftTask> tasks) override;

 private:
  NgramIndex index_;
};

}  // namespace serval
