// The runner on the real CPU backend with small random models, driven by hand-made batches.
#include "engine/runner/model_runner.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>

#include "loadtest/bench/random_model.h"
#include "loadtest/bench/temp_folder.h"
#include "tests/engine/runner/loaded_runner.h"
#include "tests/engine/runner/runner_driver.h"
#include "tests/support/allocation_counter.h"

namespace serval::testing {
namespace {

EngineConfig small_config() {
  EngineConfig config;
  config.device.num_threads = 2;
  config.device.pin_threads = false;
  config.scheduler.max_num_seqs = 40;
  config.scheduler.max_num_batched_tokens = 256;
  config.scheduler.max_model_len = 300;
  return config;
}

// One model a kind, shared by the tests of a process.
LoadedRunner make_runner(const std::string& architecture, const EngineConfig& config = small_config()) {
  RandomModel model;
  model.architecture = architecture;
  if (architecture == "MistralForCausalLM") model.sliding_window = 37;
  if (architecture == "Qwen2ForCausalLM") {
    model.sliding_window = 37;
    model.first_windowed_layer = 1;
  }
  const TempFolder folder;
  write_random_model(folder.path(), model);
  return {folder.path(), config};
}

std::vector<TokenId> random_tokens(uint64_t seed, int count) {
  std::mt19937_64 rng(seed);
  std::vector<TokenId> tokens(count);
  for (TokenId& t : tokens) t = static_cast<TokenId>(rng() % 500);
  return tokens;
}

SamplingParams sampling(float temperature, uint64_t seed = 5) {
  SamplingParams p;
  p.temperature = temperature;
  p.seed = seed;
  p.num_logprobs = 20;
  return p;
}

std::vector<Reported> generate_alone(ModelRunner& runner, const std::vector<TokenId>& prompt,
                                     const SamplingParams& p, int num_output, int chunk = 1 << 20) {
  RunnerDriver driver(runner, 77);
  const SeqId id = driver.add(prompt, p);
  driver.run(id, num_output, chunk);
  auto output = driver.seq(id).output;
  driver.finish(id);
  driver.step({});
  return output;
}

class Architectures : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(ModelRunner, Architectures,
                         ::testing::Values("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM",
                                           "Qwen3ForCausalLM"));

TEST_P(Architectures, ChunksAndNeighboursChangeNoBit) {
  const auto runner = make_runner(GetParam());
  const std::vector<TokenId> prompt = random_tokens(1, 91);
  const auto expected = generate_alone(*runner, prompt, sampling(0.8f), 30);
  for (const int chunk : {1, 7, 64})
    EXPECT_EQ(generate_alone(*runner, prompt, sampling(0.8f), 30, chunk), expected) << chunk;

  RunnerDriver driver(*runner, 9);
  std::vector<SeqId> ids = {driver.add(prompt, sampling(0.8f))};
  for (int i = 1; i < 33; ++i)
    ids.push_back(driver.add(random_tokens(i + 10, 1 + i * 5), sampling(i % 3 * 0.5f, i)));
  std::mt19937_64 rng(3);
  while (driver.seq(ids[0]).output.size() < 30) {
    std::vector<RunnerDriver::Work> work;
    int budget = 200;
    for (const SeqId id : ids) {
      const DrivenSeq& seq = driver.seq(id);
      const int chunk =
          std::min<int>(1 + static_cast<int>(rng() % 40), static_cast<int>(seq.tokens.size()) - seq.computed);
      if (chunk > budget || seq.tokens.size() >= 290 || rng() % 5 == 0) continue;
      budget -= chunk;
      work.push_back({.seq = id, .num_tokens = chunk});
    }
    std::shuffle(work.begin(), work.end(), rng);
    driver.step(work);
  }
  auto among = driver.seq(ids[0]).output;
  among.resize(30);
  EXPECT_EQ(among, expected);
}

TEST_P(Architectures, DraftsRightOrWrongChangeNoToken) {
  const auto runner = make_runner(GetParam());
  for (const float temperature : {0.0f, 0.9f}) {
    SamplingParams p = sampling(temperature);
    p.repetition_penalty = 1.1f;
    p.frequency_penalty = 0.3f;
    p.min_tokens = 10;
    p.stop_token_ids = {3, 4, 5};
    const std::vector<TokenId> prompt = random_tokens(2, 40);
    const auto expected = generate_alone(*runner, prompt, p, 40);
    RunnerDriver driver(*runner, 4);
    const SeqId id = driver.add(prompt, p);
    std::mt19937_64 rng(6);
    int accepted = 0;
    while (driver.seq(id).output.size() < 40) {
      // The true future, sometimes spoiled at one place.
      const auto have = static_cast<int>(driver.seq(id).output.size());
      std::vector<TokenId> drafts;
      const int count = have == 0 ? 0 : static_cast<int>(rng() % 6);
      for (int i = 0; i < count && have + i < 40; ++i) drafts.push_back(expected[have + i].token);
      if (!drafts.empty() && rng() % 2) drafts[rng() % drafts.size()] = static_cast<TokenId>(rng() % 500);
      accepted += driver.step({{.seq = id, .num_tokens = 1 << 20, .drafts = drafts}}) - 1;
    }
    EXPECT_GT(accepted, 8);
    auto drafted = driver.seq(id).output;
    drafted.resize(40);
    EXPECT_EQ(drafted, expected);
    driver.finish(id);
    driver.step({});
  }
}

TEST_P(Architectures, TreesOfDraftsUnderMasksChangeNoToken) {
  EngineConfig config = small_config();
  config.scheduler.num_draft_tokens = 12;
  config.draft_width = 2;
  const auto runner = make_runner(GetParam(), config);
  const int words = (runner->vocab_size() + 31) / 32;
  SamplingParams p = sampling(0.9f);
  p.presence_penalty = 0.5f;
  p.repetition_penalty = 1.2f;
  p.min_tokens = 15;
  p.stop_token_ids = {3, 4, 5};
  const std::vector<TokenId> prompt = random_tokens(2, 57);
  // What may stand at an output position is a function of that position.
  const auto put_mask = [&](Batch& batch, int output_position) {
    std::mt19937 allowed(output_position);
    for (int w = 0; w < words; ++w) batch.masks.push_back(allowed() | allowed());
  };
  RunnerDriver plain(*runner, 4);
  const SeqId alone = plain.add(prompt, p);
  while (plain.seq(alone).output.size() < 60) {
    put_mask(plain.batch(), static_cast<int>(plain.seq(alone).output.size()));
    plain.step({{.seq = alone, .num_tokens = 1 << 20, .mask = 0}});
  }
  const std::vector<Reported> expected = plain.seq(alone).output;
  plain.finish(alone);
  plain.step({});
  RunnerDriver driver(*runner, 5);
  const SeqId id = driver.add(prompt, p);
  std::mt19937_64 rng(6);
  int accepted = 0, branched = 0;
  while (driver.seq(id).output.size() < 48) {
    const auto have = static_cast<int>(driver.seq(id).output.size());
    RunnerDriver::Work work{.seq = id, .num_tokens = 1 << 20, .mask = 0};
    put_mask(driver.batch(), have);
    std::vector<int> depth;  // of a guess; the true future as far as its branch is true, sometimes spoiled
    const int count = have == 0 ? 0 : static_cast<int>(rng() % 13);
    for (int i = 0; i < count; ++i) {
      const int parent = rng() % 3 == 0 ? static_cast<int>(rng() % (i + 1)) - 1 : i - 1;
      branched += parent != i - 1;
      depth.push_back(parent < 0 ? 1 : depth[parent] + 1);
      const bool is_true = rng() % 6 != 0;
      work.drafts.push_back(is_true ? expected[have + depth[i] - 1].token : static_cast<TokenId>(rng() % 500));
      work.parents.push_back(parent);
      put_mask(driver.batch(), have + depth[i]);
    }
    accepted += driver.step({work}) - 1;
  }
  EXPECT_GT(accepted, 20);
  EXPECT_GT(branched, 5);
  auto drafted = driver.seq(id).output;
  drafted.resize(48);
  EXPECT_EQ(drafted, std::vector<Reported>(expected.begin(), expected.begin() + 48));
  driver.finish(id);
  driver.step({});
}

TEST_P(Architectures, PromptLogprobsAreThoseOfGeneratingTheSameTokens) {
  EngineConfig config = small_config();
  config.scheduler.max_num_seqs = 3;  // logits come three rows at a time
  const auto runner = make_runner(GetParam(), config);
  const std::vector<TokenId> prompt = random_tokens(3, 50);
  const auto generated = generate_alone(*runner, prompt, sampling(0), 60);
  std::vector<TokenId> longer = prompt;
  for (const Reported& r : generated) longer.push_back(r.token);
  longer.push_back(7);
  for (const int chunk : {1, 13, 256}) {
    SamplingParams p = sampling(0);
    p.num_prompt_logprobs = 20;
    RunnerDriver driver(*runner);
    const SeqId id = driver.add(longer, p);
    driver.run(id, 1, chunk);
    const auto& reported = driver.seq(id).prompt;
    ASSERT_EQ(reported.size(), longer.size() - 1);
    for (size_t i = 0; i < generated.size(); ++i)
      EXPECT_EQ(reported[prompt.size() - 1 + i], generated[i]) << i;
    driver.finish(id);
    driver.step({});
  }
}

TEST_P(Architectures, ASequenceContinuesFromBlocksThatAnotherLeft) {
  // A prefix found in the cache: full blocks shared, the last one copied, a windowed group without what it
  // has forgotten.
  const auto runner = make_runner(GetParam());
  const BlockGeometry& geometry = runner->plan().geometry;
  const std::vector<TokenId> prompt = random_tokens(4, 100);
  const auto expected = generate_alone(*runner, prompt, sampling(0.7f), 20);
  RunnerDriver driver(*runner);
  std::vector<TokenId> shared(prompt.begin(), prompt.begin() + 90);
  shared.push_back(11);
  const SeqId first = driver.add(shared, sampling(0));
  driver.run(first, 3);
  const SeqId second = driver.add(prompt, sampling(0.7f));
  DrivenSeq& seq = driver.seq(second);
  seq.computed = 90;
  const int full_blocks = 90 / geometry.block_size;
  for (int g = 0; g < geometry.num_groups; ++g) {
    if (geometry.groups[g].window > 0)
      seq.first_block[g] = (90 - geometry.groups[g].window + 1) / geometry.block_size;
    for (int b = seq.first_block[g]; b < full_blocks; ++b)
      seq.blocks[g].push_back(driver.seq(first).blocks[g][b]);
    const BlockId copy = driver.take_block(g);
    seq.blocks[g].push_back(copy);
    driver.batch().copies.push_back(
        {g, {driver.seq(first).blocks[g][full_blocks], copy, 90 % geometry.block_size}});
  }
  driver.step({{.seq = second, .num_tokens = 4}, {.seq = first, .num_tokens = 1}});
  driver.run(second, 20);
  EXPECT_EQ(driver.seq(second).output, expected);
}

TEST(ModelRunner, AMaskAndMinTokensBindTheirSequenceOnly) {
  const auto runner = make_runner("LlamaForCausalLM");
  RunnerDriver driver(*runner);
  const std::vector<TokenId> prompt = random_tokens(5, 20);
  const auto free_run = generate_alone(*runner, prompt, sampling(0), 2);
  SamplingParams banning = sampling(0);
  banning.eos_token_ids = {free_run[0].token};
  banning.stop_token_ids = {free_run[1].token};
  banning.min_tokens = 1;
  const SeqId masked = driver.add(prompt, sampling(0));
  const SeqId banned = driver.add(prompt, banning);
  banning.ignore_eos = true;
  const SeqId ignoring = driver.add(prompt, banning);
  const SeqId free_id = driver.add(prompt, sampling(0));
  driver.batch().masks.assign(2 * 16, 0);
  driver.batch().masks[16 + 3] = 1u << 9;  // mask 1 allows token 105 alone
  driver.step({{masked, 100, {}, 1}, {banned, 100}, {ignoring, 100}, {free_id, 100}});
  EXPECT_EQ(driver.seq(masked).output[0].token, 105);
  EXPECT_NE(driver.seq(banned).output[0].token, free_run[0].token);
  EXPECT_EQ(driver.seq(ignoring).output[0].token, free_run[0].token)
      << "an ignored end id is an ordinary token";
  EXPECT_EQ(driver.seq(free_id).output[0], free_run[0]);
  EXPECT_EQ(driver.seq(masked).output[0].top_tokens, free_run[0].top_tokens)
      << "log-probabilities are the raw ones";
}

TEST(ModelRunner, AnEndIdBeyondTheVocabularyBansNothingInTheNextRow) {
  const auto runner = make_runner("LlamaForCausalLM");
  const int vocab = runner->vocab_size();
  RunnerDriver driver(*runner);
  const std::vector<TokenId> prompt = random_tokens(5, 20);
  const auto free_run = generate_alone(*runner, prompt, sampling(0), 1);
  SamplingParams banning = sampling(0);
  for (int t = 0; t < vocab; ++t) banning.eos_token_ids.push_back(vocab + t);
  banning.min_tokens = 1;
  const SeqId banned = driver.add(prompt, banning);
  const SeqId neighbour = driver.add(prompt, sampling(0));
  driver.step({{banned, 100}, {neighbour, 100}});
  EXPECT_EQ(driver.seq(banned).output[0].token, free_run[0].token);
  EXPECT_EQ(driver.seq(neighbour).output[0], free_run[0]);
}

TEST(ModelRunner, ASequenceWithoutAFiniteLogitFailsAlone) {
  const auto runner = make_runner("LlamaForCausalLM");
  const std::vector<TokenId> prompt = random_tokens(6, 20);
  const auto expected = generate_alone(*runner, prompt, sampling(0.5f), 5);
  RunnerDriver driver(*runner);
  SamplingParams broken = sampling(1);
  broken.logit_bias = {{8, std::numeric_limits<float>::quiet_NaN()}};
  const SeqId bad = driver.add(prompt, broken);
  const SeqId good = driver.add(prompt, sampling(0.5f));
  driver.step({{bad, 100}, {good, 100}});
  EXPECT_TRUE(driver.seq(bad).failed);
  EXPECT_TRUE(driver.seq(bad).output.empty());
  driver.finish(bad);
  driver.run(good, 5);
  EXPECT_EQ(driver.seq(good).output, expected);
}

TEST(ModelRunner, AFreedSlotServesTheNextSequenceInTheSameBatch) {
  EngineConfig config = small_config();
  config.scheduler.max_num_seqs = 1;
  const auto runner = make_runner("LlamaForCausalLM", config);
  const std::vector<TokenId> prompt = random_tokens(7, 60);
  const auto expected = generate_alone(*runner, prompt, sampling(0.5f), 5);
  RunnerDriver driver(*runner);
  const SeqId first = driver.add(random_tokens(8, 100), sampling(0));
  driver.run(first, 10);
  driver.finish(first);
  const SeqId second = driver.add(prompt, sampling(0.5f));
  driver.run(second, 5);
  EXPECT_EQ(driver.seq(second).output, expected);
}

TEST(ModelRunner, AllocatesNothingOnceWarm) {
  const auto runner = make_runner("Qwen2ForCausalLM");
  const int vocab = runner->vocab_size();
  // The same batches twice: decodes with every sampling feature, a prompt chunk with log-probabilities,
  // copies.
  Batch admit, work;
  ModelOutput output;
  for (SlotId slot = 0; slot < 8; ++slot) {
    Admission a;
    a.seq = 1 + slot;
    a.slot = slot;
    a.sampling = sampling(slot % 2 ? 0.9f : 0.0f);
    a.sampling.top_k = slot % 3 ? 40 : 0;
    a.sampling.top_p = slot % 4 ? 0.9f : 1.0f;
    a.sampling.repetition_penalty = 1.2f;
    a.sampling.presence_penalty = 0.1f;
    a.sampling.logit_bias = {{3, 1.0f}};
    a.sampling.num_prompt_logprobs = 20;
    a.tokens = random_tokens(slot, 30);
    a.num_prompt = 30;
    admit.admitted.push_back(a);
    SeqStep s;
    s.seq = a.seq;
    s.slot = slot;
    s.tokens_begin = static_cast<int>(work.tokens.size());
    s.num_tokens = slot == 7 ? 30 : 1;
    s.sample = slot == 7;
    s.prompt_logprobs = slot == 7;
    s.mask = slot == 7 ? 0 : -1;
    work.tokens.insert(work.tokens.end(), a.tokens.begin(), a.tokens.begin() + s.num_tokens);
    for (int g = 0; g < 2; ++g) {
      s.blocks_begin[g] = static_cast<int>(work.blocks.size());
      s.num_blocks[g] = 2;
      work.blocks.insert(work.blocks.end(), {2 * slot, 2 * slot + 1});
      work.copies.push_back({g, {30, 31, 5}});
    }
    work.seqs.push_back(s);
  }
  admit.num_admitted = 8;
  work.masks.assign((vocab + 31) / 32, 0xffffffffu);
  Batch leave;
  for (SlotId slot = 0; slot < 8; ++slot) leave.freed.push_back(slot);
  const auto round = [&] {
    runner->execute(admit, output);
    runner->execute(work, output);
    runner->execute(leave, output);
  };
  round();
  const AllocationCounter counter;
  for (int i = 0; i < 5; ++i) round();
  EXPECT_EQ(counter.count(), 0);
}

}  // namespace
}  // namespace serval::testing
