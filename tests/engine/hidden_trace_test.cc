// What is written for training heads: the tokens of every request, and rows that are the same bits however they came to be
// computed.
#include "engine/runner/hidden_trace.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <map>

#include "loadtest/bench/temp_folder.h"
#include "tests/engine/engine_driver.h"

namespace serval::testing {
namespace {

struct Traced {
  std::map<int, TokenId> tokens;                  // by position
  std::map<int, std::vector<std::byte>> rows;
};

// By sequence.
std::map<uint64_t, Traced> read_trace(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text(std::istreambuf_iterator<char>(file), {});
  size_t at = 8;
  EXPECT_EQ(text.substr(0, at), "svtrace1");
  const auto take = [&](void* to, size_t bytes) {
    ASSERT_LE(at + bytes, text.size());
    std::memcpy(to, text.data() + at, bytes);
    at += bytes;
  };
  uint32_t head[2];
  take(head, sizeof head);
  const size_t row_bytes = head[0] * (head[1] == 1 ? 2 : 4);
  std::map<uint64_t, Traced> all;
  while (at < text.size() && !::testing::Test::HasFatalFailure()) {
    uint64_t seq = 0;
    int32_t place[2];
    take(&seq, sizeof seq);
    take(place, sizeof place);
    Traced& traced = all[seq];
    std::vector<TokenId> tokens(place[1] + 1);
    take(tokens.data(), tokens.size() * sizeof(TokenId));
    for (int i = 0; i <= place[1]; ++i)
      if (tokens[i] >= 0) traced.tokens[place[0] + i] = tokens[i];
    for (int i = 0; i < place[1]; ++i) {
      std::vector<std::byte>& row = traced.rows[place[0] + i];
      row.resize(row_bytes);
      take(row.data(), row_bytes);
    }
  }
  return all;
}

Request request(int i) {
  Request r;
  for (int t = 0; t < 20 + i; ++t) r.prompt.push_back(300 + (t * (3 + i)) % 17);
  r.sampling = {.temperature = 0.4f * static_cast<float>(i % 3), .seed = static_cast<uint64_t>(i), .max_tokens = 24};
  r.sampling.ignore_eos = true;
  return r;
}

class HiddenTraceTest : public ::testing::Test {
 protected:
  HiddenTraceTest() {
    config_.device.num_threads = 2;
    config_.scheduler.max_num_seqs = 6;
    config_.scheduler.max_model_len = 128;
    config_.scheduler.max_prefill_chunk = 16;
    config_.scheduler.enable_prefix_cache = false;  // every position is computed
    config_.speculation_trace = folder_.path() / "trace";
  }
  std::map<uint64_t, Traced> traced(std::vector<std::vector<Told>>* told = nullptr) {
    {
      EngineDriver driver(std::filesystem::path(SERVAL_SOURCE_DIR) / "deploy/models/serval-nano", config_);
      std::vector<RequestId> ids;
      for (int i = 0; i < 10; ++i) ids.push_back(driver.submit(request(i)));
      for (const RequestId id : ids) {
        const std::vector<Told> all = driver.wait(id);
        if (told) told->push_back(all);
      }
    }
    return read_trace(config_.speculation_trace);
  }
  TempFolder folder_;
  EngineConfig config_;
};

TEST_F(HiddenTraceTest, HoldsAllTokensAndRowsThatGuessesDoNotChange) {
  std::vector<std::vector<Told>> told;
  const std::map<uint64_t, Traced> plain = traced(&told);
  config_.speculation = "ngram";
  config_.scheduler.num_draft_tokens = 6;
  const std::map<uint64_t, Traced> guessed = traced();
  ASSERT_EQ(plain.size(), 10u);
  ASSERT_EQ(guessed.size(), 10u);
  for (int i = 0; i < 10; ++i) {
    const Request r = request(i);
    const Traced& one = plain.at(i + 1);
    std::vector<TokenId> tokens;
    for (const auto& [position, token] : one.tokens) {
      EXPECT_EQ(position, std::ssize(tokens));
      tokens.push_back(token);
    }
    std::vector<TokenId> expected = r.prompt;
    expected.insert(expected.end(), told[i][0].tokens.begin(), told[i][0].tokens.end());
    EXPECT_EQ(tokens, expected);
    EXPECT_EQ(one.rows.size(), expected.size() - 1) << "all but the last token's";
    EXPECT_EQ(one.tokens, guessed.at(i + 1).tokens);
    EXPECT_EQ(one.rows, guessed.at(i + 1).rows);
  }
}

TEST_F(HiddenTraceTest, EndsWhereItIsFull) {
  config_.speculation_trace_bytes = 100'000;
  const std::map<uint64_t, Traced> few = traced();
  EXPECT_LE(std::filesystem::file_size(config_.speculation_trace), 100'000u);
  EXPECT_GT(std::filesystem::file_size(config_.speculation_trace), 50'000u);
  EXPECT_GE(few.size(), 1u);
  config_.speculation_trace = "/nowhere/at/all";
  EXPECT_THROW(traced(), std::runtime_error);
}

}  // namespace
}  // namespace serval::testing
