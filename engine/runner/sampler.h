// From the hidden rows of a step to its ModelOutput: which rows need logits and why, the parameters each is
// sampled with, which drafts the draws confirm. Logits are computed and sampled a bounded number of rows at a
// time.
//
// Verifying drafts: the row of every draft is sampled as if its branch were the true text, each with the noise of
// the position behind it. A draw that equals a draft that follows makes that one's draw real; the first that equals
// none is the last real one. So the tokens are those that one step each would have drawn.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/batch.h"
#include "engine/model/transformer.h"
#include "engine/runner/guess_probabilities.h"
#include "engine/runner/slot_table.h"

namespace serval {

// The draw of the token that follows position `pos`, but for penalties' counts. mask: as SampleRow's.
SampleRow sampled_row(const Slot& slot, int pos, int vocab, const uint32_t* mask);

class Sampler {
 public:
  // max_rows: most rows of one step; any of them may need logits (prompt log-probabilities). max_branches: as
  // ModelInput's. guessed_by: how guesses were drawn; outlives this.
  Sampler(int max_rows, int max_seqs, int max_branches, const GuessProbabilities& guessed_by);

  static size_t planned_bytes(int max_rows, int max_seqs, int max_branches);

  // After transformer.forward() of this batch: begins the step's draws. all_logits: those of every row of the
  // step, when they are there already; the batch then samples every row. At most two steps may be begun and
  // not collected. Afterwards the batch is not needed.
  void begin(const Batch& batch, SlotTable& slots, const Tensor* all_logits, Transformer& transformer,
             Workspace& ws, StepContext& context);
  // Where a sequence is when its draws of a step are over.
  struct Drawn {
    SlotId slot;
    int32_t num_known;  // tokens, the drawn ones included; 0: none was drawn
    int32_t first_pos, end_computed;  // the known tokens that the step computed
    // The drafts that came true, in order: draft accepted()[i] is the token at position first_draft_pos + i.
    int32_t first_draft_pos, num_drafts;
    int32_t accepted_begin, num_accepted;
    int32_t drafts_begin, draws_begin;  // in the step
    int32_t first_row;                  // of the step: that of first_pos
  };
  // Its guesses, all of them, and what was drawn behind the last token and behind each.
  std::span<const Draft> tried(const Drawn& drawn) const;
  std::span<const SampleResult> draws(const Drawn& drawn) const;
  std::span<const int32_t> accepted(const Drawn& drawn) const {
    return std::span(accepted_).subspan(drawn.accepted_begin, drawn.num_accepted);
  }
  // Waits for the oldest step that was begun and fills `output`, in the order of its batch.seqs. Tells the
  // slot table the tokens that it did not know. Returns an entry for each of output.seqs, good until a step
  // begins.
  std::span<const Drawn> collect(SlotTable& slots, StepContext& context, ModelOutput& output);

 private:
  // What collect() must know of a sequence's step.
  struct Wanted {
    SeqId seq;
    SlotId slot;
    int32_t first_pos, next_pos;  // of the step's first row, and of the first drawn token
    int32_t num_prompt, num_sampled;
    int32_t first_sampled;  // row of the step
    int32_t first_draft, num_drafts;  // of Step::drafts
    bool is_pooled_whole;             // its prompt ends here, and is pooled: nothing is drawn
  };
  struct Step {
    uint64_t number = 0;
    std::vector<Wanted> seqs;
    std::vector<Draft> drafts;
    std::vector<TokenId> branch_tokens;  // of branches whose tokens do not stand together, for penalties
    std::vector<GuessRule> rules;        // of rows whose guesses decide with
    std::vector<int32_t> guesses;        // of those
    // Parallel: the rows that need logits, prompt rows of a sequence before its sampled ones.
    std::vector<int32_t> rows;
    std::vector<SampleRow> params;
    std::vector<CountedTokens> counted;  // for penalties, at most one a sequence
    std::vector<SampleResult> results;
    std::vector<TopLogprob> top;  // [rows, top_stride]
    int top_stride = 0;
    int ticket = -1;  // of the last draw; those before it are delivered
  };
  static std::span<const TokenId> branch_of(const Slot& slot, const Wanted& wanted, int draft, Step& step);
  void want_rows(const Batch& batch, SlotTable& slots, int vocab, Step& step) const;
  void let_guesses_decide(const Slot& slot, const Wanted& wanted, int draft, std::span<const TokenId> branch, bool is_constrained,
                          Step& step) const;
  static void draw(const Tensor* all_logits, Transformer& transformer, Workspace& ws, StepContext& context,
                   Step& step);
  static TokenOutput emit(const Step& step, int index, ModelOutput& output);

  const GuessProbabilities& guessed_by_;
  Step steps_[2];
  // Of the step collected last.
  std::vector<Drawn> drawn_;
  std::vector<int32_t> accepted_;
  int num_begun_ = 0, num_collected_ = 0;
};

}  // namespace serval
