// How attention is cut into tasks: counts, coverage and limits, without computing anything.
#include "kernels/cpu/attention_tasks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "kernels/attention_split.h"
#include "kernels/cpu/kernel_table.h"

namespace serval::cpu {
namespace {

constexpr int kTaskRows = 16, kClaimWork = 64;

struct Step {
  std::vector<int32_t> row_start = {0}, first_pos;
  void add(int first, int rows) {
    first_pos.push_back(first);
    row_start.push_back(row_start.back() + rows);
  }
  AttentionBatch batch() const {
    return {.num_seqs = static_cast<int>(first_pos.size()),
            .num_rows = row_start.back(),
            .row_start = row_start.data(),
            .first_pos = first_pos.data()};
  }
};

AttentionTasks cut(const Step& step, int kv_heads, int threads, int window = 0, int slots = 1000, bool sees_ahead = false) {
  AttentionTasks tasks;
  tasks.reserve(600, slots);
  tasks.plan(step.batch(), kv_heads, window, sees_ahead, kTaskRows, kClaimWork, threads);
  return tasks;
}

TEST(AttentionTasks, GiveALoneLongSequenceToEveryThread) {
  for (const int kv_heads : {1, 2, 8}) {
    for (const int threads : {2, 3, 8, 16}) {
      Step step;
      step.add(16 * 1024 - 1, 1);
      const AttentionTasks tasks = cut(step, kv_heads, threads);
      EXPECT_GE(static_cast<int>(tasks.tasks().size()) * kv_heads, 2 * threads);
      const int64_t all = int64_t{16 * 1024} * kv_heads;
      for (const AttentionTasks::Task& task : tasks.tasks())
        EXPECT_LE(task.work * threads, all / 2 + kChunk * threads) << "one piece is half of a thread's share";
    }
  }
}

TEST(AttentionTasks, AreTheKvHeadsOfALoneShortSequence) {
  Step step;
  step.add(kChunk - 1, 1);
  EXPECT_EQ(cut(step, 2, 16).tasks().size(), 1u);
  step.first_pos[0] = kChunk;  // the first row of the second chunk
  EXPECT_EQ(cut(step, 2, 16).tasks().size(), 2u);
}

TEST(AttentionTasks, SplitNothingForOneThreadOrWhereSequencesAreManyAndEqual) {
  Step step;
  step.add(5000, 1);
  EXPECT_EQ(cut(step, 2, 1).splits().size(), 0u);
  for (int s = 0; s < 20; ++s) step.add(5000, 1);
  EXPECT_EQ(cut(step, 8, 8).splits().size(), 0u);
  step.add(50000, 1);  // but one that would keep a thread after all others are done
  const AttentionTasks tasks = cut(step, 8, 8);
  ASSERT_EQ(tasks.splits().size(), 1u);
  EXPECT_EQ(tasks.splits()[0].seq, 21);
}

TEST(AttentionTasks, StayWithinTheirSlots) {
  Step step;
  step.add(10 * kChunk - 1, 1);
  EXPECT_EQ(cut(step, 1, 8, 0, 10).splits().size(), 1u);
  EXPECT_EQ(cut(step, 1, 8, 0, 9).splits().size(), 0u);
  step.add(9 * kChunk - 1, 1);
  EXPECT_EQ(cut(step, 1, 8, 0, 19).splits().size(), 2u);
  const AttentionTasks one = cut(step, 1, 8, 0, 18);
  ASSERT_EQ(one.splits().size(), 1u);
  EXPECT_EQ(one.splits()[0].seq, 0) << "the longest first";
  const AttentionTasks other = cut(step, 1, 8, 0, 9);
  ASSERT_EQ(other.splits().size(), 1u);
  EXPECT_EQ(other.splits()[0].seq, 1) << "one that fits, behind one that does not";
}

TEST(AttentionTasks, SeeOnlyTheChunksOfAWindow) {
  Step step;
  step.add(10 * kChunk, 1);
  const AttentionTasks tasks = cut(step, 1, 8, 2 * kChunk);
  for (const AttentionTasks::Task& task : tasks.tasks()) EXPECT_GE(task.first_chunk, 8);
  EXPECT_EQ(tasks.tasks().size(), 3u);
}

TEST(AttentionTasks, SeeOnlyTheChunksOfAWindowToBothSides) {
  constexpr int kFirst = 3 * kChunk, kRows = 2 * kChunk, kSide = kChunk / 2;
  Step step;
  step.add(kFirst, kRows);
  const AttentionTasks tasks = cut(step, 1, 1, kSide + 1, 1000, /*sees_ahead=*/true);
  for (const AttentionTasks::Task& task : tasks.tasks()) {
    const int first = kFirst + task.first_row, last = first + task.num_rows - 1;
    EXPECT_EQ(task.first_chunk, (first - kSide) / kChunk);
    EXPECT_EQ(task.first_chunk + task.num_chunks - 1, std::min(kFirst + kRows - 1, last + kSide) / kChunk);
  }
}

// Whatever the batch: every row meets every chunk that it sees exactly once, the longest task is first,
// claims and slots lie side by side.
TEST(AttentionTasks, CoverEveryChunkOfEveryRowOnce) {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    Step step;
    const int seqs = 1 + static_cast<int>(random() % 12);
    for (int s = 0; s < seqs; ++s)
      step.add(static_cast<int>(random() % (random() % 3 == 0 ? 20000 : 600)),
               random() % 2 == 0 ? 1 : 1 + static_cast<int>(random() % 40));
    const int kv_heads = 1 << random() % 4, threads = 1 + static_cast<int>(random() % 16),
              window = random() % 2 == 0 ? 0 : 1 + static_cast<int>(random() % 3000),
              slots = static_cast<int>(random() % 500);
    const AttentionTasks tasks = cut(step, kv_heads, threads, window, slots);
    const AttentionBatch batch = step.batch();

    std::set<std::tuple<int, int, int>> met;  // sequence, row, chunk
    std::vector<int> tasks_of(tasks.splits().size()), chunks_of(tasks.splits().size());
    int64_t before = INT64_MAX;
    for (const AttentionTasks::Task& task : tasks.tasks()) {
      EXPECT_LE(task.work, before);
      before = task.work;
      EXPECT_GT(task.work, 0);
      EXPECT_LE(task.num_rows, kTaskRows);
      for (int r = 0; r < task.num_rows; ++r) {
        for (int c = 0; c < task.num_chunks; ++c)
          EXPECT_TRUE(met.emplace(task.seq, task.first_row + r, task.first_chunk + c).second);
      }
      if (task.split < 0) continue;
      ++tasks_of[task.split];
      chunks_of[task.split] += task.num_chunks;
    }
    for (int s = 0; s < batch.num_seqs; ++s) {
      for (int r = 0; r < batch.row_start[s + 1] - batch.row_start[s]; ++r) {
        const int position = batch.first_pos[s] + r;
        for (int c = first_seen(position, window) / kChunk; c <= position / kChunk; ++c)
          EXPECT_TRUE(met.contains({s, r, c}));
      }
    }
    int slot = 0;
    for (size_t i = 0; i < tasks.splits().size(); ++i) {
      const AttentionTasks::Split& split = tasks.splits()[i];
      EXPECT_EQ(split.num_tasks, tasks_of[i]);
      EXPECT_GE(split.num_tasks, 2);
      EXPECT_EQ(split.num_chunks, chunks_of[i]);
      EXPECT_EQ(split.slot, slot);
      slot += split.num_chunks * split.num_rows;
    }
    EXPECT_LE(slot, slots);
    EXPECT_EQ(tasks.claims().front(), 0);
    EXPECT_EQ(tasks.claims().back(), static_cast<int>(tasks.tasks().size()));
    EXPECT_TRUE(std::is_sorted(tasks.claims().begin(), tasks.claims().end()));
  }
}

}  // namespace
}  // namespace serval::cpu
