// Mutated requests against a live server: whatever comes, it lives, answers in HTTP, and answers a good
// request afterwards. Seeded.
#include <algorithm>
#include <random>

#include "engine/json/json_reader.h"
#include "server/http/http_body.h"
#include "server/http/http_head.h"
#include "tests/server/http/http_fixture.h"

namespace serval::testing {
namespace {

class Mutator {
 public:
  explicit Mutator(uint32_t seed) : random_(seed) {}

  int below(int n) { return static_cast<int>(random_() % static_cast<uint32_t>(n)); }
  std::string mutate(std::string text) {
    static const std::vector<std::string> kPieces = {"\r\n",
                                                     "\n",
                                                     "\r",
                                                     "\r\n\r\n",
                                                     " ",
                                                     ":",
                                                     ",",
                                                     ";",
                                                     "\"",
                                                     "{",
                                                     "}",
                                                     "[",
                                                     "]",
                                                     "0",
                                                     std::string("\0", 1),
                                                     "\xff",
                                                     "\xed\xa0\x80",
                                                     "Transfer-Encoding: chunked\r\n",
                                                     "Content-Length: 3\r\n",
                                                     "Expect: 100-continue\r\n",
                                                     "0\r\n\r\n",
                                                     "HTTP/1.0",
                                                     "GET ",
                                                     "1e400",
                                                     "\\ud800",
                                                     "\"messages\":",
                                                     "true",
                                                     "null",
                                                     "-0",
                                                     "Host: b\r\n"};
    for (int i = 1 + below(4); i > 0; --i) {
      const size_t at = text.empty() ? 0 : static_cast<size_t>(below(static_cast<int>(text.size())));
      switch (below(5)) {
        case 0:
          text.insert(at, kPieces[static_cast<size_t>(below(static_cast<int>(kPieces.size())))]);
          break;
        case 1:
          text.erase(at, static_cast<size_t>(1 + below(8)));
          break;
        case 2:
          if (!text.empty()) text[at] = static_cast<char>(below(256));
          break;
        case 3:
          text.insert(at, text.substr(at, static_cast<size_t>(below(40))));
          break;
        default:
          text.resize(at);
      }
    }
    return text;
  }

 private:
  std::mt19937 random_;
};

std::vector<std::string> seeds() {
  const std::string chat =
      R"({"model":"fake","messages":[{"role":"user","content":"hi"}],"stream":true,"n":2,"temperature":0.5,)"
      R"("stop":["a"],"logit_bias":{"5":1},"stream_options":{"include_usage":true}})";
  return {get("/v1/models/fake?x=1", "X-Request-Id: a\r\nConnection: keep-alive\r\n"),
          post("/v1/chat/completions", chat),
          post("/v1/completions", R"({"prompt":[[1,2],[3]],"logprobs":2,"echo":true,"max_tokens":4})",
               "Expect: 100-continue\r\n"),
          "POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: "
          "chunked\r\n\r\n"
          "5;x=\"y\"\r\n{\"pro\r\nb\r\nmpt\":\"abc\"}\r\n0\r\nX: y\r\n\r\n",
          "HEAD http://a:80/version HTTP/1.1\r\nHost: a:80\r\nX: y\r\n z\r\n\r\n"};
}

class HttpFuzz : public HttpTest {};

TEST_F(HttpFuzz, SurvivesMutatedRequests) {
  service.set_script([](const GenerateRequest& request) {
    Script script{.deltas = {token(0, "a", 1), token(0, "b", 2, FinishReason::kStop)}};
    script.n = static_cast<int>(std::clamp<int64_t>(request.n.value_or(1), 1, 4));
    return script;
  });
  HttpConfig config;
  config.header_timeout = config.body_timeout = std::chrono::milliseconds(20);
  config.linger_timeout = std::chrono::milliseconds(20);
  start(config);
  const std::vector<std::string> good = seeds();
  for (int round = 0; round < 800; ++round) {
    Mutator mutator(static_cast<uint32_t>(round));
    std::string bytes;
    for (int i = 1 + mutator.below(3); i > 0; --i)
      bytes += mutator.mutate(good[static_cast<size_t>(mutator.below(static_cast<int>(good.size())))]);
    RawHttpClient client(server->port());
    if (mutator.below(4) == 0) {
      client.send(bytes.substr(0, bytes.size() / 2));
      client.send(bytes.substr(bytes.size() / 2));
    } else {
      client.send(bytes);
    }
    switch (mutator.below(3)) {
      case 0:
        client.reset();
        break;
      case 1:
        client.shutdown_send();
        [[fallthrough]];
      default:
        if (const auto response = client.read_response()) {
          EXPECT_GE(response->status, 200) << round;
          EXPECT_LT(response->status, 600) << round;
          if (response->status >= 400 && !response->body.empty()) {
            EXPECT_NE(error_code(*response), "(no error object)") << round;
          }
        }
    }
    if (round % 50 == 0) {
      ASSERT_EQ(ask(get("/version")).status, 200) << round;
    }
  }
  EXPECT_EQ(ask(get("/version")).status, 200);
  service.release();
  EXPECT_TRUE(service.wait_until(
      [&] { return service.num_started() == service.num_finished() + service.num_cancelled(); }));
}

// What a head or a body comes to must not depend on how the network cuts it.
TEST(HttpParsing, DoesNotDependOnHowBytesAreCut) {
  const std::vector<std::string> good = seeds();
  for (uint32_t seed = 0; seed < 3000; ++seed) {
    Mutator mutator(seed);
    const std::string bytes =
        mutator.mutate(good[static_cast<size_t>(mutator.below(static_cast<int>(good.size())))]);
    HeadScanner whole(HeadLimits{}), pieces(HeadLimits{});
    const HeadScanner::State expected = whole.scan(bytes);
    HeadScanner::State state = HeadScanner::State::kNeedMore;
    for (size_t n = 0; n < bytes.size() && state == HeadScanner::State::kNeedMore;) {
      n = std::min(bytes.size(), n + 1 + static_cast<size_t>(mutator.below(7)));
      state = pieces.scan(std::string_view(bytes).substr(0, n));
    }
    ASSERT_EQ(state, expected) << seed;
    if (expected != HeadScanner::State::kComplete) continue;
    ASSERT_EQ(pieces.head_bytes(), whole.head_bytes()) << seed;

    const std::string_view rest = std::string_view(bytes).substr(whole.head_bytes());
    BodyDecoder one({BodyFraming::Kind::kChunked, 0}, BodyLimits{}),
        many({BodyFraming::Kind::kChunked, 0}, BodyLimits{});
    size_t used = 0;
    const BodyDecoder::State body = one.feed(rest, &used);
    BodyDecoder::State cut = BodyDecoder::State::kNeedMore;
    size_t total = 0;
    while (total < rest.size() && cut == BodyDecoder::State::kNeedMore) {
      size_t part = 0;
      cut = many.feed(rest.substr(total, 1 + static_cast<size_t>(mutator.below(5))), &part);
      total += part;
    }
    ASSERT_EQ(cut, body) << seed;
    ASSERT_EQ(total, used) << seed;
    ASSERT_EQ(many.take_body(), one.take_body()) << seed;
  }
}

// What we accept, a second parser accepts too, and sees the same in it.
TEST(JsonFuzz, AcceptsNothingThatTheTreeParserRefuses) {
  const std::string seed_text = R"({"a":[1,-2.5e3,"x\u00e9",null,true,{"b":{}}],"c":"text","d":[[],[[]]]})";
  int accepted = 0;
  for (uint32_t seed = 0; seed < 20'000; ++seed) {
    Mutator mutator(seed);
    const std::string text = mutator.mutate(seed_text);
    const auto ours = read_json_object(text);
    boost::system::error_code failed;
    const boost::json::value theirs = boost::json::parse(text, failed);
    if (!ours) continue;
    ++accepted;
    ASSERT_FALSE(failed) << text;
    if (text.find("-0") != std::string::npos) continue;  // we keep the sign of a zero
    ASSERT_EQ(boost::json::value(ours.value()), theirs) << text;
  }
  EXPECT_GT(accepted, 100);
}

}  // namespace
}  // namespace serval::testing
