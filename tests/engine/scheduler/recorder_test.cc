// A recorded life replays to the same batches, byte for byte.
#include "engine/scheduler/recorder.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <stdexcept>

#include "kernels/base/log.h"
#include "tests/engine/scheduler/random_life.h"
#include "tests/engine/scheduler/scheduler_driver.h"
#include "tests/support/random_drafts.h"

namespace serval::testing {
namespace {

// Everything a batch says, but for how to sample, which is not recorded.
std::vector<int64_t> flat(const Batch& b) {
  std::vector<int64_t> out{static_cast<int64_t>(b.step)};
  const auto put = [&](auto... values) { (out.push_back(static_cast<int64_t>(values)), ...); };
  for (const SeqStep& s : b.seqs) {
    put(s.seq, s.slot, s.first_pos, s.tokens_begin, s.num_tokens, s.num_drafts, s.sample, s.prompt_logprobs,
        s.mask);
    for (int g = 0; g < kMaxKvGroups; ++g) put(s.first_block[g], s.blocks_begin[g], s.num_blocks[g]);
  }
  out.insert(out.end(), b.tokens.begin(), b.tokens.end());
  out.insert(out.end(), b.parents.begin(), b.parents.end());
  out.insert(out.end(), b.blocks.begin(), b.blocks.end());
  for (int32_t i = 0; i < b.num_admitted; ++i) {
    const Admission& a = b.admitted[i];
    put(a.seq, a.slot, a.num_prompt, a.sampling.seed);
    out.insert(out.end(), a.tokens.begin(), a.tokens.end());
    for (const int32_t first : a.first_block) put(first);
  }
  for (const GroupBlockCopy& c : b.copies) put(c.group, c.copy.from, c.copy.to, c.copy.num_tokens);
  out.insert(out.end(), b.freed.begin(), b.freed.end());
  return out;
}

class RecorderTest : public ::testing::Test {
 protected:
  ~RecorderTest() override { std::remove(path_.c_str()); }
  const std::string path_ =
      ::testing::TempDir() + "/" + ::testing::UnitTest::GetInstance()->current_test_info()->name() + ".txt";
};

TEST_F(RecorderTest, ALifeReplaysToTheSameBatches) {
  for (const uint64_t seed : {5, 6, 7, 8, 9}) {
    RandomLife life(seed);
    life.config.policy = seed % 2 == 0 ? QueuePolicy::kPriority : QueuePolicy::kFcfs;
    life.config.num_draft_tokens = 4;
    if (seed == 9) life.keep_states();
    std::vector<std::vector<int64_t>> seen, again;
    {
      SchedulerDriver driver(life.config, life.geometry, seed < 7 ? 1 : kMaxStepsInFlight);
      driver.runner.fails = [](SeqId seq, int position) { return (seq * 31 + position) % 499 == 0; };
      driver.runner.propose = RandomDrafts{driver.runner, life.config.num_draft_tokens, true};
      Scheduler& scheduler = driver.scheduler;
      Recorder recorder(path_, life.config, life.geometry);
      const auto tell = [&](SchedulerInput input) {
        recorder.take(input, driver.now);
        driver.take(std::move(input));
      };
      int forks = 0, copies = 0, prompt_logprobs = 0;
      driver.masks_come_at_once = false;
      std::vector<MaskReady> masks;  // that are being made
      for (int step = 0; step < 1500; ++step) {
        driver.now += Time{1};
        while (!masks.empty() && life.pick(3) > 0) {
          tell(masks.front());
          masks.erase(masks.begin());
        }
        if (life.pick(2) == 0) {
          Request r = life.next_request(driver.now);
          if (life.pick(5) == 0) r.sampling.num_prompt_logprobs = 0;
          r.constrained = life.pick(5) == 0;
          forks += r.n - 1;
          if (scheduler.has_place(r.n)) tell(Add{scheduler.prepare(std::move(r))});
        }
        recorder.next_batch(driver.now);
        const Batch& batch = driver.plan();
        seen.push_back(flat(batch));
        copies += static_cast<int>(batch.copies.size());
        driver.run();
        const RequestId id = life.last_id - life.pick(9);
        if (life.pick(9) == 0) {
          tell(Abort{id});
        } else if (life.pick(9) == 0) {
          tell(StopMatched{id, 0});
        }
        if (!driver.is_due()) continue;
        recorder.apply(driver.due(), driver.now);
        recorder.take_guesses(driver.due(), driver.now);
        driver.complete_step();
        for (const TokenEvent& event : driver.events.events) {
          if (!masks.empty() && masks.back().request == event.request && masks.back().index == event.index) masks.pop_back();
          masks.push_back({event.request, event.index, event.num_output + 1, static_cast<uint64_t>(event.num_output) * 29});
          for (MaskReady& last = masks.back(); last.num_forced < event.num_output % 4; ++last.num_forced) last.forced[last.num_forced] = event.num_output % 50;
        }
        prompt_logprobs += static_cast<int>(driver.events.prompt_parts.size());
        driver.events.clear();
      }
      EXPECT_GT(scheduler.stats().num_preemptions, 5u);
      EXPECT_GT(scheduler.stats().num_accepted_tokens, 200u);
      EXPECT_GT(forks, 50);
      EXPECT_GT(copies, 50);
      EXPECT_GT(prompt_logprobs, 50);
    }
    replay(path_, {.on_batch = [&](const Batch& batch, Time) { again.push_back(flat(batch)); }});
    ASSERT_EQ(seen.size(), again.size());
    for (size_t i = 0; i < seen.size(); ++i)
      ASSERT_EQ(seen[i], again[i]) << "seed " << seed << " batch " << i;
  }
}

TEST_F(RecorderTest, RefusesWhatIsNoRecording) {
  const RandomLife life(1);
  { const Recorder recorder(path_, life.config, life.geometry); }
  EXPECT_NO_THROW(replay(path_, {}));
  std::ofstream(path_, std::ios::app) << "nonsense\n";
  EXPECT_THROW(replay(path_, {}), std::runtime_error);
  EXPECT_THROW(replay(path_ + ".absent", {}), std::runtime_error);
  EXPECT_THROW(Recorder("/nowhere/at/all", life.config, life.geometry), std::runtime_error);
}

// The file takes nothing from the first byte on, as on a full disk.
TEST_F(RecorderTest, EndsWithALineInTheLogWhenTheDiskIsFull) {
  ::testing::internal::CaptureStderr();
  Recorder recorder("/dev/full", SchedulerConfig{}, BlockGeometry{});
  recorder.next_batch(Time{1});
  recorder.take(Abort{7}, Time{2});
  flush_log();
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
  EXPECT_NE(said.find("the recording ends here file=/dev/full"), std::string::npos) << said;
  EXPECT_EQ(recorder.num_lost(), 3u) << "the head and two inputs";
}

}  // namespace
}  // namespace serval::testing
