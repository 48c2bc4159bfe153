// From what the service says to the JSON that OpenAI clients read: whole answers, stream chunks, lists. No
// I/O. What can be long is written in pieces. The framing of a stream (what comes first, what comes last) is
// generation_run's.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "server/http/pieces.h"
#include "server/service/inference_service.h"

namespace serval {

// What every piece of one answer repeats or depends on.
struct AnswerContext {
  bool chat = false;
  std::string id;
  int64_t created = 0;  // unix seconds
  std::string model;
  bool include_usage = false;
  bool continuous_usage = false;  // of each choice, in each of its events
  bool tokens_as_ids = false;     // log-probabilities name tokens "token_id:5"
  bool return_token_ids = false;
  bool logprobs = false;
  bool prompt_logprobs = false;
  bool echo = false;  // completions: the prompt's text and log-probabilities come first
  const InferenceService* service = nullptr;         // names tokens
  const std::vector<PromptInfo>* prompts = nullptr;  // what the generation kept of them
  int n = 1;                                         // choice i belongs to prompt i / n

  const PromptInfo& prompt_of(int choice) const { return (*prompts)[static_cast<size_t>(choice / n)]; }
};

// One choice: for a whole answer all of it, for a chunk what is new.
struct ChoicePiece {
  Delta delta;
  bool first = true;        // nothing of this choice was sent before
  int64_t num_tokens = 0;   // of the choice, this piece's included
  int64_t text_offset = 0;  // characters before this piece (completions' logprobs)
  std::string_view echoed;  // the prompt, in front of a first piece
};

// Characters that the tokens of `piece` are of its choice's text: what text_offset counts.
int64_t text_advance(const AnswerContext& context, const ChoicePiece& piece);

// Arguments by reference must outlive what is returned, here and below.
Pieces whole_answer(std::string& out, const AnswerContext& context, const std::vector<ChoicePiece>& choices,
                    Usage usage);

// Each appends one `data: {...}` event.
void append_role_chunk(std::string& out, const AnswerContext& context, int index);  // chat
void append_chunk(std::string& out, const AnswerContext& context, const ChoicePiece& piece);
// The same, for a first piece, which can be long: it carries what was asked of the prompt.
Pieces first_chunk(std::string& out, const AnswerContext& context, const ChoicePiece& piece);
void append_usage_chunk(std::string& out, const AnswerContext& context, const Usage& usage);
void append_event(std::string& out, std::string_view data);

std::string models_body(const std::vector<ModelInfo>& models);
std::string model_body(const ModelInfo& model);
Pieces render_body(std::string& out, const std::vector<PromptInfo>& prompts);
// `names`: who names the tokens; null: they are not named.
Pieces tokenize_body(std::string& out, const std::vector<TokenId>& ids, int max_model_len,
                     const InferenceService* names);
Pieces detokenize_body(std::string& out, const std::string& text);

}  // namespace serval
