// The scheduler's rules by example, driven by a model that is a function.

#include "engine/scheduler/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include "tests/engine/scheduler/scheduler_driver.h"
#include "tests/engine/scheduler/scheduler_peer.h"

namespace serval {
namespace {

struct World {
  SchedulerConfig config;
  BlockGeometry geometry;
  std::unique_ptr<Scheduler> scheduler;
  std::unique_ptr<FakeRunner> runner;
  Batch batch;
  ModelOutput output;
  EventBatch events;
  Time now{0};
  std::map<std::pair<RequestId, int>, std::vector<TokenId>> tokens;
  std::map<std::pair<RequestId, int>, FinishReason> finished;
  std::map<std::pair<RequestId, int>, int> cached;
  std::vector<std::pair<int, TokenId>> prompt_logprobs;  // position, token
  int32_t last_class = 0;  // of those who were admitted

  World() {
    config.max_num_seqs = 8;
    config.max_num_batched_tokens = 64;
    config.max_prefill_chunk = 64;
    config.max_model_len = 256;
    config.max_waiting = 8;
    geometry.block_size = 8;
    geometry.groups[0].num_blocks = 256;
  }
  void start() {
    scheduler = std::make_unique<Scheduler>(config, geometry);
    runner = std::make_unique<FakeRunner>(geometry);
  }
  static Request request(RequestId id, std::vector<TokenId> prompt, int max_tokens, int n = 1) {
    Request r;
    r.id = id;
    r.prompt = std::move(prompt);
    r.n = n;
    r.sampling.max_tokens = max_tokens;
    r.sampling.seed = 11;
    return r;
  }
  void add(Request r) { testing::add(*scheduler, std::move(r), now); }
  // One step; false when there was nothing to run.
  bool step() {
    now += Time{1};
    scheduler->next_batch(now, batch);
    const bool ran = !batch.empty();
    if (batch.num_admitted > 0) last_class = batch.admitted[batch.num_admitted - 1].length_class;
    if (ran) {
      (*runner)(batch, output);
      scheduler->apply(output, now, events);
      scheduler->take_guesses(output);
    }
    scheduler->take_events(events);
    scheduler->check_invariants();
    for (const EventBatch::PromptPart& part : events.prompt_parts) {
      for (int i = 0; i < part.count; ++i)
        prompt_logprobs.emplace_back(part.first_position + i, events.prompt_logprobs[part.begin + i].token);
    }
    for (const TokenEvent& e : events.events) {
      const std::pair key{e.request, e.index};
      if (e.token >= 0) tokens[key].push_back(e.token);
      cached[key] = e.cached_tokens;
      if (e.finish != FinishReason::kNone) {
        EXPECT_FALSE(finished.count(key)) << "a second end";
        finished[key] = e.finish;
      }
    }
    events.clear();
    return ran;
  }
  void run() {
    for (int i = 0; scheduler->has_work(); ++i) {
      ASSERT_LT(i, 10'000);
      step();
    }
  }
  std::vector<TokenId> alone(std::vector<TokenId> history, int count, uint64_t seed = 11) const {
    std::vector<TokenId> out;
    for (int i = 0; i < count; ++i) {
      out.push_back(runner->next_token(history, seed));
      history.push_back(out.back());
    }
    return out;
  }
};

std::vector<TokenId> prompt_of(int length, int salt = 0) {
  std::vector<TokenId> prompt;
  for (int i = 0; i < length; ++i) prompt.push_back((i * 7 + salt * 13 + i / 5) % 50);
  return prompt;
}

TEST(Scheduler, APromptLargerThanTheBudgetIsChunkedAndSamplesOnlyAtItsEnd) {
  World w;
  w.config.max_num_batched_tokens = 16;
  w.start();
  w.add(World::request(1, prompt_of(40), 2));
  std::vector<std::pair<int, bool>> chunks;
  while (w.step()) chunks.emplace_back(w.batch.seqs[0].num_tokens, w.batch.seqs[0].sample);
  EXPECT_EQ(chunks, (std::vector<std::pair<int, bool>>{{16, false}, {16, false}, {8, true}, {1, true}}));
  EXPECT_EQ((w.tokens[{1, 0}]), w.alone(prompt_of(40), 2));
}

TEST(Scheduler, DecodesAreNeverStalledByAPrompt) {
  World w;
  w.config.max_num_batched_tokens = 16;
  w.start();
  for (RequestId id = 1; id <= 3; ++id) w.add(World::request(id, prompt_of(3, static_cast<int>(id)), 60));
  w.step();
  w.add(World::request(9, prompt_of(200, 9), 2));
  for (int i = 0; i < 15; ++i) {
    w.step();
    std::set<SeqId> decoding;
    int prompt_rows = 0;
    for (const SeqStep& s : w.batch.seqs) {
      if (s.seq <= 3) decoding.insert(s.seq);
      if (s.seq == 4) prompt_rows += s.num_tokens;
    }
    EXPECT_EQ(decoding.size(), 3u) << "step " << i;
    EXPECT_LE(prompt_rows, 13);
  }
}

TEST(Scheduler, ASecondIdenticalPromptComputesOneToken) {
  for (const int length : {1, 7, 8, 9, 40, 41}) {
    World w;
    w.start();
    w.add(World::request(1, prompt_of(length), 3));
    w.run();
    w.add(World::request(2, prompt_of(length), 3));
    w.run();
    EXPECT_EQ((w.cached[{2, 0}]), length - 1);
    EXPECT_EQ((w.tokens[{1, 0}]), (w.tokens[{2, 0}]));
  }
}

TEST(Scheduler, AFollowUpFindsThePromptAndTheAnswer) {
  World w;
  w.start();
  w.add(World::request(1, prompt_of(20), 10));
  w.run();
  std::vector<TokenId> followup = prompt_of(20);
  const std::vector<TokenId> answer = w.tokens[{1, 0}];
  followup.insert(followup.end(), answer.begin(), answer.end());
  followup.push_back(1);
  w.add(World::request(2, followup, 2));
  w.run();
  EXPECT_EQ((w.cached[{2, 0}]), 29);  // the last token of the answer was sampled but never computed
}

TEST(Scheduler, CountsEveryTokenLookedUpFoundComputedAndDrawn) {
  World w;
  w.geometry.groups[0].num_blocks = 8;
  w.start();
  w.add(World::request(1, prompt_of(20), 3));
  w.run();
  w.add(World::request(2, prompt_of(20), 5));
  w.run();
  SchedulerStats stats = w.scheduler->stats();
  EXPECT_EQ(stats.prompt_tokens, 40u);
  EXPECT_EQ(stats.prefix_query_tokens, 40u);
  EXPECT_EQ(stats.prefix_hit_tokens, 19u);
  EXPECT_EQ(stats.prompt_tokens_computed, 21u);
  EXPECT_EQ(stats.generation_tokens, 8u);
  EXPECT_EQ(stats.num_evicted_blocks, 1u) << "a tail that another continues";
  w.add(World::request(3, prompt_of(60, 1), 4));  // needs all eight
  w.run();
  stats = w.scheduler->stats();
  EXPECT_EQ(stats.num_evicted_blocks, 4u);
  EXPECT_EQ(stats.num_cached_blocks, 8);
}

TEST(Scheduler, SequencesOfDifferentClassesOfLengthsShareNoBlock) {
  World w;
  w.geometry.lengths = {.num_bounds = 2, .bounds = {30, 40}};
  w.start();
  auto cached = [&, id = RequestId{0}](int prompt_tokens, int max_tokens, int length_class) mutable {
    w.add(World::request(++id, prompt_of(prompt_tokens), max_tokens));
    w.run();
    EXPECT_EQ(w.last_class, length_class);
    return w.cached[{id, 0}];
  };
  EXPECT_EQ(cached(20, 10, 0), 0);
  EXPECT_EQ(cached(20, 5, 0), 19);
  EXPECT_EQ(cached(20, 11, 1), 0) << "it may become longer than 30";
  EXPECT_EQ(cached(25, 15, 1), 20) << "whatever it becomes in the end";
  EXPECT_EQ(cached(20, 21, 2), 0);
  EXPECT_EQ(cached(20, 10'000, 2), 19) << "as long as any";
}

TEST(Scheduler, ASaltSeparatesCachesAndNoCacheMeansNone) {
  World w;
  w.start();
  w.add(World::request(1, prompt_of(20), 1));
  w.run();
  Request salted = World::request(2, prompt_of(20), 1);
  salted.cache_salt = std::string("a\0b", 3);
  w.add(salted);
  w.run();
  EXPECT_EQ((w.cached[{2, 0}]), 0);
  salted.id = 3;
  w.add(salted);
  w.run();
  EXPECT_EQ((w.cached[{3, 0}]), 19);

  World off;
  off.config.enable_prefix_cache = false;
  off.start();
  for (RequestId id = 1; id <= 2; ++id) {
    off.add(World::request(id, prompt_of(20), 1));
    off.run();
    EXPECT_EQ((off.cached[{id, 0}]), 0);
  }
  EXPECT_EQ(off.scheduler->stats().num_free_blocks, 256);
}

TEST(Scheduler, PromptLogprobsReadNoCache) {
  World w;
  w.start();
  w.add(World::request(1, prompt_of(20), 1));
  w.run();
  Request r = World::request(2, prompt_of(20), 1);
  r.sampling.num_prompt_logprobs = 1;
  w.add(r);
  w.run();
  EXPECT_EQ((w.cached[{2, 0}]), 0);
}

TEST(Scheduler, PromptLogprobsAreReportedOnceThoughThePromptIsComputedTwice) {
  World w;
  w.geometry.groups[0].num_blocks = 10;
  w.config.max_model_len = 80;
  w.config.max_num_batched_tokens = 16;
  w.config.max_prefill_chunk = 16;
  w.start();
  w.add(World::request(9, prompt_of(4), 1));  // short answers are expected from here on
  w.run();
  w.add(World::request(1, prompt_of(20), 50));
  Request r = World::request(2, prompt_of(30, 1), 40);
  r.sampling.num_prompt_logprobs = 0;
  w.add(r);
  w.run();
  EXPECT_GT(w.scheduler->stats().num_preemptions, 0u);
  std::vector<int> positions;
  for (const auto& [position, token] : w.prompt_logprobs) {
    positions.push_back(position);
    EXPECT_EQ(token, r.prompt[position]);
  }
  std::vector<int> once(29);
  std::iota(once.begin(), once.end(), 1);
  EXPECT_EQ(positions, once);
}

TEST(Scheduler, ForksComputeThePromptOnceAndDrawEachTheirOwn) {
  for (const bool cache : {true, false}) {
    World w;
    w.config.enable_prefix_cache = cache;
    w.start();
    w.add(World::request(1, prompt_of(37), 12, 4));
    w.run();
    for (int i = 0; i < 4; ++i)
      EXPECT_EQ((w.tokens[{1, i}]), w.alone(prompt_of(37), 12, seed_of_choice(11, i))) << i;
    EXPECT_EQ(w.scheduler->stats().prompt_tokens_computed, 37u + 3)
        << "each fork computes its last prompt token only";
  }
}

TEST(Scheduler, WasteIsUnderOneBlockASequence) {
  World w;
  w.config.enable_prefix_cache = false;
  w.start();
  for (RequestId id = 1; id <= 8; ++id)
    w.add(World::request(id, prompt_of(5 + static_cast<int>(id) * 3, static_cast<int>(id)), 30));
  for (int i = 0; i < 20; ++i) {
    w.step();
    int tokens = 0;
    for (const SeqStep& s : w.batch.seqs) tokens += s.first_pos + s.num_tokens;
    if (w.batch.seqs.size() != 8) continue;
    const SchedulerStats stats = w.scheduler->stats();
    const int held = (stats.num_blocks - stats.num_free_blocks) * w.geometry.block_size;
    EXPECT_LT(held - tokens, 8 * w.geometry.block_size);
  }
}

TEST(Scheduler, UnderPressureTheOldestProgressesAndAllFinishWithTheirOwnTokens) {
  World w;
  w.geometry.groups[0].num_blocks = 12;  // 96 positions for sequences of up to 80
  w.config.max_model_len = 80;
  w.start();
  for (RequestId id = 1; id <= 6; ++id) w.add(World::request(id, prompt_of(20, static_cast<int>(id)), 50));
  int last_oldest = 0;
  for (int i = 0; w.scheduler->has_work(); ++i) {
    ASSERT_LT(i, 5000);
    w.step();
    for (RequestId id = 1; id <= 6; ++id) {
      if (w.finished.count({id, 0})) continue;
      const int produced = static_cast<int>(w.tokens[{id, 0}].size()) + 1000 * static_cast<int>(id);
      if (!w.batch.seqs.empty()) {
        EXPECT_GE(produced, last_oldest);
      }
      last_oldest = produced;
      break;
    }
  }
  EXPECT_GT(w.scheduler->stats().num_preemptions, 0u);
  for (RequestId id = 1; id <= 6; ++id)
    EXPECT_EQ((w.tokens[{id, 0}]), w.alone(prompt_of(20, static_cast<int>(id)), 50)) << id;
}

TEST(Scheduler, AnAbortFreesItsBlocksBeforeTheNextStep) {
  World w;
  w.config.enable_prefix_cache = false;
  w.start();
  w.add(World::request(1, prompt_of(30), 100));
  w.add(World::request(2, prompt_of(30, 1), 4));
  w.step();
  w.scheduler->take(Abort{1}, w.now);
  w.step();
  EXPECT_EQ((w.finished[{1, 0}]), FinishReason::kAborted);
  for (const SeqStep& s : w.batch.seqs) EXPECT_EQ(s.seq, 2u);
  w.run();
  EXPECT_EQ(w.scheduler->stats().num_free_blocks, 256);
}

TEST(Scheduler, AnAbortWhileTheStepRunsDropsItsRows) {
  World w;
  w.start();
  w.add(World::request(1, prompt_of(10), 100));
  w.step();
  w.scheduler->next_batch(Time{100}, w.batch);
  (*w.runner)(w.batch, w.output);
  w.scheduler->take(Abort{1}, w.now);
  EventBatch events;
  w.scheduler->apply(w.output, Time{100}, events);
  ASSERT_EQ(events.events.size(), 1u);
  EXPECT_EQ(events.events[0].token, -1);
  EXPECT_EQ(events.events[0].finish, FinishReason::kAborted);
  w.scheduler->check_invariants();
  EXPECT_FALSE(w.scheduler->has_work());
}

TEST(Scheduler, EndsAsItsRulesSay) {
  World w;
  w.start();
  const std::vector<TokenId> natural = w.alone(prompt_of(10), 20);
  Request eos = World::request(1, prompt_of(10), 20);
  eos.sampling.eos_token_ids = {natural[4]};
  Request ignoring = eos, minimum = eos, stop_id = World::request(4, prompt_of(10), 20);
  ignoring.id = 2;
  ignoring.sampling.ignore_eos = true;
  minimum.id = 3;
  minimum.sampling.min_tokens = 12;
  stop_id.sampling.stop_token_ids = {natural[4]};
  for (const Request& r : {eos, ignoring, minimum, stop_id}) w.add(r);
  Request context = World::request(5, prompt_of(250), 20);
  w.add(context);
  w.run();
  EXPECT_LE((w.tokens[{1, 0}].size()), 5u);
  EXPECT_EQ((w.finished[{1, 0}]), FinishReason::kStop);
  EXPECT_EQ((w.tokens[{2, 0}].size()), 20u);
  EXPECT_GE((w.tokens[{3, 0}].size()), 12u);
  EXPECT_EQ((w.finished[{4, 0}]), FinishReason::kStop);
  EXPECT_EQ((w.tokens[{5, 0}].size()), 6u);
  EXPECT_EQ((w.finished[{5, 0}]), FinishReason::kLength);
}

TEST(Scheduler, AStopStringEndsItsSequenceAndNoOther) {
  World w;
  w.start();
  w.add(World::request(1, prompt_of(10), 20, 2));
  for (int i = 0; i < 4; ++i) w.step();
  w.scheduler->take(StopMatched{1, 0}, w.now);
  w.run();
  EXPECT_EQ((w.finished[{1, 0}]), FinishReason::kStopString);
  EXPECT_EQ((w.finished[{1, 1}]), FinishReason::kLength);
  w.scheduler->take(StopMatched{1, 0}, w.now);  // late messages are ignored
  w.scheduler->take(Abort{1}, w.now);
  EXPECT_FALSE(w.step());
}

TEST(Scheduler, ADeadlineInTheQueueIsDroppedBeforeItsPrompt) {
  World w;
  w.config.max_num_seqs = 1;
  w.config.max_num_batched_tokens = 8;
  w.start();
  w.add(World::request(1, prompt_of(10), 30));
  Request late = World::request(2, prompt_of(10, 1), 5);
  late.deadline = Time{5};
  w.add(late);
  w.run();
  EXPECT_EQ((w.finished[{2, 0}]), FinishReason::kDeadline);
  EXPECT_TRUE((w.tokens[{2, 0}].empty()));
  EXPECT_EQ(w.scheduler->stats().prompt_tokens_computed, 10u);
}

TEST(Scheduler, PriorityDecidesTheOrderOfTheQueue) {
  World w;
  w.config.max_num_seqs = 1;
  w.config.policy = QueuePolicy::kPriority;
  w.start();
  for (RequestId id = 1; id <= 3; ++id) {
    Request r = World::request(id, prompt_of(4, static_cast<int>(id)), 2);
    r.priority = 10 - static_cast<int>(id);
    w.add(r);
  }
  std::vector<RequestId> order;
  while (w.step()) {
    for (const auto& [key, reason] : w.finished) {
      if (std::find(order.begin(), order.end(), key.first) == order.end()) order.push_back(key.first);
    }
  }
  EXPECT_EQ(order, (std::vector<RequestId>{3, 2, 1}));
}

TEST(Scheduler, TheQueueIsBoundedExactly) {
  World w;
  w.config.max_num_seqs = 2;
  w.config.max_waiting = 3;
  w.start();
  for (RequestId id = 1; id <= 4; ++id) w.add(World::request(id, prompt_of(4), 2));
  EXPECT_TRUE(w.scheduler->has_place(1));
  EXPECT_FALSE(w.scheduler->has_place(2));
  w.add(World::request(5, prompt_of(4), 2));
  EXPECT_FALSE(w.scheduler->has_place(1));
  w.run();
  EXPECT_TRUE(w.scheduler->has_place(5));
}

TEST(Scheduler, AWindowedGroupForgetsWhatHasPassed) {
  World w;
  w.geometry.num_groups = 2;
  w.geometry.groups[1] = {40, 16};
  w.config.enable_prefix_cache = false;
  w.config.max_prefill_chunk = 8;
  w.start();
  w.add(World::request(1, prompt_of(100), 100));
  w.run();
  EXPECT_EQ((w.tokens[{1, 0}]),
            w.alone(prompt_of(100), 100));  // 200 positions through 40 blocks of 8, never more than 5 held
}

TEST(Scheduler, TheUsageOfMemoryIsThatOfTheGroupThatIsFullest) {
  World w;
  w.geometry.num_groups = 2;
  w.geometry.groups[1] = {8, 16};
  w.start();
  w.add(World::request(1, prompt_of(20), 10));
  EXPECT_EQ(w.scheduler->stats().kv_usage, 0);
  w.step();
  EXPECT_EQ(w.scheduler->stats().kv_usage, 3.0 / 8) << "three blocks of 256 in one, of 8 in the other";
  w.run();
  EXPECT_EQ(w.scheduler->stats().kv_usage, 0) << "what is only cached counts as free";
}

TEST(Scheduler, AMatchEndsWhereTheWindowBeforeItIsWhole) {
  World w;
  w.geometry.num_groups = 2;
  w.geometry.groups[1] = {12, 16};
  w.config.max_prefill_chunk = 8;
  w.start();
  w.add(World::request(1, prompt_of(64), 2));
  w.run();
  for (RequestId id = 2; id <= 4; ++id) {  // push the first one's window blocks out
    w.add(World::request(id, prompt_of(40, static_cast<int>(id)), 2));
    w.run();
  }
  w.add(World::request(9, prompt_of(64), 2));
  w.run();  // the fake runner checks every position inside the window
  EXPECT_EQ((w.tokens[{9, 0}]), (w.tokens[{1, 0}]));
}

TEST(Scheduler, ABlockNobodyAccountsForIsCaught) {
  World w;
  w.start();
  w.scheduler->check_invariants();
  EXPECT_DEATH(
      {
        const BlockRef leaked = SchedulerPeer::take_block(*w.scheduler);
        w.scheduler->check_invariants();
      },
      "check failed");
}

// A request alone, twice, so that the second finds the cache full of the first. False: it waits for ever.
bool ends(const World& like, int prompt, int max_tokens, int n, int depth) {
  testing::SchedulerDriver driver(like.config, like.geometry, depth);
  for (RequestId id = 1; id <= 2; ++id) {
    driver.add(World::request(id, prompt_of(prompt), max_tokens, n));
    for (int idle = 0; !driver.is_idle(); idle = driver.turn().empty() ? idle + 1 : 0) {
      if (idle > kMaxStepsInFlight) return false;
    }
  }
  return true;
}

TEST(Scheduler, FitsIsExactToTheBlock) {
  std::mt19937_64 random(5);
  const auto pick = [&](int n) { return static_cast<int>(random() % n); };
  for (int i = 0; i < 400; ++i) {
    World w;
    w.config.max_model_len = 40;  // a prompt may fill it
    w.config.max_prefill_chunk = 1 + pick(30);
    w.config.enable_prefix_cache = pick(4) != 0;
    w.geometry.block_size = 1 << pick(5);
    w.geometry.num_groups = 1 + pick(2);
    const int prompt = 1 + pick(40), max_tokens = 1 + pick(30), n = 1 + pick(3);
    for (int g = 0; g < w.geometry.num_groups; ++g)
      w.geometry.groups[g] = {.num_blocks = 200,
                              .window = g == 1 || pick(3) == 0 ? 1 + pick(40) : 0,
                              .state_span = pick(4) == 0 ? w.geometry.block_size * (1 + pick(3)) : 0};
    for (int g = 0; g < w.geometry.num_groups; ++g) {  // each group's pool as small as fits() allows
      while (fits(w.geometry, w.config, prompt, max_tokens)) --w.geometry.groups[g].num_blocks;
      ++w.geometry.groups[g].num_blocks;
    }
    SCOPED_TRACE(::testing::Message()
                 << "case " << i << ": prompt " << prompt << ", max_tokens " << max_tokens << ", n " << n
                 << ", block_size " << w.geometry.block_size);
    for (int depth = 1; depth <= kMaxStepsInFlight; ++depth) {
      ASSERT_TRUE(ends(w, prompt, max_tokens, n, depth)) << "depth " << depth;
      for (int g = 0; g < w.geometry.num_groups; ++g) {
        World less;
        less.config = w.config;
        less.geometry = w.geometry;
        --less.geometry.groups[g].num_blocks;
        ASSERT_FALSE(fits(less.geometry, less.config, prompt, max_tokens));
        ASSERT_FALSE(ends(less, prompt, max_tokens, 1, depth)) << "depth " << depth << ", group " << g;
      }
    }
  }
}

}  // namespace
}  // namespace serval
