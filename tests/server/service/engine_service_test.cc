// The service over a real Engine whose model is a function: texts, stop strings, usage, log-probabilities,
// cancellation, drain.

#include "server/service/engine_service.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "engine/text/tokenizer/load_tokenizer.h"
#include "server/service/metrics.h"
#include "tests/support/fake_runner.h"

namespace serval {
namespace {

constexpr int kVocab = 300;  // the first ids of the shipped tokenizer: single bytes and short words

// Collects what a generation says; wait() until it is over.
class Collector final : public GenerationObserver {
 public:
  void on_delta(Delta&& delta) override {
    std::lock_guard lock(mutex_);
    EXPECT_FALSE(over_) << "a delta after the end";
    EXPECT_TRUE(!delta.text.empty() || delta.finish != FinishReason::kNone) << "an empty piece";
    deltas.push_back(std::move(delta));
    changed_.notify_all();
  }
  void on_done(const Usage& usage_seen) override {
    std::lock_guard lock(mutex_);
    usage = usage_seen;
    over_ = true;
    changed_.notify_all();
  }
  void on_error(const Error& seen) override {
    std::lock_guard lock(mutex_);
    error = seen;
    over_ = true;
    changed_.notify_all();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(changed_.wait_for(lock, std::chrono::seconds(60), [&] { return over_; }));
  }
  void wait_for_first() {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(changed_.wait_for(lock, std::chrono::seconds(60), [&] { return over_ || !deltas.empty(); }));
  }
  size_t num_deltas() {
    std::lock_guard lock(mutex_);
    return deltas.size();
  }
  std::string text(int index) const {
    std::string all;
    for (const Delta& delta : deltas) all += delta.index == index ? delta.text : "";
    return all;
  }
  const Delta& last(int index) const {
    for (auto it = deltas.rbegin(); it != deltas.rend(); ++it) {
      if (it->index == index) return *it;
    }
    ADD_FAILURE() << "no delta of choice " << index;
    return deltas.front();
  }

  std::vector<Delta> deltas;
  Usage usage;
  std::optional<Error> error;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;
};

class EngineServiceTest : public testing::Test {
 protected:
  EngineServiceTest() : metrics_("m") {
    tokenizer_ = load_tokenizer(std::string(SERVAL_SOURCE_DIR) + "/deploy/models/serval-nano");
    config_.model_id = "m";
    config_.aliases = {"alias"};
    config_.limits.max_model_len = 256;
    config_.limits.vocab_size = kVocab;
    config_.scheduler.max_model_len = 256;
    config_.scheduler.max_num_seqs = 4;
    config_.scheduler.max_waiting = 4;
    config_.scheduler.max_num_batched_tokens = 64;
    geometry_.block_size = 8;
    geometry_.groups[0].num_blocks = 256;
    runner_ = std::make_unique<FakeRunner>(geometry_, kVocab);
  }
  ~EngineServiceTest() override {
    if (service_) service_->attach(nullptr, geometry_);
    engine_.reset();
  }
  void start() {
    service_ = std::make_unique<EngineService>(config_, tokenizer_, ChatTemplates{}, metrics_);
    EngineConfig engine;
    engine.scheduler = config_.scheduler;
    engine_ = std::make_unique<Engine>(
        engine, geometry_,
        run_in_turn([this](const Batch& batch, ModelOutput& output) {
          if (slow_) std::this_thread::sleep_for(std::chrono::milliseconds(2));
          (*runner_)(batch, output);
          for (TokenOutput& token : output.tokens) {
            token.top_begin = static_cast<int32_t>(output.top.size());
            for (; token.num_top < num_top_; ++token.num_top) output.top.push_back({(token.token + token.num_top) % kVocab, -1.0f - static_cast<float>(token.num_top)});
          }
        }),
        service_->event_sink());
    service_->attach(engine_.get(), geometry_);
  }
  static GenerateRequest completion(int max_tokens) {
    GenerateRequest request;
    request.prompts = {std::vector<TokenId>{10, 20, 30}};
    request.max_tokens = max_tokens;
    return request;
  }
  std::shared_ptr<Collector> run(const GenerateRequest& request) {
    auto collector = std::make_shared<Collector>();
    auto generation = service_->generate(request, collector);
    EXPECT_TRUE(generation.ok()) << generation.error().message;
    if (generation.ok()) collector->wait();
    return collector;
  }
  // What the model says to a prompt, by its own definition.
  std::vector<TokenId> tokens(std::vector<TokenId> history, uint64_t seed, int count) const {
    std::vector<TokenId> output;
    for (int i = 0; i < count; ++i) {
      output.push_back(runner_->next_token(history, seed));
      history.push_back(output.back());
    }
    return output;
  }

  ServiceMetrics metrics_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  ServiceConfig config_;
  BlockGeometry geometry_;
  std::unique_ptr<FakeRunner> runner_;
  std::unique_ptr<EngineService> service_;
  std::unique_ptr<Engine> engine_;
  std::atomic<bool> slow_{false};
  int num_top_ = 0;  // log-probabilities told of each token
};

TEST_F(EngineServiceTest, DeliversTheTextOfTheTokensAndCountsThem) {
  start();
  GenerateRequest request = completion(20);
  request.seed = 5;
  const auto got = run(request);
  const std::vector<TokenId> expected = tokens({10, 20, 30}, 5, 20);
  EXPECT_EQ(got->text(0), tokenizer_->decode(expected, true));
  EXPECT_EQ(got->last(0).finish, FinishReason::kLength);
  EXPECT_EQ(got->usage.prompt_tokens, 3);
  EXPECT_EQ(got->usage.completion_tokens, 20);
  std::vector<TokenId> ids;
  for (const Delta& delta : got->deltas)
    ids.insert(ids.end(), delta.token_ids.begin(), delta.token_ids.end());
  EXPECT_EQ(ids, expected);
}

TEST_F(EngineServiceTest, ChoicesOfPromptsAreIndexedPromptFirst) {
  start();
  GenerateRequest request = completion(6);
  request.prompts.push_back(std::vector<TokenId>{40, 50});
  request.n = 2;
  request.seed = 9;
  const auto got = run(request);
  EXPECT_EQ(got->text(0), tokenizer_->decode(tokens({10, 20, 30}, seed_of_choice(9, 0), 6), true));
  EXPECT_EQ(got->text(1), tokenizer_->decode(tokens({10, 20, 30}, seed_of_choice(9, 1), 6), true));
  EXPECT_EQ(got->text(2), tokenizer_->decode(tokens({40, 50}, seed_of_choice(9, 2), 6), true));
  EXPECT_EQ(got->text(3), tokenizer_->decode(tokens({40, 50}, seed_of_choice(9, 3), 6), true));
  EXPECT_EQ(got->usage.prompt_tokens, 5);
  EXPECT_EQ(got->usage.completion_tokens, 24);
}

TEST_F(EngineServiceTest, AStopStringThatOnlyTheEndMakesWholeIsTheReasonOfTheEnd) {
  start();
  GenerateRequest request = completion(1);
  request.stop = {"\xef\xbf\xbd"};  // what half a character at the end becomes
  int64_t seed = 0;
  const auto last = [&] { return tokenizer_->token_bytes(tokens({10, 20, 30}, static_cast<uint64_t>(seed), 1)[0]); };
  while (last() != "\xc3") ++seed;
  request.seed = seed;
  const auto got = run(request);
  EXPECT_EQ(got->text(0), "");
  EXPECT_EQ(got->last(0).finish, FinishReason::kStopString);
  EXPECT_EQ(std::get<std::string>(got->last(0).stop_reason), request.stop[0]);
}

TEST_F(EngineServiceTest, NobodyTalksToAnEngineThatIsDetached) {
  for (int i = 0; i < 30; ++i) {
    runner_ = std::make_unique<FakeRunner>(geometry_, kVocab);
    start();
    std::vector<std::unique_ptr<Generation>> running;
    std::vector<std::shared_ptr<Collector>> collectors;
    for (int j = 0; j < 4; ++j) {
      GenerateRequest request = completion(200);
      request.ignore_eos = true;
      request.seed = i * 4 + j;
      request.stop = {" ", "a", "e"};  // found soon: told to the engine
      collectors.push_back(std::make_shared<Collector>());
      auto started = service_->generate(request, collectors.back());
      ASSERT_TRUE(started.ok());
      running.push_back(std::move(*started));
    }
    if (i % 2 == 0) collectors.front()->wait_for_first();
    service_->attach(nullptr, geometry_);
    engine_.reset();
    EXPECT_EQ(service_->generate(completion(1), collectors.front()).error().kind, ErrorKind::kUnavailable);
    for (const auto& collector : collectors) collector->wait();  // the engine ended what it still had
    EXPECT_TRUE(service_->wait_until_idle(std::chrono::seconds(20)));
  }
}

TEST_F(EngineServiceTest, AStopStringCutsTheTextAndEndsTheSequence) {
  start();
  GenerateRequest request = completion(40);
  request.seed = 3;
  const std::string full = run(request)->text(0);
  for (size_t at = 4; at + 3 < full.size() && at < 20; ++at) {
    const std::string stop = full.substr(at, 3);
    if (stop.find('\xbd') != std::string::npos) continue;  // part of a replacement character
    request.stop = {stop};
    const auto cut = run(request);
    EXPECT_EQ(cut->text(0), full.substr(0, full.find(stop))) << stop;
    EXPECT_EQ(cut->last(0).finish, FinishReason::kStopString);
    EXPECT_EQ(std::get<std::string>(cut->last(0).stop_reason), stop);
    EXPECT_LT(cut->usage.completion_tokens, 40);
  }
}

TEST_F(EngineServiceTest, AStopIdIsReportedButIsNotText) {
  start();
  GenerateRequest request = completion(40);
  request.seed = 3;
  const std::vector<TokenId> all = tokens({10, 20, 30}, 3, 40);
  request.stop_token_ids = {all[7]};
  const auto got = run(request);
  const size_t first = std::find(all.begin(), all.end(), all[7]) - all.begin();
  EXPECT_EQ(got->text(0), tokenizer_->decode(std::span(all).first(first), true));
  EXPECT_EQ(std::get<TokenId>(got->last(0).stop_reason), all[7]);
  EXPECT_EQ(got->usage.completion_tokens, static_cast<int64_t>(first) + 1);
}

TEST_F(EngineServiceTest, ASecondIdenticalPromptReportsAllButOneTokenCached) {
  start();
  GenerateRequest request = completion(2);
  request.prompts = {std::vector<TokenId>(37, 11)};
  EXPECT_EQ(run(request)->usage.cached_tokens, 0);
  EXPECT_EQ(run(request)->usage.cached_tokens, 36);
  request.cache_salt = "other";
  EXPECT_EQ(run(request)->usage.cached_tokens, 0);
}

TEST_F(EngineServiceTest, AKeyFindsItsOwnPromptsAndNobodyElses) {
  const auto cached = [&](int key, std::optional<std::string> salt = {}) {
    GenerateRequest request = completion(2);
    request.prompts = {std::vector<TokenId>(37, 11)};
    request.key = key;
    request.cache_salt = std::move(salt);
    return run(request)->usage.cached_tokens;
  };
  start();
  EXPECT_EQ(cached(1), 0);
  EXPECT_EQ(cached(2), 0);
  EXPECT_EQ(cached(1), 36);
  EXPECT_EQ(cached(2, std::string("\1\0\0\0", 4)), 0);
  EXPECT_EQ(cached(1, "salt"), 0);
  EXPECT_EQ(cached(0), 0);
  EXPECT_EQ(cached(2), 36);
}

TEST_F(EngineServiceTest, KeysShareTheCacheWhereThatIsAskedFor) {
  config_.share_prefix_cache = true;
  start();
  GenerateRequest request = completion(2);
  request.prompts = {std::vector<TokenId>(37, 11)};
  for (const int key : {1, 2}) {
    request.key = key;
    EXPECT_EQ(run(request)->usage.cached_tokens, key == 1 ? 0 : 36);
  }
}

TEST_F(EngineServiceTest, CancelStopsTheCallsAndFreesTheEngine) {
  slow_ = true;
  start();
  auto collector = std::make_shared<Collector>();
  auto generation = service_->generate(completion(200), collector);
  ASSERT_TRUE(generation.ok());
  collector->wait_for_first();
  (*generation)->cancel();
  const size_t seen = collector->num_deltas();
  EXPECT_TRUE(service_->wait_until_idle(std::chrono::seconds(30)));
  while (!engine_->idle()) std::this_thread::yield();
  EXPECT_EQ(collector->num_deltas(), seen);
  EXPECT_FALSE(collector->error.has_value());
  EXPECT_EQ(engine_->stats().scheduler.num_running, 0);
}

// As the line of the log does of a client that leaves: each of the two waits for the other where a search's lock is held around a step's.
TEST_F(EngineServiceTest, ASearchByBeamsTellsItsRecordAndEndsAtAnyMoment) {
  num_top_ = 4;
  start();
  for (int i = 0; i < 200; ++i) {
    auto collector = std::make_shared<Collector>();
    GenerateRequest request = completion(30);
    request.beams = BeamSearch{.width = 2};
    request.whole = true;
    auto generation = service_->generate(std::move(request), collector);
    ASSERT_TRUE(generation.ok()) << generation.error().message;
    for (int j = 0; j < i * 20; ++j) EXPECT_LE((*generation)->record().output_tokens, 2);  // of one step
    if (i % 2 == 0) collector->wait();
    EXPECT_FALSE(collector->error.has_value());
  }
  EXPECT_TRUE(service_->wait_until_idle(std::chrono::seconds(30)));
}

TEST_F(EngineServiceTest, AFullQueueIsOverloadedAndKeepsNothing) {
  slow_ = true;
  start();
  std::vector<std::unique_ptr<Generation>> held;
  for (int i = 0; i < 8; ++i) {
    auto generation = service_->generate(completion(200), std::make_shared<Collector>());
    ASSERT_TRUE(generation.ok()) << i;
    held.push_back(std::move(*generation));
  }
  const auto refused = service_->generate(completion(200), std::make_shared<Collector>());
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().kind, ErrorKind::kOverloaded);
  EXPECT_GE(refused.error().retry_after_s, 1);
  held.clear();
  EXPECT_TRUE(service_->wait_until_idle(std::chrono::seconds(30)));
}

TEST_F(EngineServiceTest, OneRowWithoutFiniteLogitsFailsThatRequestAlone) {
  runner_->fails = [](SeqId seq, int position) { return seq == 1 && position == 6; };
  start();
  auto bad = std::make_shared<Collector>(), good = std::make_shared<Collector>();
  auto first = service_->generate(completion(20), bad);
  auto second = service_->generate(completion(20), good);
  bad->wait();
  good->wait();
  ASSERT_TRUE(bad->error.has_value());
  EXPECT_EQ(bad->error->code, "numerical_error");
  EXPECT_EQ(good->usage.completion_tokens, 20);
}

TEST_F(EngineServiceTest, ADeadlineEndsTheRequestWithItsError) {
  slow_ = true;
  start();
  GenerateRequest request = completion(200);
  request.timeout = std::chrono::milliseconds(20);
  const auto got = run(request);
  ASSERT_TRUE(got->error.has_value());
  EXPECT_EQ(got->error->kind, ErrorKind::kDeadlineExceeded);
}

TEST_F(EngineServiceTest, DrainingRefusesNewAndFinishesOld) {
  slow_ = true;
  start();
  auto collector = std::make_shared<Collector>();
  auto generation = service_->generate(completion(30), collector);
  service_->begin_drain();
  std::string reason;
  EXPECT_FALSE(service_->ready(&reason));
  EXPECT_EQ(reason, "draining");
  EXPECT_EQ(service_->generate(completion(1), std::make_shared<Collector>()).error().kind,
            ErrorKind::kUnavailable);
  EXPECT_TRUE(service_->wait_until_idle(std::chrono::seconds(30)));
  EXPECT_EQ(collector->usage.completion_tokens, 30);
}

TEST_F(EngineServiceTest, AbortAllEndsEveryGenerationWithAnError) {
  slow_ = true;
  start();
  auto collector = std::make_shared<Collector>();
  auto generation = service_->generate(completion(200), collector);
  service_->abort_all();
  collector->wait();
  ASSERT_TRUE(collector->error.has_value());
  EXPECT_EQ(collector->error->kind, ErrorKind::kUnavailable);
  EXPECT_TRUE(service_->wait_until_idle(Time{0}));
}

TEST_F(EngineServiceTest, NamesReachTheModelAndOthersAreNotFound) {
  EngineService starting(config_, tokenizer_, ChatTemplates{}, metrics_);
  EXPECT_EQ(starting.generate(completion(1), std::make_shared<Collector>()).error().kind,
            ErrorKind::kUnavailable);
  start();
  for (const char* name : {"", "m", "alias"}) {
    GenerateRequest request = completion(1);
    request.model = name;
    EXPECT_TRUE(service_->render(request).ok()) << name;
  }
  GenerateRequest request = completion(1);
  request.model = "other";
  EXPECT_EQ(service_->render(request).error().code, "model_not_found");
}

TEST_F(EngineServiceTest, LivenessFollowsDelivery) {
  class Stuck final : public GenerationObserver {
   public:
    void on_delta(Delta&&) override { const std::lock_guard wait(gate); }
    void on_done(const Usage&) override {}
    void on_error(const Error&) override {}
    std::mutex gate;
  };
  config_.stall_seconds = 1;
  start();
  const auto stuck = std::make_shared<Stuck>();
  std::unique_lock hold(stuck->gate);
  auto generation = service_->generate(completion(5), stuck);
  while (service_->live()) std::this_thread::sleep_for(std::chrono::milliseconds(20));  // ends only because nothing is told
  hold.unlock();
  EXPECT_TRUE(service_->wait_until_idle(std::chrono::seconds(30)));
  while (!service_->live()) std::this_thread::yield();
}

TEST_F(EngineServiceTest, LivenessFollowsProgress) {
  config_.stall_seconds = 1;
  std::mutex stuck;
  std::unique_lock hold(stuck, std::defer_lock);
  service_ = std::make_unique<EngineService>(config_, tokenizer_, ChatTemplates{}, metrics_);
  EngineConfig engine;
  engine.scheduler = config_.scheduler;
  engine_ = std::make_unique<Engine>(
      engine, geometry_,
      run_in_turn([&](const Batch& batch, ModelOutput& output) {
        std::lock_guard wait(stuck);
        (*runner_)(batch, output);
      }),
      service_->event_sink());
  service_->attach(engine_.get(), geometry_);
  EXPECT_TRUE(service_->live());
  hold.lock();
  auto collector = std::make_shared<Collector>();
  auto generation = service_->generate(completion(5), collector);
  while (service_->live())
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // ends only because the step is stuck
  hold.unlock();
  collector->wait();
  EXPECT_TRUE(service_->live());
}

}  // namespace
}  // namespace serval
