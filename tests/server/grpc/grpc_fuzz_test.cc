// Mutated frames against a live server: whatever comes, it lives, answers a good call afterwards, and keeps nothing of what it was
// sent. Seeded.
#include <random>
#include <string>
#include <vector>

#include "tests/server/grpc/grpc_fixture.h"

namespace serval::testing {
namespace {

class Frames {
 public:
  explicit Frames(uint32_t seed) : random_(seed) {}

  size_t below(size_t n) { return n == 0 ? 0 : random_() % n; }

  // A few good calls in order, as a client sends them; then some of their frames changed, repeated, left out, or others put between.
  std::string exchange(const std::string& message) {
    std::vector<std::string> frames;
    static constexpr const char* kPaths[] = {kGenerate, kListModels, kCheck, kWatch, "/nowhere"};
    for (uint32_t stream = 1; stream < 2 * (2 + below(4)); stream += 2) {
      frames.push_back(call_head(stream, kPaths[below(std::size(kPaths))]));
      const std::string body = grpc_message(message);
      const size_t cut = below(body.size());
      frames.push_back(frame(kData, 0, stream, body.substr(0, cut)));
      frames.push_back(frame(kData, kEndStream, stream, body.substr(cut)));
    }
    for (size_t i = below(6); i > 0; --i) {
      const size_t at = below(frames.size());
      switch (below(5)) {
        case 0:
          frames.insert(frames.begin() + at, any_frame());
          break;
        case 1:
          frames.insert(frames.begin() + at, frames[below(frames.size())]);
          break;
        case 2:
          frames.erase(frames.begin() + at);
          break;
        default:
          spoil(frames[at]);
      }
      if (frames.empty()) frames.push_back(any_frame());
    }
    std::string bytes;
    for (const std::string& f : frames) bytes += f;
    if (below(4) == 0) bytes.resize(below(bytes.size()));
    return bytes;
  }

 private:
  // Of any type, flags, stream and payload; the length fits, mostly.
  std::string any_frame() {
    std::string payload(below(40), '\0');
    for (char& c : payload) c = static_cast<char>(random_());
    std::string bytes = frame(static_cast<uint8_t>(below(12)), static_cast<uint8_t>(random_()),
                              static_cast<uint32_t>(below(2) ? below(9) : random_()), payload);
    if (below(8) == 0) bytes[1] = static_cast<char>(random_());
    return bytes;
  }
  void spoil(std::string& bytes) {
    if (bytes.empty()) return;
    const size_t at = below(bytes.size());
    switch (below(3)) {
      case 0:
        bytes[at] = static_cast<char>(random_());
        break;
      case 1:
        bytes.erase(at, 1 + below(8));
        break;
      default:
        bytes.insert(at, std::string(1 + below(8), static_cast<char>(random_())));
    }
  }

  std::mt19937 random_;
};

TEST_F(GrpcTest, WhateverFramesComeItLivesAndKeepsNothing) {
  service.set_script({.deltas = {token(0, "a", 1), token(0, "b", 2, FinishReason::kStop)}});
  GrpcConfig config;
  config.max_connections = 20;
  config.connection.header_timeout = config.connection.body_timeout = config.connection.idle_timeout = Ms(40);
  config.connection.linger_timeout = Ms(20);
  start(std::move(config));
  Frames frames(17);
  int answered = 0, refused = 0;
  for (int round = 0; round < 500; ++round) {
    RawHttp2Client client(server->port());
    client.send(frames.exchange(prompt("hello " + std::to_string(round))));
    // Some stay to hear what comes of it, others are gone at once.
    if (frames.below(8) == 0) {
      client.send(frame(kPing, 0, 0, std::string(8, 'x')));
      ++(client.answered_ping() ? answered : refused);
    }
    if (round % 50 == 0) {
      ASSERT_EQ(ask(kGenerate, prompt("good")).grpc_status(), kOk) << round;
    }
  }
  EXPECT_GT(answered, 5) << "the frames are all refused: nothing behind the first was tried";
  EXPECT_GT(refused, 5) << "no frame was bad enough";
  EXPECT_EQ(ask(kGenerate, prompt("good")).grpc_status(), kOk);
  EXPECT_TRUE(eventually([&] { return server->charged_bytes() == 0; })) << server->charged_bytes();
}

}  // namespace
}  // namespace serval::testing
