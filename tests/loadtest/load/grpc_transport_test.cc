// The driver over gRPC, against the real gRPC face on a service that says what the test scripts.

#include <gtest/gtest.h>

#include "loadtest/load/driver.h"
#include "server/grpc/grpc_server.h"
#include "tests/support/fake_inference_service.h"

namespace serval::load {
namespace {

class GrpcLoad : public ::testing::Test {
 protected:
  GrpcLoad() : server_({}, service_) {
    options_.target = parse_url("grpc://127.0.0.1:" + std::to_string(server_.port()));
    options_.max_duration_s = 60;
    options_.keep_text = true;
  }
  ~GrpcLoad() override { server_.shutdown(0); }

  static serval::testing::Script three_tokens() {
    serval::testing::Script script;
    script.deltas = {serval::testing::token(0, "a", 1), serval::testing::token(0, "b", 2),
                     serval::testing::token(0, "c", 3, FinishReason::kLength)};
    script.usage.prompt_tokens = 7;
    script.usage.completion_tokens = 3;
    script.usage.cached_tokens = 4;
    return script;
  }
  static std::vector<PlannedRequest> requests(int count) {
    std::vector<PlannedRequest> workload(count);
    for (PlannedRequest& request : workload) {
      request.token_ids = {5, 6, 7};
      request.output_tokens = 3;
    }
    return workload;
  }

  serval::testing::FakeInferenceService service_;
  GrpcServer server_;
  DriverOptions options_;
};

TEST_F(GrpcLoad, EveryStreamIsMeasuredToItsEnd) {
  service_.set_script(three_tokens());
  options_.concurrency = 20;
  const DriverResult result = drive(options_, requests(100));
  EXPECT_EQ(result.model, service_.models()[0].id);
  for (const Outcome& outcome : result.outcomes) {
    EXPECT_EQ(outcome.error, "");
    EXPECT_EQ(outcome.text, "abc");
    EXPECT_EQ(outcome.token_s.size(), 3u);
    EXPECT_LE(outcome.sent_s, outcome.token_s.front());
    EXPECT_LE(outcome.token_s.back(), outcome.end_s);
    EXPECT_EQ(outcome.prompt_tokens, 7);
    EXPECT_EQ(outcome.output_tokens, 3);
    EXPECT_EQ(outcome.cached_tokens, 4);
  }
  const GenerateRequest sent = service_.last_request();
  EXPECT_EQ(std::get<std::vector<TokenId>>(sent.prompts[0]), (std::vector<TokenId>{5, 6, 7}));
  EXPECT_EQ(sent.max_tokens, 3);
  EXPECT_TRUE(sent.ignore_eos);
}

TEST_F(GrpcLoad, FailuresAreCountedByKind) {
  service_.set_script([n = 0](const GenerateRequest&) mutable {
    serval::testing::Script script = three_tokens();
    if (n % 3 == 1) script.refusal = Error{ErrorKind::kOverloaded, "queue_full", "full", ""};
    if (n % 3 == 2) script.error = Error{ErrorKind::kUnavailable, "draining", "gone", ""};
    ++n;
    return script;
  });
  options_.concurrency = 1;
  const Summary seen = summarise(drive(options_, requests(12)).outcomes, {});
  EXPECT_EQ(seen.num_ok, 4u);
  EXPECT_EQ(seen.errors.at("status RESOURCE_EXHAUSTED"), 4);
  EXPECT_EQ(seen.errors.at("status UNAVAILABLE"), 4);
  EXPECT_EQ(seen.error_messages.at("status RESOURCE_EXHAUSTED"), "full");
  EXPECT_EQ(seen.error_messages.at("status UNAVAILABLE"), "gone");
}

TEST_F(GrpcLoad, ARequestThatTakesTooLongIsATimeoutAndStopsAtTheServer) {
  serval::testing::Script script = three_tokens();
  script.hold_before = 1;
  service_.set_script(script);
  options_.concurrency = 1;
  options_.request_timeout_s = 0.2;
  const DriverResult result = drive(options_, requests(2));
  for (const Outcome& outcome : result.outcomes) {
    EXPECT_EQ(outcome.error, "timeout");
    EXPECT_EQ(outcome.text, "a");
  }
  EXPECT_TRUE(service_.wait_until([&] { return service_.num_cancelled() == 2; }));
}

TEST_F(GrpcLoad, ARunEndsByTimeAndCancelsWhatRuns) {
  serval::testing::Script script = three_tokens();
  script.hold_before = 1;
  service_.set_script(script);
  options_.concurrency = 3;
  options_.max_duration_s = 0.3;
  const Summary seen = summarise(drive(options_, requests(10)).outcomes, {});
  EXPECT_EQ(seen.errors.at("run ended"), 3);
  EXPECT_EQ(seen.errors.at("not sent: time was up"), 7);
  EXPECT_TRUE(service_.wait_until([&] { return service_.num_cancelled() == 3; }));
}

TEST_F(GrpcLoad, WithoutAServerItSaysSo) {
  DriverOptions nobody = options_;
  nobody.target.port = "1";
  EXPECT_THROW(drive(nobody, requests(1)), std::runtime_error);
  options_.chat = true;
  EXPECT_THROW(drive(options_, requests(1)), std::runtime_error);
}

}  // namespace
}  // namespace serval::load
