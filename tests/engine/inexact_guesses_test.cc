// Requests that take guesses which the whole model would not have drawn itself: by rejection, which leaves the distribution of answers
// as it is, and where the first layers are sure. On the CPU, which alone does.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <set>

#include "engine/model/read_model.h"
#include "engine/model/safetensors.h"
#include "loadtest/bench/temp_folder.h"
#include "tests/engine/count_allocations.h"
#include "tests/support/head_files.h"

namespace serval::testing {
namespace {

// A sanitizer has time for a few.
constexpr bool kIsACrowd = SERVAL_DRAFTERS_REQUESTS >= 250;
#ifdef __SANITIZE_THREAD__
constexpr bool kIsSlow = true;
#else
constexpr bool kIsSlow = false;
#endif

// Two samples of one distribution, by Pearson's statistic; what hardly occurs is pooled.
void expect_alike(const std::map<TokenId, std::array<int, 2>>& counts) {
  double chi2 = 0, pooled[2] = {0, 0};
  int cells = 0;
  const auto add = [&](double a, double b) {
    chi2 += (a - b) * (a - b) / (a + b);
    ++cells;
  };
  for (const auto& [token, count] : counts) {
    if (count[0] + count[1] >= 10) {
      add(count[0], count[1]);
    } else {
      pooled[0] += count[0];
      pooled[1] += count[1];
    }
  }
  if (pooled[0] + pooled[1] > 0) add(pooled[0], pooled[1]);
  EXPECT_GT(cells, 5);
  EXPECT_LT(chi2, cells - 1 + 5 * std::sqrt(2.0 * (cells - 1))) << cells << " cells";
}

// How the draft guesses: a chain, a tree, a chain whose next tokens are guessed ahead of it.
struct Guessing {
  const char* name;
  int num_draft_tokens, width;
  const char* draft_speculation;
};
class GuessesByRejection : public ::testing::TestWithParam<Guessing> {};
INSTANTIATE_TEST_SUITE_P(Of, GuessesByRejection, ::testing::Values(Guessing{"chain", 3, 1, "off"}, Guessing{"tree", 6, 2, "off"}, Guessing{"staged_chain", 4, 1, "ngram"}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_P(GuessesByRejection, LeaveTheDistributionOfEachPlace) {
  constexpr int kDraws = kIsACrowd ? 1500 : 300, kTokens = 5;
  const Guessing& guessing = GetParam();
  const bool is_staged = guessing.draft_speculation == std::string("ngram");
  std::map<TokenId, std::array<int, 2>> counts[kTokens];
  std::vector<TokenId> prompt = {300, 301, 302, 290, 310};
  for (const bool guesses : {false, true}) {
    EngineConfig config;
    config.device.num_threads = 2;
    config.scheduler.max_num_seqs = 32;
    config.scheduler.max_num_batched_tokens = 512;
    config.scheduler.max_model_len = 64;
    config.scheduler.max_waiting = kDraws;
    if (guesses) {
      config.speculation = "draft";
      config.speculation_model = std::filesystem::path(SERVAL_SOURCE_DIR) / "deploy/models/serval-nano-draft";
      config.speculation_acceptance = Acceptance::kRejection;
      config.scheduler.num_draft_tokens = guessing.num_draft_tokens;
      config.draft_width = guessing.width;
      config.draft_speculation = guessing.draft_speculation;
    }
    EngineDriver driver(std::filesystem::path(SERVAL_SOURCE_DIR) / "deploy/models/serval-nano", config);
    if (is_staged && !guesses) {  // what repeats itself is guessed ahead: the model's own words once more, up to their middle
      Request r;
      r.prompt = prompt;
      r.sampling = {.temperature = 0, .max_tokens = 20};
      r.sampling.ignore_eos = true;
      const std::vector<TokenId> words = driver.wait(driver.submit(std::move(r)))[0].tokens;
      const std::vector<TokenId> first = prompt;
      for (const std::span<const TokenId> part : {std::span(words), std::span(first), std::span(words).first(10)}) prompt.insert(prompt.end(), part.begin(), part.end());
    }
    std::vector<RequestId> ids;
    for (int i = 0; i < kDraws; ++i) {
      Request r;
      r.prompt = prompt;
      r.sampling = {.temperature = 0.8f, .top_k = 40, .seed = static_cast<uint64_t>(i) + (guesses ? 100'000 : 0), .max_tokens = kTokens};
      r.sampling.ignore_eos = true;
      if (guesses) r.speculation.acceptance = Acceptance::kRejection;
      ids.push_back(driver.submit(std::move(r)));
    }
    for (const RequestId id : ids) {
      const Told told = driver.wait(id)[0];
      for (int place = 0; place < kTokens; ++place) ++counts[place][told.tokens[place]][guesses];
    }
    EXPECT_EQ(driver.stats().scheduler.num_accepted_tokens > kDraws / 2, guesses);
    if (guesses && is_staged) {
      EXPECT_GT(driver.stats().draft_work.ahead, 100u);
      EXPECT_GT(driver.stats().draft_work.ahead_accepted, 10u);
    }
  }
  for (int place = 0; place < kTokens; ++place) {
    SCOPED_TRACE(place);
    expect_alike(counts[place]);
  }
}

// Requests that take what the first layers are sure of, of a model that has seven.
class EarlyExit : public ::testing::Test {
 protected:
  static constexpr int kGuesses = 3, kLayers = 4, kTexts = 6;
  static std::filesystem::path model() { return std::filesystem::path(SERVAL_SOURCE_DIR) / "deploy/models/serval-nano"; }
  static EngineConfig config() {
    EngineConfig config;
    config.device.num_threads = 2;
    config.scheduler.max_model_len = 256;
    config.scheduler.max_num_seqs = 12;
    return config;
  }
  static EngineConfig guessing() {
    EngineConfig guessing = config();
    guessing.speculation = "self";
    guessing.num_draft_layers = kLayers;
    guessing.scheduler.num_draft_tokens = kGuesses;
    return guessing;
  }
  static Request request(int i, int max_tokens, float temperature = 0) {
    Request r;
    for (int t = 0; t < 5 + 3 * i; ++t) r.prompt.push_back(300 + (7 * t + i) % 90);
    r.sampling.temperature = temperature;
    r.sampling.max_tokens = max_tokens;
    r.sampling.ignore_eos = true;
    r.sampling.num_logprobs = 1;
    return r;
  }
  static Request exiting(Request r, float threshold) {
    r.speculation = {.drafters = drafter_bit(DrafterKind::kSelf), .width = 1, .acceptance = Acceptance::kExit, .exit_threshold = threshold};
    return r;
  }
  static Request unguessed(Request r) {
    r.speculation.drafters = 0;
    return r;
  }
  // A model of its own of them.
  static void write_first_layers(const std::filesystem::path& folder) {
    const Checkpoint whole(model());
    HeadFile first;
    std::vector<char> bytes;
    for (const TensorInfo& tensor : whole.tensors()) {
      int layer = 0;
      if (std::sscanf(tensor.name.c_str(), "model.layers.%d.", &layer) == 1 && layer >= kLayers) continue;
      bytes.resize(tensor.bytes);
      whole.read(tensor, bytes.data());
      first.add(tensor.name, std::string(tensor.dtype_name).c_str(), {tensor.shape.begin(), tensor.shape.end()}, bytes.data(), bytes.size());
    }
    first.write(folder / "model.safetensors");
    std::string config;
    std::getline(std::ifstream(model() / "config.json"), config, '\0');
    const std::string layers = "\"num_hidden_layers\": 7";
    config.replace(config.find(layers), layers.size(), "\"num_hidden_layers\": " + std::to_string(kLayers));
    std::ofstream(folder / "config.json") << config;
  }
};

TEST_F(EarlyExit, TakesTheTokensOfTheFirstLayersAndBehindThemOneOfTheWholeModel) {
  const TempFolder first_layers;
  write_first_layers(first_layers.path());
  EngineDriver whole(model(), config()), layers(first_layers.path(), config()), driver(model(), guessing(), EngineDriver::Order::kInTurn);
  constexpr int kSteps = 6, kTokens = 1 + kSteps * (kGuesses + 1);
  for (int i = 0; i < 4; ++i) {
    Request text = request(i, kTokens);
    const Told told = driver.wait(driver.submit(exiting(text, 0)))[0];
    Told expected;
    const auto go_on = [&](EngineDriver& by, int num_tokens) {
      text.sampling.max_tokens = num_tokens;
      const Told more = by.wait(by.submit(text))[0];
      text.prompt.insert(text.prompt.end(), more.tokens.begin(), more.tokens.end());
      expected.tokens.insert(expected.tokens.end(), more.tokens.begin(), more.tokens.end());
      expected.logprobs.insert(expected.logprobs.end(), more.logprobs.begin(), more.logprobs.end());
    };
    go_on(whole, 1);
    for (int step = 0; step < kSteps; ++step) {
      go_on(layers, kGuesses);
      go_on(whole, 1);
    }
    EXPECT_EQ(told.tokens, expected.tokens) << i;
    // Log-probabilities are the whole model's.
    for (int t = 0; t < kTokens; t += kGuesses + 1) EXPECT_EQ(told.logprobs[t], expected.logprobs[t]) << i << ", " << t;
    EXPECT_NE(told.logprobs, expected.logprobs);
  }
  const SchedulerStats stats = driver.stats().scheduler;
  EXPECT_EQ(stats.num_accepted_tokens, 4u * kSteps * kGuesses);
  EXPECT_EQ(stats.num_draft_tokens, stats.num_accepted_tokens);
}

TEST_F(EarlyExit, ChangesNoBitOfThoseBesideNorOfItsOwnWhereNothingIsSureEnough) {
  std::vector<Told> plain;
  const auto text = [](int i) { return request(i, 60, 0.4f * static_cast<float>(i % 3)); };
  {
    EngineDriver driver(model(), config());
    for (int i = 0; i < kTexts; ++i) plain.push_back(driver.wait(driver.submit(text(i)))[0]);
  }
  uint64_t taken_before = kTexts * 60;
  for (const float threshold : {0.0f, 0.5f, 0.9f, 1.0f}) {
    SCOPED_TRACE(threshold);
    EngineDriver driver(model(), guessing());
    std::vector<RequestId> exact, exits;
    for (int i = 0; i < kTexts; ++i) {
      exits.push_back(driver.submit(exiting(text(i), threshold)));
      exact.push_back(driver.submit(unguessed(text(i))));  // what is counted is the others'
    }
    int num_same = 0;
    for (int i = 0; i < kTexts; ++i) {
      EXPECT_TRUE(driver.wait(exact[i])[0].same_bits(plain[i])) << i;
      num_same += driver.wait(exits[i])[0].same_bits(plain[i]);
    }
    const SchedulerStats stats = driver.stats().scheduler;
    EXPECT_EQ(stats.num_draft_tokens, stats.num_accepted_tokens);
    EXPECT_LT(stats.num_accepted_tokens, taken_before) << "fewer are sure of more";
    taken_before = stats.num_accepted_tokens;
    EXPECT_EQ(stats.num_accepted_tokens > 0, threshold < 1);
    EXPECT_EQ(num_same == kTexts, threshold == 1) << num_same;
    EXPECT_EQ(stats.num_free_blocks + stats.num_cached_blocks, stats.num_blocks);
  }
}

TEST_F(EarlyExit, LeavesInThePrefixCacheWhatTheWholeModelMakesOfTheText) {
  EngineDriver driver(model(), guessing()), plain(model(), config());
  for (int i = 0; i < kTexts; ++i) {
    Request text = request(i, 60);
    const Told first = driver.wait(driver.submit(exiting(text, 0)))[0];
    text.prompt.insert(text.prompt.end(), first.tokens.begin(), first.tokens.end());
    const Told told = driver.wait(driver.submit(text))[0], expected = plain.wait(plain.submit(text))[0];
    EXPECT_GT(told.cached_tokens, 50);
    EXPECT_EQ(expected.cached_tokens, 0);
    EXPECT_TRUE(told.same_bits(expected)) << i;
  }
}

TEST_F(EarlyExit, TakesNothingThatARequestForbids) {
  EngineDriver driver(model(), guessing());
  for (int i = 0; i < kTexts; ++i) {
    const Told free = driver.wait(driver.submit(exiting(request(i, 60), 0)))[0];
    const std::set<TokenId> used(free.tokens.begin(), free.tokens.end());
    Request biased = request(i, 60);
    for (const TokenId token : used) biased.sampling.logit_bias.push_back({token, -100});
    const Told others = driver.wait(driver.submit(exiting(biased, 0)))[0];
    for (const TokenId token : others.tokens) EXPECT_FALSE(used.contains(token)) << i;
    Request longer = request(i, 60);
    longer.sampling.ignore_eos = false;
    longer.sampling.eos_token_ids.assign(used.begin(), used.end());
    longer.sampling.min_tokens = 40;
    const Told told = driver.wait(driver.submit(exiting(longer, 0)))[0];
    EXPECT_GE(told.tokens.size(), 40u) << i;
    for (size_t t = 0; t < 40; ++t) EXPECT_FALSE(used.contains(told.tokens[t])) << i;
  }
}

TEST_F(EarlyExit, AllocatesNothing) {
  if (kIsSlow) GTEST_SKIP() << "TSan sees the same steps elsewhere";
  std::vector<Request> requests;
  for (int i = 0; i < 2 * kTexts; ++i) {
    Request r = request(i % kTexts, 60, 0.5f);
    r.sampling.num_logprobs = -1;
    requests.push_back(i % 2 == 0 ? exiting(r, 0.2f) : r);
  }
  const Counted counted = count_allocations(model(), guessing(), std::move(requests));
  EXPECT_GT(counted.stats.num_draft_tokens, 50u);
  EXPECT_EQ(counted.allocations, 0);
}

}  // namespace
}  // namespace serval::testing
