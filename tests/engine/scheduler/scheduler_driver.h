// A scheduler over a fake device that has up to `depth` steps in flight: plan, run, land, like the engine's
// loop, one call at a time.
#pragma once

#include <array>
#include <functional>
#include <utility>

#include "engine/scheduler/scheduler.h"
#include "tests/support/fake_runner.h"

namespace serval::testing {

// Ids below 50 have prompts of their own.
inline Request request(RequestId id, int num_prompt, int max_tokens, uint64_t flow = 0) {
  Request r;
  r.id = id;
  r.flow = flow;
  for (int i = 0; i < num_prompt; ++i) r.prompt.push_back((i * 7 + static_cast<TokenId>(id) * 13) % 50);
  r.sampling.max_tokens = max_tokens;
  return r;
}

// One group of blocks that are never forgotten.
inline BlockGeometry one_group(int num_blocks, int block_size = 16) {
  BlockGeometry geometry;
  geometry.block_size = block_size;
  geometry.groups[0].num_blocks = num_blocks;
  return geometry;
}

inline void add(Scheduler& scheduler, Request request, Time now) {
  scheduler.take(Add{scheduler.prepare(std::move(request))}, now);
}

class SchedulerDriver {
 public:
  SchedulerDriver(const SchedulerConfig& config, const BlockGeometry& geometry, int depth)
      : scheduler(config, geometry), runner(geometry), depth_(depth) {}

  Scheduler scheduler;
  FakeRunner runner;
  EventBatch events;
  Time now{0};
  std::function<Time(const Batch&)> step_time;  // none: no time
  bool masks_come_at_once = true;               // otherwise they are for the test to tell
  std::function<uint64_t()> may_verify = [] { return ~uint64_t{0}; };  // of a constrained sequence's guesses, at each step

  void take(SchedulerInput input) { scheduler.take(std::move(input), now); }
  void add(Request request) { testing::add(scheduler, std::move(request), now); }
  // Decides the next step; empty when there is nothing to launch.
  const Batch& plan() {
    scheduler.next_batch(now, next().batch);
    return next().batch;
  }
  // The device does what was planned last. Its result is there at once, but for nobody to see.
  void run() {
    launched_ = !next().batch.empty();
    if (!launched_) return;
    runner(next().batch, next().output);
    ++num_in_flight_;
  }
  // The oldest step's result is due: no more can be launched before it is taken in.
  bool is_due() const { return num_in_flight_ == depth_ || (num_in_flight_ > 0 && !launched_); }
  const ModelOutput& due() const { return steps_[oldest_].output; }
  void complete_step() {
    const size_t num_before = events.events.size();
    scheduler.apply(due(), now, events);
    scheduler.take_guesses(due());
    for (size_t i = num_before; masks_come_at_once && i < events.events.size(); ++i) {
      const TokenEvent& event = events.events[i];
      const bool is_last = i + 1 == events.events.size() || events.events[i + 1].request != event.request || events.events[i + 1].index != event.index;
      if (is_last) take(MaskReady{event.request, event.index, event.num_output + 1, may_verify()});
    }
    oldest_ = (oldest_ + 1) % kMaxStepsInFlight;
    --num_in_flight_;
  }
  // A turn of the loop, with the invariants checked; what happened is appended to `events`.
  const Batch& turn() {
    now += Time{1};
    const Batch& batch = plan();
    scheduler.check_invariants();
    run();
    if (step_time && !batch.empty()) now += step_time(batch);
    if (is_due()) complete_step();
    scheduler.take_events(events);
    scheduler.check_invariants();
    return batch;
  }
  bool is_idle() const { return num_in_flight_ == 0 && !scheduler.has_work(); }

  void reserve() {
    for (Step& step : steps_) scheduler.reserve(step.batch);
    events.events.reserve(256);
    events.prompt_parts.reserve(256);
    events.prompt_logprobs.reserve(1024);
  }

 private:
  struct Step {
    Batch batch;
    ModelOutput output;
  };
  Step& next() { return steps_[(oldest_ + num_in_flight_) % kMaxStepsInFlight]; }

  const int depth_;
  std::array<Step, kMaxStepsInFlight> steps_;
  int oldest_ = 0, num_in_flight_ = 0;
  bool launched_ = false;
};

}  // namespace serval::testing
