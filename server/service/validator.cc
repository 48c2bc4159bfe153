#include "server/service/validator.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "engine/sampling_ranges.h"
#include "engine/scheduler/scheduler.h"

namespace serval {
namespace {

std::string number(double value) {
  if (value == std::floor(value) && std::abs(value) < 1e15)
    return std::to_string(static_cast<int64_t>(value));
  std::string text = std::to_string(value);
  while (text.back() == '0') text.pop_back();
  return text;
}

Error out_of_range(const std::string& param, double value, const std::string& range) {
  return invalid(param, "value_out_of_range", param + " is " + number(value) + "; it must be " + range + ".");
}

// Smaller penalties are used as this one: it already decides every draw, and a quotient by less could leave
// the floats.
constexpr double kLeastRepetitionPenalty = 1e-6;

constexpr int64_t kAllTheRoom = -1;   // as max_tokens
constexpr int64_t kAnotherSeed = -1;  // as seed: one of the server's, like none at all

// Collects the first error of a chain of checks, so that the rules below read as a table.
class Checks {
 public:
  void range(const char* param, double value, const NumberRange& range) {
    if (failed_ || range.holds(value)) return;
    fail(out_of_range(param, value,
                      (range.open_low ? "greater than " : "between ") + number(range.low) +
                          (range.open_low ? " and at most " : " and ") + number(range.high)));
  }
  void range(const char* param, int64_t value, int64_t low, int64_t high) {
    range(param, static_cast<double>(value), {static_cast<double>(low), static_cast<double>(high)});
  }
  void size(const char* param, size_t size, size_t most, const char* what) {
    if (failed_ || size <= most) return;
    fail(invalid(param, "value_out_of_range",
                 std::string(param) + " has " + std::to_string(size) + " " + what + "; at most " +
                     std::to_string(most) + " are allowed."));
  }
  void token_id(const char* param, int64_t id, int vocab_size) {
    if (failed_ || (id >= 0 && id < vocab_size)) return;
    fail(no_such_token(param, id, vocab_size));
  }
  void fail(Error error) {
    if (!failed_) error_ = std::move(error);
    failed_ = true;
  }
  bool failed() const { return failed_; }
  const Error& error() const { return error_; }

 private:
  Error error_;
  bool failed_ = false;
};

void check_sampling(const GenerateRequest& r, const ServiceLimits& limits, const GenerationDefaults& defaults,
                    Checks& checks, SamplingParams& out) {
  const double temperature = r.temperature.value_or(defaults.temperature.value_or(1.0f));
  const double top_p = r.top_p.value_or(defaults.top_p.value_or(1.0f));
  const double min_p = r.min_p.value_or(defaults.min_p.value_or(0.0f));
  const int64_t top_k = r.top_k.value_or(defaults.top_k.value_or(0));
  const double repetition = r.repetition_penalty.value_or(defaults.repetition_penalty.value_or(1.0f));
  checks.range("temperature", temperature, kTemperatureRange);
  checks.range("top_p", top_p, kTopPRange);
  checks.range("min_p", min_p, kMinPRange);
  checks.range("top_k", top_k, kLeastTopK, std::numeric_limits<int32_t>::max());
  checks.range("presence_penalty", r.presence_penalty.value_or(0), kAdditivePenaltyRange);
  checks.range("frequency_penalty", r.frequency_penalty.value_or(0), kAdditivePenaltyRange);
  checks.range("repetition_penalty", repetition, kRepetitionPenaltyRange);
  if (checks.failed()) return;
  // The smallest set of tokens that holds nothing of the mass is the most likely one.
  out.temperature = top_p > 0 ? static_cast<float>(temperature) : 0.0f;
  out.top_p = static_cast<float>(top_p);
  out.min_p = static_cast<float>(min_p);
  // More than there are (50 of 32) means all of them.
  out.top_k = top_k <= 0 ? 0 : static_cast<int>(std::min<int64_t>(top_k, limits.vocab_size));
  out.presence_penalty = static_cast<float>(r.presence_penalty.value_or(0));
  out.frequency_penalty = static_cast<float>(r.frequency_penalty.value_or(0));
  out.repetition_penalty = static_cast<float>(std::max(repetition, kLeastRepetitionPenalty));
}

void check_token_lists(const GenerateRequest& r, const ServiceLimits& limits,
                       const GenerationDefaults& defaults, Checks& checks, SamplingParams& out) {
  checks.size("logit_bias", r.logit_bias.size(), limits.max_logit_bias, "entries");
  for (const auto& [token, bias] : r.logit_bias) {
    checks.token_id("logit_bias", token, limits.vocab_size);
    checks.range("logit_bias", bias, {-100, 100});
    if (checks.failed()) return;
    out.logit_bias.push_back({static_cast<TokenId>(token), static_cast<float>(bias)});
  }
  checks.size("stop_token_ids", r.stop_token_ids.size(), limits.max_stop_token_ids, "entries");
  for (const int64_t id : r.stop_token_ids) {
    checks.token_id("stop_token_ids", id, limits.vocab_size);
    if (checks.failed()) return;
    out.stop_token_ids.push_back(static_cast<TokenId>(id));
  }
  checks.size("allowed_token_ids", r.allowed_token_ids.size(), limits.vocab_size, "entries");
  for (const int64_t id : r.allowed_token_ids) checks.token_id("allowed_token_ids", id, limits.vocab_size);
  checks.size("bad_words", r.bad_words.size(), limits.max_bad_words, "texts");
  for (const std::string& word : r.bad_words) {
    if (word.empty())
      checks.fail(invalid("bad_words", "value_out_of_range", "bad_words has an empty string; each must have at least one byte."));
    checks.size("bad_words", word.size(), limits.max_stop_bytes, "bytes in one text");
  }
  out.eos_token_ids.assign(defaults.eos_token_ids.begin(), defaults.eos_token_ids.end());
  out.ignore_eos = r.ignore_eos;
  if (r.format && r.ignore_eos)
    checks.fail(invalid("ignore_eos", "conflicting_parameters",
                        "ignore_eos cannot be combined with " + r.format->param + ": output of a form ends where that does."));
}

void check_stop_strings(const GenerateRequest& r, const ServiceLimits& limits, Checks& checks,
                        DetokenizerOptions& out) {
  checks.size("stop", r.stop.size(), limits.max_stop, "strings");
  for (const std::string& stop : r.stop) {
    if (stop.empty())
      checks.fail(invalid("stop", "value_out_of_range",
                          "stop has an empty string; each must have at least one byte."));
    checks.size("stop", stop.size(), limits.max_stop_bytes, "bytes in one string");
  }
  if (checks.failed()) return;
  out.stop = r.stop;
  out.include_stop = r.include_stop_str_in_output;
  out.skip_special = r.skip_special_tokens;
  out.continues_text = true;  // the output follows its prompt: a space it begins with is its own
}

void check_logprobs(const GenerateRequest& r, const ServiceLimits& limits, Checks& checks,
                    SamplingParams& out) {
  const bool chat = r.chat.has_value();
  if (r.logprobs) {
    checks.range(chat ? "top_logprobs" : "logprobs", *r.logprobs, 0,
                 chat || r.beams ? limits.max_chat_logprobs : limits.max_completion_logprobs);
  }
  if (r.prompt_logprobs) checks.range("prompt_logprobs", *r.prompt_logprobs, 0, limits.max_chat_logprobs);
  if (checks.failed()) return;
  // More than the vocabulary cannot be listed; asking for 20 of a tiny model's 16 ids is no mistake.
  const auto listed = [&](int64_t k) { return static_cast<int>(std::min<int64_t>(k, limits.vocab_size)); };
  if (r.logprobs) out.num_logprobs = listed(*r.logprobs);
  if (r.prompt_logprobs) out.num_prompt_logprobs = listed(*r.prompt_logprobs);
  if (r.echo && r.logprobs && !r.prompt_logprobs) out.num_prompt_logprobs = out.num_logprobs;
}

void check_pooling(const GenerateRequest& r, const ServiceLimits& limits, Checks& checks) {
  if (!r.pool) {
    if (limits.pooling.writes_text) return;
    return checks.fail(invalid("model", "not_supported", "This model writes no text: it makes " +
                                   std::string(limits.pooling.num_scores > 0 ? "scores" : "vectors") + " of texts."));
  }
  if (r.pool->what == PoolRequest::What::kScores && limits.pooling.num_scores == 0)
    checks.fail(invalid("model", "not_supported", "This model has no head that scores texts."));
  if (r.pool->dimensions) checks.range("dimensions", *r.pool->dimensions, 1, limits.pooling.vector_size);
}

Acceptance check_acceptance(const GenerateRequest& r, const ServiceLimits& limits, Checks& checks) {
  if (!r.speculation_acceptance) return limits.acceptance;
  const auto* const name = std::ranges::find(kAcceptanceNames, *r.speculation_acceptance);
  const auto asked = static_cast<Acceptance>(name - std::begin(kAcceptanceNames));
  if (name == std::end(kAcceptanceNames)) {
    checks.fail(invalid("speculation.acceptance", "invalid_value", "speculation.acceptance takes exact, rejection, typical or exit."));
  } else if (asked != Acceptance::kExact && limits.accepts_only_exactly) {
    checks.fail(invalid("speculation.acceptance", "not_supported", "speculation.acceptance is exact on this server: other draws run on the CPU only."));
  } else {
    return asked;
  }
  return limits.acceptance;
}

// Tokens of the model's own first layers, of which every one that they are sure of is taken.
void check_exit(const GenerateRequest& r, const ServiceLimits& limits, const SamplingParams& sampling, Checks& checks, SpeculationParams& out) {
  out.drafters = drafter_bit(DrafterKind::kSelf);
  if ((limits.drafters & out.drafters) == 0) {
    return checks.fail(invalid("speculation.acceptance", "not_supported",
                               "speculation.acceptance exit takes tokens of the model's own first layers, which do not guess on this server."));
  }
  const std::string method = r.speculation_method.value_or("self");
  if (method != "self" && method != "auto")
    return checks.fail(invalid("speculation.method", "invalid_value", "speculation.method is self where speculation.acceptance is exit."));
  if (r.speculation_width) checks.range("speculation.width", *r.speculation_width, 1, 1);
  out.width = 1;
  const std::pair<const char*, bool> penalties[] = {{"repetition_penalty", sampling.repetition_penalty != 1},
                                                    {"presence_penalty", sampling.presence_penalty != 0},
                                                    {"frequency_penalty", sampling.frequency_penalty != 0}};
  for (const auto& [name, is_asked] : penalties) {
    if (is_asked)
      checks.fail(invalid(name, "conflicting_parameters",
                          std::string(name) + " cannot be combined with speculation.acceptance exit: the first layers draw without penalties."));
  }
  if (!r.speculation_threshold) {
    return checks.fail(invalid("speculation.threshold", "missing_required_parameter",
                               "speculation.threshold is missing, which speculation.acceptance exit needs: from 0 to 1, how sure the layers must be."));
  }
  checks.range("speculation.threshold", *r.speculation_threshold, {0, 1});
  out.exit_threshold = static_cast<float>(*r.speculation_threshold);
}

SpeculationParams check_speculation(const GenerateRequest& r, const ServiceLimits& limits, const SamplingParams& sampling, Checks& checks) {
  SpeculationParams out;
  if (r.speculation_depth) checks.range("speculation.depth", *r.speculation_depth, 1, kMaxDrafts);
  if (r.speculation_width) checks.range("speculation.width", *r.speculation_width, 1, kMaxDrafts);
  if (checks.failed()) return out;
  out.depth = static_cast<int>(r.speculation_depth.value_or(0));
  out.width = static_cast<int>(r.speculation_width.value_or(0));
  out.acceptance = check_acceptance(r, limits, checks);
  if (out.acceptance == Acceptance::kExit) {
    check_exit(r, limits, sampling, checks, out);
    return out;
  }
  if (r.speculation_threshold)
    checks.fail(invalid("speculation.threshold", "invalid_value", "speculation.threshold goes with speculation.acceptance exit."));
  const std::string method = r.speculation_method.value_or("auto");
  if (method == "auto") return out;
  out.drafters = 0;
  if (method == "off") return out;
  std::string others;
  for (int i = 0; i < kNumDrafters; ++i) {
    const uint32_t bit = drafter_bit(static_cast<DrafterKind>(i));
    if ((limits.drafters & bit) == 0) continue;
    if (method == kDrafterNames[i]) out.drafters = bit;
    others += std::string(", ") + kDrafterNames[i];
  }
  if (out.drafters == 0)
    checks.fail(invalid("speculation.method", "not_supported",
                        "speculation.method is not one of what this server has: auto, off" + others + "."));
  return out;
}

// The most tokens that prompt and output of one sequence can have: the model's context, or less where the
// whole KV memory holds less.
int usable_context(const ServiceLimits& limits, const BlockGeometry& geometry,
                   const SchedulerConfig& scheduler) {
  const auto holds = [&](int tokens) { return fits(geometry, scheduler, 1, tokens - 1); };
  if (holds(limits.max_model_len)) return limits.max_model_len;
  int most = 1;  // holds, or there is no server
  for (int beyond = limits.max_model_len; beyond - most > 1;) {
    const int middle = most + (beyond - most) / 2;
    (holds(middle) ? most : beyond) = middle;
  }
  return most;
}

// The output budget of one prompt, or an error. An explicit budget that does not fit is refused; an absent
// one is clamped, and -1 asks for all the room there is.
Result<int> output_budget(const GenerateRequest& r, int64_t prompt_tokens, int context,
                          const ServiceLimits& limits) {
  const bool chat = r.chat.has_value();
  const int64_t room = context - prompt_tokens;
  const std::string prompt_param = chat ? "messages" : r.prompt_param;
  const auto overflow = [&](const std::string& param, int64_t asked) {
    return context_overflow(param, context, prompt_param, prompt_tokens, asked);
  };
  if (!r.max_tokens || *r.max_tokens == kAllTheRoom) {
    if (room < 1) return overflow(prompt_param, 1);
    if (chat || r.max_tokens) return static_cast<int>(room);
    return static_cast<int>(std::min<int64_t>(room, limits.default_completion_tokens));
  }
  const int64_t least = chat ? 1 : 0;  // a completion of nothing scores its prompt
  if (*r.max_tokens < least) {
    return out_of_range(r.max_tokens_param, static_cast<double>(*r.max_tokens),
                        "at least " + std::to_string(least));
  }
  // The comparison cannot overflow: room is small, and max_tokens is any int64. Nothing to generate needs no
  // room.
  if (*r.max_tokens > room) {
    if (*r.max_tokens > std::numeric_limits<int32_t>::max()) {
      return out_of_range(r.max_tokens_param, static_cast<double>(*r.max_tokens),
                          "at most " + std::to_string(context));
    }
    return overflow(room < least ? prompt_param : r.max_tokens_param, *r.max_tokens);
  }
  return static_cast<int>(*r.max_tokens);
}

// What an answer comes to in bytes, about: a listed log-probability with its token's name, and a token of text.
constexpr int64_t kBytesPerLogprob = 64;
constexpr int64_t kBytesPerToken = 8;

// Prices the answer before anything is computed for it: the log-probabilities of its prompts, which each choice
// repeats, and, when it is one piece, its output. Gives how many output tokens each choice may have at most.
Result<int64_t> price(const GenerateRequest& r, const std::vector<PromptInfo>& prompts, int64_t n,
                      const SamplingParams& sampling, const ServiceLimits& limits) {
  int64_t room = limits.max_answer_bytes;
  const auto too_much = [&](const std::string& param, int64_t bytes) {
    return invalid(param, "answer_too_large",
                   "The answer would have about " + std::to_string(bytes) + " bytes; this server gives at most " +
                       std::to_string(limits.max_answer_bytes) + ". Ask for fewer of " + param +
                       ", choices or prompts.");
  };
  const bool chat = r.chat.has_value();
  const std::string logprobs = chat ? "top_logprobs" : "logprobs";
  if (sampling.num_prompt_logprobs >= 0) {
    int64_t prompt_tokens = 0;
    for (const PromptInfo& prompt : prompts) prompt_tokens += static_cast<int64_t>(prompt.token_ids.size());
    const int64_t bytes = n * prompt_tokens * (sampling.num_prompt_logprobs + 1) * kBytesPerLogprob;
    if (bytes > room) return too_much(r.prompt_logprobs ? "prompt_logprobs" : logprobs, bytes);
    room -= bytes;
  }
  if (r.pool) {
    const int64_t numbers = r.pool->what == PoolRequest::What::kScores ? limits.pooling.num_scores
                                                                      : r.pool->dimensions.value_or(limits.pooling.vector_size);
    const int64_t bytes = static_cast<int64_t>(prompts.size()) * numbers * r.pool->bytes_per_number;
    if (bytes > room) return too_much(r.prompt_param, bytes);
  }
  if (!r.whole) return std::numeric_limits<int64_t>::max();
  const int64_t choices = n * static_cast<int64_t>(prompts.size());
  const int64_t bytes_per_token =
      kBytesPerToken + (sampling.num_logprobs + 1) * (sampling.num_logprobs >= 0 ? kBytesPerLogprob : 0);
  const int64_t max_tokens = room / (choices * bytes_per_token);
  if (r.max_tokens && *r.max_tokens > max_tokens) {
    const int64_t tokens = std::min<int64_t>(*r.max_tokens, limits.max_model_len);
    if (tokens > max_tokens)
      return too_much(sampling.num_logprobs >= 0 ? logprobs : r.max_tokens_param,
                      limits.max_answer_bytes - room + tokens * choices * bytes_per_token);
  }
  return std::max<int64_t>(max_tokens, 1);
}

}  // namespace

Error no_such_token(const std::string& param, int64_t id, int vocab_size) {
  return invalid(param, "invalid_token_id",
                 param + " has token id " + std::to_string(id) + "; this model's ids are 0 to " +
                     std::to_string(vocab_size - 1) + ".");
}

Error context_overflow(const std::string& param, int context, const std::string& prompt_param,
                       int64_t prompt_tokens, int64_t output_tokens, bool at_least) {
  const std::string about = at_least ? "at least " : "";
  return invalid(
      param, "context_length_exceeded",
      "This model's maximum context length is " + std::to_string(context) +
          " tokens. However, you requested " + about + std::to_string(prompt_tokens + output_tokens) +
          " tokens (" + about + std::to_string(prompt_tokens) + " in the " + prompt_param + ", " +
          std::to_string(output_tokens) + " in the completion). Please reduce the length of the " +
          prompt_param + (param == prompt_param ? "" : " or " + param) + ". (context_length_exceeded)");
}

Result<ValidatedRequest> validate(const GenerateRequest& r, const std::vector<PromptInfo>& prompts,
                                  const ServiceLimits& limits, const GenerationDefaults& defaults,
                                  const BlockGeometry& geometry, const SchedulerConfig& scheduler,
                                  uint64_t random_seed) {
  Checks checks;
  ValidatedRequest valid;
  SamplingParams sampling;
  const int64_t n = r.n.value_or(1);
  check_pooling(r, limits, checks);
  checks.range(r.n_param.c_str(), n, 1, limits.max_n);
  check_sampling(r, limits, defaults, checks, sampling);
  check_token_lists(r, limits, defaults, checks, sampling);
  check_stop_strings(r, limits, checks, valid.detokenizer);
  check_logprobs(r, limits, checks, sampling);
  const SpeculationParams speculation = check_speculation(r, limits, sampling, checks);
  if (r.suffix && r.echo)
    checks.fail(invalid("suffix", "conflicting_parameters", "suffix cannot be combined with echo: the prompt is then no text that the output follows."));
  if (r.cache_salt) {
    if (r.cache_salt->empty())
      checks.fail(invalid("cache_salt", "value_out_of_range", "cache_salt is empty; leave it out instead."));
    checks.size("cache_salt", r.cache_salt->size(), limits.max_cache_salt_bytes, "bytes");
  }
  if (r.priority) {
    checks.range("priority", *r.priority, std::numeric_limits<int32_t>::min(),
                 std::numeric_limits<int32_t>::max());
    if (*r.priority != 0 && scheduler.policy != QueuePolicy::kPriority) {
      checks.fail({ErrorKind::kPermissionDenied, "priority_not_allowed",
                   "priority is only obeyed when the server runs with --policy priority.", "priority"});
    }
  }
  if (checks.failed()) return checks.error();

  // What exceeds even an empty server is the request's fault: "try again later" would be a lie.
  const int64_t max_sequences = int64_t{scheduler.max_num_seqs} + scheduler.max_waiting;
  if (!r.pool && static_cast<int64_t>(prompts.size()) * n > max_sequences) {
    return invalid(n > 1 ? r.n_param : r.prompt_param, "value_out_of_range",
                   "The request asks for " + std::to_string(prompts.size() * n) +
                       " sequences; this server queues at most " + std::to_string(max_sequences) +
                       ". Ask for fewer choices or prompts at once.");
  }

  Result<int64_t> max_tokens = price(r, prompts, n, sampling, limits);
  if (!max_tokens) return max_tokens.error();

  const int context = usable_context(limits, geometry, scheduler);
  sampling.seed = r.seed && *r.seed != kAnotherSeed ? static_cast<uint64_t>(*r.seed) : random_seed;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const PromptInfo& prompt = prompts[i];
    Result<int> budget = output_budget(r, static_cast<int64_t>(prompt.token_ids.size()), context, limits);
    if (!budget) return budget.error();
    budget = static_cast<int>(std::min<int64_t>(*budget, *max_tokens));
    Request request;
    request.n = static_cast<int>(n);
    request.sampling = sampling;
    request.speculation = speculation;
    // Prompts of one call draw with noise of their own.
    request.sampling.seed = seed_of_choice(sampling.seed, static_cast<int>(i * n));
    valid.drop_output = *budget == 0;
    request.sampling.max_tokens = std::max(*budget, 1);
    if (r.min_tokens && (*r.min_tokens < 0 || *r.min_tokens > *budget)) {
      return out_of_range("min_tokens", static_cast<double>(*r.min_tokens),
                          "between 0 and max_tokens (" + std::to_string(*budget) + ")");
    }
    // Output of a form ends where that does.
    request.sampling.min_tokens = r.format ? 0 : static_cast<int>(r.min_tokens.value_or(0));
    request.priority = static_cast<int>(r.priority.value_or(0));
    request.cache_salt = r.cache_salt.value_or("");
    // Of a prompt that fills all memory without an output, the last token too needs its KV.
    const int prompt_tokens = static_cast<int>(prompt.token_ids.size());
    if (!fits(geometry, scheduler, prompt_tokens, request.sampling.max_tokens)) {
      const std::string param = r.chat ? "messages" : r.prompt_param;
      return context_overflow(param, prompt_tokens - 1, param, prompt_tokens, *budget);
    }
    valid.requests.push_back(std::move(request));
  }
  valid.detokenizer.min_tokens = static_cast<int>(r.min_tokens.value_or(0));
  return valid;
}

}  // namespace serval
