#include "loadtest/load/sse.h"

#include <gtest/gtest.h>

#include <vector>

namespace serval::load {
namespace {

const std::string kStream =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
    "f\r\ndata: {\"a\":1}\n\n\r\n4\r\n: pi\r\n5\r\nng\n\nd\r\nd\r\nata: [DONE]\n\n\r\n0\r\nX: y\r\n\r\n";

TEST(ResponseReader, ReadsAStreamCutAtEveryByte) {
  for (size_t cut = 0; cut <= kStream.size(); ++cut) {
    std::vector<std::string> events;
    ResponseReader reader([&](std::string_view data) { events.emplace_back(data); });
    auto state = ResponseReader::State::kNeedMore;
    if (cut > 0) state = reader.feed(std::string_view(kStream).substr(0, cut));
    if (cut < kStream.size()) {
      EXPECT_EQ(state, ResponseReader::State::kNeedMore) << cut;
      state = reader.feed(std::string_view(kStream).substr(cut));
    }
    EXPECT_EQ(state, ResponseReader::State::kComplete) << cut;
    EXPECT_EQ(events, (std::vector<std::string>{"{\"a\":1}", "[DONE]"})) << cut;
    EXPECT_TRUE(reader.keep_alive());
  }
}

TEST(ResponseReader, ReadsWholeAnswersByLengthAndByClose) {
  ResponseReader by_length([](std::string_view) {});
  EXPECT_EQ(by_length.feed("HTTP/1.1 429 Too Many\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"),
            ResponseReader::State::kComplete);
  EXPECT_EQ(by_length.status(), 429);
  EXPECT_EQ(by_length.body(), "abc");
  EXPECT_FALSE(by_length.keep_alive());
  ResponseReader by_close([](std::string_view) {});
  EXPECT_EQ(by_close.feed("HTTP/1.0 200 OK\r\n\r\nabc"), ResponseReader::State::kNeedMore);
  EXPECT_EQ(by_close.end_of_stream(), ResponseReader::State::kComplete);
  EXPECT_EQ(by_close.body(), "abc");
}

TEST(ResponseReader, RefusesWhatIsNoHttp) {
  for (const char* text : {"SSH-2.0-x\r\n\r\n", "HTTP/1.1 xx\r\n\r\n",
                           "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"}) {
    ResponseReader reader([](std::string_view) {});
    EXPECT_EQ(reader.feed(text), ResponseReader::State::kMalformed) << text;
  }
}

}  // namespace
}  // namespace serval::load
