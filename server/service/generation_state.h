// One accepted request on its way out: turns the TokenEvents of its sequences into Deltas. Detokenises,
// matches stop strings, holds back what is not yet certain, and counts usage. Knows nothing of the engine or
// of transports.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "engine/request.h"
#include "engine/text/tokenizer/detokenizer.h"
#include "server/memory_budget.h"
#include "server/service/inference_service.h"
#include "server/service/metrics.h"
#include "server/service/pooling_head.h"

namespace serval {

class GenerationState {
 public:
  struct Options {
    std::vector<PromptInfo> prompts;  // with the ids only where they are kept, or have log-probabilities
    int64_t prompt_tokens = 0;        // of all of them
    int n = 1;
    int num_logprobs = -1;
    int num_prompt_logprobs = -1;
    std::vector<TokenId> eos_token_ids;
    int max_tokens = 0;
    bool has_prediction = false;
    std::optional<PoolRequest> pool;          // prompts are pooled
    std::shared_ptr<const PoolingHead> head;  // by this
    bool include_stop = false;
    bool skip_special = true;
    bool drop_output = false;
    bool whole = false;  // nothing of a choice goes out before its end
    bool echo = false;   // the prompt is part of the text
    bool keep_prompt_ids = true;
    std::shared_ptr<const AnswerReading> reading;  // null: answers are texts
    std::shared_ptr<MemoryBudget> answers;  // what is held for the answer counts there; null: nowhere
    Time received{0};
  };

  // What deliver() wants done after it.
  struct Outcome {
    bool stop_sequence = false;  // a stop string matched: tell the engine
    bool finished = false;       // the generation is over; its record is `record`
    bool failed = false;         // ... with an error: the engine must end what else runs of it
  };

  GenerationState(const Tokenizer& tokenizer, const DetokenizerOptions& detokenizer, Options options,
                  std::shared_ptr<GenerationObserver> observer);

  // Before anything is delivered: sets room aside for the prompts' log-probabilities. False: there is none.
  bool hold_prompt_logprobs();
  // Delivery thread. `prompt_index` says which of the request's prompts the event belongs to.
  Outcome deliver(int prompt_index, const TokenEvent& event, const EventBatch& batch, Time now,
                  ServiceMetrics& metrics);
  void deliver_prompt_logprobs(int prompt_index, const EventBatch::PromptPart& part, const EventBatch& batch);
  // Ends it with an error, unless it has ended or was cancelled. Any thread.
  void fail(const Error& error);
  // No observer call starts after this returns. Any thread but an observer's own call. False: it had already
  // ended.
  bool cancel();

  RequestRecord record(Time now) const;  // any thread but an observer's own call
  const std::vector<PromptInfo>& prompts() const { return options_.prompts; }
  int num_choices() const { return static_cast<int>(choices_.size()); }

 private:
  struct Choice {
    Detokenizer detokenizer;
    std::optional<MessageParser> parser;
    Delta pending;  // token ids and log-probabilities whose text is still held back
    bool done = false;
    bool sent_prompt = false;  // the prompt's log-probabilities went out
    size_t held_bytes = 0;     // of `pending`
    Time last_token{0};
    DraftCounts drafts;
    bool reasons = false;  // nothing but reasoning so far, and some
  };
  void finish_choice(Choice& choice, const TokenEvent& event, Outcome& outcome);
  void read_parts(Choice& choice, bool is_end, int num_tokens);
  void add_token(Choice& choice, const TokenEvent& event, const EventBatch& batch);
  TokenLogprob named(TokenId token, float logprob, int rank) const;
  void begin_prompt_logprobs();
  bool hold(Choice& choice);
  bool is_eos(TokenId token) const;
  void emit(Choice& choice);
  DraftCounts count_drafts() const;

  const Tokenizer& tokenizer_;
  Options options_;  // constant but for the prompts, of which the constructor drops what nobody asks for
  mutable std::mutex mutex_;  // held while the observer runs
  std::shared_ptr<GenerationObserver> observer_;
  std::vector<Choice> choices_;
  std::vector<std::shared_ptr<PromptLogprobs>> prompt_logprobs_;  // per prompt; not changed once sent
  MemoryCharge charge_;
  size_t held_bytes_ = 0;  // for the answer: log-probabilities of the prompts, and whole choices
  Usage usage_;
  int open_choices_ = 0;
  bool ended_ = false;
  Time first_token_{0};
  Time first_scheduled_{0};
  FinishReason last_finish_ = FinishReason::kNone;
};

}  // namespace serval
