// What the prefix cache is worth to a model whose layers look back a window only: the share of prompt tokens
// found on chats, beside the share found by a model without windows and with all the memory it wants.

#include <gtest/gtest.h>

#include <random>

#include "engine/scheduler/scheduler.h"
#include "tests/engine/scheduler/scheduler_driver.h"

namespace serval {
namespace {

constexpr int kBlockSize = 16, kWindow = 512, kMaxTokens = 32'768;

// Turns of chats, one at a time: nine of ten go to one of the 20 conversations that began last, the tenth
// begins one.
class Chats {
 public:
  Chats(const BlockGeometry& geometry, int first_tokens)
      : first_tokens_(first_tokens), scheduler_(config(), geometry) {}

  double hit_rate(int num_turns) {
    for (int i = 0; i < num_turns; ++i) {
      if (i == num_turns / 4) warm_ = scheduler_.stats();
      turn();
      if (i % 50 == 0) scheduler_.check_invariants();
    }
    const SchedulerStats stats = scheduler_.stats();
    return static_cast<double>(stats.prefix_hit_tokens - warm_.prefix_hit_tokens) /
           static_cast<double>(stats.prefix_query_tokens - warm_.prefix_query_tokens);
  }

 private:
  static SchedulerConfig config() {
    SchedulerConfig config;
    config.max_num_seqs = 4;
    config.max_model_len = kMaxTokens;
    return config;
  }
  TokenId any_token() { return static_cast<TokenId>(random_() % 50'000); }

  void turn() {
    constexpr size_t kRecent = 20;
    std::vector<TokenId> chat;
    if (recent_.size() == kRecent && random_() % 10 != 0) {
      const auto chosen = recent_.begin() + static_cast<ptrdiff_t>(random_() % kRecent);
      chat = std::move(*chosen);
      recent_.erase(chosen);
      for (int i = 0; i < 80; ++i) chat.push_back(any_token());
    } else {
      if (recent_.size() == kRecent) recent_.erase(recent_.begin());
      for (int i = 0; i < first_tokens_; ++i) chat.push_back(any_token());
    }
    Request request;
    request.id = ++last_id_;
    request.prompt = chat;
    request.sampling.max_tokens = 60;
    testing::add(scheduler_, std::move(request), now_);
    while (scheduler_.has_work()) {
      now_ += Time{1};
      scheduler_.next_batch(now_, batch_);
      output_.clear();
      output_.step = batch_.step;
      for (const SeqStep& step : batch_.seqs) {
        SeqOutput& out = output_.seqs.emplace_back();
        out.seq = step.seq;
        if (!step.sample) continue;
        out.tokens_begin = static_cast<int32_t>(output_.tokens.size());
        out.num_tokens = 1;
        chat.push_back(output_.tokens.emplace_back(TokenOutput{.token = any_token()}).token);
      }
      scheduler_.apply(output_, now_, events_);
      events_.clear();
    }
    recent_.push_back(std::move(chat));
  }

  const int first_tokens_;
  Scheduler scheduler_;
  std::mt19937_64 random_{5};
  std::vector<std::vector<TokenId>> recent_;
  SchedulerStats warm_;
  RequestId last_id_ = 0;
  Time now_{0};
  Batch batch_;
  ModelOutput output_;
  EventBatch events_;
};

BlockGeometry geometry(std::vector<KvGroupGeometry> groups) {
  BlockGeometry g;
  g.block_size = kBlockSize;
  g.num_groups = static_cast<int>(groups.size());
  std::copy(groups.begin(), groups.end(), g.groups);
  return g;
}

// The conversations that are spoken to need 20 x 33 blocks of the windowed layers, and the one that runs 65.
TEST(WindowedCache, ChatsFindNearlyWhatAModelWithoutWindowsFinds) {
  constexpr int kAmple = 60'000, kTurns = 800;
  for (const int first_tokens : {600, 4000, 12'000}) {
    const double ideal = Chats(geometry({{kAmple, 0}}), first_tokens).hit_rate(kTurns);
    for (const auto& [blocks, floor] : {std::pair{1000, 0.93}, {1200, 0.98}, {2048, 0.98}}) {
      const double mixed = Chats(geometry({{kAmple, 0}, {blocks, kWindow}}), first_tokens).hit_rate(kTurns);
      const double alone = Chats(geometry({{blocks, kWindow}}), first_tokens).hit_rate(kTurns);
      RecordProperty("hit_rate_" + std::to_string(first_tokens) + "_" + std::to_string(blocks),
                     std::to_string(mixed) + " " + std::to_string(alone) + " of " + std::to_string(ideal));
      EXPECT_GT(mixed, floor * ideal) << first_tokens << " first tokens, " << blocks << " windowed blocks";
      EXPECT_GT(alone, floor * ideal)
          << first_tokens << " first tokens, " << blocks << " blocks, all windowed";
    }
  }
}

// A prompt may come again though its answer has left the window behind.
TEST(WindowedCache, APromptIsFoundAgainAfterALongAnswer) {
  SchedulerConfig config;
  config.max_num_seqs = 1;
  config.max_model_len = 2048;
  testing::SchedulerDriver driver(config, geometry({{1000, 0}, {54, 128}}), 1);
  int cached = 0;
  const auto serve = [&](RequestId id, int length, int topic, int max_tokens) {
    Request request;
    request.id = id;
    for (int i = 0; i < length; ++i) request.prompt.push_back((i + 1) * topic % 50);
    request.sampling.max_tokens = max_tokens;
    driver.add(std::move(request));
    while (!driver.is_idle()) driver.turn();
    cached = driver.events.events.back().cached_tokens;
  };
  serve(1, 300, 7, 600);
  serve(2, 900, 11, 1);  // takes more blocks than are free
  EXPECT_EQ(cached, 0);
  serve(3, 300, 7, 1);
  EXPECT_GE(cached, 300 - kBlockSize);
}

// The second choice comes late: the first is a window ahead by then and shares nothing with it any more.
TEST(WindowedCache, AForkThatComesLateTakesThePromptFromTheCache) {
  SchedulerConfig config;
  config.max_num_seqs = 2;
  config.max_model_len = 2048;
  testing::SchedulerDriver driver(config, geometry({{1000, 0}, {200, 64}}), 1);
  for (const RequestId id : {1, 2}) {
    Request request;
    request.id = id;
    for (int i = 0; i < 200; ++i) request.prompt.push_back(static_cast<TokenId>((i * 7 + id) % 50));
    request.n = static_cast<int>(id);
    request.sampling.max_tokens = id == 1 ? 150 : 400;
    driver.add(std::move(request));
  }
  while (!driver.is_idle()) driver.turn();
  EXPECT_LE(driver.scheduler.stats().prompt_tokens_computed, 400u + kBlockSize);
  const SchedulerStats stats = driver.scheduler.stats();
  EXPECT_EQ(stats.prefix_query_tokens, 600u);
  EXPECT_EQ(stats.prefix_hit_tokens + stats.prompt_tokens_computed, 600u);
}

}  // namespace
}  // namespace serval
