// What the two dialects of OpenAI say differently, and what their JSON has in common. Private to their writers. What
// can be long is written in pieces; arguments by reference must outlive those.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "server/openai/openai_answer.h"
#include "engine/json/json_writer.h"

namespace serval {

// One choice: for a whole answer all of it, for a chunk what is new.
struct ChoicePiece {
  Delta delta;
  // Nothing of this choice was sent before.
  bool first = true;
  // Of the choice, this piece's included.
  int64_t num_tokens = 0;
  // Characters before this piece (completions' logprobs).
  int64_t text_offset = 0;
  // The prompt, in front of a first piece.
  std::string_view echoed;
};

class AnswerFormat {
 public:
  AnswerFormat(AnswerContext answer_context, const char* chunk_object)
      : context(std::move(answer_context)), chunk_object_(chunk_object) {}
  virtual ~AnswerFormat() = default;

  virtual Pieces whole(std::string& out, const std::vector<ChoicePiece>& choices, Usage usage) const = 0;
  // Shows that a choice exists. `has_text`: an event with its text comes next.
  virtual void introduce(std::string& out, int index, bool has_text) const = 0;
  // One event.
  virtual Pieces chunk(std::string& out, const ChoicePiece& piece) const = 0;

  void usage_chunk(std::string& out, const Usage& usage) const;
  // Characters that the tokens of `piece` are of its choice's text: what text_offset counts.
  int64_t text_advance(const ChoicePiece& piece) const;
  std::string token_name(const TokenLogprob& token) const;
  std::string prompt_token_name(TokenId token) const;
  const PromptInfo& prompt_of(int choice) const { return (*prompts)[static_cast<size_t>(choice / context.n)]; }

  const AnswerContext context;
  // What the generation kept of them.
  const std::vector<PromptInfo>* prompts = nullptr;

 protected:
  void begin_answer(JsonWriter& json, const char* object) const;
  void begin_chunk(JsonWriter& json) const { begin_answer(json, chunk_object_); }
  // In an event of a stream: null until the last, or what its choice has used so far.
  void write_stream_usage(JsonWriter& json, int choice, int64_t num_tokens) const;
  Pieces write_prompt_logprobs(std::string& out, JsonWriter& json, const ChoicePiece& piece) const;

 private:
  const char* const chunk_object_;
};

std::unique_ptr<AnswerFormat> completion_format(AnswerContext context);
std::unique_ptr<AnswerFormat> chat_format(AnswerContext context);

void write_usage(JsonWriter& json, const Usage& usage);
void write_finish(JsonWriter& json, const Delta& delta);

}  // namespace serval
