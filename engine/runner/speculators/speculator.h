// Who guesses what follows a sequence's last token. Knows nothing of verification: the target draws its own tokens,
// and a guess that is wrong costs a row and no more (Leviathan et al. 2023, with draws keyed by position, so that
// the tokens are the same with and without). Engine thread only; nothing but start() allocates.
#pragma once

#include <array>
#include <span>

#include "engine/batch.h"
#include "kernels/base/check.h"
#include "kernels/sample.h"
#include "kernels/tensor.h"

namespace serval {

struct DraftHost;

// Where a sequence stands when a step of it is over, and what is guessed to follow.
struct DraftTask {
  SeqId seq = 0;
  SlotId slot = 0;
  // Prompt and output: what was computed of them, and the token that was drawn behind that, if one was.
  std::span<const TokenId> known;
  int num_prompt = 0;
  // The positions that the step computed and that stay: of the first of known, but for those before.
  int first_computed = 0, num_computed = 0;
  // The step's row of the first of them; and which of the guesses came true, in order: the last of those positions.
  int first_row = 0;
  std::span<const int32_t> accepted;
  // The guesses that the step verified, and what it drew behind the last token and behind each of them.
  std::span<const Draft> tried;
  std::span<const SampleResult> draws;
  // Whether guesses are wanted of this drafter now, or soon: who keeps something of a sequence need not for others.
  bool is_followed = true;
  // How many guesses are wanted, how many of them behind each other, and beside each other. 0: none.
  int most = 0, depth = 0, width = 1;
  // A tree, parents first.
  std::array<Draft, kMaxDrafts> drafts;
  int num_drafts = 0;

  // The step's row of the i-th position that it computed, and that from which the last token was drawn.
  int row_of(int i) const {
    const int num_plain = num_computed - static_cast<int>(accepted.size());
    return first_row + (i < num_plain ? i : num_plain + accepted[i - num_plain]);
  }
  int last_row() const { return row_of(num_computed - 1); }
  bool wants_more() const { return num_drafts < most; }
  // Returns its place.
  int add(TokenId token, int parent, DrafterKind by) {
    SERVAL_CHECK(wants_more() && parent < num_drafts, num_drafts, most, parent);
    drafts[num_drafts] = {token, parent, by};
    return num_drafts++;
  }
};

class Speculator {
 public:
  virtual ~Speculator() = default;
  virtual DrafterKind kind() const = 0;
  // Before all else, once: takes the memory that was planned for it.
  virtual void start(const DraftHost& /*host*/) {}
  // A sequence enters a slot. Its first task comes later.
  virtual void admit(const Admission& /*newcomer*/) {}
  // Blocks are copied before a step reads them.
  virtual void copy_kv(std::span<const GroupBlockCopy> /*copies*/) {}
  // A step was begun: its hidden rows behind the final norm, [rows, hidden]; data null: it has none. Each step's task comes
  // later, in their order.
  virtual void keep(const Tensor& /*hidden*/) {}
  // Rows that it would have to compute for a task before it could guess, beyond those of the step itself.
  virtual int lag(const DraftTask& /*task*/) const { return 0; }
  // Guesses for each task that wants more than it has; where there is nothing to go by, none. Each sequence has a
  // task for each of its steps, in their order, wanted or not. A function of what it was told, so that a recorded
  // day is that of any run.
  virtual void propose(std::span<DraftTask> tasks) = 0;
  // Of the last propose().
  virtual DraftWork work() const { return {}; }
};

}  // namespace serval
