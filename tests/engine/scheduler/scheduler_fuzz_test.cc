// Random days: requests of all kinds come, are aborted, stopped, preempted and fail, over pools from bare
// minimum to ample and all layouts of KV groups, in turn and a step ahead, with check_invariants after every
// step. The fake runner checks every position a row reads.

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "tests/engine/scheduler/scheduler_driver.h"
#include "tests/support/random_drafts.h"

namespace serval {
namespace {

struct Day {
  SchedulerConfig config;
  BlockGeometry geometry;
  int depth;  // steps in flight
  uint64_t seed;
  int num_steps;
  bool has_drafts = false;  // trees of guesses, so that steps draw several tokens
};

class RandomDay {
 public:
  explicit RandomDay(const Day& day)
      : day_(day), random_(day.seed), driver_(day.config, day.geometry, day.depth) {
    driver_.runner.fails = [this](SeqId seq, int position) {
      return (seq * 31 + position) % 997 == 0 && day_.seed % 2 == 1;
    };
    driver_.runner.salt_of = [this](SeqId seq) { return salts_.at(seq); };
    driver_.may_verify = [this] { return random_() | random_(); };
    if (day.has_drafts)
      driver_.runner.propose = RandomDrafts{driver_.runner, day.config.num_draft_tokens, true,
                                            std::mt19937_64(day.seed)};
  }

  void run() {
    for (int step = 0; step < day_.num_steps; ++step) {
      if (pick(3) == 0) add();
      if (pick(40) == 0 && !open_.empty()) abort_one();
      one_step();
    }
    for (int i = 0; !driver_.is_idle(); ++i) {
      ASSERT_LT(i, 100'000) << "the day does not end";
      one_step();
    }
    EXPECT_TRUE(open_.empty());
    const SchedulerStats stats = driver_.scheduler.stats();
    EXPECT_EQ(stats.num_running + stats.num_waiting, 0);
    EXPECT_EQ(stats.num_free_blocks + stats.num_cached_blocks, stats.num_blocks);
    preemptions += stats.num_preemptions;
    hits += stats.prefix_hit_tokens;
    accepted += stats.num_accepted_tokens;
    rejected += stats.num_draft_tokens - stats.num_accepted_tokens;
  }

  uint64_t preemptions = 0, hits = 0, accepted = 0, rejected = 0, trees = 0;

 private:
  struct Choice {
    std::vector<TokenId> history;
    uint64_t seed = 0;
    bool done = false;
  };
  struct Open {
    std::vector<Choice> choices;
    int num_done = 0;
    bool may_fail = false;
  };

  uint64_t pick(uint64_t n) { return random_() % n; }

  void add() {
    Request request;
    request.id = next_id_++;
    const int longest = std::min(day_.config.max_model_len - 2, 90);
    const int length = 1 + static_cast<int>(pick(longest));
    // Prompts share beginnings, so that the cache has something to do.
    std::mt19937_64 prefix(pick(4));
    for (int i = 0; i < length; ++i)
      request.prompt.push_back(static_cast<TokenId>(i < length * 2 / 3 ? prefix() % 50 : pick(50)));
    request.n = pick(5) == 0 ? 1 + static_cast<int>(pick(3)) : 1;
    request.sampling.max_tokens =
        1 + static_cast<int>(pick(std::min(40, day_.config.max_model_len - length)));
    request.sampling.seed = pick(1000);
    request.sampling.eos_token_ids = {7};
    request.sampling.ignore_eos = pick(2) == 0;
    request.constrained = pick(10) == 0;
    request.priority = static_cast<int>(pick(3));
    request.cache_salt = pick(4) == 0 ? "other" : "";
    if (pick(20) == 0) request.deadline = driver_.now + Time{static_cast<int64_t>(pick(30))};
    if (!fits(day_.geometry, day_.config, length, request.sampling.max_tokens)) return;
    Open open;
    for (int i = 0; i < request.n; ++i)
      open.choices.push_back({request.prompt, seed_of_choice(request.sampling.seed, i)});
    const RequestId id = request.id;
    const int32_t ends_at = std::min(length + request.sampling.max_tokens, day_.config.max_model_len);
    const uint64_t salt = 2 * request.cache_salt.size() + day_.geometry.lengths.class_of(ends_at);
    if (!driver_.scheduler.has_place(request.n)) return;
    driver_.add(std::move(request));
    salts_.resize(salts_.size() + open.choices.size(), salt);
    open_[id] = std::move(open);
  }

  void abort_one() {
    auto it = open_.begin();
    std::advance(it, pick(open_.size()));
    if (pick(2) == 0) {
      driver_.take(Abort{it->first});
    } else {
      driver_.take(StopMatched{it->first, static_cast<int32_t>(pick(it->second.choices.size()))});
    }
  }

  void one_step() {
    driver_.now += Time{1};
    const Batch& batch = driver_.plan();
    driver_.scheduler.check_invariants();
    int rows = 0;
    for (const SeqStep& step : batch.seqs) {
      rows += step.num_tokens;
      for (int i = 0; i < step.num_drafts; ++i) {
        if (batch.parents[step.parents_begin + i] == i - 1) continue;
        ++trees;
        break;
      }
    }
    ASSERT_LE(rows, day_.config.max_num_batched_tokens);
    ASSERT_EQ(rows, static_cast<int>(batch.tokens.size()));
    driver_.run();
    if (pick(30) == 0 && !open_.empty()) abort_one();  // while the step is in flight
    if (driver_.is_due()) driver_.complete_step();
    driver_.scheduler.take_events(driver_.events);
    driver_.scheduler.check_invariants();
    for (const TokenEvent& event : driver_.events.events) take(event);
    driver_.events.clear();
  }

  void take(const TokenEvent& event) {
    auto it = open_.find(event.request);
    ASSERT_NE(it, open_.end()) << "an event after the end";
    Choice& choice = it->second.choices[event.index];
    ASSERT_FALSE(choice.done);
    if (event.token >= 0) {
      ASSERT_EQ(event.token, driver_.runner.next_token(choice.history, choice.seed))
          << "the schedule changed a token";
      choice.history.push_back(event.token);
    }
    if (event.finish == FinishReason::kNone) return;
    choice.done = true;
    if (++it->second.num_done == static_cast<int>(it->second.choices.size())) open_.erase(it);
  }

  Day day_;
  std::mt19937_64 random_;
  testing::SchedulerDriver driver_;
  std::map<RequestId, Open> open_;
  std::vector<uint64_t> salts_{0};  // by SeqId; they count from 1
  RequestId next_id_ = 1;
};

// A sequence has few blocks of a state: there are few of them, too.
BlockGeometry geometry(int blocks, const std::vector<KvGroupGeometry>& groups) {
  BlockGeometry g;
  g.block_size = 8;
  g.lengths = {.num_bounds = 1, .bounds = {60}};
  g.num_groups = static_cast<int>(groups.size());
  for (int i = 0; i < g.num_groups; ++i) {
    g.groups[i] = groups[i];
    g.groups[i].num_blocks = groups[i].state_span > 0 ? blocks / 8 : blocks;
  }
  return g;
}

constexpr KvGroupGeometry kFull, kWindow{.window = 24}, kStream{.window = 24, .sinks = 5}, kState{.state_span = 16}, kBriefState{.state_span = 8};

#ifndef SERVAL_FUZZ_STEPS
#define SERVAL_FUZZ_STEPS 750  // the long test has longer days
#endif
constexpr int kStepsOfDay = SERVAL_FUZZ_STEPS;

// Days of all kinds.
struct Days {
  uint64_t preemptions = 0, hits = 0, hits_of_states = 0, accepted = 0, rejected = 0, trees = 0;
  int steps = 0;
};

Days live(bool has_drafts) {
  Days all;
  uint64_t seed = 1;
  for (const int blocks : {17, 24, 40, 200}) {
    for (const std::vector<KvGroupGeometry>& groups :
         {std::vector{kFull}, {kFull, kWindow}, {kWindow}, {kStream}, {kState}, {kFull, kState}, {kBriefState, kWindow}}) {
      for (const bool cache : {true, false}) {
        for (const auto& [policy, depth] : {std::pair{QueuePolicy::kFcfs, 1},
                                            {QueuePolicy::kPriority, 1},
                                            {QueuePolicy::kFcfs, 2},
                                            {QueuePolicy::kPriority, 2}}) {
          Day day;
          day.config.max_num_seqs = blocks < 30 ? 6 : 16;
          day.config.max_num_batched_tokens = 32;
          day.config.max_prefill_chunk = seed % 3 == 0 ? 5 : 32;
          day.config.max_model_len = 128;
          day.config.max_waiting = 20;
          day.config.policy = policy;
          day.config.enable_prefix_cache = cache;
          day.geometry = geometry(blocks, groups);
          day.depth = depth;
          day.seed = seed++;
          day.num_steps = kStepsOfDay;
          day.has_drafts = has_drafts;
          day.config.num_draft_tokens = has_drafts ? 6 : 0;
          RandomDay run(day);
          run.run();
          if (::testing::Test::HasFatalFailure()) {
            ADD_FAILURE() << "seed " << day.seed << " blocks " << blocks << " groups " << groups.size()
                          << " depth " << depth;
            return all;
          }
          all.preemptions += run.preemptions;
          all.hits += run.hits;
          if (groups.back().state_span > 0) all.hits_of_states += run.hits;
          all.accepted += run.accepted;
          all.rejected += run.rejected;
          all.trees += run.trees;
          all.steps += day.num_steps;
        }
      }
    }
  }
  EXPECT_GE(all.steps, 100'000);
  EXPECT_GT(all.preemptions, 100u);  // the days were hard enough to show something
  EXPECT_GT(all.hits, 10'000u);
  EXPECT_GT(all.hits_of_states, 5'000u);
  return all;
}

TEST(SchedulerFuzz, AHundredThousandRandomStepsKeepEveryInvariant) {
  const Days days = live(false);
  EXPECT_EQ(days.accepted + days.rejected, 0u);
}

TEST(SchedulerFuzz, AHundredThousandRandomStepsOfSeveralTokensKeepEveryInvariant) {
  const Days days = live(true);
  EXPECT_GT(days.accepted, 50'000u);
  EXPECT_GT(days.rejected, 50'000u);
  EXPECT_GT(days.trees, 100'000u * kStepsOfDay / 3000) << "guesses beside each other, of one sequence in one step";
}

}  // namespace
}  // namespace serval
