// What the steps of one model need of a device beside its memory and ops (backend.h): places for the arrays of a
// step, scratch of the ops, what the device keeps of a step to repeat it, and the state of drawing tokens. Made by
// Backend::make_step_context for the largest steps there will be; a device can have several, one for each model on
// it. Knows nothing of requests.
//
// All calls are the engine thread's. begin_step() makes a context the one whose arrays and scratch the backend's ops
// use, until another one's begin_step(): the ops of a step come before the next step of any model on the device.
// Draws are the context's own, whichever step has begun meanwhile.
#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <span>

#include "kernels/sample.h"
#include "kernels/values.h"

namespace serval {

// The ragged rows of one step, for attention; one per KV group since each group has its own block tables.
// Sequence i owns rows [row_start[i], row_start[i+1]); its row j sits at position first_pos[i] + j and sees
// positions 0..own (the KV of this step's rows is already written). block_table[i * table_stride + p /
// block_size] holds position p; entries wholly before a windowed group's window are -1 and never read.
struct AttentionBatch {
  int num_seqs = 0;
  int num_rows = 0;
  const int32_t* row_start = nullptr;    // [num_seqs + 1]
  const int32_t* first_pos = nullptr;    // [num_seqs]
  const int32_t* block_table = nullptr;  // [num_seqs, table_stride]
  int table_stride = 0;
  // Trees of drafts. A row whose ancestors do not stand right before it is a sequence of its own, one branch of the
  // tree: what it reads at position tree_start + k is at the place of position tree_start + (the k-th set bit of
  // its mask), its ancestors' and its own. So it is read in the order in which it would be as plain text, with the
  // same bits. Mask 0: no branch. Null: there are none in this step.
  const uint64_t* tree_masks = nullptr;  // [num_seqs]
  const int32_t* tree_start = nullptr;   // [num_seqs]
  // Of a group that keeps states: KvGroupInput::slots. The last rows of a sequence may be drafts, at -1: they go on from the
  // state and leave it as it is behind the row before them. Null: there are none in this step.
  const int32_t* state_slots = nullptr;  // [num_rows]
};

// The block tables of one KV group: where this step's rows are written and what they may read.
struct KvGroupInput {
  // [num_rows]: block * block_size + offset, where a row's K and V go; -1: nowhere
  const int32_t* slots = nullptr;
  AttentionBatch attention;
};

// What one forward pass reads: flat arrays over the rows of a step. A plain view; the runner owns the memory.
struct ForwardInput {
  // [num_rows], each in [0, vocab), or -1 - s for the token that was drawn last for slot s
  std::span<const int32_t> token_ids;
  // [num_rows]: rows of the tables by position, behind those for shorter sequences where the model tells them apart
  std::span<const int32_t> positions;
  // [num_rows]: of which of a prompt's texts, from 0; empty: the model does not ask
  std::span<const int32_t> token_types = {};
  // [num_rows], of the same tables: of each row as a query of far keys, and as such a key (AttentionArgs::far_q); empty:
  // there are none
  std::span<const int32_t> far_queries = {}, far_keys = {};
  KvGroupInput groups[kMaxKvGroups];   // the first ModelSpec::kv_groups.size() are read

  int num_rows() const { return static_cast<int>(token_ids.size()); }
};

// Ops, or forms of one, that a device may have no kernel for. A part raises those that it calls; a model is refused before
// it is loaded where Backend::has() says no.
enum class RareOp : uint8_t {
  kLinearScan, kHeadLinear, kNarrowValues, kStreams, kGatedScan, kFarQueries, kChosenKeys, kMeanScan, kKeptRows, kMixedResiduals,
  kTokenExperts, kHeadScan, kReplacingScan, kSeesAhead
};
inline constexpr const char* kRareOpNames[] = {"the scan of matrix states (linear_scan)",
                                               "a product for each head (head_linear)",
                                               "attention to values that are narrower than keys",
                                               "updates of several residuals in turn (mix_streams)",
                                               "the scan of gated units (gated_scan)",
                                               "attention with a second query for far keys (far_q)",
                                               "attention to keys that an index chooses (choose_keys)",
                                               "the scan of weighted means (mean_scan)",
                                               "attention to compressed keys (attend_rows)",
                                               "residuals that each part mixes (expand_residuals)",
                                               "experts that tokens are given by a table",
                                               "a selective scan of heads (selective_scan)",
                                               "the scan that replaces what states hold of a key (replacing_scan)",
                                               "attention of rows to those behind them"};
using RareOps = std::bitset<std::size(kRareOpNames)>;

// The largest calls that will be made in the steps of one model.
struct StepLimits {
  int max_rows = 0;        // of a step
  int max_logit_rows = 0;  // of one sample()
  int max_seqs = 0;        // of a step, and slots
  int max_branches = 0;    // sequences of a step's attention beside them
  int max_model_len = 0;
  int table_stride = 0;  // entries of a sequence's block table
  int num_heads = 0, num_kv_heads = 0, head_dim = 0;
  int64_t max_k = 0;  // columns of a weight
  int64_t vocab = 0;  // logits of a row
  int num_kv_groups = 1;
  int windows[kMaxKvGroups] = {};
  // Of choose_keys(): heads times dim; what is chosen for each row, and the fewest positions of a block.
  int64_t index_size = 0;
  int key_choices = 0, choice_block = 0;
  RareOps rare_ops;  // that are called

  void need(RareOp op) { rare_ops.set(static_cast<size_t>(op)); }
};

class StepContext {
 public:
  virtual ~StepContext() = default;  // before its backend

  // Of the device's memory: what Backend::step_context_bytes() said.
  virtual size_t bytes() const = 0;

  // A step begins: the arrays of `input` are what its ops will be given, and are not read after this returns.
  virtual void begin_step(const ForwardInput& input) = 0;

  // Rows that a step of num_rows sampled rows should have for run_captured; the runner adds empty ones (slot -1).
  virtual int padded_rows(int num_rows) const { return num_rows; }
  // A device may keep what a body does and repeat that. At start-up capture() hands it the body for each number of
  // rows that it names, which has run once plainly before; run_captured() is then given the same body, which calls
  // the same ops with the same memory each time.
  virtual std::span<const int> captured_rows() const { return {}; }
  virtual void capture(int /*num_rows*/, const std::function<void()>& /*body*/) {}
  virtual void run_captured(int /*num_rows*/, const std::function<void()>& body) { body(); }

  // Begins to draw; the returned ticket's results and top are filled when wait_sampled(ticket) returns, if not before. At
  // most kMaxTickets tickets may be open. What the args point to may be reused at once, but for those two.
  virtual int sample(const SampleArgs& args) = 0;
  virtual void wait_sampled(int ticket) = 0;
  static constexpr int kMaxTickets = 4;
};

}  // namespace serval
