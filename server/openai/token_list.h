// Log-probabilities as completions list them. Private to the writers of OpenAI's dialects.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/base/utf8.h"
#include "server/openai/answer_context.h"

namespace serval {

// Log-probabilities of a prompt (if any) and of output tokens after it, as one list: what completions'
// parallel arrays are made of.
class TokenList {
 public:
  TokenList(const AnswerContext& context, const PromptLogprobs* prompt,
            const std::vector<TokenLogprob>& output)
      : context_(context), prompt_(prompt), output_(output) {}

  size_t size() const { return num_prompt() + output_.size(); }
  // Nothing comes before a prompt's first token.
  bool has_logprob(size_t i) const { return i > 0 || num_prompt() == 0; }
  float logprob(size_t i) const {
    return i < num_prompt() ? prompt_->entries[i].logprob : output_[i - num_prompt()].logprob;
  }
  std::string name(size_t i) const {
    return i < num_prompt() ? prompt_token_name(context_, prompt_->entries[i].token)
                            : token_name(context_, output_[i - num_prompt()]);
  }
  int64_t width(size_t i) const {
    const int width = i < num_prompt() ? prompt_->entries[i].width : output_[i - num_prompt()].width;
    return width >= 0 ? width : static_cast<int64_t>(num_characters(bytes(i)));
  }
  // Calls fn(name, logprob) for the best, best first.
  template <class Fn>
  void for_top(size_t i, Fn fn) const {
    if (i < num_prompt()) {
      for (const TopLogprob& top : prompt_->top_of(i))
        fn(prompt_token_name(context_, top.token), top.logprob);
    } else {
      for (const TokenLogprob& top : output_[i - num_prompt()].top)
        fn(token_name(context_, top), top.logprob);
    }
  }

 private:
  size_t num_prompt() const { return prompt_ ? prompt_->entries.size() : 0; }
  std::string bytes(size_t i) const {
    return i < num_prompt() ? context_.service->token_text(prompt_->entries[i].token)
                            : output_[i - num_prompt()].bytes;
  }

  const AnswerContext& context_;
  const PromptLogprobs* const prompt_;
  const std::vector<TokenLogprob>& output_;
};

// What precedes the output in a completion's lists.
inline const PromptLogprobs* echoed_logprobs(const AnswerContext& context, const ChoicePiece& piece) {
  return context.echo ? piece.delta.prompt_logprobs.get() : nullptr;
}

}  // namespace serval
