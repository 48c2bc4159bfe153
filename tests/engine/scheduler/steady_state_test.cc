// The law that a decision allocates nothing: not while requests come, fork, find the cache, give way, are
// aborted and end.
#include <gtest/gtest.h>

#include "tests/engine/scheduler/random_life.h"
#include "tests/engine/scheduler/scheduler_driver.h"
#include "tests/support/random_drafts.h"
#include "tests/support/allocation_counter.h"

namespace serval::testing {
namespace {

class SchedulerSteadyState : public ::testing::TestWithParam<std::tuple<int, bool>> {};
INSTANTIATE_TEST_SUITE_P(StepsInFlightAndStates, SchedulerSteadyState,
                         ::testing::Combine(::testing::Range(1, kMaxStepsInFlight + 1), ::testing::Bool()));

TEST_P(SchedulerSteadyState, AllocatesNothingWhateverHappens) {
  RandomLife life(3);
  life.config.num_draft_tokens = 4;
  const auto& [depth, keeps_states] = GetParam();
  if (keeps_states) life.keep_states();
  SchedulerDriver driver(life.config, life.geometry, depth);
  Scheduler& scheduler = driver.scheduler;
  driver.runner.propose = RandomDrafts{driver.runner, life.config.num_draft_tokens, true};
  driver.reserve();
  driver.runner.fails = [](SeqId seq, int position) { return (seq * 31 + position) % 997 == 0; };
  std::vector<std::unique_ptr<RequestState>> retired;
  retired.reserve(64);
  int forks = 0, scored = 0;
  int64_t allocations = 0;
  for (int step = 0; step < 5000; ++step) {
    driver.now += Time{1};
    std::vector<std::unique_ptr<RequestState>> arriving;
    const SchedulerStats stats = scheduler.stats();
    while (stats.num_running + stats.num_waiting + static_cast<int>(arriving.size()) < 20 &&
           life.pick(2) == 0) {
      Request request = life.next_request(driver.now);
      if (life.pick(8) == 0) request.sampling.num_prompt_logprobs = 0;
      arriving.push_back(scheduler.prepare(std::move(request)));
      forks += static_cast<int>(arriving.back()->sequences.size()) - 1;
    }
    const RequestId victim = life.last_id - life.pick(12);
    const uint64_t mood = life.pick(30);
    {
      const AllocationCounter counter;
      for (std::unique_ptr<RequestState>& request_state : arriving)
        driver.take(Add{std::move(request_state)});
      if (mood == 0) driver.take(Abort{victim});
      driver.plan();
      allocations += counter.count_on_this_thread();
    }
    driver.run();
    {
      const AllocationCounter counter;
      if (mood == 1) driver.take(Abort{victim});
      if (mood == 2) driver.take(StopMatched{victim, 0});
      if (driver.is_due()) driver.complete_step();
      scheduler.take_events(driver.events);
      scheduler.take_retired(retired);
      allocations += counter.count_on_this_thread();
    }
    ASSERT_EQ(allocations, 0) << "step " << step;
    scheduler.check_invariants();
    scored += static_cast<int>(driver.events.prompt_parts.size());
    driver.events.clear();
    retired.clear();
  }
  const SchedulerStats stats = scheduler.stats();
  EXPECT_GT(scored, 50);
  EXPECT_GT(forks, 100);  // the life was full enough to show something
  EXPECT_GT(stats.num_preemptions, 50u);
  EXPECT_GT(stats.num_accepted_tokens, 1000u);
  EXPECT_GT(stats.num_evicted_blocks, 1000u);
  EXPECT_GT(stats.prefix_hit_tokens, 1000u);
  for (const FinishReason reason :
       {FinishReason::kStop, FinishReason::kStopString, FinishReason::kLength, FinishReason::kAborted,
        FinishReason::kDeadline, FinishReason::kNumericalError})
    EXPECT_GT(stats.finished[static_cast<int>(reason)], 5u) << static_cast<int>(reason);
}

TEST(SchedulerMemory, IsWhatItsPlanSaysWithinAHundredth) {
  for (const uint64_t seed : {1, 2, 3}) {
    for (const bool keeps_states : {false, true}) {
      RandomLife life(seed);
      life.config.max_num_seqs = life.config.max_num_batched_tokens = 64;
      life.config.max_model_len = 3000;
      life.config.num_draft_tokens = 4;
      for (int g = 0; g < life.geometry.num_groups; ++g) life.geometry.groups[g].num_blocks *= 50;
      if (keeps_states) life.keep_states();
      Batch batches[kMaxStepsInFlight];
      const AllocationCounter counter;
      const Scheduler scheduler(life.config, life.geometry);
      for (Batch& batch : batches) scheduler.reserve(batch);
      const auto asked = static_cast<double>(counter.bytes());
      EXPECT_NEAR(asked / static_cast<double>(Scheduler::planned_bytes(life.config, life.geometry)), 1, 0.01);
    }
  }
}

}  // namespace
}  // namespace serval::testing
