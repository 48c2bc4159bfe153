// The prefix cache on a published trace: what it finds is what an ideal LRU of the same size would.

#include <gtest/gtest.h>

#include <filesystem>

#include "engine/scheduler/scheduler.h"
#include "loadtest/load/workload.h"
#include "tests/support/fake_runner.h"

namespace serval {
namespace {

// Requests of the Mooncake trace one at a time (lengths / 16, so that a hash block is 32 tokens), through a
// cache of `num_blocks`.
double hit_ratio(const std::vector<load::PlannedRequest>& requests, int num_blocks) {
  SchedulerConfig config;
  config.max_num_seqs = 1;
  config.max_num_batched_tokens = config.max_prefill_chunk = 512;
  config.max_model_len = 16'384;
  BlockGeometry geometry;
  geometry.block_size = 32;
  geometry.groups[0].num_blocks = num_blocks;
  Scheduler scheduler(config, geometry);
  FakeRunner runner(geometry, 10'000);
  Batch batch;
  ModelOutput output;
  EventBatch events;
  Time now{0};
  int64_t cached = 0, prompt = 0;
  RequestId id = 1;
  for (const load::PlannedRequest& planned : requests) {
    Request request;
    request.id = id++;
    request.prompt = planned.token_ids;
    request.sampling.max_tokens = 1;
    if (!fits(geometry, config, static_cast<int>(request.prompt.size()), 1)) continue;
    prompt += static_cast<int64_t>(request.prompt.size());
    scheduler.take(Add{scheduler.prepare(std::move(request))}, now);
    while (scheduler.has_work()) {
      now += Time{1};
      scheduler.next_batch(now, batch);
      if (batch.empty()) continue;
      runner(batch, output);
      scheduler.apply(output, now, events);
    }
    for (const TokenEvent& event : events.events) cached += event.cached_tokens;
    events.clear();
  }
  return static_cast<double>(cached) / static_cast<double>(prompt);
}

TEST(PrefixCacheOnATrace, FindsWhatAnIdealLruFinds) {
  const std::string path =
      std::string(SERVAL_SOURCE_DIR) + "/../shared/data/trace-mooncake-synthetic/synthetic_trace.jsonl";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "../shared/data/trace-mooncake-synthetic is absent";
  load::WorkloadOptions options;
  options.num_requests = 1'000'000;
  options.scale_lengths = 1.0 / 16;
  options.num_ids = 10'000;
  const auto requests = load::trace_workload(path, options);
  for (const auto& [blocks, ideal] :
       {std::pair{1000, 0.084}, {5000, 0.279}, {10'000, 0.424}, {30'000, 0.624}}) {
    const double found = hit_ratio(requests, blocks);
    std::printf("%6d blocks: %.3f of the prompt tokens cached, ideal %.3f\n", blocks, found, ideal);
    EXPECT_NEAR(found, ideal, 0.02) << blocks;
  }
}

}  // namespace
}  // namespace serval
