// What comes slowly, or not at all.
#include "server/http/http_server.h"

#include <thread>

#include "tests/server/http/http_fixture.h"

namespace serval::testing {
namespace {

using std::chrono::milliseconds;

class HttpTimeoutTest : public HttpTest {};

TEST_F(HttpTimeoutTest, AHeadOrBodyThatStopsGetsA408) {
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

TEST_F(HttpTimeoutTest, ASlowDripDoesNotExtendTheHeadsTime) {
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

TEST_F(HttpTimeoutTest, ASlowDripOfABodyEndsAtItsTotalTime) {
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

TEST_F(HttpTimeoutTest, SilenceEndsAConnectionWithoutAWord) {
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

}  // namespace
}  // namespace serval::testing
