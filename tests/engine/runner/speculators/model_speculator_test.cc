// A model that guesses, beside the target in one runner: what it guesses and what that takes.
#include "engine/runner/speculators/model_speculator.h"

#include <gtest/gtest.h>

#include <iterator>

#include "tests/engine/runner/loaded_runner.h"
#include "tests/engine/runner/runner_driver.h"

namespace serval::testing {
namespace {

std::filesystem::path shipped(const char* name) {
  return std::filesystem::path(SERVAL_SOURCE_DIR) / "deploy/models" / name;
}

EngineConfig config_of(const char* draft, int num_draft_tokens, int width) {
  EngineConfig config;
  config.device.num_threads = 2;
  config.device.pin_threads = false;
  config.block_size = 8;
  config.scheduler.max_num_seqs = 4;
  config.scheduler.max_num_batched_tokens = 400;
  config.scheduler.max_model_len = 320;
  config.scheduler.num_draft_tokens = num_draft_tokens;
  config.draft_width = width;
  config.speculation = draft[0] == 0 ? "self" : "draft";
  if (draft[0] == 0) config.num_draft_layers = 3;
  if (draft[0] != 0) config.speculation_model = shipped(draft);
  return config;
}

struct Guessed {
  std::vector<Draft> drafts;  // of all steps and sequences
  std::vector<Reported> output;
  DraftWork work;
};

// " The cat number 0 sat on the mat and looked at the dog. The cat number 1", and so on.
std::vector<TokenId> list(int num_tokens) {
  constexpr TokenId kSentence[] = {416, 881, 547, 223, 18, 1058, 324, 264, 273, 299, 288, 816, 394, 264, 1103, 16};
  std::vector<TokenId> tokens;
  for (int t = 0; t < num_tokens; ++t) tokens.push_back(kSentence[t % 16] + (t % 16 == 4 ? t / 16 : 0));
  return tokens;
}

// Sequences that go on with such a list, each at another temperature, verified as they are guessed; one is a prompt beside the
// others' steps.
Guessed guessed(const EngineConfig& config, int num_prompt) {
  const LoadedRunner runner(shipped("serval-nano"), config);
  RunnerDriver driver(*runner);
  std::vector<SeqId> ids;
  for (int i = 0; i < 3; ++i) {
    ids.push_back(driver.add(list(num_prompt + 10 * i), {.temperature = 0.3f * static_cast<float>(i), .seed = 5, .ignore_eos = true}));
  }
  Guessed all;
  std::vector<std::vector<Draft>> drafts(ids.size());
  for (int step = 0; step < 16; ++step) {
    std::vector<RunnerDriver::Work> work;
    for (size_t i = 0; i < ids.size(); ++i) {
      if (i == 2 && step < 4) continue;
      RunnerDriver::Work& of = work.emplace_back(RunnerDriver::Work{.seq = ids[i], .num_tokens = i == 2 && step < 9 ? 11 : 1 << 20});
      for (const Draft& draft : drafts[i]) {
        of.drafts.push_back(draft.token);
        of.parents.push_back(draft.parent);
      }
    }
    driver.step(work);
    for (size_t i = 0; i < work.size(); ++i) {
      const SeqOutput& out = driver.output().seqs[i];
      const auto first = driver.output().drafts.begin() + out.drafts_begin;
      drafts[work[i].seq - ids[0]].assign(first, first + out.num_drafts);
    }
    std::ranges::copy(driver.output().drafts, std::back_inserter(all.drafts));
    all.work += driver.output().draft_work;
  }
  for (const SeqId id : ids) std::ranges::copy(driver.seq(id).output, std::back_inserter(all.output));
  return all;
}

TEST(ModelSpeculator, GuessesTheSameInFewerForwardsWhereItIsGuessedAheadOf) {
  struct Row {
    const char* draft;  // empty: the model's own first layers
    int width;
    int least_percent;  // of the forwards that are spared; the small ones hardly repeat a text
  };
  for (const Row& row : {Row{"serval-nano", 1, 25}, {"serval-nano", 2, 25}, {"serval-nano-draft", 1, 0}, {"", 1, 0}}) {
    SCOPED_TRACE(std::string(row.draft) + " " + std::to_string(row.width));
    EngineConfig config = config_of(row.draft, 8 * row.width, row.width);
    const Guessed plain = guessed(config, 45);
    config.draft_speculation = "ngram";
    const Guessed staged = guessed(config, 45);
    ASSERT_EQ(staged.drafts.size(), plain.drafts.size());
    EXPECT_GT(plain.drafts.size(), 150u);
    for (size_t i = 0; i < plain.drafts.size(); ++i) {
      EXPECT_EQ(staged.drafts[i].token, plain.drafts[i].token) << i;
      EXPECT_EQ(staged.drafts[i].parent, plain.drafts[i].parent) << i;
    }
    EXPECT_EQ(staged.output, plain.output);
    EXPECT_EQ(plain.work.ahead, 0u);
    EXPECT_GT(staged.work.ahead, staged.work.ahead_accepted);
    EXPECT_GT(staged.work.ahead_accepted, 0u);
    EXPECT_LE(staged.work.forwards * 100, plain.work.forwards * (100 - row.least_percent));
  }
}

// Few rows for what is guessed ahead: the first sequences have them.
TEST(ModelSpeculator, GuessesTheSameWhereFewTokensCanBeGuessedAhead) {
  EngineConfig config = config_of("serval-nano", 8, 1);
  const Guessed plain = guessed(config, 20);
  config.draft_speculation = "ngram";
  config.scheduler.max_num_batched_tokens = 50;
  const Guessed staged = guessed(config, 20);
  EXPECT_EQ(staged.output, plain.output);
  EXPECT_LT(staged.work.forwards, plain.work.forwards);
}

}  // namespace
}  // namespace serval::testing
