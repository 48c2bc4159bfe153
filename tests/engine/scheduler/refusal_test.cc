// Those that wait for memory: what asking for them costs, and that nobody waits longer than memory makes him.

#include <gtest/gtest.h>

#include <map>

#include "tests/engine/scheduler/scheduler_driver.h"
#include "tests/engine/scheduler/scheduler_peer.h"

namespace serval::testing {
namespace {

constexpr int kBlockSize = 8;

struct Queue {
  explicit Queue(int num_blocks, std::vector<int> windows = {0})
      : driver(config(), geometry(num_blocks, windows), 1) {}
  static SchedulerConfig config() {
    SchedulerConfig config;
    config.max_num_seqs = 8;
    config.max_num_batched_tokens = config.max_prefill_chunk = 512;
    config.max_model_len = 1 << 15;
    return config;
  }
  static BlockGeometry geometry(int num_blocks, const std::vector<int>& windows) {
    BlockGeometry g;
    g.block_size = kBlockSize;
    g.num_groups = static_cast<int>(windows.size());
    for (size_t i = 0; i < windows.size(); ++i) g.groups[i] = {num_blocks, windows[i]};
    return g;
  }
  void add(RequestId id, std::vector<TokenId> prompt, int max_tokens) {
    Request r;
    r.id = id;
    r.prompt = std::move(prompt);
    r.sampling.max_tokens = max_tokens;
    driver.add(std::move(r));
  }
  void turn() {
    driver.turn();
    ++num_turns;
    for (const TokenEvent& event : driver.events.events) {
      first_scheduled.try_emplace(event.request, event.first_scheduled);
      cached[event.request] = event.cached_tokens;
      if (event.finish != FinishReason::kNone) ended[event.request] = driver.now;
    }
    driver.events.clear();
  }
  void run() {
    while (!driver.is_idle()) turn();
  }
  uint64_t looked_at() const { return SchedulerPeer::cache(driver.scheduler).num_looked_at(); }

  SchedulerDriver driver;
  int num_turns = 0;
  std::map<RequestId, Time> first_scheduled, ended;
  std::map<RequestId, int> cached;
};

std::vector<TokenId> prompt_of(int length, int topic) {
  std::vector<TokenId> prompt;
  for (int i = 0; i < length; ++i) prompt.push_back((i * 7 + topic * 13 + i / 50) % 50);
  return prompt;
}

// Nodes looked at in a step while a prompt of so many cached tokens waits for memory that another one holds.
double cost_of_waiting(int prompt_tokens) {
  constexpr int kSteps = 500;
  Queue queue(prompt_tokens / kBlockSize + 200);
  queue.add(1, prompt_of(prompt_tokens, 0), 1);
  queue.run();
  queue.add(2, prompt_of(8, 1), 1400);
  for (int i = 0; i < 200; ++i) queue.turn();  // it has begun to decode
  queue.add(
      3,
      [&] {
        std::vector<TokenId> longer = prompt_of(prompt_tokens, 0);
        const std::vector<TokenId> more = prompt_of(1550, 2);
        longer.insert(longer.end(), more.begin(), more.end());
        return longer;
      }(),
      2);
  queue.turn();
  const uint64_t before = queue.looked_at();
  for (int i = 0; i < kSteps; ++i) queue.turn();
  EXPECT_EQ(queue.driver.scheduler.stats().num_waiting, 1) << "there was room: nothing was tried";
  const double cost = static_cast<double>(queue.looked_at() - before) / kSteps;
  queue.run();
  EXPECT_GE(queue.cached[3], prompt_tokens - prompt_tokens % kBlockSize);
  return cost;
}

TEST(Refusal, WaitingForMemoryCostsTheSameHoweverLongThePrompt) {
  const double brief = cost_of_waiting(64), extended = cost_of_waiting(20'000);
  EXPECT_LT(extended, brief + 5);  // hashes that happen to fall together cost a few
}

// Two prompts with a long beginning in common: the second fits beside the first because they share it, which
// it can only once the first has computed it.
TEST(Refusal, OneThatFitsByWhatAnotherIsComputingGetsInWhenThatIsThere) {
  for (const std::vector<int>& windows : {std::vector<int>{0}, {0, 64}}) {
    Queue queue(60, windows);
    queue.add(1, prompt_of(400, 0), 60);
    std::vector<TokenId> second = prompt_of(400, 0);
    second.resize(390);
    second.push_back(49);
    queue.add(2, second, 10);
    queue.run();
    EXPECT_GE(queue.cached[2], 320);
    EXPECT_EQ(queue.first_scheduled[2], Time{2}) << "it waited until the first one was gone";
  }
}

TEST(Refusal, OneThatWaitsGetsInAsSoonAsItsBlocksAreFree) {
  Queue queue(30);
  queue.add(1, prompt_of(100, 0), 20);  // 15 blocks
  queue.add(2, prompt_of(60, 1), 60);   // 15 blocks
  queue.add(3, prompt_of(120, 2), 4);   // has to wait for the first one's end
  queue.run();
  EXPECT_EQ(queue.driver.scheduler.stats().num_preemptions, 0u);
  EXPECT_EQ(queue.first_scheduled[3], queue.ended[1] + Time{1});
}

}  // namespace
}  // namespace serval::testing
