#include "engine/runner/speculators/make_drafters.h"

#include <stdexcept>

#include "engine/runner/speculators/ngram_speculator.h"
#include "engine/runner/speculators/prediction_speculator.h"

namespace serval {

uint32_t drafters_of(const std::string& speculation) {
  if (speculation == "off") return 0;
  return drafter_bit(DrafterKind::kPrediction) | drafter_bit(DrafterKind::kNgram);
}

Drafters make_drafters(const EngineConfig& config) {
  Drafters drafters{.max_tokens = config.scheduler.num_draft_tokens, .max_width = config.draft_width};
  if (config.speculation == "off") return drafters;
  if (config.speculation != "ngram")
    throw std::runtime_error("speculation is '" + config.speculation + "'; it takes off or ngram");
  drafters.speculators.push_back(std::make_unique<PredictionSpeculator>());
  drafters.speculators.push_back(std::make_unique<NgramSpeculator>());
  return drafters;
}

size_t planned_draft_bytes(const EngineConfig& config) {
  const SchedulerConfig& s = config.scheduler;
  if (config.speculation == "off") return 0;
  return Drafting::planned_bytes(s.max_num_seqs) + PredictionSpeculator::planned_bytes(s.max_num_seqs, s.max_model_len) +
         NgramSpeculator::planned_bytes(s.max_num_seqs, s.max_model_len);
}

}  // namespace serval
