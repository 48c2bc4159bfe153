// The one way in. HTTP and gRPC translate their bytes to a GenerateRequest and back from Deltas; everything between (chat template,
// tokenising, the one validator, admission, the engine, detokenising, stop strings) is here, once.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/request.h"
#include "engine/text/message/message_parser.h"
#include "kernels/base/status.h"
#include "server/request_record.h"
#include "server/service/chat.h"

namespace serval {

// A prompt as the client gave it: text, or ids of this model's vocabulary.
// A text, its ids, or two texts that a model is shown at once.
using PromptInput = std::variant<std::string, std::vector<TokenId>, std::pair<std::string, std::string>>;

// What the output must be, whatever the model would write.
struct OutputFormat {
  enum class Kind : uint8_t { kJsonObject, kJsonSchema, kRegex, kChoice, kGrammar, kStructuralTag };
  Kind kind = Kind::kJsonObject;
  std::string text;                  // the schema, expression, grammar or tag
  std::vector<std::string> choices;  // kChoice
  std::string param;                 // the field that asked for it, for errors
  std::vector<TokenId> marks;        // kStructuralTag: tokens with a role that free text may hold, beside those that `text` names
};

// That the prompts are read and nothing is written: each choice then has numbers and no text.
struct PoolRequest {
  enum class What : uint8_t { kVector, kScores };
  What what = What::kVector;
  // Of a vector: how many of its numbers, from the first.
  std::optional<int64_t> dimensions;
  // Of a vector: which of the model's own texts stands before the prompts; empty: none, absent: its usual one.
  std::optional<std::string> prompt_name;
  // Whether a vector has length 1, and scores are probabilities; absent: as the model's folder says.
  std::optional<bool> finishes;
  // What one number comes to in the answer, about.
  int bytes_per_number = 0;
};

// What a model makes of whole prompts.
struct PoolingInfo {
  int vector_size = 0;
  int num_scores = 0;                // 0: it has no head that scores
  std::vector<std::string> labels;   // of the scores, or none
  bool writes_text = true;
  // Names and texts that may stand before what it makes a vector of, and the name of the usual one, if there is one.
  std::vector<std::pair<std::string, std::string>> prompts;
  std::string usual_prompt;
  // How it is shown a query and a document: as messages of a chat of these roles, as one text in the words of Qwen3's
  // rerankers, as two texts in the way of its tokenizer, or one behind the other.
  enum class Pair : uint8_t { kRoles, kQwen3, kTwoTexts, kBehindEachOther };
  Pair pair = Pair::kBehindEachOther;
};

// What may stand before the form: reasoning, up to its mark.
struct FreeText {
  std::string begin, end;  // an empty end: nothing may
  bool is_open = false;    // the prompt has begun it; else the answer may, where `begin` is one token
};

// That the most likely texts are searched for instead of drawn (beam_search.h); width 0: a step of such a search.
struct BeamSearch {
  int64_t width = 1;
  double length_penalty = 1;  // texts are ranked by their log-probability over their length to this power
};

// What the client asked for, before any default: an absent field stays absent until the validator applies generation_config's or
// our own default. Field names in errors (`param`) are the OpenAI names.
struct GenerateRequest {
  std::string model;                 // empty: the served model
  std::vector<PromptInput> prompts;  // completion: one or more
  std::optional<Chat> chat;          // instead of prompts
  std::optional<int64_t> n, max_tokens, min_tokens, top_k, seed, logprobs, prompt_logprobs, priority;
  std::string n_param = "n";  // which name stands for n in errors
  std::string max_tokens_param = "max_tokens";  // which name the client used, for the error
  std::string prompt_param = "prompt";
  std::optional<std::string> suffix;  // what stands behind the output of a completion, for models made to fill in
  std::optional<PoolRequest> pool;
  // Of a longer prompt so many tokens are kept, its last or else its first ones; -1: as many as fit.
  std::optional<int64_t> truncate_prompt_tokens;
  bool keeps_end = true;
  std::optional<double> temperature, top_p, min_p, presence_penalty, frequency_penalty, repetition_penalty;
  std::vector<std::pair<int64_t, double>> logit_bias;
  std::vector<std::string> stop;
  std::vector<int64_t> stop_token_ids;
  std::vector<int64_t> allowed_token_ids;  // no others are drawn; empty: all
  std::vector<std::string> bad_words;      // texts that the output never holds as these tokens
  bool include_stop_str_in_output = false;
  bool skip_special_tokens = true;
  bool ignore_eos = false;
  bool echo = false;
  bool whole = false;            // each choice in one piece, at its end: nobody reads earlier
  bool keep_prompt_ids = true;   // Generation::prompts() has them
  bool add_special_tokens = true;               // completion prompts; a chat template writes its own
  // Of guesses (docs/speculation.md): a drafter's name, off or auto; which are taken; depth and width of their trees; the
  // output that the client expects, in pieces that follow each other.
  std::optional<std::string> speculation_method, speculation_acceptance;
  std::optional<int64_t> speculation_depth, speculation_width;
  std::optional<double> speculation_threshold;  // of acceptance exit
  std::optional<std::string> prediction;
  std::optional<OutputFormat> format;
  std::optional<BeamSearch> beams;
  std::optional<std::string> cache_salt;
  int key = 0;                                  // which API key asks, from 1; 0: none is needed
  Time timeout{0};                              // 0: none; gRPC deadline
  std::string client_id;                        // log label only
};

struct TokenLogprob {
  TokenId token = 0;
  std::string bytes;  // the token's own bytes: the only lossless view of a partial character
  float logprob = 0;
  int rank = 0;
  std::vector<TokenLogprob> top;
  int width = -1;  // characters of the text that are this token; -1: as many as its bytes have
};

// The log-probabilities of one prompt's tokens, in numbers: whoever writes them names them (token_text). Constant, and shared by the
// choices of the prompt.
struct PromptLogprobs {
  struct Entry {
    TokenId token = 0;
    float logprob = 0;  // the first entry has none: nothing comes before it
    int32_t rank = 0;
    int32_t width = -1;   // as TokenLogprob's; of the prompt's text
    int32_t top_end = 0;  // its best are top[the entry's before .. top_end)
  };
  std::vector<Entry> entries;
  std::vector<TopLogprob> top;  // best first: rank 1, 2, ...

  std::span<const TopLogprob> top_of(size_t i) const {
    const size_t begin = i == 0 ? 0 : static_cast<size_t>(entries[i - 1].top_end);
    return std::span(top).subspan(begin, static_cast<size_t>(entries[i].top_end) - begin);
  }
};

// A piece of one choice. Pieces of a choice arrive in order; exactly one carries `finish`. A piece is never empty of everything.
struct Delta {
  int index = 0;  // choice: prompt_index * n + sequence
  std::string text;
  std::vector<MessagePart> parts;             // instead of the text, for a chat that is answered in parts
  std::vector<TokenId> token_ids;
  std::vector<TokenLogprob> logprobs;         // one per token id when asked for
  std::vector<float> numbers;                 // of a prompt that is pooled
  std::shared_ptr<const PromptLogprobs> prompt_logprobs;  // in the first piece of a choice, when asked for
  FinishReason finish = FinishReason::kNone;
  std::variant<std::monostate, std::string, TokenId> stop_reason;  // the stop string or stop id that ended it
};

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  int64_t cached_tokens = 0;
  // Of the client's prediction, where there was one: tokens that were tried, and came true or did not.
  std::optional<int64_t> accepted_prediction_tokens, rejected_prediction_tokens;
  int64_t reasoning_tokens = 0;  // of completion_tokens
};

// How the answer to a chat is read.
struct AnswerReading {
  MessageRules rules;
  std::vector<TokenId> shown_special;  // special tokens that are marks
  std::string begun;                   // what the answer begins with stands at the end of the prompt
};

struct PromptInfo {
  std::string text;            // rendered or given, or decoded from ids; empty where nobody reads it
  std::vector<TokenId> token_ids;
  int second_text = 0;         // Request::second_text
  std::shared_ptr<const AnswerReading> reading;  // null: its answer is a text
  FreeText before_form;                          // of an answer that is held to a form
};

// Receives what happens to a generation, on the service's delivery thread, in order. Must not block.
// After on_done or on_error nothing follows. An error before the first delta may still choose the transport's status.
class GenerationObserver {
 public:
  virtual ~GenerationObserver() = default;
  virtual void on_delta(Delta&& delta) = 0;
  virtual void on_done(const Usage& usage) = 0;
  virtual void on_error(const Error& error) = 0;
};

// A running generation. Destroying it (or cancel()) aborts what is unfinished; no observer call starts after cancel() returned.
class Generation {
 public:
  virtual ~Generation() = default;
  virtual void cancel() = 0;
  // What the request asked to keep of them: texts for an echo, ids unless it said no.
  virtual const std::vector<PromptInfo>& prompts() const = 0;
  virtual int num_choices() const = 0;
  // What was measured of it so far. Any thread, but not from an observer's own call.
  virtual RequestRecord record() const = 0;
};

struct ModelInfo {
  std::string id;
  int64_t created = 0;
  int max_model_len = 0;
};

// For whoever asks what is served here.
struct ModelDescription {
  std::string chat_template;  // the usual one; empty: there is none
  std::string bos_token, eos_token;
  std::vector<std::string> special_tokens;
  std::vector<TokenId> end_ids;
  int vocab_size = 0;
  bool calls_tools = false, thinks = false, fills_in = false;
  int max_sequences = 0, num_running = 0;
};

inline Error model_not_found(std::string_view name) {
  return {ErrorKind::kNotFound, "model_not_found",
          "The model `" + std::string(name.substr(0, 128)) + "` does not exist here.", "model"};
}

class InferenceService {
 public:
  virtual ~InferenceService() = default;

  // Any thread; does template and tokenising on the caller's thread (transports call it from the text pool). Validates everything,
  // then queues. An Error here means nothing was queued.
  virtual Result<std::unique_ptr<Generation>> generate(GenerateRequest request,
                                                       std::shared_ptr<GenerationObserver> observer) = 0;
  // What generate would feed the model, without running it (…/render); however long.
  virtual Result<std::vector<PromptInfo>> render(GenerateRequest request) = 0;
  // The ids of one text or chat as they are: none for an empty text.
  virtual Result<PromptInfo> tokenize(GenerateRequest request) = 0;
  virtual Result<std::string> detokenize(const std::vector<int64_t>& token_ids) = 0;
  virtual std::string token_text(TokenId id) const = 0;

  virtual std::vector<ModelInfo> models() const = 0;
  virtual PoolingInfo pooling() const = 0;
  virtual ModelDescription description() const = 0;
  // True when a request may be accepted now; `reason` says why not ("starting", "draining").
  virtual bool ready(std::string* reason) const = 0;
  virtual bool live() const = 0;  // the engine and delivery make progress, or have nothing to do
};

// The model of that name; the served one for an empty name.
inline std::optional<ModelInfo> find_model(const InferenceService& service, std::string_view name) {
  for (const ModelInfo& model : service.models()) {
    if (name.empty() || model.id == name) return model;
  }
  return std::nullopt;
}

}  // namespace serval
