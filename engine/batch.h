// The two values that cross between the brain and the muscle: a Batch goes down, a ModelOutput comes back.
// Both are plain values without a pointer in them, so they can be recorded, replayed, and one day sent to
// another rank. Their vectors are recycled.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/request.h"
#include "engine/stats.h"
#include "kernels/values.h"

namespace serval {

using SeqId = uint64_t;  // one decode stream of a request
using SlotId = int32_t;  // a running sequence's row in the runner's tables, 0..max_num_seqs-1
using BlockId = int32_t;

// In Batch::blocks: at that table index nothing is read any more.
inline constexpr BlockId kForgottenBlock = -1;
// In Batch::tokens: the token that this sequence's slot drew in the step before, which only the device knows
// yet. At most the last of a sequence's tokens. When that draw failed, any id of the vocabulary will do: the
// row's result is dropped.
inline constexpr TokenId kTokenOnDevice = -1;
inline constexpr int kMaxStepsInFlight = 2;  // one runs, the next waits behind it

// A guess of what follows a sequence's last token. Guesses of one sequence form a tree, parents first.
struct Draft {
  TokenId token = 0;
  int32_t parent = -1;  // which of the guesses it follows; -1: the last token itself
  DrafterKind by = DrafterKind::kNgram;  // who guessed
};
inline constexpr int kMaxDrafts = 64;  // of one sequence
inline constexpr int kMaxForced = 16;  // of them, behind each other, those that a form makes (MaskReady)

// Work for one sequence in one step: token i of `tokens` (a range of Batch::tokens) sits at position
// first_pos + i.
struct SeqStep {
  SeqId seq = 0;
  SlotId slot = 0;
  int32_t first_pos = 0;
  int32_t tokens_begin = 0;  // into Batch::tokens
  int32_t num_tokens = 0;
  int32_t num_drafts = 0;     // the last num_drafts of the tokens are guesses to verify
  int32_t parents_begin = 0;  // into Batch::parents, one for each guess
  bool sample = false;           // false for all but the last chunk of the known tokens
  bool prompt_logprobs = false;  // report log-probabilities of the prompt tokens that follow this step's rows
  int32_t mask = -1;  // first of its rows of Batch::masks, one for each sampled row; -1: unconstrained
  // Per KV group: the slot's block table from index first_block on is this range of Batch::blocks.
  int32_t first_block[kMaxKvGroups] = {};
  int32_t blocks_begin[kMaxKvGroups] = {};
  int32_t num_blocks[kMaxKvGroups] = {};
};

// A sequence that enters a slot (first time, or again after a preemption): everything the runner must know of
// it, sent once.
struct Admission {
  SeqId seq = 0;
  SlotId slot = 0;
  SamplingParams sampling;      // seed already that of this choice
  SpeculationParams speculation;
  std::vector<TokenId> prediction;
  Pooling pooling = Pooling::kNone;
  int32_t second_text = 0;  // Request::second_text
  std::vector<TokenId> tokens;  // all known tokens: prompt, then output so far
  int32_t num_prompt = 0;
  int32_t length_class = 0;  // of the request; the same whenever the sequence comes
  // Table index of the first block in the first SeqStep (a windowed group may skip).
  int32_t first_block[kMaxKvGroups] = {};
};

struct GroupBlockCopy {
  int32_t group = 0;
  BlockCopy copy;
};

struct Batch {
  uint64_t step = 0;
  std::vector<SeqStep> seqs;
  std::vector<TokenId> tokens;
  std::vector<int32_t> parents;  // Draft::parent of the guesses
  std::vector<BlockId> blocks;
  std::vector<Admission> admitted;  // only the first num_admitted are live: the rest keep their memory
  int32_t num_admitted = 0;
  std::vector<GroupBlockCopy> copies;  // to do before the forward, in order
  std::vector<SlotId> freed;  // slots whose sequences left since the last batch; may be reused in `admitted`
  std::vector<uint32_t> masks;  // [num masks, ceil(vocab / 32)]

  // Nothing for a runner to do or to know.
  bool empty() const { return seqs.empty() && num_admitted == 0; }
  void clear() {
    seqs.clear();
    tokens.clear();
    parents.clear();
    blocks.clear();
    num_admitted = 0;
    copies.clear();
    freed.clear();
    masks.clear();
  }
};

// One sampled token. A SeqStep that samples yields 1 + accepted drafts of them.
struct TokenOutput {
  TokenId token = -1;
  float logprob = 0;
  int32_t rank = 0;
  int32_t top_begin = 0;  // into ModelOutput::top
  int32_t num_top = 0;
};

struct SeqOutput {
  SeqId seq = 0;
  int32_t tokens_begin = 0;  // into ModelOutput::tokens
  int32_t num_tokens = 0;    // 0 when the step did not sample
  int32_t drafts_begin = 0;  // into ModelOutput::drafts: what may follow the last of the tokens
  int32_t num_drafts = 0;
  int32_t prompt_begin = 0;  // into ModelOutput::prompt_tokens: positions first_pos+1 .. of this step's rows
  int32_t num_prompt = 0;
  int32_t pooled_begin = 0;  // into ModelOutput::pooled, where the step ends a prompt that is pooled
  int32_t num_pooled = 0;
  // A NaN, or no finite logit: this sequence ends with kNumericalError, nobody else's does.
  bool failed = false;
};

struct ModelOutput {
  uint64_t step = 0;
  std::vector<SeqOutput> seqs;  // in the order of Batch::seqs
  std::vector<TokenOutput> tokens;
  std::vector<TokenOutput> prompt_tokens;
  std::vector<TopLogprob> top;
  std::vector<float> pooled;
  std::vector<Draft> drafts;
  DraftWork draft_work;  // of a model that guessed; a count for statistics, which is not recorded
  void clear() {
    seqs.clear();
    tokens.clear();
    pooled.clear();
    drafts.clear();
    draft_work = {};
    prompt_tokens.clear();
    top.clear();
  }
};

}  // namespace serval
