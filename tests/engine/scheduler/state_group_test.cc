// A group whose layers keep a recurrent state: where sequences may begin, what they hold, and what it costs them
// to come back. The fake runner checks that every step finds the state of the position before it.

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "tests/engine/scheduler/scheduler_driver.h"

namespace serval::testing {
namespace {

constexpr int kBlockSize = 8, kSpan = 32;

struct World {
  SchedulerConfig config;
  BlockGeometry geometry;
  std::unique_ptr<SchedulerDriver> driver;
  std::map<std::pair<RequestId, int>, std::vector<TokenId>> tokens;
  std::map<RequestId, int> cached;
  std::vector<GroupBlockCopy> copies;
  std::vector<int> begins;  // where sequences began when they got a slot
  int max_held = 0;        // blocks of the state at the end of a step

  explicit World(bool has_full_group) {
    config.max_num_seqs = 8;
    config.max_num_batched_tokens = config.max_prefill_chunk = 64;
    config.max_model_len = 1024;
    geometry.block_size = kBlockSize;
    geometry.num_groups = has_full_group ? 2 : 1;
    geometry.groups[geometry.num_groups - 1] = {.num_blocks = 40, .state_span = kSpan};
    if (has_full_group) geometry.groups[0] = {.num_blocks = 400};
  }
  void start(int depth = 1) { driver = std::make_unique<SchedulerDriver>(config, geometry, depth); }
  void add(RequestId id, std::vector<TokenId> prompt, int max_tokens, int n = 1) {
    Request r;
    r.id = id;
    r.prompt = std::move(prompt);
    r.n = n;
    r.sampling.max_tokens = max_tokens;
    driver->add(std::move(r));
  }
  void step() {
    const Batch& batch = driver->turn();
    copies.insert(copies.end(), batch.copies.begin(), batch.copies.end());
    for (int i = 0; i < batch.num_admitted; ++i) {
      const auto step = std::ranges::find(batch.seqs, batch.admitted[i].seq, &SeqStep::seq);
      begins.push_back(step == batch.seqs.end() ? -1 : step->first_pos);
    }
    if (geometry.num_groups == 1) {
      const SchedulerStats stats = driver->scheduler.stats();
      max_held = std::max(max_held, stats.num_blocks - stats.num_free_blocks - stats.num_cached_blocks);
    }
    for (const TokenEvent& event : driver->events.events) {
      if (event.token >= 0) tokens[{event.request, event.index}].push_back(event.token);
      cached.try_emplace(event.request, event.cached_tokens);
    }
    driver->events.clear();
  }
  void run() {
    while (!driver->is_idle()) step();
  }
  uint64_t computed() const { return driver->scheduler.stats().prompt_tokens_computed; }
};

std::vector<TokenId> prompt_of(int length, int topic = 0) {
  std::vector<TokenId> prompt;
  for (int i = 0; i < length; ++i) prompt.push_back((i * 7 + topic * 13 + i / 50) % 50);
  return prompt;
}

class StateGroup : public ::testing::TestWithParam<bool> {};  // beside a group that keeps everything
INSTANTIATE_TEST_SUITE_P(BesideAFullGroup, StateGroup, ::testing::Bool());

TEST(OneStateGroup, HoldsOneBlockASequenceAndTwoWhereOneIsFull) {
  World w(false);
  w.config.enable_prefix_cache = false;
  w.config.max_prefill_chunk = kSpan;
  w.start();
  w.add(1, prompt_of(20), 300);
  int steps = 0, with_one = 0;
  for (; !w.driver->is_idle(); ++steps) {
    w.max_held = 0;
    w.step();
    with_one += w.max_held == 1;
    ASSERT_LE(w.max_held, 2);
  }
  EXPECT_GE(with_one, steps - 1);  // after a step what it filled is let go, but for the end, when all is
}

TEST_P(StateGroup, AMatchEndsAtTheLastSnapshotBeforeTheLastToken) {
  for (const int length : {kSpan - 1, kSpan, kSpan + 1, 2 * kSpan, 3 * kSpan + 7, 5 * kSpan - 1, 5 * kSpan + 1}) {
    World w(GetParam());
    w.start();
    for (RequestId id : {1, 2}) {
      w.add(id, prompt_of(length), 4);
      w.run();
    }
    EXPECT_EQ(w.cached[1], 0);
    EXPECT_EQ(w.cached[2], (length - 1) / kSpan * kSpan) << length;
    EXPECT_EQ((w.tokens[{1, 0}]), (w.tokens[{2, 0}]));
    EXPECT_TRUE(w.copies.empty()) << "a part of a block is no use";
  }
}

// However the prompt is cut, snapshots stand at the same positions.
TEST_P(StateGroup, SnapshotsDoNotDependOnChunksNorOnStepsAhead) {
  for (const int chunk : {1, 5, kSpan - 1, kSpan, kSpan + 1, 64}) {
    for (int depth = 1; depth <= kMaxStepsInFlight; ++depth) {
      World w(GetParam());
      w.config.max_prefill_chunk = chunk;
      w.start(depth);
      w.add(1, prompt_of(150), 30);
      w.run();
      std::vector<TokenId> next_turn = prompt_of(150);
      next_turn.insert(next_turn.end(), w.tokens[{1, 0}].begin(), w.tokens[{1, 0}].end());
      next_turn.push_back(3);
      w.add(2, next_turn, 2);
      w.run();
      EXPECT_EQ(w.cached[2], 179 / kSpan * kSpan) << chunk << ' ' << depth;
    }
  }
}

TEST_P(StateGroup, ForksCopyTheStateOfThePromptWithoutItsLastToken) {
  for (int depth = 1; depth <= kMaxStepsInFlight; ++depth) {
    for (const int length : {1, 2, kSpan, kSpan + 1, 100}) {
      World w(GetParam());
      w.start(depth);
      w.add(1, prompt_of(length), 6, 4);
      w.run();
      EXPECT_EQ(w.computed(), static_cast<uint64_t>(length) + 3) << "each fork computes one token";
      const bool is_at_snapshot = (length - 1) % kSpan == 0;
      const auto of_state = std::ranges::count_if(
          w.copies, [&](const GroupBlockCopy& copy) { return copy.group == w.geometry.num_groups - 1; });
      EXPECT_EQ(of_state, is_at_snapshot ? 0 : 3) << length;
      for (int i = 0; i < 4; ++i) EXPECT_EQ((w.tokens[{1, i}].size()), 6u);
    }
  }
}

// There is a slot for it only when the others are far: it begins at the snapshot.
TEST_P(StateGroup, AForkThatComesLateBeginsAtTheLastSnapshot) {
  for (int depth = 1; depth <= kMaxStepsInFlight; ++depth) {
    World w(GetParam());
    w.config.max_num_seqs = 2;
    w.start(depth);
    w.add(1, prompt_of(100), 20, 3);
    w.run();
    EXPECT_EQ(w.computed(), 100u + 1 + (100 - 3 * kSpan));
    World alone(GetParam());
    alone.start();
    alone.add(1, prompt_of(100), 20, 3);
    alone.run();
    EXPECT_EQ(w.tokens, alone.tokens);
  }
}

TEST(OneStateGroup, WhoGaveWayComesBackAtASnapshot) {
  World w(true);
  w.config.max_num_seqs = 2;
  w.geometry.groups[0].num_blocks = 26;  // of 8, for two that grow to 130
  w.start();
  w.add(1, prompt_of(60, 1), 70);
  w.add(2, prompt_of(60, 2), 70);
  w.run();
  EXPECT_GT(w.driver->scheduler.stats().num_preemptions, 0u) << "nobody gave way";
  ASSERT_GT(w.begins.size(), 2u);
  for (size_t i = 2; i < w.begins.size(); ++i) {
    EXPECT_EQ(w.begins[i] % kSpan, 0);
    EXPECT_GE(w.begins[i], kSpan);
  }
  for (RequestId id : {1, 2}) EXPECT_EQ((w.tokens[{id, 0}].size()), 70u);
}

// Of snapshots those go first that no match has ended at.
TEST(OneStateGroup, WhatConversationsGoOnFromOutlivesWhatTheyPassed) {
  World w(false);
  w.geometry.groups[0].num_blocks = 12;
  w.start();
  constexpr int kChats = 4;
  std::vector<std::vector<TokenId>> chats;
  for (int i = 0; i < kChats; ++i) chats.push_back(prompt_of(5 * kSpan, i));
  RequestId id = 0;
  for (int turn = 0; turn < 6; ++turn) {
    for (std::vector<TokenId>& chat : chats) {
      w.add(++id, chat, 10);
      w.run();
      if (turn > 0) {
        EXPECT_GE(w.cached[id], static_cast<int>(chat.size()) - 2 * kSpan) << turn;
      }
      chat.insert(chat.end(), w.tokens[{id, 0}].begin(), w.tokens[{id, 0}].end());
      for (int i = 0; i < 10; ++i) chat.push_back((i * 3 + turn) % 50);
    }
  }
}

}  // namespace
}  // namespace serval::testing
