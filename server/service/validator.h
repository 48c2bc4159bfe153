// The one validator: every limit of a request is checked here, once, whichever transport brought it (law 5).
// Pure: it reads the request, its tokenised prompts and the limits, and gives either what the engine and the
// detokenizer need or one Error naming the field.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/batch.h"
#include "engine/config.h"
#include "engine/kv_geometry.h"
#include "engine/model/generation_defaults.h"
#include "engine/text/tokenizer/detokenizer.h"
#include "server/service/inference_service.h"

namespace serval {

// What a request may ask for. The first two are the model's, the others are configured; a value at the limit
// passes, one beyond is a 400.
struct ServiceLimits {
  int max_model_len = 0;  // positions: prompt + output
  int vocab_size = 0;     // output width; bounds every token id a client gives
  uint32_t drafters = 0;  // that the server has, as a set
  Acceptance acceptance = Acceptance::kExact;  // of guesses, where a request says nothing
  bool accepts_only_exactly = false;           // by this device
  PoolingInfo pooling;    // what the model makes of prompts
  int max_prompts = 64;
  int max_inputs = 2048;  // texts of which vectors or scores are asked at once
  int max_n = 16;
  int max_stop = 16;
  int max_stop_bytes = 256;
  int max_stop_token_ids = 256;
  int max_logit_bias = 1024;
  int max_bad_words = 128;
  int max_chat_logprobs = 20;
  int max_completion_logprobs = 5;
  int max_messages = 2048;
  int max_cache_salt_bytes = 128;
  int64_t max_answer_bytes = 64 << 20;  // what a request's answer may come to, by its price (validator.cc)
  int default_completion_tokens = 16;  // legacy completions without max_tokens, as OpenAI has it
};

struct ValidatedRequest {
  std::vector<Request> requests;  // one per prompt; ids and the prompts themselves are given later
  DetokenizerOptions detokenizer;
  // max_tokens 0 with echo: one token is computed for the prompt's sake and not shown.
  bool drop_output = false;
};

// That prompt and output do not fit the context. Clients read sentences, not codes: LangChain looks for the
// code in it, litellm for its first words, and both fall back to shorter prompts when they find them.
// `prompt_param`: "messages" or "prompt"; `at_least`: the prompt was not counted to its end.
Error context_overflow(const std::string& param, int context, const std::string& prompt_param,
                       int64_t prompt_tokens, int64_t output_tokens, bool at_least = false);

// An id that a client named, where the model has no such row.
Error no_such_token(const std::string& param, int64_t id, int vocab_size);

// `geometry` and `scheduler` are those of the running engine (a request whose worst case can never fit is
// refused, not queued). random_seed is used when the request has none.
Result<ValidatedRequest> validate(const GenerateRequest& request, const std::vector<PromptInfo>& prompts,
                                  const ServiceLimits& limits, const GenerationDefaults& defaults,
                                  const BlockGeometry& geometry, const SchedulerConfig& scheduler,
                                  uint64_t random_seed);

}  // namespace serval
