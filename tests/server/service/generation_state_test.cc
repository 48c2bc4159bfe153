// What becomes of token events: pieces or whole choices, what they hold meanwhile, and where each token
// stands in the text.

#include "server/service/generation_state.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace serval {
namespace {

constexpr TokenId kBos = 1, kEos = 2;

// Each letter is a token, and so is a space with the letter after it (id 256 + letter); 1 and 2 are special.
class Letters final : public Tokenizer {
 public:
  Letters() {
    for (int i = 0; i < 512; ++i) {
      const std::string letter(1, static_cast<char>(i % 256));
      bytes_.push_back(i == kBos ? "<s>" : i == kEos ? "</s>" : i < 256 ? letter : " " + letter);
    }
  }
  std::vector<TokenId> encode(std::string_view, bool, bool, std::string_view) const override { return {}; }
  std::vector<std::string> special_names() const override { return {}; }
  size_t least_tokens(std::string_view) const override { return 0; }
  std::string_view token_bytes(TokenId id) const override { return bytes_.at(static_cast<size_t>(id)); }
  bool is_special(TokenId id) const override { return id == kBos || id == kEos; }
  bool strips_leading_space() const override { return true; }
  int vocab_size() const override { return 512; }
  TokenId token_to_id(std::string_view) const override { return -1; }
  TokenId bos_id() const override { return kBos; }
  TokenId eos_id() const override { return kEos; }

 private:
  std::vector<std::string> bytes_;
};

struct Heard final : GenerationObserver {
  void on_delta(Delta&& delta) override { deltas.push_back(std::move(delta)); }
  void on_done(const Usage& seen) override {
    usage = seen;
    done = true;
  }
  void on_error(const Error& seen) override { error = seen; }
  std::vector<Delta> deltas;
  Usage usage;
  bool done = false;
  std::optional<Error> error;
};

class GenerationStateTest : public ::testing::Test {
 protected:
  GenerationStateTest() : metrics_("m") {
    options_.prompts = {{"abc", {'a', 'b', 'c'}}};
    options_.prompt_tokens = 3;
    options_.eos_token_ids = {kEos};
    options_.answers = budget_;
    detokenizer_.continues_text = true;
  }
  GenerationState& start() {
    heard_ = std::make_shared<Heard>();
    state_ = std::make_unique<GenerationState>(letters_, detokenizer_, options_, heard_);
    return *state_;
  }
  // One token of a choice.
  GenerationState::Outcome say(TokenId token, FinishReason finish = FinishReason::kNone, int index = 0) {
    TokenEvent event;
    event.index = index;
    event.token = token;
    event.finish = finish;
    return state_->deliver(0, event, EventBatch{}, Time{1}, metrics_);
  }
  // The rest of the text where each token begins, by the tokens' widths.
  std::vector<std::string> rests(const std::string& text, const std::vector<int>& widths) {
    std::vector<std::string> result;
    size_t at = 0;
    for (const int width : widths) {
      result.push_back(text.substr(at));
      at += static_cast<size_t>(width);
    }
    EXPECT_EQ(at, text.size());
    return result;
  }

  const Letters letters_;
  ServiceMetrics metrics_;
  DetokenizerOptions detokenizer_;
  GenerationState::Options options_;
  std::shared_ptr<MemoryBudget> budget_ = std::make_shared<MemoryBudget>(1 << 20);
  std::shared_ptr<Heard> heard_;
  std::unique_ptr<GenerationState> state_;
};

TEST_F(GenerationStateTest, AStreamHearsEachTokenAndAWholeAnswerEachChoiceOnce) {
  for (const bool whole : {false, true}) {
    options_.whole = whole;
    options_.n = 2;
    start();
    for (const char c : std::string("xyz")) {
      say(c, c == 'z' ? FinishReason::kLength : FinishReason::kNone, 0);
      say(c, c == 'z' ? FinishReason::kLength : FinishReason::kNone, 1);
    }
    EXPECT_EQ(heard_->deltas.size(), whole ? 2u : 6u);
    EXPECT_EQ(heard_->deltas[1].text, whole ? "xyz" : "x");
    EXPECT_TRUE(heard_->done);
  }
}

TEST_F(GenerationStateTest, ChoicesShareOneListOfTheirPrompt) {
  options_.n = 3;
  options_.num_prompt_logprobs = 1;
  GenerationState& state = start();
  EXPECT_TRUE(state.hold_prompt_logprobs());
  const EventBatch batch{.top = {{'q', -0.5f}, {'c', -3}},
                         .prompt_logprobs = {{'b', -1, 2, 0, 1}, {'c', -3, 1, 1, 1}}};
  state.deliver_prompt_logprobs(0, {.first_position = 1, .begin = 0, .count = 1}, batch);
  state.deliver_prompt_logprobs(0, {.first_position = 2, .begin = 1, .count = 1}, batch);
  for (int i = 0; i < 3; ++i) say('x', FinishReason::kLength, i);
  ASSERT_EQ(heard_->deltas.size(), 3u);
  const PromptLogprobs* const list = heard_->deltas[0].prompt_logprobs.get();
  for (const Delta& delta : heard_->deltas) EXPECT_EQ(delta.prompt_logprobs.get(), list);
  ASSERT_EQ(list->entries.size(), 3u);
  EXPECT_EQ(list->entries[0].token, 'a');
  EXPECT_EQ(list->top_of(0).size(), 0u);
  EXPECT_EQ(list->entries[1].rank, 2);
  EXPECT_EQ(list->top_of(1)[0].token, 'q');
  EXPECT_EQ(list->top_of(2)[0].token, 'c');
}

TEST_F(GenerationStateTest, WhatAnAnswerHoldsIsChargedAndGivenBack) {
  const size_t list_bytes = 100'000 * (sizeof(PromptLogprobs::Entry) + 4 * sizeof(TopLogprob));
  options_.prompts[0].token_ids.assign(100'000, 'a');
  options_.num_prompt_logprobs = 4;
  for (const int short_by : {0, 1}) {
    budget_ = options_.answers =
        std::make_shared<MemoryBudget>(list_bytes - kFreeAnswerBytes - static_cast<size_t>(short_by));
    EXPECT_EQ(start().hold_prompt_logprobs(), short_by == 0);
    EXPECT_EQ(budget_->used(), short_by == 0 ? budget_->limit() : 0u);
    state_.reset();
    EXPECT_EQ(budget_->used(), 0u);
  }
}

TEST_F(GenerationStateTest, AWholeAnswerBeyondTheBudgetFailsAndOthersGoOn) {
  options_.whole = true;
  options_.num_logprobs = 0;
  budget_ = options_.answers = std::make_shared<MemoryBudget>(100'000);
  start();
  GenerationState::Outcome outcome;
  int num_tokens = 0;
  for (; !outcome.finished; ++num_tokens) outcome = say('x');
  EXPECT_TRUE(outcome.failed);
  ASSERT_TRUE(heard_->error.has_value());
  EXPECT_EQ(heard_->error->kind, ErrorKind::kOverloaded);
  EXPECT_EQ(heard_->error->code, "server_overloaded");
  EXPECT_GT(num_tokens, 1000);
  const std::unique_ptr<GenerationState> failed = std::move(state_);
  start();  // what is small is never refused, however much others hold
  say('y', FinishReason::kLength);
  EXPECT_TRUE(heard_->done);
}

TEST_F(GenerationStateTest, TokensStandWhereTheirTextIs) {
  options_.prompts = {{"abcde", {kBos, 256 + 'a', 'b', 'c', 'd', 'e'}}};
  options_.echo = true;
  options_.num_logprobs = options_.num_prompt_logprobs = 0;
  start();
  for (int i = 1; i < 6; ++i) {
    const EventBatch batch{
        .prompt_logprobs = {{options_.prompts[0].token_ids[static_cast<size_t>(i)], -1, 1}}};
    state_->deliver_prompt_logprobs(0, {.first_position = i, .count = 1}, batch);
  }
  say(256 + 'f');
  say(kBos);  // special: not in the text
  say('g');
  say(kEos, FinishReason::kStop);
  std::vector<int> widths;
  for (const PromptLogprobs::Entry& entry : heard_->deltas[0].prompt_logprobs->entries)
    widths.push_back(entry.width);
  std::string text = "abcde";
  for (const Delta& delta : heard_->deltas) {
    text += delta.text;
    for (const TokenLogprob& token : delta.logprobs)
      widths.push_back(token.width >= 0 ? token.width : static_cast<int>(token.bytes.size()));
  }
  EXPECT_EQ(text, "abcde fg");
  EXPECT_EQ(rests(text, widths), (std::vector<std::string>{"abcde fg", "abcde fg", "bcde fg", "cde fg",
                                                           "de fg", "e fg", " fg", "g", "g", ""}));
}

TEST_F(GenerationStateTest, SpecialTokensThatThePromptSpellsOutAreText) {
  options_.prompts = {{"a</s>b", {kBos, 'a', kEos, 'b'}}};
  options_.echo = true;
  options_.num_logprobs = options_.num_prompt_logprobs = 0;
  start();
  say('c', FinishReason::kLength);
  std::vector<int> widths;
  for (const PromptLogprobs::Entry& entry : heard_->deltas[0].prompt_logprobs->entries)
    widths.push_back(entry.width);
  EXPECT_EQ(widths, (std::vector<int>{0, 1, 4, 1}));
}

// A letter at a time, or whole: the same parts, with an id for each call.
TEST_F(GenerationStateTest, AnAnswerInPartsHasTheSameOnesStreamedAndWhole) {
  auto reading = std::make_shared<AnswerReading>();
  reading->rules.format = message_format_named("hermes");
  reading->rules.reasoning = {"<think>", "</think>"};
  reading->rules.has_tools = true;
  const std::string text = "<think>Hm.</think>Yes.<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":1}}</tool_call>";
  for (const bool whole : {false, true}) {
    options_.reading = reading;
    options_.whole = whole;
    start();
    for (const char letter : text) say(letter);
    say(kEos, FinishReason::kStop);
    ASSERT_TRUE(heard_->done);
    std::string reasoning, content, call, id, arguments;
    for (const Delta& delta : heard_->deltas) {
      EXPECT_EQ(delta.text, "");
      for (const MessagePart& part : delta.parts) {
        if (part.kind == PartKind::kReasoning) reasoning += part.text;
        if (part.kind == PartKind::kContent) content += part.text;
        if (part.kind == PartKind::kCall) call += part.text, id += part.id;
        if (part.kind == PartKind::kArguments) arguments += part.text;
      }
    }
    EXPECT_EQ(reasoning + "|" + content + "|" + call + arguments, "Hm.|Yes.|f{\"a\":1}");
    EXPECT_EQ(id.size(), std::string("call_").size() + 32);
    EXPECT_EQ(heard_->deltas.size() > 10, !whole);
    EXPECT_EQ(heard_->usage.reasoning_tokens, 11);  // its text and the mark behind it, from the first letter that is certain
  }
}

TEST_F(GenerationStateTest, KeepsOfPromptsWhatSomebodyAsksFor) {
  EXPECT_EQ(start().prompts()[0].text, "");
  EXPECT_EQ(state_->prompts()[0].token_ids.size(), 3u);
  options_.keep_prompt_ids = false;
  options_.echo = true;
  EXPECT_EQ(start().prompts()[0].text, "abc");
  EXPECT_EQ(state_->prompts()[0].token_ids.size(), 0u);
}

}  // namespace
}  // namespace serval
