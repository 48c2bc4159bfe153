// Whichever allocation of the serving threads fails, it costs the request it was for and nothing else: the
// whole service over a real engine whose model is a function, and every allocation of some requests failing
// in turn.

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <chrono>
#include <memory>
#include <string>

#include "engine/engine.h"
#include "engine/text/tokenizer/load_tokenizer.h"
#include "server/admin_handlers.h"
#include "server/http/http_server.h"
#include "server/openai/openai_handlers.h"
#include "server/service/engine_service.h"
#include "server/service/metrics.h"
#include "tests/support/allocation_failure.h"
#include "tests/support/fake_runner.h"
#include "tests/support/raw_http_client.h"

namespace serval::testing {
namespace {

constexpr int kVocab = 2048;

class OutOfMemory : public ::testing::TestWithParam<const char*> {
 protected:
  OutOfMemory() : metrics_("m"), runner_(geometry(), kVocab) {
    ServiceConfig config;
    config.model_id = "m";
    config.limits.max_model_len = 256;
    config.limits.vocab_size = kVocab;
    config.scheduler.max_model_len = 256;
    config.scheduler.max_num_seqs = 8;
    config.scheduler.max_waiting = 8;
    config.scheduler.max_num_batched_tokens = 64;
    config.answers = answers_;
    service_ = std::make_unique<EngineService>(
        config, load_tokenizer(std::string(SERVAL_SOURCE_DIR) + "/deploy/models/serval-nano"), ChatTemplates{},
        metrics_);
    EngineConfig engine;
    engine.scheduler = config.scheduler;
    engine_ = std::make_unique<Engine>(engine, geometry(),
                                       run_in_turn([this](const Batch& b, ModelOutput& o) { runner_(b, o); }),
                                       service_->event_sink());
    service_->attach(engine_.get(), geometry());
    RouteTable routes;
    routes.add(openai_routes(*service_, {}));
    routes.add(admin_routes(
        *service_, [this] { return metrics_.text(); }, "1"));
    HttpHooks hooks;
    hooks.response = [this](const std::string& route, int status) { metrics_.http_response(route, status); };
    hooks.refused = [this](const std::string& code) { metrics_.rejected(code); };
    hooks.client_gone = [this](const char* reason) { metrics_.client_gone(reason); };
    HttpConfig http;
    http.answers = answers_;
    server_ = std::make_unique<HttpServer>(http, std::move(routes), std::move(hooks));
    server_->start();
  }
  ~OutOfMemory() override {
    server_->stop();
    service_->attach(nullptr, geometry());
    engine_.reset();
  }
  static BlockGeometry geometry() {
    BlockGeometry geometry;
    geometry.block_size = 8;
    geometry.groups[0].num_blocks = 256;
    return geometry;
  }

  // Reads the answer of `client`. True: a whole one; false: an error in JSON, or the connection closed.
  // Anything else fails the test.
  static bool is_answered(RawHttpClient& client, const std::string& request) {
    const auto response = client.read_response();
    if (!response) return false;
    if (response->status != 200) {
      EXPECT_TRUE(response->status == 503 || response->status == 500) << response->status << request;
      EXPECT_NE(response->body.find("\"out_of_memory\""), std::string::npos) << response->body;
      return false;
    }
    if (response->field("content-type").starts_with("text/event-stream")) {
      EXPECT_TRUE(response->body.ends_with("data: [DONE]\n\n")) << request;
      return response->body.find("\"error\"") == std::string::npos;
    }
    boost::system::error_code failed;
    boost::json::parse(response->body, failed);
    EXPECT_FALSE(failed) << response->body;
    return true;
  }

  void expect_nothing_held() {
    EXPECT_TRUE(service_->wait_until_idle(std::chrono::seconds(20)));
    while (!engine_->idle() || engine_->stats().scheduler.num_running > 0) std::this_thread::yield();
    const SchedulerStats stats = engine_->stats().scheduler;
    EXPECT_EQ(stats.num_free_blocks + stats.num_cached_blocks, stats.num_blocks);
    EXPECT_EQ(answers_->used(), 0u);
  }

  ServiceMetrics metrics_;
  FakeRunner runner_;
  const std::shared_ptr<MemoryBudget> answers_ = std::make_shared<MemoryBudget>(64 << 20);
  std::unique_ptr<EngineService> service_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<HttpServer> server_;
};

TEST_P(OutOfMemory, CostsTheRequestItWasForAndNothingElse) {
  const std::string text =
      R"({"prompt":["ab","cd efg"],"max_tokens":6,"n":2,"ignore_eos":true,"stop":["zq"],)";
  const std::string requests[] = {
      post("/v1/completions", text + R"("stream":true,"logprobs":2})"),
      post("/v1/completions", text + R"("prompt_logprobs":2,"logprobs":1,"echo":true})"),
      post("/v1/completions", text + R"("prompt_logprobs":2,"stream":true})"),
      post("/tokenize", "{\"return_token_strs\":true,\"prompt\":\"" + std::string(100'000, 'a') + "\"}"),
  };
  int64_t num_failures = 0, num_hit = 0;
  for (const std::string& request : requests) {
    // Every one of the first, then fewer and fewer: what a request repeats for each token fails often enough.
    for (int64_t number = 1;; number += 1 + number / 64) {
      int num_lost = 0;
      int64_t num_failed = 0;
      {
        const AllocationFailure failure(GetParam(), number, 1);
        RawHttpClient one(server_->port()), other(server_->port());
        one.send(request);
        other.send(request);
        for (RawHttpClient* client : {&one, &other}) num_lost += !is_answered(*client, request);
        num_failed = failure.num_failed();
      }
      ASSERT_LE(num_lost, num_failed) << number << " " << request.substr(0, 300);
      num_failures += num_failed;
      num_hit += num_lost;
      if (num_failed == 0) break;
    }
    RawHttpClient after(server_->port());
    after.send(request);
    EXPECT_TRUE(is_answered(after, request));
    after.close();
    expect_nothing_held();
  }
  EXPECT_GT(num_failures, 100);
  RecordProperty("failures", static_cast<int>(num_failures));
  RecordProperty("lost", static_cast<int>(num_hit));
}

// Not a moment's shortage but one that lasts, of everything that is not small.
TEST_P(OutOfMemory, ALastingShortageOfLargePiecesFailsWhatNeedsThem) {
  const std::string large = post("/tokenize", "{\"prompt\":\"" + std::string(2'000'000, 'a') + "\"}");
  const std::string small = post("/v1/completions", R"({"prompt":"ab","max_tokens":6,"ignore_eos":true})");
  {
    const AllocationFailure failure(GetParam(), 1, INT64_MAX, /*least_bytes=*/60'000);
    for (int i = 0; i < 3; ++i) {
      RawHttpClient one(server_->port()), other(server_->port());
      one.send(large);
      other.send(small);
      EXPECT_TRUE(is_answered(other, small));
      const bool answered = is_answered(one, large);
      EXPECT_EQ(answered, failure.num_failed() == 0);
    }
  }
  RawHttpClient after(server_->port());
  after.send(large);
  EXPECT_TRUE(is_answered(after, large));
  after.close();
  expect_nothing_held();
}

INSTANTIATE_TEST_SUITE_P(Threads, OutOfMemory,
                         ::testing::Values("serval-io", "serval-text", "serval-deliver"),
                         [](const auto& info) { return std::string(info.param).substr(7); });

}  // namespace
}  // namespace serval::testing
