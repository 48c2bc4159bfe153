#include "kernels/cpu/step_context.h"

#include <algorithm>

#include "kernels/attention_split.h"
#include "kernels/base/check.h"

namespace serval::cpu {
namespace {

// Of a tree of 64 drafts, from the block on that it begins in: in blocks of 256 it touches two.
constexpr size_t kMaxTailPositions = 512;

// The sizes of everything there is, so that what is planned is what is taken.
struct Sizes {
  size_t packed_rows, tasks, attend_floats, attend, partials, pending, branch_tail, branch_tails;
  size_t choice_bits, index_floats, index, index_scores;
  int split_slots, slot_floats;

  Sizes(const StepLimits& limits, int num_threads) {
    packed_rows = limits.max_rows * std::max(padded_k(limits.max_k, kLargestKMultiple) * sizeof(float), packed_dot_row_bytes(limits.max_k));
    const bool has_attention = limits.num_heads > 0;
    attend_floats = has_attention ? cpu::attend_floats(limits.num_heads, limits.head_dim) : 0;
    attend = num_threads * attend_floats * sizeof(float);
    // One thread splits nothing. More have room to split two sequences of any length, and as many as give each
    // thread enough to do.
    constexpr int kSlotsPerThread = 16;
    split_slots = num_threads == 1 || !has_attention
                      ? 0
                      : std::max(2 * tiles_of(limits.max_model_len, kChunk), kSlotsPerThread * num_threads);
    tasks = has_attention ? AttentionTasks::bytes(limits.max_rows, split_slots) : 0;
    slot_floats = limits.num_heads * (limits.head_dim + kPartialExtra);
    partials = size_t{1} * split_slots * slot_floats * sizeof(float);
    // A branch begins anywhere in a block.
    branch_tail = limits.max_branches > 0 ? 2 * kMaxTailPositions * limits.head_dim * sizeof(float) : 0;
    branch_tails = num_threads * branch_tail;
    pending = size_t{1} * (split_slots / 2) * limits.num_heads * sizeof(int32_t);
    const bool chooses = limits.key_choices > 0;
    choice_bits = chooses ? size_t{sizeof(uint64_t)} * limits.max_rows * limits.key_choices *
                                tiles_of(tiles_of(limits.max_model_len, limits.choice_block), 64)
                          : 0;
    index_floats = chooses ? limits.index_size + 8 * kTile : 0;
    index = num_threads * index_floats * sizeof(float);
    index_scores = size_t{sizeof(float)} * num_threads * limits.key_choices * limits.max_model_len;
  }
};

}  // namespace

size_t attend_floats(int num_heads, int head_dim) {
  const size_t vectors = std::max(kTaskVectors, num_heads);
  constexpr size_t kLineFloats = 16;
  return (2 * (vectors + kTile) * (head_dim + 4) + kLineFloats) / kLineFloats * kLineFloats;
}

size_t CpuStepContext::planned_bytes(const StepLimits& limits, int num_threads) {
  const Sizes sizes(limits, num_threads);
  return sizes.packed_rows + sizes.attend + sizes.partials + sizes.pending + sizes.branch_tails +
         sizes.tasks + sizes.choice_bits + sizes.index + sizes.index_scores +
         SampleScratch::bytes(num_threads, limits.vocab, limits.max_seqs) + limits.max_seqs * sizeof(int32_t);
}

CpuStepContext::CpuStepContext(const StepLimits& limits, Backend& backend, ThreadPool& pool,
                               const SampleKernels& kernels, StepScratch*& current)
    : pool_(pool), kernels_(kernels), current_(current) {
  SERVAL_CHECK(limits.max_rows > 0 && limits.max_k > 0, limits.max_rows, limits.max_k);
  const Sizes sizes(limits, pool.num_threads());
  StepScratch& s = scratch_;
  s.packed_rows = backend.allocate(sizes.packed_rows);
  if (sizes.tasks > 0) s.tasks.reserve(limits.max_rows, sizes.split_slots);
  s.partials = backend.allocate(sizes.partials);
  s.pending = backend.allocate(sizes.pending);
  s.attend = backend.allocate(sizes.attend);
  s.branch_tails = backend.allocate(sizes.branch_tails);
  s.branch_tail_bytes = sizes.branch_tail;
  s.attend_floats = sizes.attend_floats;
  s.slot_floats = sizes.slot_floats;
  s.max_heads = limits.num_heads;
  s.choice.bits = backend.allocate(sizes.choice_bits);
  s.choice.most_per_row = limits.key_choices;
  s.choice.least_block = limits.choice_block;
  s.index = backend.allocate(sizes.index);
  s.index_scores = backend.allocate(sizes.index_scores);
  s.index_floats = static_cast<int64_t>(sizes.index_floats);
  s.max_model_len = limits.max_model_len;
  s.sample.reserve(pool.num_threads(), limits.vocab, limits.max_seqs);
  s.sample.last_drawn.resize(limits.max_seqs);
  SERVAL_CHECK(bytes() == planned_bytes(limits, pool.num_threads()), bytes(),
               planned_bytes(limits, pool.num_threads()));
}

CpuStepContext::~CpuStepContext() {
  if (current_ == &scratch_) current_ = nullptr;
}

size_t CpuStepContext::bytes() const {
  const StepScratch& s = scratch_;
  return s.packed_rows.bytes + s.tasks.bytes() + s.partials.bytes + s.pending.bytes + s.attend.bytes + s.branch_tails.bytes +
         s.choice.bits.bytes + s.index.bytes + s.index_scores.bytes + s.sample.bytes() + s.sample.last_drawn.size() * sizeof(int32_t);
}

void CpuStepContext::begin_step(const ForwardInput&) {
  current_ = &scratch_;
}

int CpuStepContext::sample(const SampleArgs& args) {
  sample_rows(args, kernels_, pool_, scratch_.sample);
  return 0;
}

}  // namespace serval::cpu
