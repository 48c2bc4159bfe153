// What the two dialects of OpenAI say differently, and what their JSON has in common. Private to their writers. What
// can be long is written in pieces; arguments by reference must outlive those.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/json/json_writer.h"
#include "server/http/pieces.h"
#include "server/openai/answer_context.h"

namespace serval {

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
// `has_calls`: the choice ends so that its calls can be answered.
void write_finish(JsonWriter& json, const Delta& delta, bool has_calls = false);

}  // namespace serval
