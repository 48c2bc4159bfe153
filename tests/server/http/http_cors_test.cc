// Pages of other origins.
#include "server/http/http_server.h"

#include "tests/server/http/http_fixture.h"

namespace serval::testing {
namespace {

using ::testing::HasSubstr;

class HttpCorsTest : public HttpTest {};

const std::string kPage = "Origin: http://page.example:3000\r\n";
const std::string kPreflight = "OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: a\r\n" + kPage +
                               "Access-Control-Request-Method: POST\r\n"
                               "Access-Control-Request-Headers: authorization,content-type,x-stainless-os\r\n\r\n";

TEST_F(HttpCorsTest, WithoutOriginsNoAnswerSpeaksOfThem) {
  start();
  for (const std::string& request : {kPreflight, get("/version", kPage), get("/nowhere", kPage)}) {
    for (const auto& [name, value] : ask(request).fields) {
      EXPECT_EQ(name.rfind("access-control", 0), std::string::npos) << name;
      EXPECT_NE(name, "vary");
    }
  }
}

TEST_F(HttpCorsTest, APreflightNeedsNoKeyAndAllowsWhatClientsSend) {
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

TEST_F(HttpCorsTest, EveryAnswerNamesTheOriginThatMayReadIt) {
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

TEST_F(HttpCorsTest, AStarLetsEveryPageReadEvenWhatWasNoRequest) {
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

TEST_F(HttpCorsTest, AnOriginThatNoBrowserSendsIsASentence) {
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

}  // namespace
}  // namespace serval::testing
