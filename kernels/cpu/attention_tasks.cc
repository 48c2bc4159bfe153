#include "kernels/cpu/attention_tasks.h"

#include <algorithm>

#include "kernels/attention_split.h"
#include "kernels/base/check.h"
#include "kernels/cpu/kernel_table.h"

namespace serval::cpu {
namespace {

// A task is split when it is more than one in so many parts of what each thread has to do.
constexpr int kPartsPerThread = 4;

// A task has a row of its own, or a chunk of a split, and then at least a slot.
size_t max_tasks(int max_rows, int max_slots) {
  return static_cast<size_t>(max_rows) + max_slots;
}
size_t max_splits(int max_rows, int max_slots) {
  return std::min(max_rows, max_slots / 2);
}

}  // namespace

void AttentionTasks::reserve(int max_rows, int max_slots) {
  max_rows_ = std::max(max_rows_, max_rows);
  max_slots_ = std::max(max_slots_, max_slots);
  tasks_.reserve(max_tasks(max_rows_, max_slots_));
  splits_.reserve(max_splits(max_rows_, max_slots_));
  claims_.reserve(max_tasks(max_rows_, max_slots_) + 1);
}

size_t AttentionTasks::bytes() const {
  return tasks_.capacity() * sizeof(Task) + splits_.capacity() * sizeof(Split) +
         claims_.capacity() * sizeof(int32_t);
}

size_t AttentionTasks::bytes(int max_rows, int max_slots) {
  return max_tasks(max_rows, max_slots) * (sizeof(Task) + sizeof(int32_t)) + sizeof(int32_t) +
         max_splits(max_rows, max_slots) * sizeof(Split);
}

void AttentionTasks::plan(const AttentionBatch& batch, int kv_heads, int window, bool sees_ahead, int task_rows,
                          int64_t claim_work, int num_threads) {
  SERVAL_CHECK(batch.num_rows <= max_rows_, batch.num_rows, max_rows_);
  tasks_.clear();
  splits_.clear();
  claims_.clear();
  used_slots_ = 0;
  int64_t work = 0;
  for (int s = 0; s < batch.num_seqs; ++s) {
    const int rows = batch.row_start[s + 1] - batch.row_start[s];
    for (int first = 0; first < rows; first += task_rows) {
      const int count = std::min(task_rows, rows - first);
      const int last = batch.first_pos[s] + first + count - 1, begin = first_seen(batch.first_pos[s] + first, window),
                end = sees_ahead ? seen_ahead(batch, s, last, window) : last + 1;  // positions that the rows see between them
      tasks_.push_back({.seq = s,
                        .first_row = first,
                        .num_rows = count,
                        .first_chunk = begin / kChunk,
                        .num_chunks = (end - 1) / kChunk - begin / kChunk + 1,
                        .split = -1,
                        .work = int64_t{count} * (end - begin)});
      work += tasks_.back().work;
    }
  }
  const auto sort = [&] {
    std::sort(tasks_.begin(), tasks_.end(), [](const Task& a, const Task& b) { return a.work > b.work; });
  };
  sort();
  if (num_threads > 1) split_long_tasks(work * kv_heads / (int64_t{kPartsPerThread} * num_threads));
  if (!splits_.empty()) {
    sort();
    while (tasks_.back().work == 0) tasks_.pop_back();
  }
  int64_t claimed = claim_work;  // the first task begins a claim
  for (size_t t = 0; t < tasks_.size(); ++t) {
    if (claimed >= claim_work) {
      claims_.push_back(static_cast<int32_t>(t));
      claimed = 0;
    }
    claimed += tasks_[t].work;
  }
  claims_.push_back(static_cast<int32_t>(tasks_.size()));
}

// Those that are split stay, without work.
void AttentionTasks::split_long_tasks(int64_t max_work) {
  const size_t num_whole = tasks_.size();
  for (size_t t = 0; t < num_whole && tasks_[t].work > max_work; ++t) {
    const Task whole = tasks_[t];
    if (whole.num_chunks == 1 || used_slots_ + whole.num_chunks * whole.num_rows > max_slots_) continue;
    split(whole, max_work);
    tasks_[t].work = 0;
  }
}

void AttentionTasks::split(const Task& whole, int64_t max_work) {
  const int64_t chunk_work = int64_t{whole.num_rows} * kChunk;
  const int run = static_cast<int>(
      std::clamp<int64_t>(max_work / chunk_work, 1, (whole.num_chunks + 1) / 2));  // two pieces at least
  const int num_tasks = (whole.num_chunks + run - 1) / run;
  const auto split = static_cast<int32_t>(splits_.size());
  splits_.push_back({.seq = whole.seq,
                     .first_row = whole.first_row,
                     .num_rows = whole.num_rows,
                     .first_chunk = whole.first_chunk,
                     .num_chunks = whole.num_chunks,
                     .num_tasks = num_tasks,
                     .slot = used_slots_});
  used_slots_ += whole.num_chunks * whole.num_rows;
  for (int i = 0; i < num_tasks; ++i) {
    // As equal as whole chunks can be.
    const int begin = i * whole.num_chunks / num_tasks, end = (i + 1) * whole.num_chunks / num_tasks;
    Task piece = whole;
    piece.first_chunk += begin;
    piece.num_chunks = end - begin;
    piece.split = split;
    piece.work = std::min(whole.work, piece.num_chunks * chunk_work);
    tasks_.push_back(piece);
  }
}

}  // namespace serval::cpu
