// Sampling on the CPU: from rows of logits to tokens, exactly in the order kernels/sample.h states. Rows are
// spread over the pool; a row's result depends on its own logits and parameters alone, whichever worker takes
// it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/cpu/token_counts.h"
#include "kernels/sample.h"

namespace serval {

// Working memory of every worker for rows of up to `vocab` logits. Reserve it before serving; sample_rows()
// reserves again only when a call needs more than there is.
class SampleScratch {
 public:
  static size_t bytes(int num_workers, int64_t vocab, int num_slots);  // what reserve() will hold

  void reserve(int num_workers, int64_t vocab, int num_slots);
  size_t bytes() const { return bytes(num_workers_, vocab_, counts.num_slots()); }
  int64_t vocab() const { return vocab_; }

  // One worker's part, each array long enough for a row.
  struct Worker {
    float* raw;            // [vocab] the logits before they were changed
    float* block_max;      // [blocks of the vocabulary] of the logits as they are
    float* raw_block_max;  // [blocks]
    float* largest;        // [blocks] copy to select in
    uint64_t* candidates;  // [vocab + kLogitBlock] sort keys
    uint32_t* recent;      // [vocab] how often a token is among the recent ones; zero between rows
  };
  Worker worker(int index) const;

  // By slot (SampleRow::slot): the token drawn last. Room for slots is made before serving; a slot is 0 at
  // first.
  std::vector<int32_t> last_drawn;
  TokenCounts counts;

 private:
  int num_workers_ = 0;
  int64_t vocab_ = 0;
  std::unique_ptr<std::byte[]> memory_;
};

// args.logits is overwritten. Parameters must be in range (the validator's work): ids inside the vocabulary,
// num_top at most min(top_stride, vocab), repetition_penalty > 0.
void sample_rows(const SampleArgs& args, const cpu::SampleKernels& kernels, ThreadPool& pool,
                 SampleScratch& scratch);

}  // namespace serval
