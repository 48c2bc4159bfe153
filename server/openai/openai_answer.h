// The answers of OpenAI's two dialects, chats and completions, whole and as streams of events.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "server/openai/answer_writer.h"

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
  // Completions: the prompt's text and log-probabilities come first.
  bool echo = false;
  // Names tokens.
  const InferenceService* service = nullptr;
  // Choice i belongs to prompt i / n.
  int n = 1;
};

// `stream`: events as they come; otherwise one answer at the end.
std::unique_ptr<AnswerWriter> completion_writer(AnswerContext context, bool stream);
std::unique_ptr<AnswerWriter> chat_writer(AnswerContext context, bool stream);

}  // namespace serval
