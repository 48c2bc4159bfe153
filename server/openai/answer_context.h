// What the pieces of one answer share, and one such piece. Private to the writers of OpenAI's dialects and to those who
// make them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "server/service/inference_service.h"

namespace serval {

// What every piece of one answer repeats or depends on.
struct AnswerContext {
  std::string id;
  // Unix seconds.
  int64_t created = 0;
  std::string model;
  bool include_usage = false;
  // Of each choice, in each of its events.
  bool continuous_usage = false;
  // Log-probabilities name tokens "token_id:5".
  bool tokens_as_ids = false;
  bool return_token_ids = false;
  bool logprobs = false;
  bool prompt_logprobs = false;
  // The client named the tool that the answer calls: it ends as an answer does.
  bool names_call = false;
  // Completions: the prompt's text and log-probabilities come first.
  bool echo = false;
  // Names tokens.
  const InferenceService* service = nullptr;
  // Choice i belongs to prompt i / n.
  int n = 1;
  // So many were drawn of a prompt, of which the best n are told.
  int num_drawn = 1;
};

// One choice: for a whole answer all of it, for a chunk what is new.
struct ChoicePiece {
  Delta delta;
  // Nothing of this choice was sent before.
  bool first = true;
  // Of the choice, this piece's included.
  int64_t num_tokens = 0;
  // Characters before this piece (completions' logprobs).
  int64_t text_offset = 0;
  // Calls of the choice, those that began in this piece included.
  int64_t num_calls = 0;
  // The prompt, in front of a first piece.
  std::string_view echoed;
};

// A token as logprobs name it.
std::string token_name(const AnswerContext& context, const TokenLogprob& token);
std::string prompt_token_name(const AnswerContext& context, TokenId token);

}  // namespace serval
