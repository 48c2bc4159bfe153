// The engine's loop and its door, with a model that is a function: many threads, exactly one end for every
// sequence.

#include "engine/engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <thread>

#include "engine/scheduler/recorder.h"
#include "tests/support/allocation_counter.h"
#include "tests/support/fake_runner.h"

namespace serval {
namespace {

// A device with a thread of its own: it may be busy with one step while the engine plans the next.
class ThreadedDevice {
 public:
  explicit ThreadedDevice(std::function<void(const Batch&, ModelOutput&)> execute)
      : execute_(std::move(execute)), thread_([this] { work(); }) {}
  ~ThreadedDevice() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  StepExecutor executor() {
    StepExecutor executor;
    executor.launch = [this](const Batch& batch) {
      std::lock_guard lock(mutex_);
      batches_[launched_++ % kMaxStepsInFlight] = &batch;
      max_in_flight_ = std::max(max_in_flight_, launched_ - taken_);
      changed_.notify_all();
    };
    executor.wait = [this](ModelOutput& output) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return done_ > taken_; });
      std::swap(output, outputs_[taken_++ % kMaxStepsInFlight]);
    };
    executor.overlap = true;
    return executor;
  }
  int max_in_flight() {
    std::lock_guard lock(mutex_);
    return max_in_flight_;
  }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [&] { return stopping_ || launched_ > done_; });
      if (launched_ == done_) return;
      const int place = done_ % kMaxStepsInFlight;
      lock.unlock();
      execute_(*batches_[place], outputs_[place]);
      lock.lock();
      ++done_;
      changed_.notify_all();
    }
  }

  const std::function<void(const Batch&, ModelOutput&)> execute_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::array<const Batch*, kMaxStepsInFlight> batches_{};
  std::array<ModelOutput, kMaxStepsInFlight> outputs_;
  int launched_ = 0, done_ = 0, taken_ = 0, max_in_flight_ = 0;
  bool stopping_ = false;
  std::thread thread_;
};

// All of it with steps in turn and with one ahead.
class EngineTest : public ::testing::TestWithParam<bool> {
 protected:
  EngineTest() {
    config_.scheduler.max_num_seqs = 8;
    config_.scheduler.max_waiting = 24;
    config_.scheduler.max_num_batched_tokens = 64;
    config_.scheduler.max_model_len = 128;
    geometry_.block_size = 8;
    geometry_.groups[0].num_blocks = 256;
  }
  void start() {
    runner_.emplace(geometry_);
    const auto execute = [this](const Batch& batch, ModelOutput& output) {
      while (held_) std::this_thread::yield();
      (*runner_)(batch, output);
    };
    if (GetParam()) device_.emplace(execute);
    engine_ =
        std::make_unique<Engine>(config_, geometry_, device_ ? device_->executor() : run_in_turn(execute),
                                 [this](EventBatch& batch) { take(batch); });
  }
  void take(EventBatch& batch) {
    std::lock_guard lock(mutex_);
    for (const TokenEvent& event : batch.events) {
      const std::pair key{event.request, event.index};
      EXPECT_FALSE(finished_.count(key)) << "an event after the end";
      if (event.token >= 0) tokens_[key].push_back(event.token);
      if (event.finish != FinishReason::kNone) finished_[key] = event.finish;
    }
    changed_.notify_all();
  }
  static Request request(RequestId id, int max_tokens, int n = 1) {
    Request r;
    r.id = id;
    r.prompt = {1, 2, static_cast<TokenId>(id % 50)};
    r.sampling.max_tokens = max_tokens;
    r.n = n;
    return r;
  }
  // Nothing open, and no step in flight that holds memory of what has ended.
  void wait_until_idle() {
    while (!engine_->idle() || engine_->stats().has_runnable_work) std::this_thread::yield();
  }
  void wait_for_ends(size_t count) {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(changed_.wait_for(lock, std::chrono::seconds(60), [&] { return finished_.size() >= count; }));
  }

  EngineConfig config_;
  BlockGeometry geometry_;
  std::optional<FakeRunner> runner_;
  std::atomic<bool> held_{false};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::pair<RequestId, int>, std::vector<TokenId>> tokens_;
  std::map<std::pair<RequestId, int>, FinishReason> finished_;
  std::optional<ThreadedDevice> device_;
  std::unique_ptr<Engine> engine_;
};

INSTANTIATE_TEST_SUITE_P(Steps, EngineTest, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "OneAhead" : "InTurn"; });

TEST_P(EngineTest, ManyThreadsSubmitAndAbortAndEverySequenceEndsOnce) {
  config_.scheduler.max_waiting = 1000;
  held_ = true;  // so that whoever is aborted or stopped is so before its length ends it
  start();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; ++i) {
        const RequestId id = static_cast<RequestId>(t * 1000 + i + 1);
        ASSERT_TRUE(engine_->submit(request(id, 20, 1 + i % 2)).ok());
        if (i % 3 == 0) engine_->abort(id);
        if (i % 5 == 0) engine_->stop_string_matched(id, 0);
        engine_->abort(999'999);  // nobody's
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  held_ = false;
  wait_for_ends(4 * 75);
  wait_until_idle();
  const SchedulerStats stats = engine_->stats().scheduler;
  EXPECT_EQ(stats.num_free_blocks + stats.num_cached_blocks, stats.num_blocks);
  ASSERT_EQ(finished_.size(), 4u * 75);
  for (const auto& [key, reason] : finished_) {
    const auto& [id, index] = key;
    const int i = static_cast<int>(id % 1000) - 1;
    const FinishReason expected = i % 3 == 0                 ? FinishReason::kAborted
                                  : i % 5 == 0 && index == 0 ? FinishReason::kStopString
                                                             : FinishReason::kLength;
    EXPECT_EQ(reason, expected) << id << " choice " << index;
    if (reason == FinishReason::kLength) {
      EXPECT_EQ(tokens_[key].size(), 20u);
    }
  }
}

TEST_P(EngineTest, TheDoorCountsWhatTheLineHolds) {
  config_.scheduler.max_num_seqs = 2;
  config_.scheduler.max_waiting = 3;
  held_ = true;
  start();
  for (RequestId id = 1; id <= 5; ++id) EXPECT_TRUE(engine_->submit(request(id, 2)).ok());
  const Result<void> refused = engine_->submit(request(6, 2));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, "queue_full");
  EXPECT_GE(refused.error().retry_after_s, 1);
  held_ = false;
  wait_for_ends(5);
  wait_until_idle();
  EXPECT_TRUE(engine_->submit(request(7, 2)).ok());  // what was refused kept no place
  wait_for_ends(6);
}

TEST_P(EngineTest, TheDoorCountsTheTokensThatWait) {
  config_.scheduler.max_num_seqs = 1;
  Request one = request(1, 2);
  const auto length = static_cast<int64_t>(one.prompt.size());
  config_.scheduler.max_waiting_tokens = 2 * length;
  held_ = true;
  start();
  EXPECT_TRUE(engine_->submit(std::move(one)).ok());
  // The device holds its first step; whether the first is still counted is the engine thread's haste.
  int taken = 1;
  Result<void> last;
  for (RequestId id = 2; id <= 6 && last.ok(); ++id) {
    last = engine_->submit(request(id, 2));
    taken += last.ok();
  }
  ASSERT_FALSE(last.ok());
  EXPECT_EQ(last.error().code, "queue_full");
  EXPECT_NE(last.error().message.find("tokens of prompts that wait"), std::string::npos) << last.error().message;
  EXPECT_GE(taken, 2);
  EXPECT_LE(taken, 3);
  held_ = false;
  wait_for_ends(taken);
  wait_until_idle();
  const Result<void> later = engine_->submit(request(7, 2));  // what was refused kept no place
  ASSERT_TRUE(later.ok()) << later.error().message << ' ' << engine_->stats().scheduler.waiting_tokens;
  wait_for_ends(taken + 1);
}

TEST_P(EngineTest, APromptAloneMayHaveMoreTokensThanMayWait) {
  config_.scheduler.max_waiting_tokens = 1;
  start();
  EXPECT_TRUE(engine_->submit(request(1, 2)).ok());
  wait_for_ends(1);
}

TEST_P(EngineTest, ItsEndAbortsWhatStillRuns) {
  start();
  for (RequestId id = 1; id <= 12; ++id) EXPECT_TRUE(engine_->submit(request(id, 100)).ok());
  engine_.reset();
  EXPECT_EQ(finished_.size(), 12u);
  for (const auto& [key, reason] : finished_)
    EXPECT_TRUE(reason == FinishReason::kAborted || reason == FinishReason::kLength);
}

TEST_P(EngineTest, AStepThatHangsIsSeenInTheSnapshot) {
  held_ = true;
  start();
  EXPECT_FALSE(engine_->stats().has_runnable_work);
  EXPECT_TRUE(engine_->submit(request(1, 2)).ok());
  while (!engine_->stats().has_runnable_work) std::this_thread::yield();
  const int64_t progress = engine_->stats().last_progress_ns;
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_EQ(engine_->stats().last_progress_ns, progress);
  held_ = false;
  wait_for_ends(1);
  while (engine_->stats().last_progress_ns == progress) std::this_thread::yield();
}

TEST(Engine, TellsTheTokensOfAStepBeforeAnybodyGuessesWhatFollows) {
  EngineConfig config;
  config.scheduler.max_model_len = 64;
  BlockGeometry geometry;
  geometry.groups[0].num_blocks = 16;
  FakeRunner runner(geometry);
  std::mutex mutex;
  std::condition_variable changed;
  std::string order;  // of the engine thread: t told, g guesses
  StepExecutor executor = run_in_turn([&](const Batch& batch, ModelOutput& output) { runner(batch, output); });
  executor.guess = [&](ModelOutput&) {
    const std::lock_guard lock(mutex);
    order += 'g';
  };
  Engine engine(config, geometry, std::move(executor), [&](EventBatch& batch) {
    const std::lock_guard lock(mutex);
    order.append(batch.events.size(), 't');
    changed.notify_all();
  });
  Request request;
  request.id = 1;
  request.prompt = {1, 2, 3};
  request.sampling.max_tokens = 4;
  ASSERT_TRUE(engine.submit(std::move(request)).ok());
  std::unique_lock lock(mutex);
  ASSERT_TRUE(changed.wait_for(lock, std::chrono::seconds(60), [&] { return std::ranges::count(order, 't') == 4; }));
  EXPECT_EQ(order.substr(0, 7), "tgtgtgt");
}

TEST_P(EngineTest, TellsWhatAModelAloneWouldSay) {
  start();
  std::vector<Request> requests;
  for (RequestId id = 1; id <= 20; ++id) {
    requests.push_back(request(id, 1 + static_cast<int>(id)));
    requests.back().sampling.seed = id;
    if (id % 2 == 0) requests.back().sampling.stop_token_ids = {7, 8, 9, 10};
    EXPECT_TRUE(engine_->submit(requests.back()).ok());
  }
  wait_for_ends(requests.size());
  std::lock_guard lock(mutex_);
  for (const Request& r : requests) {
    std::vector<TokenId> history = r.prompt, expected;
    bool stopped = false;
    while (!stopped && static_cast<int>(expected.size()) < r.sampling.max_tokens) {
      expected.push_back(runner_->next_token(history, r.sampling.seed));
      history.push_back(expected.back());
      const std::vector<TokenId>& ids = r.sampling.stop_token_ids;
      stopped = std::find(ids.begin(), ids.end(), expected.back()) != ids.end();
    }
    EXPECT_EQ((tokens_[{r.id, 0}]), expected) << r.id;
    EXPECT_EQ((finished_[{r.id, 0}]), stopped ? FinishReason::kStop : FinishReason::kLength) << r.id;
  }
  if (device_) {
    EXPECT_EQ(device_->max_in_flight(), kMaxStepsInFlight);
  }
}

TEST_P(EngineTest, ItsThreadAllocatesNothingFromTheFirstStepOn) {
  config_.scheduler.max_model_len = 96;
  geometry_.groups[0].num_blocks = 24;  // of 8: sequences give way to each other
  FakeRunner runner(geometry_);
  std::optional<testing::AllocationCounter> counter;
  int64_t by_the_model = 0;
  std::atomic<int64_t> by_the_engine{0};
  std::atomic<int> num_ended{0};
  std::array<ModelOutput, kMaxStepsInFlight> outputs;
  int launched = 0, taken = 0;
  StepExecutor executor;  // computes when it is launched, on the engine's thread, where the counter counts
  executor.overlap = GetParam();
  executor.launch = [&](const Batch& batch) {
    if (launched == 0) counter.emplace();
    const int64_t before = counter->count_on_this_thread();
    runner(batch, outputs[launched++ % kMaxStepsInFlight]);
    by_the_model += counter->count_on_this_thread() - before;
  };
  executor.wait = [&](ModelOutput& output) { std::swap(output, outputs[taken++ % kMaxStepsInFlight]); };
  Engine engine(config_, geometry_, executor, [&](EventBatch& batch) {
    for (const TokenEvent& event : batch.events) num_ended += event.finish != FinishReason::kNone;
    if (counter) by_the_engine = counter->count_on_this_thread() - by_the_model;
  });
  std::mt19937_64 random(9);
  int num_submitted = 0;
  for (RequestId id = 1; id <= 1500; ++id) {
    Request r = request(id, 1 + static_cast<int>(random() % 40), 1 + static_cast<int>(random() % 4 == 0));
    r.prompt.resize(3 + random() % 50, 5);  // they share a beginning, and the cache
    r.sampling.stop_token_ids = {static_cast<TokenId>(random() % 50)};
    while (!engine.submit(r).ok()) std::this_thread::yield();
    num_submitted += r.n;
    if (random() % 5 == 0) engine.abort(id - random() % 5);
    if (random() % 5 == 0) engine.stop_string_matched(id - random() % 5, 0);
  }
  while (num_ended < num_submitted) std::this_thread::yield();
  const SchedulerStats stats = engine.stats().scheduler;
  EXPECT_GT(engine.stats().steps, 500u);
  EXPECT_GT(stats.num_preemptions, 0u);
  EXPECT_GT(stats.prefix_hit_tokens, 0u);
  EXPECT_EQ(by_the_engine, 0);
}

TEST_P(EngineTest, ARecordedRunReplays) {
  config_.record_path = ::testing::TempDir() + (GetParam() ? "/day-one-ahead.txt" : "/day-in-turn.txt");
  start();
  for (RequestId id = 1; id <= 10; ++id) EXPECT_TRUE(engine_->submit(request(id, 10)).ok());
  wait_for_ends(10);
  const uint64_t steps = [&] {
    wait_until_idle();
    return engine_->stats().steps;
  }();
  engine_.reset();
  uint64_t replayed = 0;
  replay(config_.record_path, {.on_batch = [&](const Batch& batch, Time) { replayed += !batch.empty(); }});
  EXPECT_GE(replayed, steps);
  std::remove(config_.record_path.c_str());
}

}  // namespace
}  // namespace serval
