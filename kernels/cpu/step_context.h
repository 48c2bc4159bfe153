// The StepContext of a CPU: what the ops of one model's steps write to on their way, and the state of its draws. A
// step's arrays are host memory and need no place of their own.
#pragma once

#include "kernels/backend.h"
#include "kernels/cpu/attention_tasks.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/sample.h"
#include "kernels/cpu/thread_pool.h"

namespace serval::cpu {

// Elements of a packed row of k activations or weights.
constexpr int64_t padded_k(int64_t k, int multiple) {
  return (k + multiple - 1) / multiple * multiple;
}
inline constexpr int kLargestKMultiple = 16;
// Of a row of k activations rounded to bytes, its scale, and sums of as many groups as there can be.
size_t packed_dot_row_bytes(int64_t k);

// What the backend's ops use of the step that has begun.
struct StepScratch {
  Buffer packed_rows;    // activations of one linear(), as its kernel wants them
  AttentionTasks tasks;  // of one attention()
  Buffer partials;       // float [slots of tasks][slot_floats]: what chunks leave until they are merged
  Buffer pending;        // int32 [splits of tasks][KV heads]
  Buffer attend;         // float [threads][attend_floats]
  size_t attend_floats = 0;
  int slot_floats = 0, max_heads = 0;
  Buffer branch_tails;  // [threads][branch_tail_bytes]: keys and values of a branch in the order it reads them
  size_t branch_tail_bytes = 0;
  // What choose_keys() left: of each row per_row choices, in each a bit for every `block` positions.
  struct Choice {
    Buffer bits;  // uint64 [rows][per_row][words]
    int most_per_row = 0, least_block = 0;
    int num_rows = 0, per_row = 0, block = 0;
    int64_t words = 0;

    uint64_t* of(int64_t row, int head) const { return bits.as<uint64_t>() + (row * per_row + head) * words; }
  } choice;
  Buffer index;         // float [threads][index_floats]
  Buffer index_scores;  // float [threads][choices of a row][max_model_len]
  int64_t index_floats = 0;
  int max_model_len = 0;
  SampleScratch sample;
};

// Floats of StepScratch::attend that attention over so many heads takes of a worker's.
size_t attend_floats(int num_heads, int head_dim);

class CpuStepContext final : public StepContext {
 public:
  // `current`: the scratch that the backend's ops use; begin_step() makes it this context's.
  CpuStepContext(const StepLimits& limits, Backend& backend, ThreadPool& pool, const SampleKernels& kernels,
                 StepScratch*& current);
  ~CpuStepContext() override;

  static size_t planned_bytes(const StepLimits& limits, int num_threads);

  size_t bytes() const override;
  void begin_step(const ForwardInput&) override;
  int sample(const SampleArgs& args) override;
  void wait_sampled(int) override {}

 private:
  ThreadPool& pool_;
  const SampleKernels& kernels_;
  StepScratch*& current_;
  StepScratch scratch_;
};

}  // namespace serval::cpu
