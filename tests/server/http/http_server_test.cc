// Headers of answers, keys and addresses, what is told of each request, probes, draining.
#include "server/http/http_server.h"

#include <fcntl.h>
#include <unistd.h>

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
