// Long texts, bodies and answers in memory, and readers that take little: each bound over all connections.
#include "server/http/http_server.h"

#include <thread>

#include "server/http/http_exchange.h"
#include "tests/server/http/http_fixture.h"

namespace serval::testing {
namespace {

using std::chrono::milliseconds;

class HttpBoundsTest : public HttpTest {};

TEST_F(HttpBoundsTest, ALongTextKeepsNoShortOneWaiting) {
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

TEST_F(HttpBoundsTest, ALongTextIsNotBehindLongerOnes) {
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

TEST_F(HttpBoundsTest, TheLineOfLongTextsIsBoundedInNumberAndBytes) {
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

TEST_F(HttpBoundsTest, AnAnswerThatNobodyReadsHoldsItsNumbersAndNotItsText) {
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

TEST_F(HttpBoundsTest, AnswersInMemoryAreBoundedOverAllConnections) {
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

TEST_F(HttpBoundsTest, BodiesInMemoryAreBoundedOverAllConnections) {
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

TEST_F(HttpBoundsTest, TheStreamBufferLimitHoldsToTheByte) {
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

TEST_F(HttpBoundsTest, ASteadyReaderIsNotCutOffHoweverSlowlyTheSendBufferDrains) {
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

}  // namespace
}  // namespace serval::testing
