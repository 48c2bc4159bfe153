// The life of connections: timeouts, keep-alive, pipelining, keys, headers of answers, limits, draining.
#include "server/http/http_server.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <thread>

#include "kernels/base/log.h"
#include "server/http/http_exchange.h"
#include "tests/server/http/http_fixture.h"

namespace serval::testing {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

class HttpServerTest : public HttpTest {};

TEST_F(HttpServerTest, EveryAnswerCarriesTheHeadersClientsRead) {
  start();
  const RawResponse response = ask(get("/v1/models", "X-Request-Id: my-id.1:2_3\r\n"));
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.field("x-request-id"), "my-id.1:2_3");
  EXPECT_NE(response.field("openai-processing-ms"), "");
  EXPECT_EQ(response.field("openai-version"), "2020-10-01");
  EXPECT_THAT(response.field("date"), HasSubstr("GMT"));
  EXPECT_EQ(response.field("content-type"), "application/json");
}

TEST_F(HttpServerTest, AnUnsaneRequestIdIsReplaced) {
  start();
  for (const std::string& id : {std::string("a b"), std::string("a\"b"), std::string("<x>"),
                                std::string(129, 'a'), std::string("\xc3\xa9"), std::string("a\r\n b")}) {
    const std::string given = ask(get("/version", "X-Request-Id: " + id + "\r\n")).field("x-request-id");
    EXPECT_EQ(given.rfind("req_", 0), 0u) << given;
    EXPECT_EQ(given.size(), 36u) << given;
  }
  EXPECT_EQ(ask(get("/version", "X-Request-Id: " + std::string(128, 'a') + "\r\n")).field("x-request-id"),
            std::string(128, 'a'));
  EXPECT_NE(ask(get("/version")).field("x-request-id"), ask(get("/version")).field("x-request-id"));
}

TEST_F(HttpServerTest, AHeadOrBodyThatStopsGetsA408) {
  HttpConfig config;
  config.header_timeout = milliseconds(100);
  config.body_timeout = milliseconds(100);
  start(config);
  const std::string request = post("/v1/completions", "{\"prompt\":\"x\"}");
  const size_t head = request.find("\r\n\r\n") + 4;
  for (const size_t cut :
       {size_t{1}, size_t{3}, size_t{4}, size_t{10}, size_t{21}, size_t{29}, size_t{30}, size_t{31},
        size_t{40}, head - 5, head - 3, head - 2, head - 1, head, head + 1, request.size() - 1}) {
    SCOPED_TRACE(cut);
    RawHttpClient client(server->port());
    client.send(request.substr(0, cut));
    const auto response = client.read_response();
    ASSERT_TRUE(response.has_value());
    EXPECT_EQ(response->status, 408);
    EXPECT_EQ(error_code(*response), "request_timeout");
    EXPECT_TRUE(client.closed_by_server());
  }
}

TEST_F(HttpServerTest, ASlowDripDoesNotExtendTheHeadsTime) {
  HttpConfig config;
  config.header_timeout = milliseconds(150);
  start(config);
  RawHttpClient client(server->port());
  std::thread drip([&] {
    for (int i = 0; i < 100 && client.send("G"); ++i) std::this_thread::sleep_for(milliseconds(20));
  });
  const auto response = client.read_response();
  drip.join();
  ASSERT_TRUE(response.has_value());
  EXPECT_EQ(response->status, 408);
}

TEST_F(HttpServerTest, ASlowDripOfABodyEndsAtItsTotalTime) {
  HttpConfig config;
  config.body_timeout = milliseconds(5000);
  config.body_total_timeout = milliseconds(150);
  start(config);
  RawHttpClient client(server->port());
  client.send(
      "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: "
      "1000\r\n\r\n");
  std::thread drip([&] {
    for (int i = 0; i < 100 && client.send(" "); ++i) std::this_thread::sleep_for(milliseconds(20));
  });
  const auto response = client.read_response();
  drip.join();
  ASSERT_TRUE(response.has_value());
  EXPECT_EQ(response->status, 408);
}

TEST_F(HttpServerTest, SilenceEndsAConnectionWithoutAWord) {
  HttpConfig config;
  config.header_timeout = milliseconds(100);
  config.keep_alive_timeout = milliseconds(100);
  start(config);
  RawHttpClient silent(server->port());
  EXPECT_TRUE(silent.closed_by_server());
  RawHttpClient idle(server->port());
  idle.send(get("/version"));
  EXPECT_EQ(idle.read_response()->status, 200);
  EXPECT_TRUE(idle.closed_by_server());
}

TEST_F(HttpServerTest, AnEmptyLineAfterABodyIsNoRequest) {
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

TEST_F(HttpServerTest, AnUnknownUrlIsNamedAndTheOneThatWasMeant) {
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
  const std::string unbuilt = message(post("/v1/responses", "{}"), 404);
  EXPECT_THAT(unbuilt, HasSubstr("Unknown URL: /v1/responses. This server has /v1/models, "));
  EXPECT_THAT(unbuilt, HasSubstr("/v1/chat/completions"));
  EXPECT_LT(message(get("/" + std::string(8000, 'x')), 404).size(), 1024u);
  EXPECT_EQ(message(get("/v1/completions"), 405),
            "/v1/completions does not answer that method; it answers POST, OPTIONS.");
}

TEST_F(HttpServerTest, AMissingContentTypeShowsTheHeaderThatIsMissing) {
  start();
  const RawResponse response =
      ask("POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n"
          "Content-Length: 2\r\n\r\n{}");
  EXPECT_EQ(response.status, 415);
  EXPECT_THAT(error_field(response, "message"), HasSubstr("-H 'Content-Type: application/json'"));
}

TEST_F(HttpServerTest, ABodyCutShortByTheClientGetsNoAnswer) {
  start();
  RawHttpClient client(server->port());
  client.send(
      "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: "
      "100\r\n\r\n{\"pro");
  client.shutdown_send();
  EXPECT_TRUE(client.closed_by_server());
}

TEST_F(HttpServerTest, AConnectionServesManyRequestsAndClosesWhenAsked) {
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

TEST_F(HttpServerTest, OldHttpClosesUnlessItAsksToStay) {
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

TEST_F(HttpServerTest, AHundredPipelinedRequestsAreAnsweredInOrder) {
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

TEST_F(HttpServerTest, PipelinedRequestsWaitInTheSocketWhileOneIsAnswered) {
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

TEST_F(HttpServerTest, TheBodyIsAskedForOnlyAfterTheHeadIsAccepted) {
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

TEST_F(HttpServerTest, HeadAnswersLikeGetWithoutABody) {
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

TEST_F(HttpServerTest, EveryRefusedRequestIsCountedByItsCode) {
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

TEST_F(HttpServerTest, OptionsNamesTheMethods) {
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

// --- keys ---

TEST_F(HttpServerTest, EveryRouteWantsTheKeyButTheProbes) {
  HttpConfig config;
  config.api_keys = {"first", "second"};
  start(config);
  RouteTable table;
  table.add(openai_routes(service));
  table.add(admin_routes(
      service, [] { return std::string(); }, ""));
  std::string open;
  for (const Route& route : table.routes()) {
    const std::string path =
        route.path.back() == '*' ? route.path.substr(0, route.path.size() - 1) + "x" : route.path;
    const auto request = [&](const std::string& fields) {
      return ask(route.method == "GET" ? get(path, fields) : post(path, "{}", fields));
    };
    const RawResponse without = request("");
    if (without.status != 401) {
      open += route.path + " ";
      continue;
    }
    EXPECT_EQ(without.field("www-authenticate"), "Bearer");
    EXPECT_EQ(error_code(without), "invalid_api_key");
    EXPECT_EQ(error_field(without, "type"), "authentication_error");
    for (const char* wrong :
         {"Authorization: Bearer third\r\n", "Authorization: first\r\n", "Authorization: Basic first\r\n",
          "Authorization: Bearer firstx\r\n", "Authorization: Bearer \r\n", "x-api-key: third\r\n"}) {
      EXPECT_EQ(request(wrong).status, 401) << route.path << wrong;
    }
    for (const char* right :
         {"Authorization: Bearer first\r\n", "Authorization: bearer second\r\n", "x-api-key: second\r\n"}) {
      EXPECT_NE(request(right).status, 401) << route.path << right;
    }
    EXPECT_EQ(request("Authorization: Bearer first\r\nAuthorization: Bearer first\r\n").status, 400);
    EXPECT_EQ(request("Authorization: Bearer first\r\nx-api-key: first\r\n").status, 400);
  }
  EXPECT_EQ(open, "/live /ready /health /ping ");
  EXPECT_EQ(ask(get("/v1/models?api_key=first")).status, 401);
}

TEST_F(HttpServerTest, AnOpenAddressNeedsKeysOrTheWordInsecure) {
  HttpConfig config;
  config.host = "0.0.0.0";
  EXPECT_THROW(HttpServer(config, RouteTable()), std::runtime_error);
  config.insecure = true;
  EXPECT_NO_THROW(HttpServer(config, RouteTable()));
  config.insecure = false;
  config.api_keys = {"key"};
  EXPECT_NO_THROW(HttpServer(config, RouteTable()));
  config.api_keys.clear();
  config.host = "localhost";
  EXPECT_NO_THROW(HttpServer(config, RouteTable()));
}

TEST_F(HttpServerTest, ATakenPortIsASentence) {
  start();
  HttpConfig config;
  config.port = server->port();
  try {
    HttpServer second(config, RouteTable());
    FAIL() << "two servers on one port";
  } catch (const std::runtime_error& failure) {
    EXPECT_THAT(failure.what(), HasSubstr("cannot listen on 127.0.0.1 port " + std::to_string(config.port)));
  }
}

// --- resources ---

TEST_F(HttpServerTest, ALongTextKeepsNoShortOneWaiting) {
  HttpConfig config;
  config.text_threads = 1;
  start(config);
  service.hold_tokenizing_above(100'000);
  RawHttpClient slow(server->port()), behind(server->port());
  const std::string long_text = post("/tokenize", "{\"prompt\":\"" + std::string(100'001, 'a') + "\"}");
  slow.send(long_text);
  behind.send(long_text);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(ask(post("/tokenize", "{\"prompt\":\"ab\"}")).status, 200);
  service.release();
  EXPECT_EQ(slow.read_response()->status, 200);
  EXPECT_EQ(behind.read_response()->status, 200);
}

TEST_F(HttpServerTest, ALongTextIsNotBehindLongerOnes) {
  start();
  service.hold_tokenizing_above(100'000);
  const auto text = [](size_t size) { return post("/tokenize", "{\"prompt\":\"" + std::string(size, 'a') + "\"}"); };
  RawHttpClient running(server->port());
  running.send(text(100'001));
  ASSERT_TRUE(service.wait_until([&] { return service.num_held() == 1; }));
  std::vector<std::unique_ptr<RawHttpClient>> behind;
  for (const size_t size : {2'000'000, 1'000'000, 1'500'000, 70'000}) {
    behind.push_back(std::make_unique<RawHttpClient>(server->port()));
    behind.back()->send(text(size));
    while (server->num_waiting_texts() < behind.size()) std::this_thread::yield();
  }
  service.release();
  for (const auto& client : behind) EXPECT_EQ(client->read_response()->status, 200);
  EXPECT_EQ(running.read_response()->status, 200);
  EXPECT_THAT(service.tokenized_bytes(), ::testing::ElementsAre(100'001, 70'000, 1'000'000, 1'500'000, 2'000'000));
}

TEST_F(HttpServerTest, TheLineOfLongTextsIsBoundedInNumberAndBytes) {
  for (const bool by_bytes : {false, true}) {
    HttpConfig config;
    const std::string text = post("/tokenize", "{\"prompt\":\"" + std::string(100'001, 'a') + "\"}");
    const size_t body = 100'001 + std::string("{\"prompt\":\"\"}").size();
    (by_bytes ? config.max_waiting_long_text_bytes : config.max_waiting_long_texts) = by_bytes ? 2 * body : 2;
    FakeInferenceService held;
    RouteTable routes;
    routes.add(openai_routes(held, {}));
    HttpServer one(config, std::move(routes));
    one.start();
    held.hold_tokenizing_above(100'000);
    RawHttpClient running(one.port()), first(one.port()), second(one.port()), third(one.port());
    running.send(text);
    ASSERT_TRUE(held.wait_until([&] { return held.num_held() == 1; }));
    first.send(text);
    second.send(text);
    while (one.num_waiting_texts() < 2) std::this_thread::yield();
    third.send(text);
    const auto refused = third.read_response();
    ASSERT_TRUE(refused.has_value());
    EXPECT_EQ(refused->status, 429);
    EXPECT_EQ(error_code(*refused), "server_overloaded");
    held.release();
    for (RawHttpClient* client : {&running, &first, &second}) EXPECT_EQ(client->read_response()->status, 200);
    one.stop();
  }
}

TEST_F(HttpServerTest, AnAnswerThatNobodyReadsHoldsItsNumbersAndNotItsText) {
  HttpConfig config;
  config.answers = std::make_shared<MemoryBudget>(64 << 20);
  config.send_buffer_bytes = 64 << 10;
  start(config);
  constexpr size_t kTokens = 1'000'000;
  RawHttpClient lazy(server->port(), /*receive_buffer_bytes=*/4096);
  lazy.send(post("/tokenize", "{\"return_token_strs\":true,\"prompt\":\"" + std::string(kTokens, 'a') + "\"}"));
  ASSERT_TRUE(lazy.read_until("\"tokens\":"));
  EXPECT_LE(config.answers->used(), kTokens * sizeof(TokenId) + (64 << 10));
  const auto response = lazy.read_response();
  ASSERT_TRUE(response.has_value());
  EXPECT_EQ(response->field("transfer-encoding"), "chunked");
  EXPECT_EQ(boost::json::parse(response->body).at("token_strs").as_array().size(), kTokens);
  EXPECT_EQ(config.answers->used(), 0u);
}

TEST_F(HttpServerTest, AnswersInMemoryAreBoundedOverAllConnections) {
  HttpConfig config;
  config.answers = std::make_shared<MemoryBudget>(1'500'000);
  config.send_buffer_bytes = 64 << 10;
  start(config);
  const std::string text = post("/tokenize", "{\"prompt\":\"" + std::string(300'000, 'a') + "\"}");
  RawHttpClient first(server->port(), 4096), second(server->port());
  first.send(text);
  ASSERT_TRUE(first.read_until("\"tokens\":"));  // and no further: it is held
  second.send(text);
  const auto refused = second.read_response();
  ASSERT_TRUE(refused.has_value());
  EXPECT_EQ(refused->status, 429);
  EXPECT_EQ(error_code(*refused), "server_overloaded");
  EXPECT_EQ(ask(post("/tokenize", "{\"prompt\":\"abc\"}")).status, 200);  // what is small costs nothing
  EXPECT_EQ(first.read_response()->status, 200);
  EXPECT_EQ(ask(text).status, 200);
}

TEST_F(HttpServerTest, BodiesInMemoryAreBoundedOverAllConnections) {
  HttpConfig config;
  config.max_total_body_bytes = 100'000;
  start(config);
  const std::string head =
      "POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 90002\r\n\r\n";
  RawHttpClient first(server->port());
  first.send(head + "{\"prompt\":\"" + std::string(60'000, 'x'));
  // The first body's bytes are in memory once a second one is refused because of them.
  for (;;) {
    RawHttpClient second(server->port());
    second.send(head + "{\"prompt\":\"" + std::string(89'988, 'x') + "\"} ");
    const auto response = second.read_response();
    ASSERT_TRUE(response.has_value());
    if (response->status == 200) continue;  // the first one's have not arrived yet
    EXPECT_EQ(response->status, 429);
    EXPECT_EQ(error_code(*response), "server_overloaded");
    EXPECT_EQ(response->field("retry-after"), "1");
    break;
  }
  first.send(std::string(29'988, 'x') + "\"}" + "  ");
  EXPECT_EQ(first.read_response()->status, 200);
  EXPECT_EQ(ask(post("/tokenize", "{\"prompt\":\"" + std::string(90'000, 'x') + "\"}")).status,
            200);  // given back
}

TEST_F(HttpServerTest, TheStreamBufferLimitHoldsToTheByte) {
  // The handler runs on the strand: of what it writes at once only the first piece can be on its way, and all
  // of it still counts.
  constexpr size_t kLimit = 4096;
  std::atomic<size_t> second_bytes{0};
  RouteTable routes;
  routes.add(
      Route{.method = "GET", .path = "/stream", .handler = [&](std::shared_ptr<HttpExchange> exchange) {
              exchange->start_stream();
              exchange->write("x");
              exchange->write(std::string(second_bytes, 'y'));
              exchange->write("z");
              exchange->end_stream(false);
            }});
  HttpConfig config;
  config.stream_buffer_bytes = kLimit;
  server = std::make_unique<HttpServer>(config, std::move(routes));
  server->start();
  const std::string first_chunk = "1\r\nx\r\n";
  const auto waiting_before_second = [&](RawHttpClient& client) {
    client.send(get("/stream"));
    EXPECT_TRUE(client.read_until("\r\n\r\n" + first_chunk));
    return client.received().find("\r\n\r\n") + 4 + first_chunk.size();
  };
  const size_t framing = std::string("fff\r\n\r\n").size();
  size_t waiting;
  {
    RawHttpClient client(server->port());
    waiting = waiting_before_second(client);
  }
  for (const int over : {-1, 0, 1}) {
    second_bytes = static_cast<size_t>(static_cast<int>(kLimit - waiting - framing) + over);
    RawHttpClient client(server->port());
    const size_t really_waiting = waiting_before_second(client);  // a header may have a digit more this time
    EXPECT_EQ(client.read_until("0\r\n\r\n"), really_waiting + framing + second_bytes <= kLimit) << over;
  }
  server->stop();  // the handler looks at this frame
}

TEST_F(HttpServerTest, ASteadyReaderIsNotCutOffHoweverSlowlyTheSendBufferDrains) {
  // A socket says that it takes more when a third of its buffer is free: 140 KB here, five times what this reader
  // takes in a stall timeout.
  class Long final : public BodySource {
   public:
    bool next(std::string& out) override {
      out.append(32'000, 'x');
      return ++num_pieces_ < 40;
    }

   private:
    int num_pieces_ = 0;
  };
  RouteTable routes;
  routes.add(Route{.method = "GET", .path = "/long", .handler = [](std::shared_ptr<HttpExchange> exchange) {
                     HttpResponse response;
                     response.source = std::make_shared<Long>();
                     exchange->respond(std::move(response));
                   }});
  HttpConfig config;
  config.write_stall_timeout = milliseconds(2000);
  config.send_buffer_bytes = 1 << 20;
  server = std::make_unique<HttpServer>(config, std::move(routes));
  server->start();
  RawHttpClient client(server->port(), /*receive_buffer_bytes=*/4096);
  client.send(get("/long"));
  for (int i = 0; i < 40; ++i) {  // twice the stall timeout
    ASSERT_TRUE(client.take(1200));
    std::this_thread::sleep_for(milliseconds(100));
  }
  const auto response = client.read_response();
  ASSERT_TRUE(response.has_value());
  EXPECT_EQ(response->body, std::string(40 * 32'000, 'x'));
}

// --- connections ---

// What a client that holds a connection can be doing with it.
enum class Holding { kNothing, kIdleAfterAnAnswer, kHalfAHead, kHalfABody, kAStream };

class HeldConnections : public HttpServerTest, public ::testing::WithParamInterface<Holding> {
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

TEST_F(HttpServerTest, BeyondTheLimitOfConnectionsTheLongestIdleMakesWay) {
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

TEST_F(HttpServerTest, BeyondTheLimitOfBusyConnectionsOthersAreToldSoUntilOneIsFree) {
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

TEST_F(HttpServerTest, OneAddressHoldsItsShareOfConnections) {
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

TEST_F(HttpServerTest, OutOfDescriptorsAcceptingPausesAndResumes) {
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

// --- what is told of each request ---

TEST_F(HttpServerTest, EveryRequestThatWasReadHasOneEnd) {
  HttpConfig config;
  config.api_keys = {"first", "second"};
  start(config);
  service.set_script({.deltas = {token(0, "a", 1), token(0, "b", 2, FinishReason::kStop)},
                      .usage = {.prompt_tokens = 3, .completion_tokens = 2}});
  const std::string chat = "/v1/chat/completions";
  const auto fields = [](const std::string& id, const std::string& key) {
    return "X-Request-Id: " + id + "\r\nx-api-key: " + key + "\r\n";
  };
  for (const auto& [request, end] : std::initializer_list<std::pair<std::string, const char*>>{
           {post(chat, "{\"messages\":[]}", fields("a", "first")),
            "POST /v1/chat/completions 200   key 1 a tokens 3+2"},
           {post(chat, "{\"messages\":[],\"stream\":true}", fields("b", "second")),
            "POST /v1/chat/completions 200   key 2 b tokens 3+2"},
           {post(chat, "{", fields("c", "second")), "POST /v1/chat/completions 400 invalid_json  key 2 c"},
           {post(chat, "{}", fields("d", "third")), "POST /v1/chat/completions 401 invalid_api_key  key 0 d"},
           {get("/secret?token=x", fields("e", "first")), "GET /secret 404 unknown_url  key 0 e"},
           {get("/live", "X-Request-Id: f\r\n"), "GET /live 200   key 0 f quiet"}}) {
    ask(request);
    EXPECT_EQ(ended(1), std::vector<std::string>{end});
    std::lock_guard lock(ends_mutex);
    ends.clear();
  }
  ask("nonsense\r\n\r\n");
  EXPECT_THAT(ended(1).at(0), ::testing::StartsWith("  400 malformed_http  key 0 req_"));
}

TEST_F(HttpServerTest, AClientThatLeavesIsAnEndToo) {
  start();
  service.set_script({.deltas = {token(0, "a", 1)}, .forever = true, .usage = {.prompt_tokens = 3}});
  RawHttpClient client(server->port());
  client.send(post("/v1/completions", "{\"prompt\":\"x\",\"stream\":true}", "X-Request-Id: left\r\n"));
  ASSERT_TRUE(client.read_until("\"text\":\"a\""));
  client.close();
  EXPECT_EQ(ended(1), std::vector<std::string>{"POST /v1/completions 200  disconnect key 0 left tokens 3+0"});
  service.set_script({.deltas = {token(0, "a", 1)}, .hold_before = 0});
  RawHttpClient early(server->port());
  early.send(post("/v1/completions", "{\"prompt\":\"x\"}", "X-Request-Id: early\r\n"));
  ASSERT_TRUE(service.wait_until([&] { return service.num_started() == 2; }));
  early.close();
  EXPECT_THAT(ended(2).at(1), HasSubstr("POST /v1/completions 499  disconnect key 0 early"));
}

// --- pages of other origins ---

const std::string kPage = "Origin: http://page.example:3000\r\n";
const std::string kPreflight = "OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: a\r\n" + kPage +
                               "Access-Control-Request-Method: POST\r\n"
                               "Access-Control-Request-Headers: authorization,content-type,x-stainless-os\r\n\r\n";

TEST_F(HttpServerTest, WithoutOriginsNoAnswerSpeaksOfThem) {
  start();
  for (const std::string& request : {kPreflight, get("/version", kPage), get("/nowhere", kPage)}) {
    for (const auto& [name, value] : ask(request).fields) {
      EXPECT_EQ(name.rfind("access-control", 0), std::string::npos) << name;
      EXPECT_NE(name, "vary");
    }
  }
}

TEST_F(HttpServerTest, APreflightNeedsNoKeyAndAllowsWhatClientsSend) {
  HttpConfig config;
  config.api_keys = {"key"};
  config.cors_allow_origins = {"https://other.example", "http://page.example:3000"};
  start(config);
  std::string unknown_path = kPreflight;
  unknown_path.replace(unknown_path.find("/v1/chat"), 8, "/v9/what");
  for (const std::string& request : {kPreflight, unknown_path}) {
    const RawResponse response = ask(request);
    EXPECT_EQ(response.status, 204);
    EXPECT_EQ(response.field("access-control-allow-origin"), "http://page.example:3000");
    EXPECT_THAT(response.field("access-control-allow-methods"), HasSubstr("POST"));
    EXPECT_EQ(response.field("access-control-allow-headers"), "authorization,content-type,x-stainless-os");
    EXPECT_EQ(response.field("vary"), "Origin");
  }
  std::string stranger = kPreflight;
  stranger.replace(stranger.find("page.example"), 4, "evil");
  const RawResponse refused = ask(stranger);
  EXPECT_EQ(refused.status, 204);  // an OPTIONS like any other
  EXPECT_EQ(refused.field("access-control-allow-origin"), "");
  EXPECT_EQ(refused.field("access-control-allow-headers"), "");
}

TEST_F(HttpServerTest, EveryAnswerNamesTheOriginThatMayReadIt) {
  HttpConfig config;
  config.api_keys = {"key"};
  config.cors_allow_origins = {"http://page.example:3000"};
  start(config);
  service.set_script({.deltas = {token(0, "a", 1, FinishReason::kStop)}});
  const std::string key = "Authorization: Bearer key\r\n";
  const std::string chat = "/v1/chat/completions";
  for (const auto& [request, status] : std::initializer_list<std::pair<std::string, int>>{
           {get("/v1/models", kPage + key), 200},
           {get("/v1/models", kPage), 401},
           {get("/nowhere", kPage), 404},
           {get(chat, kPage), 405},
           {get("/version", kPage + "Expect: miracles\r\n"), 417},
           {post(chat, "{\"messages\":[]}", kPage + key), 200},
           {post(chat, "{\"messages\":[],\"stream\":true}", kPage + key), 200},
           {post(chat, "no json", kPage + key), 400}}) {
    const RawResponse response = ask(request);
    EXPECT_EQ(response.status, status) << request;
    EXPECT_EQ(response.field("access-control-allow-origin"), "http://page.example:3000") << request;
    EXPECT_THAT(response.field("access-control-expose-headers"), HasSubstr("x-request-id")) << request;
  }
  for (const std::string& origin : {std::string(), std::string("Origin: http://page.example\r\n"), std::string("Origin: null\r\n")}) {
    const RawResponse response = ask(get("/v1/models", origin + key));
    EXPECT_EQ(response.status, 200);
    EXPECT_EQ(response.field("access-control-allow-origin"), "") << origin;
    EXPECT_EQ(response.field("vary"), "Origin");
  }
}

TEST_F(HttpServerTest, AStarLetsEveryPageReadEvenWhatWasNoRequest) {
  HttpConfig config;
  config.cors_allow_origins = {"*"};
  start(config);
  for (const std::string& request : {get("/version", kPage), get("/version"), std::string("nonsense\r\n\r\n"),
                                     get("/" + std::string(10'000, 'x')), kPreflight}) {
    const RawResponse response = ask(request);
    EXPECT_EQ(response.field("access-control-allow-origin"), "*") << request.substr(0, 80);
    EXPECT_EQ(response.field("vary"), "");
  }
}

TEST_F(HttpServerTest, AnOriginThatNoBrowserSendsIsASentence) {
  for (const char* origin : {"page.example", "http://page.example/", "HTTP://page.example", "http://", "", "http://a b"}) {
    HttpConfig config;
    config.cors_allow_origins = {origin};
    try {
      HttpServer(config, RouteTable());
      FAIL() << origin;
    } catch (const std::runtime_error& error) {
      EXPECT_THAT(error.what(), HasSubstr("cors_allow_origins has '" + std::string(origin) + "'"));
    }
  }
}

// --- admin and the end ---

TEST_F(HttpServerTest, ProbesSayWhatTheServiceSays) {
  start();
  EXPECT_EQ(ask(get("/live")).status, 200);
  EXPECT_EQ(ask(get("/ready")).body, R"({"status":"ok"})");
  EXPECT_EQ(ask(get("/health")).status, 200);
  EXPECT_EQ(ask(get("/ping")).status, 200);
  service.set_ready(false, "draining");
  EXPECT_EQ(ask(get("/live")).status, 200);
  const RawResponse not_ready = ask(get("/ready"));
  EXPECT_EQ(not_ready.status, 503);
  EXPECT_EQ(error_code(not_ready), "draining");
  EXPECT_EQ(not_ready.field("retry-after"), "1");
  EXPECT_EQ(ask(get("/health")).status, 503);
  service.set_ready(true);
  service.set_live(false);
  EXPECT_EQ(ask(get("/live")).status, 503);
  EXPECT_EQ(ask(get("/health")).status, 503);
  EXPECT_EQ(ask(get("/ready")).status, 200);
  const RawResponse metrics = ask(get("/metrics"));
  EXPECT_EQ(metrics.body, "serval:up 1\n");
  EXPECT_EQ(metrics.field("content-type"), "text/plain; version=0.0.4; charset=utf-8");
}

TEST_F(HttpServerTest, DrainFinishesWhatRunsAndClosesWhatIsIdle) {
  service.set_script({.deltas = {token(0, "a", 1), token(0, "b", 2, FinishReason::kStop)}, .hold_before = 1});
  start();
  RawHttpClient streaming(server->port()), idle(server->port());
  idle.send(get("/version"));
  EXPECT_EQ(idle.read_response()->status, 200);
  streaming.send(post("/v1/completions", "{\"prompt\":\"x\",\"stream\":true}"));
  ASSERT_TRUE(streaming.read_until("\"text\":\"a\""));
  EXPECT_FALSE(server->drain(milliseconds(100)));  // the stream is held
  EXPECT_TRUE(idle.closed_by_server());
  service.release();
  EXPECT_TRUE(streaming.read_until("data: [DONE]\n\n\r\n0\r\n\r\n"));
  EXPECT_TRUE(server->drain(milliseconds(20'000)));
  EXPECT_EQ(server->num_connections(), 0);
  EXPECT_EQ(service.num_finished(), 1);
}

TEST_F(HttpServerTest, StopEndsOpenRequestsAtOnce) {
  service.set_script({.deltas = {token(0, "a", 1)}, .forever = true});
  start();
  RawHttpClient client(server->port());
  client.send(post("/v1/completions", "{\"prompt\":\"x\",\"stream\":true}"));
  ASSERT_TRUE(client.read_until("\"text\":\"a\""));
  server->stop();
  EXPECT_EQ(service.num_cancelled(), 1);
  EXPECT_EQ(server->num_connections(), 0);
}

TEST_F(HttpServerTest, AHandlerThatThrowsFailsItsRequestOnly) {
  RouteTable routes;
  for (const auto& [path, where] :
       {std::pair{"/inline", RunsOn::kInline}, std::pair{"/pool", RunsOn::kTextPool}}) {
    routes.add(Route{.method = "GET",
                     .path = path,
                     .handler = [](auto) { throw std::runtime_error("no"); },
                     .runs_on = where});
    routes.add(Route{.method = "GET",
                     .path = path + std::string("/memory"),
                     .handler = [](auto) { throw std::bad_alloc(); },
                     .runs_on = where});
  }
  server = std::make_unique<HttpServer>(HttpConfig{}, std::move(routes));
  server->start();
  RawHttpClient client(server->port());
  for (const std::string path : {"/inline", "/pool", "/inline"}) {
    client.send(get(path));
    const auto response = client.read_response();
    ASSERT_TRUE(response.has_value());
    EXPECT_EQ(response->status, 500);
    EXPECT_EQ(error_field(*response, "type"), "server_error");
    EXPECT_EQ(response->field("x-should-retry"), "false");
    client.send(get(path + "/memory"));
    const auto short_of_memory = client.read_response();
    ASSERT_TRUE(short_of_memory.has_value());
    EXPECT_EQ(short_of_memory->status, 503);
    EXPECT_EQ(error_code(*short_of_memory), "out_of_memory");
  }
}

}  // namespace
}  // namespace serval::testing
