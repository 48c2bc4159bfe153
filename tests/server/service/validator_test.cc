// Every limit of a request at its edge: the value at the limit passes, one beyond is refused and names the field.

#include "server/service/validator.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

namespace serval {
namespace {

constexpr int kVocab = 100;
constexpr int kContext = 64;

struct World {
  ServiceLimits limits;
  GenerationDefaults defaults;
  BlockGeometry geometry;
  SchedulerConfig scheduler;
  std::vector<PromptInfo> prompts{{"abc", {1, 2, 3, 4}}};

  World() {
    limits.max_model_len = kContext;
    limits.vocab_size = kVocab;
    geometry.block_size = 16;
    geometry.groups[0].num_blocks = 64;
    scheduler.max_model_len = kContext;
    defaults.eos_token_ids = {2};
  }
  Result<ValidatedRequest> check(const GenerateRequest& request) const {
    return validate(request, prompts, limits, defaults, geometry, scheduler, 7);
  }
};

GenerateRequest completion() {
  GenerateRequest request;
  request.max_tokens = 4;
  return request;
}

GenerateRequest chat() {
  GenerateRequest request = completion();
  request.chat.emplace();
  return request;
}

struct EdgeCase {
  const char* name;
  const char* param;
  std::function<void(GenerateRequest&)> at_the_limit;
  std::function<void(GenerateRequest&)> beyond;
  const char* code = "value_out_of_range";
};

void PrintTo(const EdgeCase& c, std::ostream* out) { *out << c.name; }

#define SET(field, value) [](GenerateRequest& r) { r.field = value; }
constexpr double kInf = std::numeric_limits<double>::infinity();

const EdgeCase kEdges[] = {
    {"temperature_high", "temperature", SET(temperature, 2.0), SET(temperature, 2.0001)},
    {"temperature_low", "temperature", SET(temperature, 0.0), SET(temperature, -0.0001)},
    {"temperature_infinite", "temperature", SET(temperature, 1.0), SET(temperature, kInf)},
    {"temperature_nan", "temperature", SET(temperature, 1.0), SET(temperature, std::nan(""))},
    {"top_p_low", "top_p", SET(top_p, 0.0), SET(top_p, -0.0001)},
    {"top_p_high", "top_p", SET(top_p, 1.0), SET(top_p, 1.0001)},
    {"min_p_low", "min_p", SET(min_p, 0.0), SET(min_p, -0.0001)},
    {"min_p_high", "min_p", SET(min_p, 1.0), SET(min_p, 1.0001)},
    {"top_k_low", "top_k", SET(top_k, -1), SET(top_k, -2)},
    {"top_k_high", "top_k", SET(top_k, std::numeric_limits<int32_t>::max()), SET(top_k, int64_t{1} << 31)},
    {"presence_low", "presence_penalty", SET(presence_penalty, -2.0), SET(presence_penalty, -2.0001)},
    {"presence_high", "presence_penalty", SET(presence_penalty, 2.0), SET(presence_penalty, 2.0001)},
    {"frequency_low", "frequency_penalty", SET(frequency_penalty, -2.0), SET(frequency_penalty, -2.0001)},
    {"frequency_high", "frequency_penalty", SET(frequency_penalty, 2.0), SET(frequency_penalty, 2.0001)},
    {"repetition_low", "repetition_penalty", SET(repetition_penalty, 1e-6), SET(repetition_penalty, 0.0)},
    {"repetition_high", "repetition_penalty", SET(repetition_penalty, 10.0), SET(repetition_penalty, 10.001)},
    {"n_low", "n", SET(n, 1), SET(n, 0)},
    {"n_high", "n", SET(n, 16), SET(n, 17)},
    {"n_huge", "n", SET(n, 2), SET(n, std::numeric_limits<int64_t>::max())},
    {"max_tokens_low", "max_tokens", SET(max_tokens, 0), SET(max_tokens, -2)},
    {"max_tokens_high", "max_tokens", SET(max_tokens, kContext - 4), SET(max_tokens, kContext - 3), "context_length_exceeded"},
    {"max_tokens_huge", "max_tokens", SET(max_tokens, 5), SET(max_tokens, std::numeric_limits<int64_t>::max())},
    {"min_tokens_low", "min_tokens", SET(min_tokens, 0), SET(min_tokens, -1)},
    {"min_tokens_high", "min_tokens", SET(min_tokens, 4), SET(min_tokens, 5)},
    {"completion_logprobs", "logprobs", SET(logprobs, 5), SET(logprobs, 6)},
    {"completion_logprobs_low", "logprobs", SET(logprobs, 0), SET(logprobs, -1)},
    {"prompt_logprobs", "prompt_logprobs", SET(prompt_logprobs, 20), SET(prompt_logprobs, 21)},
    {"stop_count", "stop", SET(stop, std::vector<std::string>(16, "x")), SET(stop, std::vector<std::string>(17, "x"))},
    {"stop_bytes", "stop", SET(stop, {std::string(256, 'x')}), SET(stop, {std::string(257, 'x')})},
    {"stop_empty", "stop", SET(stop, {"x"}), SET(stop, {""})},
    {"stop_token_ids_high", "stop_token_ids", SET(stop_token_ids, {kVocab - 1}), SET(stop_token_ids, {kVocab}), "invalid_token_id"},
    {"stop_token_ids_low", "stop_token_ids", SET(stop_token_ids, {0}), SET(stop_token_ids, {-1}), "invalid_token_id"},
    {"stop_token_ids_count", "stop_token_ids", SET(stop_token_ids, std::vector<int64_t>(256, 1)),
     SET(stop_token_ids, std::vector<int64_t>(257, 1))},
    {"logit_bias_id", "logit_bias", [](GenerateRequest& r) { r.logit_bias = {{kVocab - 1, 1.0}}; },
     [](GenerateRequest& r) { r.logit_bias = {{kVocab, 1.0}}; }, "invalid_token_id"},
    {"logit_bias_value", "logit_bias", [](GenerateRequest& r) { r.logit_bias = {{1, -100.0}}; },
     [](GenerateRequest& r) { r.logit_bias = {{1, -100.1}}; }},
    {"logit_bias_nan", "logit_bias", [](GenerateRequest& r) { r.logit_bias = {{1, 100.0}}; },
     [](GenerateRequest& r) { r.logit_bias = {{1, std::nan("")}}; }},
    {"logit_bias_count", "logit_bias", [](GenerateRequest& r) { r.logit_bias.assign(1024, {1, 1.0}); },
     [](GenerateRequest& r) { r.logit_bias.assign(1025, {1, 1.0}); }},
    {"cache_salt_bytes", "cache_salt", SET(cache_salt, std::string(128, '\xff')), SET(cache_salt, std::string(129, 'x'))},
    {"cache_salt_empty", "cache_salt", SET(cache_salt, std::string(1, '\0')), SET(cache_salt, "")},
};

class ValidatorEdge : public testing::TestWithParam<EdgeCase> {};

TEST_P(ValidatorEdge, PassesAtTheLimitAndRefusesBeyond) {
  const World world;
  GenerateRequest request = completion();
  GetParam().at_the_limit(request);
  const Result<ValidatedRequest> passes = world.check(request);
  EXPECT_TRUE(passes.ok()) << passes.error().message;
  request = completion();
  GetParam().beyond(request);
  const Result<ValidatedRequest> refused = world.check(request);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().param, GetParam().param);
  EXPECT_EQ(refused.error().code, GetParam().code);
  EXPECT_EQ(refused.error().kind, ErrorKind::kInvalidRequest);
  EXPECT_NE(refused.error().message.find(GetParam().param == std::string("max_tokens") ? "" : GetParam().param), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Limits, ValidatorEdge, testing::ValuesIn(kEdges), [](const auto& info) { return info.param.name; });

TEST(Validator, ChatLogprobsGoToTwentyUnderTheirOwnName) {
  const World world;
  GenerateRequest request = chat();
  request.logprobs = 20;
  EXPECT_TRUE(world.check(request).ok());
  request.logprobs = 21;
  EXPECT_EQ(world.check(request).error().param, "top_logprobs");
}

TEST(Validator, ARepetitionPenaltyAsSmallAsADoubleCanBeLeavesLogitsFinite) {
  const World world;
  GenerateRequest request = completion();
  request.repetition_penalty = std::numeric_limits<double>::denorm_min();
  const Result<ValidatedRequest> valid = world.check(request);
  ASSERT_TRUE(valid.ok()) << valid.error().message;
  EXPECT_TRUE(std::isfinite(1e6f / valid->requests[0].sampling.repetition_penalty));
}

TEST(Validator, AcceptanceIsTheServersWhereARequestSaysNothing) {
  World world;
  GenerateRequest request = completion();
  EXPECT_EQ(world.check(request)->requests[0].speculation.acceptance, Acceptance::kExact);
  world.limits.acceptance = Acceptance::kTypical;
  EXPECT_EQ(world.check(request)->requests[0].speculation.acceptance, Acceptance::kTypical);
  request.speculation_acceptance = "rejection";
  EXPECT_EQ(world.check(request)->requests[0].speculation.acceptance, Acceptance::kRejection);
  request.speculation_acceptance = "often";
  EXPECT_EQ(world.check(request).error().param, "speculation.acceptance");
  EXPECT_EQ(world.check(request).error().code, "invalid_value");
  world.limits.acceptance = Acceptance::kExact;
  world.limits.accepts_only_exactly = true;
  request.speculation_acceptance = "exact";
  EXPECT_TRUE(world.check(request).ok());
  request.speculation_acceptance = "typical";
  EXPECT_EQ(world.check(request).error().code, "not_supported");
}

TEST(Validator, TokensOfTheFirstLayersAreTakenWhereTheyGuessAndARequestSaysHowSureTheyMustBe) {
  World world;
  GenerateRequest request = completion();
  request.speculation_acceptance = "exit";
  request.speculation_threshold = 0.5;
  const auto refused = [&] {
    const Result<ValidatedRequest> result = world.check(request);
    return result.ok() ? "" : result.error().param + " " + result.error().code;
  };
  EXPECT_EQ(refused(), "speculation.acceptance not_supported");
  world.limits.drafters = drafter_bit(DrafterKind::kSelf) | drafter_bit(DrafterKind::kPrediction) | drafter_bit(DrafterKind::kNgram);
  for (const char* method : {"self", "auto"}) {
    request.speculation_method = method;
    ASSERT_EQ(refused(), "");
    const SpeculationParams asked = world.check(request)->requests[0].speculation;
    EXPECT_EQ(asked.drafters, drafter_bit(DrafterKind::kSelf));
    EXPECT_EQ(asked.acceptance, Acceptance::kExit);
    EXPECT_EQ(asked.exit_threshold, 0.5f);
    EXPECT_EQ(asked.width, 1);
  }
  for (const char* method : {"off", "ngram", "prediction"}) {
    request.speculation_method = method;
    EXPECT_EQ(refused(), "speculation.method invalid_value") << method;
  }
  request.speculation_method.reset();
  request.speculation_width = 2;
  EXPECT_EQ(refused(), "speculation.width value_out_of_range");
  request.speculation_width.reset();
  for (const double threshold : {-0.0001, 1.0001, std::nan("")}) {
    request.speculation_threshold = threshold;
    EXPECT_EQ(refused(), "speculation.threshold value_out_of_range") << threshold;
  }
  EXPECT_EQ(world.check(request).error().message, "speculation.threshold is nan; it must be between 0 and 1.");
  for (const double threshold : {0.0, 1.0}) {
    request.speculation_threshold = threshold;
    EXPECT_EQ(refused(), "") << threshold;
  }
  request.speculation_threshold.reset();
  EXPECT_EQ(refused(), "speculation.threshold missing_required_parameter");
  request.speculation_acceptance.reset();
  request.speculation_threshold = 0.5;
  EXPECT_EQ(refused(), "speculation.threshold invalid_value");
  request.speculation_acceptance = "exit";
  world.limits.accepts_only_exactly = true;
  EXPECT_EQ(refused(), "speculation.acceptance not_supported");
}

TEST(Validator, TokensOfTheFirstLayersAreNotTakenUnderPenaltiesWhichThoseDrawWithout) {
  World world;
  world.limits.drafters = drafter_bit(DrafterKind::kSelf);
  const auto refused = [&](const std::function<void(GenerateRequest&)>& set) {
    GenerateRequest request = completion();
    request.speculation_acceptance = "exit";
    request.speculation_threshold = 0.5;
    set(request);
    const Result<ValidatedRequest> result = world.check(request);
    return result.ok() ? "" : result.error().param + " " + result.error().code;
  };
  EXPECT_EQ(refused(SET(presence_penalty, 0.1)), "presence_penalty conflicting_parameters");
  EXPECT_EQ(refused(SET(frequency_penalty, -0.1)), "frequency_penalty conflicting_parameters");
  EXPECT_EQ(refused(SET(repetition_penalty, 1.1)), "repetition_penalty conflicting_parameters");
  EXPECT_EQ(refused(SET(logit_bias, {})), "");
  world.defaults.repetition_penalty = 1.1f;
  EXPECT_EQ(refused(SET(logit_bias, {})), "repetition_penalty conflicting_parameters");
  EXPECT_EQ(refused(SET(repetition_penalty, 1.0)), "");
}

TEST(Validator, MoreSequencesThanAnEmptyServerTakesAreRefusedForGood) {
  World world;
  world.scheduler.max_num_seqs = 4;
  world.scheduler.max_waiting = 2;
  world.prompts.assign(3, world.prompts[0]);
  GenerateRequest request = completion();
  request.n = 2;
  EXPECT_TRUE(world.check(request).ok());
  request.n = 3;
  EXPECT_EQ(world.check(request).error().kind, ErrorKind::kInvalidRequest);
  EXPECT_EQ(world.check(request).error().param, "n");
  request.n = 1;
  world.prompts.assign(7, world.prompts[0]);
  EXPECT_EQ(world.check(request).error().param, "prompt");
}

TEST(Validator, AnAbsentBudgetIsClampedAndAnExplicitOneIsRefused) {
  World world;
  GenerateRequest request = chat();
  request.max_tokens.reset();
  EXPECT_EQ(world.check(request)->requests[0].sampling.max_tokens, kContext - 4);
  request = completion();
  request.max_tokens.reset();
  EXPECT_EQ(world.check(request)->requests[0].sampling.max_tokens, 16);
  world.prompts[0].token_ids.assign(kContext - 3, 1);
  EXPECT_EQ(world.check(request)->requests[0].sampling.max_tokens, 3);
  world.prompts[0].token_ids.assign(kContext, 1);
  EXPECT_EQ(world.check(request).error().code, "context_length_exceeded");
  EXPECT_EQ(world.check(request).error().param, "prompt");
}

TEST(Validator, ACompletionMayBeOfNothingAndAChatMayNot) {
  const World world;
  GenerateRequest request = chat();
  request.max_tokens = 0;
  EXPECT_EQ(world.check(request).error().param, "max_tokens");
  request = completion();
  request.max_tokens = 0;
  const auto valid = world.check(request);
  ASSERT_TRUE(valid.ok());
  EXPECT_TRUE(valid->drop_output);
  EXPECT_EQ(valid->requests[0].sampling.max_tokens, 1);
}

TEST(Validator, MinusOneTokensAreAllThatFit) {
  World world;
  for (GenerateRequest request : {chat(), completion()}) {
    request.max_tokens = -1;
    EXPECT_EQ(world.check(request)->requests[0].sampling.max_tokens, kContext - 4);
  }
  world.prompts[0].token_ids.assign(kContext, 1);
  GenerateRequest request = completion();
  request.max_tokens = -1;
  EXPECT_EQ(world.check(request).error().param, "prompt");
}

TEST(Validator, ATopPOfNothingIsTheMostLikelyToken) {
  World world;
  GenerateRequest request = completion();
  request.temperature = 1.5;
  request.top_p = 0;
  EXPECT_EQ(world.check(request)->requests[0].sampling.temperature, 0);
  request.top_p.reset();
  EXPECT_EQ(world.check(request)->requests[0].sampling.temperature, 1.5f);
  world.defaults.top_p = 0;
  EXPECT_EQ(world.check(request)->requests[0].sampling.temperature, 0);
}

TEST(Validator, TheSeedMinusOneIsTheServersChoiceLikeNone) {
  const World world;  // whose random seed is 7
  GenerateRequest request = completion();
  EXPECT_EQ(world.check(request)->requests[0].sampling.seed, 7u);
  request.seed = -1;
  EXPECT_EQ(world.check(request)->requests[0].sampling.seed, 7u);
  request.seed = -2;
  EXPECT_EQ(world.check(request)->requests[0].sampling.seed, static_cast<uint64_t>(-2));
}

TEST(Validator, MoreTopKThanTheVocabularyIsAllOfIt) {
  const World world;
  GenerateRequest request = completion();
  for (const auto& [given, used] : {std::pair{-1, 0}, {0, 0}, {1, 1}, {kVocab, kVocab}, {kVocab + 1, kVocab}}) {
    request.top_k = given;
    EXPECT_EQ(world.check(request)->requests[0].sampling.top_k, used) << given;
  }
}

TEST(Validator, AnOverflowIsSaidInTheWordsThatClientsLookFor) {
  World world;
  GenerateRequest request = chat();
  request.max_tokens = kContext - 3;
  EXPECT_EQ(world.check(request).error().message,
            "This model's maximum context length is 64 tokens. However, you requested 65 tokens (4 in the "
            "messages, 61 in the completion). Please reduce the length of the messages or max_tokens. "
            "(context_length_exceeded)");
  world.prompts[0].token_ids.assign(kContext, 1);
  request.max_tokens.reset();
  EXPECT_EQ(world.check(request).error().message,
            "This model's maximum context length is 64 tokens. However, you requested 65 tokens (64 in the "
            "messages, 1 in the completion). Please reduce the length of the messages. "
            "(context_length_exceeded)");
}

TEST(Validator, APromptThatFillsTheContextIsServedWhenNothingIsGenerated) {
  World world;
  GenerateRequest request = completion();
  request.echo = true;
  request.max_tokens = 0;
  world.prompts[0].token_ids.assign(kContext, 1);
  EXPECT_TRUE(world.check(request).ok()) << world.check(request).error().message;
  request.max_tokens = 1;
  EXPECT_EQ(world.check(request).error().param, "max_tokens");
  request.max_tokens = 0;
  world.prompts[0].token_ids.push_back(1);
  EXPECT_EQ(world.check(request).error().code, "context_length_exceeded");
  EXPECT_EQ(world.check(request).error().param, "prompt");
}

TEST(Validator, EchoWithLogprobsAsksForThePromptsToo) {
  const World world;
  GenerateRequest request = completion();
  request.echo = true;
  request.logprobs = 2;
  EXPECT_EQ(world.check(request)->requests[0].sampling.num_prompt_logprobs, 2);
}

TEST(Validator, ModelDefaultsApplyWhereTheRequestIsSilent) {
  World world;
  world.defaults.temperature = 0.5f;
  world.defaults.top_k = 1'000'000;
  GenerateRequest request = completion();
  EXPECT_EQ(world.check(request)->requests[0].sampling.temperature, 0.5f);
  EXPECT_EQ(world.check(request)->requests[0].sampling.top_k, kVocab);
  request.temperature = 0;
  EXPECT_EQ(world.check(request)->requests[0].sampling.temperature, 0.0f);
}

TEST(Validator, OutputContinuesItsPrompt) {
  EXPECT_TRUE(World().check(completion())->detokenizer.continues_text);
}

TEST(Validator, PriorityNeedsThePriorityPolicy) {
  World world;
  GenerateRequest request = completion();
  request.priority = 1;
  EXPECT_EQ(world.check(request).error().kind, ErrorKind::kPermissionDenied);
  world.scheduler.policy = QueuePolicy::kPriority;
  EXPECT_TRUE(world.check(request).ok());
  request.priority = int64_t{1} << 40;
  EXPECT_EQ(world.check(request).error().param, "priority");
}

TEST(Validator, ARequestThatCanNeverFitIsRefusedNotQueued) {
  World world;
  world.geometry.groups[0].num_blocks = 3;  // 48 positions
  GenerateRequest request = completion();
  request.max_tokens = 45;  // the last token's KV is not needed
  EXPECT_TRUE(world.check(request).ok());
  request.n = 4;  // they take turns
  EXPECT_TRUE(world.check(request).ok());
  request.max_tokens = 46;
  EXPECT_EQ(world.check(request).error().message.rfind("This model's maximum context length is 49 tokens. ", 0), 0u)
      << world.check(request).error().message;
  EXPECT_EQ(world.check(request).error().code, "context_length_exceeded");
  EXPECT_EQ(world.check(request).error().param, "max_tokens");
}

TEST(Validator, APromptThatFillsAllMemoryIsServedWithoutAnOutput) {
  World world;
  world.geometry.groups[0].num_blocks = 3;
  GenerateRequest request = completion();
  request.max_tokens = 0;
  world.prompts[0].token_ids.assign(48, 1);
  EXPECT_TRUE(world.check(request).ok()) << world.check(request).error().message;
  for (const int beyond : {49, 50}) {
    world.prompts[0].token_ids.assign(beyond, 1);
    EXPECT_EQ(world.check(request).error().code, "context_length_exceeded");
    EXPECT_EQ(world.check(request).error().param, "prompt");
  }
}

TEST(Validator, AnAbsentBudgetIsNoMoreThanTheKvMemoryHolds) {
  World world;
  world.geometry.groups[0].num_blocks = 3;
  GenerateRequest request = chat();
  for (const auto& asked : {std::optional<int64_t>(), std::optional<int64_t>(-1)}) {
    request.max_tokens = asked;
    const auto valid = world.check(request);
    ASSERT_TRUE(valid.ok()) << valid.error().message;
    EXPECT_EQ(valid->requests[0].sampling.max_tokens, 45);
  }
  world.prompts[0].token_ids.assign(48, 1);
  EXPECT_EQ(world.check(request)->requests[0].sampling.max_tokens, 1);
  world.prompts[0].token_ids.assign(49, 1);
  EXPECT_EQ(world.check(request).error().param, "messages");
}

TEST(Validator, PromptsOfOneCallDrawWithNoiseOfTheirOwn) {
  World world;
  world.prompts.push_back(world.prompts[0]);
  GenerateRequest request = completion();
  request.n = 2;
  request.seed = 5;
  const auto valid = world.check(request);
  ASSERT_EQ(valid->requests.size(), 2u);
  EXPECT_EQ(valid->requests[0].sampling.seed, 5u);
  EXPECT_EQ(valid->requests[1].sampling.seed, seed_of_choice(5, 2));
}

// 64 bytes a listed log-probability, 8 a token of text: what docs/api.md says.
TEST(Validator, AnAnswerIsPricedBeforeItIsComputed) {
  World world;
  world.prompts.push_back({"de", {5, 6}});
  struct {
    const char* param;
    int64_t bytes;
    std::function<void(GenerateRequest&)> ask;
  } const cases[] = {
      {"prompt_logprobs", 3 * 6 * (4 + 1) * 64, [](GenerateRequest& r) { r.prompt_logprobs = 4, r.n = 3; }},
      {"logprobs", 6 * (2 + 1) * 64,
       [](GenerateRequest& r) {
         r.echo = true, r.logprobs = 2;
       }},
      {"logprobs", 2 * 4 * 3 * ((5 + 1) * 64 + 8),
       [](GenerateRequest& r) { r.whole = true, r.logprobs = 5, r.n = 3; }},
      {"max_tokens", 2 * 4 * 8, [](GenerateRequest& r) { r.whole = true; }},
      {"prompt_logprobs", 6 * 64, [](GenerateRequest& r) { r.prompt_logprobs = 0; }},
  };
  for (const auto& c : cases) {
    GenerateRequest request = completion();
    c.ask(request);
    world.limits.max_answer_bytes = c.bytes;
    EXPECT_TRUE(world.check(request).ok()) << c.param << " " << c.bytes;
    world.limits.max_answer_bytes = c.bytes - 1;
    const auto refused = world.check(request);
    ASSERT_FALSE(refused.ok()) << c.param << " " << c.bytes;
    EXPECT_EQ(refused.error().kind, ErrorKind::kInvalidRequest);
    EXPECT_EQ(refused.error().param, c.param);
    EXPECT_EQ(refused.error().code, "answer_too_large");
  }
}

TEST(Validator, AnOutputThatNobodyNamedIsAsLongAsAnAnswerMayBe) {
  World world;
  GenerateRequest request = chat();
  request.max_tokens.reset();
  request.whole = true;
  request.logprobs = 1;
  world.limits.max_answer_bytes = 10 * (2 * 64 + 8);
  EXPECT_EQ(world.check(request)->requests[0].sampling.max_tokens, 10);
  request.whole = false;  // a stream is never in memory as one
  EXPECT_EQ(world.check(request)->requests[0].sampling.max_tokens, kContext - 4);
}

}  // namespace
}  // namespace serval
