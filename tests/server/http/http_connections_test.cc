// Who makes way when there are as many connections as there may be.
#include "server/http/http_server.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <thread>

#include "kernels/base/log.h"
#include "tests/server/http/http_fixture.h"

namespace serval::testing {
namespace {

using std::chrono::milliseconds;

class HttpConnectionsTest : public HttpTest {};

// What a client that holds a connection can be doing with it.
enum class Holding { kNothing, kIdleAfterAnAnswer, kHalfAHead, kHalfABody, kAStream };

class HeldConnections : public HttpConnectionsTest, public ::testing::WithParamInterface<Holding> {
 protected:
  std::unique_ptr<RawHttpClient> hold() {
    auto client = std::make_unique<RawHttpClient>(server->port());
    switch (GetParam()) {
      case Holding::kNothing:
        break;
      case Holding::kIdleAfterAnAnswer:
        client->send(get("/version"));
        EXPECT_EQ(client->read_response()->status, 200);
        break;
      case Holding::kHalfAHead:
        client->send("GET /version HT");
        break;
      case Holding::kHalfABody:
        client->send(
            "POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{");
        break;
      case Holding::kAStream:
        client->send(post("/v1/completions", "{\"prompt\":\"x\",\"stream\":true}"));
        EXPECT_TRUE(client->read_until("\"text\":\"a\""));
    }
    return client;
  }
};

TEST_P(HeldConnections, KeepNoProbeFromItsAnswer) {
  service.set_script({.deltas = {token(0, "a", 1), token(0, "b", 2, FinishReason::kStop)}, .hold_before = 1});
  HttpConfig config;
  config.max_connections = 4;
  start(config);
  std::vector<std::unique_ptr<RawHttpClient>> held;
  for (int i = 0; i < 40; ++i) held.push_back(i < 4 ? hold() : std::make_unique<RawHttpClient>(server->port()));
  for (const char* probe : {"/live", "/ready", "/health", "/ping", "/metrics"}) {
    const RawResponse answer = ask(get(probe));
    EXPECT_EQ(answer.status, 200) << probe << answer.body;
  }
  EXPECT_LE(server->num_connections(), 4 + 16 + 1);
}

INSTANTIATE_TEST_SUITE_P(Ways, HeldConnections,
                         ::testing::Values(Holding::kNothing, Holding::kIdleAfterAnAnswer, Holding::kHalfAHead,
                                           Holding::kHalfABody, Holding::kAStream));

TEST_F(HttpConnectionsTest, BeyondTheLimitOfConnectionsTheLongestIdleMakesWay) {
  HttpConfig config;
  config.max_connections = 2;
  start(config);
  RawHttpClient first(server->port()), second(server->port());
  for (RawHttpClient* client : {&first, &second, &first}) {
    client->send(get("/version"));
    EXPECT_EQ(client->read_response()->status, 200);
  }
  RawHttpClient third(server->port());
  third.send(get("/version"));
  EXPECT_EQ(third.read_response()->status, 200);
  EXPECT_TRUE(second.closed_by_server());  // the first was asked later
  first.send(get("/version"));
  EXPECT_EQ(first.read_response()->status, 200);
}

TEST_F(HttpConnectionsTest, BeyondTheLimitOfBusyConnectionsOthersAreToldSoUntilOneIsFree) {
  service.set_script({.deltas = {token(0, "a", 1), token(0, "b", 2, FinishReason::kStop)}, .hold_before = 1});
  HttpConfig config;
  config.max_connections = 2;
  start(config);
  std::vector<std::unique_ptr<RawHttpClient>> busy;
  for (int i = 0; i < 2; ++i) {  // as many as may be
    busy.push_back(std::make_unique<RawHttpClient>(server->port()));
    busy.back()->send(post("/v1/completions", "{\"prompt\":\"x\",\"stream\":true}"));
    ASSERT_TRUE(busy.back()->read_until("\"text\":\"a\""));
  }
  const RawResponse refused = ask(get("/version"));
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(error_code(refused), "too_many_connections");
  EXPECT_EQ(refused.field("retry-after"), "1");
  RawHttpClient early(server->port());  // came while there was no room, asks when there is
  busy.pop_back();
  while (service.num_cancelled() == 0) std::this_thread::yield();
  while (server->num_connections() > 2) std::this_thread::yield();
  early.send(get("/version"));
  EXPECT_EQ(early.read_response()->status, 200);
}

TEST_F(HttpConnectionsTest, OneAddressHoldsItsShareOfConnections) {
  service.set_script({.deltas = {token(0, "a", 1), token(0, "b", 2, FinishReason::kStop)}, .hold_before = 1});
  HttpConfig config;
  config.max_connections_per_address = 2;
  start(config);
  RawHttpClient first(server->port()), second(server->port());
  for (RawHttpClient* client : {&first, &second}) {
    client->send(post("/v1/completions", "{\"prompt\":\"x\",\"stream\":true}"));
    ASSERT_TRUE(client->read_until("\"text\":\"a\""));
  }
  EXPECT_EQ(error_code(ask(get("/version"))), "too_many_connections");
  EXPECT_EQ(ask(get("/live")).status, 200);
}

TEST_F(HttpConnectionsTest, OutOfDescriptorsAcceptingPausesAndResumes) {
  start();
  log_warn("the log's own thread begins with its first line, and a sanitizer's look at that needs a descriptor");
  EXPECT_EQ(ask(get("/version")).status, 200);
  while (server->num_connections() > 0) std::this_thread::yield();  // its descriptor is free now, not later
  RawHttpClient waiting;                                            // has its descriptor already
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  std::vector<int> fillers;
  rlimit tight = before;
  const int next = open("/dev/null", O_RDONLY | O_CLOEXEC);
  fillers.push_back(next);
  tight.rlim_cur = static_cast<rlim_t>(next) + 1;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &tight), 0);
  for (int fd; (fd = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0;) fillers.push_back(fd);  // holes below
  waiting.connect(server->port());
  waiting.send(get("/version"));
  std::this_thread::sleep_for(milliseconds(250));
  const int answered_meanwhile = num_responses;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  for (const int fd : fillers) close(fd);
  const auto response = waiting.read_response();
  ASSERT_TRUE(response.has_value());
  EXPECT_EQ(response->status, 200);
  EXPECT_EQ(answered_meanwhile, 1);
}

}  // namespace
}  // namespace serval::testing
