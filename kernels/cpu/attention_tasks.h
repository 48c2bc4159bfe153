// How attention of a step is cut into tasks for threads: host arithmetic, once per call. A task is some rows
// of one sequence over one KV head, over all positions that they see or, where that would keep one thread
// long after the others, over a run of chunks (kernel_table.h): a lone long sequence takes every thread. How
// it is cut changes no bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/backend.h"

namespace serval::cpu {

// The position behind the last row of a sequence.
inline int end_of(const AttentionBatch& batch, int seq) {
  return batch.first_pos[seq] + batch.row_start[seq + 1] - batch.row_start[seq];
}

// The position behind the last that a row at `position` sees, where rows see ahead.
inline int seen_ahead(const AttentionBatch& batch, int seq, int position, int window) {
  const int end = end_of(batch, seq);
  return window > 0 && position + window < end ? position + window : end;
}

// Query vectors of a task: enough to share every load of a key many times, few enough to keep their sums in the
// second-level cache.
inline constexpr int kTaskVectors = 64;

class AttentionTasks {
 public:
  // For each KV head; longest first.
  struct Task {
    int32_t seq;
    int32_t first_row, num_rows;      // of the sequence
    int32_t first_chunk, num_chunks;  // that the rows see, or the run of them that this task takes
    int32_t split;                    // which of splits() it is part of, or -1
    int64_t work;                     // rows times positions, of one KV head
  };
  // Rows whose chunks are computed by several tasks.
  struct Split {
    int32_t seq;
    int32_t first_row, num_rows;
    int32_t first_chunk, num_chunks;
    int32_t num_tasks;  // for each KV head
    int32_t slot;       // first of its num_chunks * num_rows slots, chunk by chunk
  };

  // Room for steps of max_rows rows, and for max_slots rows of one chunk each whose results wait to be
  // merged.
  void reserve(int max_rows, int max_slots);
  size_t bytes() const;
  static size_t bytes(int max_rows, int max_slots);  // what reserve() of an empty one will hold
  int max_slots() const { return max_slots_; }

  // Cuts the batch into tasks of at most task_rows rows, and gathers those under claim_work. Allocates
  // nothing.
  void plan(const AttentionBatch& batch, int kv_heads, int window, bool sees_ahead, int task_rows, int64_t claim_work,
            int num_threads);

  std::span<const Task> tasks() const { return tasks_; }
  std::span<const Split> splits() const { return splits_; }
  // Claim c is tasks [claims()[c], claims()[c + 1]) over one KV head: what one thread takes at a time.
  std::span<const int32_t> claims() const { return claims_; }

 private:
  void split_long_tasks(int64_t max_work);
  void split(const Task& whole, int64_t max_work);

  std::vector<Task> tasks_;
  std::vector<Split> splits_;
  std::vector<int32_t> claims_;
  int max_rows_ = 0, max_slots_ = 0, used_slots_ = 0;
};

}  // namespace serval::cpu
