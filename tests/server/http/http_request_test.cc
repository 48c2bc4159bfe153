// From one request to the next: keep-alive, pipelining, bodies asked for, what is refused before a handler runs.
#include "server/http/http_server.h"

#include <thread>

#include "tests/server/http/http_fixture.h"

namespace serval::testing {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

class HttpRequestTest : public HttpTest {};

TEST_F(HttpRequestTest, AnEmptyLineAfterABodyIsNoRequest) {
  HttpConfig config;
  config.header_timeout = milliseconds(100);
  start(config);
  RawHttpClient client(server->port());
  for (int i = 0; i < 8; ++i) {  // each request has empty lines of its own
    client.send(post("/tokenize", "{\"prompt\":\"x\"}") + "\r\n");
    EXPECT_EQ(client.read_response()->status, 200);
  }
  std::this_thread::sleep_for(milliseconds(300));  // longer than a head may take
  client.send("\r");
  client.send("\n" + get("/version"));
  const auto response = client.read_response();
  ASSERT_TRUE(response.has_value());
  EXPECT_EQ(response->status, 200);
}

TEST_F(HttpRequestTest, AnUnknownUrlIsNamedAndTheOneThatWasMeant) {
  start();
  const auto message = [&](const std::string& request, int status) {
    const RawResponse response = ask(request);
    EXPECT_EQ(response.status, status);
    return error_field(response, "message");
  };
  EXPECT_EQ(message(post("/chat/completions", "{}"), 404),
            "Unknown URL: /chat/completions. Did you mean /v1/chat/completions?");
  EXPECT_EQ(message(post("/v1/v1/completions", "{}"), 404),
            "Unknown URL: /v1/v1/completions. Did you mean /v1/completions?");
  EXPECT_EQ(message(get("/models"), 404), "Unknown URL: /models. Did you mean /v1/models?");
  EXPECT_EQ(message(get("/version/"), 404), "Unknown URL: /version/. Did you mean /version?");
  const std::string unbuilt = message(post("/v1/embeddings", "{}"), 404);
  EXPECT_THAT(unbuilt, HasSubstr("Unknown URL: /v1/embeddings. This server has /v1/models, "));
  EXPECT_THAT(unbuilt, HasSubstr("/v1/chat/completions"));
  EXPECT_LT(message(get("/" + std::string(8000, 'x')), 404).size(), 1024u);
  EXPECT_EQ(message(get("/v1/completions"), 405),
            "/v1/completions does not answer that method; it answers POST, OPTIONS.");
}

TEST_F(HttpRequestTest, AMissingContentTypeShowsTheHeaderThatIsMissing) {
  start();
  const RawResponse response =
      ask("POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n"
          "Content-Length: 2\r\n\r\n{}");
  EXPECT_EQ(response.status, 415);
  EXPECT_THAT(error_field(response, "message"), HasSubstr("-H 'Content-Type: application/json'"));
}

TEST_F(HttpRequestTest, ABodyCutShortByTheClientGetsNoAnswer) {
  start();
  RawHttpClient client(server->port());
  client.send(
      "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: "
      "100\r\n\r\n{\"pro");
  client.shutdown_send();
  EXPECT_TRUE(client.closed_by_server());
}

TEST_F(HttpRequestTest, AConnectionServesManyRequestsAndClosesWhenAsked) {
  start();
  RawHttpClient client(server->port());
  for (int i = 0; i < 5; ++i) {
    client.send(i % 2 ? get("/version") : post("/tokenize", "{\"prompt\":\"ab\"}"));
    EXPECT_EQ(client.read_response()->status, 200);
  }
  client.send(get("/version", "Connection: keep-alive, close\r\n"));
  const auto last = client.read_response();
  EXPECT_EQ(last->field("connection"), "close");
  EXPECT_TRUE(client.closed_by_server());
}

TEST_F(HttpRequestTest, OldHttpClosesUnlessItAsksToStay) {
  start();
  RawHttpClient leaves(server->port());
  leaves.send("GET /version HTTP/1.0\r\n\r\n");
  EXPECT_EQ(leaves.read_response()->status, 200);
  EXPECT_TRUE(leaves.closed_by_server());
  RawHttpClient stays(server->port());
  for (int i = 0; i < 2; ++i) {
    stays.send("GET /version HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    const auto response = stays.read_response();
    ASSERT_TRUE(response.has_value());
    EXPECT_EQ(response->field("connection"), "keep-alive");
  }
}

TEST_F(HttpRequestTest, AHundredPipelinedRequestsAreAnsweredInOrder) {
  start();
  RawHttpClient client(server->port());
  std::string all;
  for (int i = 0; i < 100; ++i) {
    const std::string id = "X-Request-Id: r" + std::to_string(i) + "\r\n";
    all += i % 3 == 0
               ? post("/tokenize", "{\"prompt\":\"" + std::string(static_cast<size_t>(i), 'x') + "\"}", id)
               : get("/version", id);
  }
  std::thread sender([&] { client.send(all); });
  for (int i = 0; i < 100; ++i) {
    const auto response = client.read_response();
    ASSERT_TRUE(response.has_value()) << i;
    EXPECT_EQ(response->status, 200);
    EXPECT_EQ(response->field("x-request-id"), "r" + std::to_string(i));
  }
  sender.join();
}

TEST_F(HttpRequestTest, PipelinedRequestsWaitInTheSocketWhileOneIsAnswered) {
  service.set_script({.deltas = {token(0, "a", 1, FinishReason::kStop)}, .hold_before = 0});
  start();
  RawHttpClient client(server->port());
  client.send(post("/v1/completions", "{\"prompt\":\"x\"}"));
  std::thread flood([&] {
    for (int i = 0; i < 200'000; ++i) {
      if (!client.send(get("/version"))) return;
    }
  });
  ASSERT_TRUE(service.wait_until([&] { return service.num_started() == 1; }));
  std::this_thread::sleep_for(milliseconds(100));
  EXPECT_EQ(num_responses, 0);  // the first is not answered, so none is; and the flood stands still
  client.shutdown_send();  // also ends the flood's waiting
  flood.join();
  client.reset();
  EXPECT_TRUE(service.wait_until([&] { return service.num_cancelled() == 1; }));
}

TEST_F(HttpRequestTest, TheBodyIsAskedForOnlyAfterTheHeadIsAccepted) {
  start();
  const std::string fields = "Expect: 100-continue\r\n";
  const std::string good = post("/tokenize", "{\"prompt\":\"ab\"}", fields);
  const size_t head = good.find("\r\n\r\n") + 4;
  RawHttpClient client(server->port());
  client.send(good.substr(0, head));
  ASSERT_TRUE(client.read_until("HTTP/1.1 100 Continue\r\n\r\n"));
  client.send(good.substr(head));
  const auto response = client.read_response();
  ASSERT_TRUE(response.has_value());
  EXPECT_EQ(response->status, 200);
  EXPECT_EQ(client.num_interim(), 1);

  for (const std::string& refused :
       {post("/nowhere", "{}", fields),
        "POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n" + fields +
            "\r\n",
        "POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: "
        "99999999\r\n" +
            fields + "\r\n"}) {
    RawHttpClient eager(server->port());
    eager.send(refused.substr(0, refused.find("\r\n\r\n") + 4));
    const auto refusal = eager.read_response();
    ASSERT_TRUE(refusal.has_value());
    EXPECT_GE(refusal->status, 400);
    EXPECT_EQ(eager.num_interim(), 0);
  }
}

TEST_F(HttpRequestTest, HeadAnswersLikeGetWithoutABody) {
  start();
  const RawResponse whole = ask(get("/v1/models"));
  RawHttpClient client(server->port());
  client.send("HEAD /v1/models HTTP/1.1\r\nHost: a\r\n\r\n" + get("/version"));
  const auto head = client.read_response(/*head_only=*/true);
  ASSERT_TRUE(head.has_value());
  EXPECT_EQ(head->status, 200);
  EXPECT_EQ(head->field("content-length"), std::to_string(whole.body.size()));
  EXPECT_EQ(client.read_response()->body, R"({"version":"1.2.3"})");
}

TEST_F(HttpRequestTest, EveryRefusedRequestIsCountedByItsCode) {
  HttpConfig config;
  config.api_keys = {"key"};
  start(config);
  const std::string key = "Authorization: Bearer key\r\n";
  service.set_script({.refusal = Error{ErrorKind::kOverloaded, "queue_full", "Full.", "", 1}});
  ask(get("/version"));
  ask(get("/nowhere", key));
  ask("GET /version HTTP/1.1\r\n\r\n");
  ask(post("/v1/completions", "{\"prompt\":\"x\"}", key));
  ask(post("/v1/completions", "{\"prompt\":\"x\",\"n\":\"y\"}", key));
  ask(post("/v1/completions", "{\"prompt\":\"x\",\"n\":[]}", key));
  ask(get("/version", key));
  service.set_ready(false, "starting");
  EXPECT_EQ(ask(get("/ready")).status, 503);
  std::lock_guard lock(refusals_mutex);
  EXPECT_EQ(refusals, (std::map<std::string, int>{
                          {"invalid_api_key", 1}, {"unknown_url", 1}, {"malformed_http", 1}, {"queue_full", 1}, {"invalid_type", 2}}));
}

TEST_F(HttpRequestTest, OptionsNamesTheMethods) {
  start();
  const auto allow = [&](const std::string& target) {
    RawHttpClient client(server->port());
    client.send("OPTIONS " + target + " HTTP/1.1\r\nHost: a\r\n\r\n");
    const auto response = client.read_response();
    return std::to_string(response->status) + " " + response->field("allow");
  };
  EXPECT_EQ(allow("/v1/models"), "204 GET, HEAD, OPTIONS");
  EXPECT_EQ(allow("/v1/completions"), "204 POST, OPTIONS");
  EXPECT_EQ(allow("*"), "204 GET, HEAD, POST, OPTIONS");
  EXPECT_EQ(allow("/nowhere"), "404 ");
}

}  // namespace
}  // namespace serval::testing
