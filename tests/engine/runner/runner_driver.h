// The least that drives a ModelRunner: sequences with scattered blocks and hand-made steps. No scheduler.
#pragma once

#include <map>
#include <vector>

#include "engine/runner/model_runner.h"

namespace serval::testing {

// One output token with everything that was reported of it, comparable bit for bit.
struct Reported {
  TokenId token = -1;
  float logprob = 0;
  int rank = 0;
  std::vector<TokenId> top_tokens;
  std::vector<float> top_logprobs;
  bool operator==(const Reported&) const = default;
};

struct DrivenSeq {
  SlotId slot = -1;
  SamplingParams sampling;
  std::vector<TokenId> tokens;  // prompt, then output
  int num_prompt = 0;
  int computed = 0;
  bool admitted = false;
  int first_block[kMaxKvGroups] = {};
  std::vector<BlockId> blocks[kMaxKvGroups];
  int sent_blocks[kMaxKvGroups] = {};
  std::vector<Reported> output;
  std::vector<Reported> prompt;  // log-probabilities of prompt tokens 1..
  bool failed = false;
};

class RunnerDriver {
 public:
  explicit RunnerDriver(ModelRunner& runner, uint64_t block_seed = 1);

  SeqId add(std::vector<TokenId> prompt, const SamplingParams& sampling);
  // The sequence leaves; its blocks are free again unless `keep_blocks`.
  void finish(SeqId id, bool keep_blocks = false);

  struct Work {
    SeqId seq = 0;
    int num_tokens = 1;                // known tokens to compute; sampled when they are the last ones
    std::vector<TokenId> drafts = {};  // guesses behind them
    int mask = -1;
    std::vector<int32_t> parents = {};  // of the guesses, as Draft's; empty: a chain
  };
  // One execute() over all of `work`. Returns how many output tokens it gave.
  int step(const std::vector<Work>& work);
  // Steps one sequence alone, `chunk` tokens at a time, until it has `num_output` output tokens.
  void run(SeqId id, int num_output, int chunk = 1 << 20);

  DrivenSeq& seq(SeqId id) { return seqs_.at(id); }
  Batch& batch() { return batch_; }  // of the next step: masks and copies may be put there before it
  const ModelOutput& output() const { return output_; }
  BlockId take_block(int group);

 private:
  ModelRunner& runner_;
  std::map<SeqId, DrivenSeq> seqs_;
  SeqId next_id_ = 100;
  std::vector<SlotId> free_slots_;
  std::vector<BlockId> free_blocks_[kMaxKvGroups];
  Batch batch_;
  ModelOutput output_;
};

}  // namespace serval::testing
