// Two models of different shapes on one device at once, their steps in any order and two of each on their way: each
// says, bit for bit, what it says alone. The device is said where this file is compiled (SERVAL_TWO_MODELS_DEVICE).
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <random>

#include "engine/runner/load_model.h"

namespace serval::testing {
namespace {

constexpr int kSteps = 12;

std::unique_ptr<Backend> make_device() {
  return make_backend({.device = SERVAL_TWO_MODELS_DEVICE, .num_threads = 2, .pin_threads = false});
}

std::unique_ptr<ModelRunner> load(const char* model, int max_seqs, int max_len, Backend& backend) {
  EngineConfig config;
  config.scheduler.max_num_seqs = max_seqs;
  config.scheduler.max_num_batched_tokens = 160;
  config.scheduler.max_model_len = max_len;
  return load_model(std::filesystem::path(SERVAL_SOURCE_DIR) / "tests/fixtures/models" / model, config, backend);
}

// Everything that was reported of every token, step after step.
struct Said {
  std::vector<TokenId> tokens;
  std::vector<float> logprobs;
  bool operator==(const Said&) const = default;
};

// Three sequences: a step with their prompts, then steps that decode all of them, some launched before the tokens that
// they compute are known.
class Conversation {
 public:
  explicit Conversation(ModelRunner& runner) : runner_(runner) {}

  bool is_over() const { return said_.tokens.size() == size_t{kSteps} * kPrompts.size(); }
  bool can_launch() const { return launched_ < kSteps && in_flight_ < kMaxStepsInFlight; }
  bool can_wait() const { return in_flight_ > 0; }

  void launch() {
    batch_.clear();
    batch_.step = launched_;
    const int block_size = runner_.plan().geometry.block_size, num_groups = runner_.plan().geometry.num_groups;
    int next_block = 0;
    for (int s = 0; s < static_cast<int>(kPrompts.size()); ++s) {
      SeqStep& step = batch_.seqs.emplace_back();
      step.seq = step.slot = s;
      step.tokens_begin = static_cast<int>(batch_.tokens.size());
      step.sample = true;
      const int num_blocks = (kPrompts[s] + kSteps + block_size - 1) / block_size;
      if (launched_ > 0) {
        std::fill_n(step.first_block, num_groups, num_blocks);  // no more than it has
        step.first_pos = kPrompts[s] + launched_ - 1;
        step.num_tokens = 1;
        batch_.tokens.push_back(in_flight_ > 0 ? kTokenOnDevice : last_[s]);
        continue;
      }
      step.num_tokens = kPrompts[s];
      const std::vector<TokenId> prompt = prompt_of(s);
      batch_.tokens.insert(batch_.tokens.end(), prompt.begin(), prompt.end());
      for (int g = 0; g < num_groups; ++g) {
        step.blocks_begin[g] = static_cast<int>(batch_.blocks.size());
        step.num_blocks[g] = num_blocks;
        for (int b = 0; b < num_blocks; ++b) batch_.blocks.push_back(next_block + b);
      }
      next_block += num_blocks;
      if (static_cast<size_t>(batch_.num_admitted) == batch_.admitted.size()) batch_.admitted.emplace_back();
      Admission& newcomer = batch_.admitted[batch_.num_admitted++];
      newcomer.seq = newcomer.slot = s;
      newcomer.tokens = prompt;
      newcomer.num_prompt = kPrompts[s];
      newcomer.sampling.temperature = 0.5f * static_cast<float>(s);
      newcomer.sampling.seed = 40 + s;
      newcomer.sampling.frequency_penalty = 0.3f;
      newcomer.sampling.num_logprobs = 5;
    }
    runner_.launch(batch_);
    ++launched_;
    ++in_flight_;
  }

  void wait() {
    runner_.wait(output_);
    runner_.guess(output_);
    --in_flight_;
    for (const SeqOutput& seq : output_.seqs) {
      EXPECT_FALSE(seq.failed);
      last_[seq.seq] = output_.tokens[seq.tokens_begin].token;
    }
    for (const TokenOutput& token : output_.tokens) {
      said_.tokens.push_back(token.token);
      said_.logprobs.push_back(token.logprob);
    }
    for (const TopLogprob& top : output_.top) said_.logprobs.push_back(top.logprob);
  }

  const Said& said() const { return said_; }

 private:
  static constexpr std::array<int, 3> kPrompts = {5, 33, 70};
  static std::vector<TokenId> prompt_of(int s) {
    std::vector<TokenId> tokens(kPrompts[s]);
    for (int i = 0; i < kPrompts[s]; ++i) tokens[i] = (17 * s + 31 * i) % 90;
    return tokens;
  }

  ModelRunner& runner_;
  Batch batch_;
  ModelOutput output_;
  Said said_;
  std::array<TokenId, kPrompts.size()> last_{};
  int launched_ = 0, in_flight_ = 0;
};

Said alone(const char* model, int max_seqs, int max_len) {
  const auto backend = make_device();
  const auto runner = load(model, max_seqs, max_len, *backend);
  Conversation conversation(*runner);
  while (!conversation.is_over()) {
    conversation.launch();
    conversation.wait();
  }
  return conversation.said();
}

TEST(TwoModels, OnOneDeviceSayEachWhatTheySayAlone) {
  const Said llama = alone("llama2", 3, 120), qwen = alone("qwen3", 5, 100), windows = alone("qwen2-windows", 4, 110);
  ASSERT_NE(llama, qwen);
  const auto backend = make_device();
  const auto first = load("llama2", 3, 120, *backend), second = load("qwen3", 5, 100, *backend);
  std::unique_ptr<ModelRunner> third = load("qwen2-windows", 4, 110, *backend);
  for (const uint64_t seed : {1, 2}) {
    std::mt19937_64 rng(seed);
    std::vector<std::unique_ptr<Conversation>> all;
    all.push_back(std::make_unique<Conversation>(*first));
    all.push_back(std::make_unique<Conversation>(*second));
    if (third) all.push_back(std::make_unique<Conversation>(*third));
    const auto is_over = [](const auto& conversation) { return conversation->is_over(); };
    while (!std::all_of(all.begin(), all.end(), is_over)) {
      Conversation& one = *all[rng() % all.size()];
      if (one.can_launch() && rng() % 2 == 0)
        one.launch();
      else if (one.can_wait())
        one.wait();
    }
    EXPECT_EQ(all[0]->said(), llama) << seed;
    EXPECT_EQ(all[1]->said(), qwen) << seed;
    if (third) {
      EXPECT_EQ(all[2]->said(), windows) << seed;
    }
    // The sequences leave, and after the first round a model does, from between the others.
    Batch leave;
    leave.freed = {0, 1, 2};
    ModelOutput nothing;
    for (ModelRunner* runner : {first.get(), second.get()}) runner->execute(leave, nothing);
    if (third) third->execute(leave, nothing);
    if (seed == 1) third.reset();
  }
}

}  // namespace
}  // namespace serval::testing
