#include "server/service/beam_search.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <mutex>
#include <utility>

#include "server/service/validator.h"

namespace serval {
namespace {

constexpr int64_t kMostBeams = 10;  // twice as many log-probabilities are asked for each
constexpr int64_t kUsualTokens = 16;

struct Beam {
  std::vector<TokenId> tokens;  // behind the prompt
  double sum = 0;               // of their log-probabilities
  double score = 0;             // once it has ended
  bool has_ended = false;       // by an end of sequence, its last token
};

Error excludes(const std::string& param) {
  return invalid(param, "conflicting_parameters", param + " cannot be combined with use_beam_search, which draws nothing and tells no part of an answer before its end.");
}

// What would change which token is drawn, or asks for more than texts.
std::optional<Error> check(const GenerateRequest& r) {
  if (r.chat) return invalid("use_beam_search", "not_supported", "use_beam_search is for completions.");
  if (r.prompts.size() != 1) return invalid("prompt", "invalid_prompt", "use_beam_search takes one prompt.");
  if (r.format) return excludes(r.format->param);
  if (r.logprobs) return excludes("logprobs");
  if (r.prompt_logprobs) return excludes("prompt_logprobs");
  if (r.echo) return excludes("echo");
  if (!r.stop.empty()) return excludes("stop");
  if (!r.stop_token_ids.empty()) return excludes("stop_token_ids");
  if (!r.logit_bias.empty()) return excludes("logit_bias");
  if (!r.allowed_token_ids.empty()) return excludes("allowed_token_ids");
  if (!r.bad_words.empty()) return excludes("bad_words");
  if (r.min_tokens.value_or(0) != 0) return excludes("min_tokens");
  if (r.presence_penalty.value_or(0) != 0) return excludes("presence_penalty");
  if (r.frequency_penalty.value_or(0) != 0) return excludes("frequency_penalty");
  if (r.repetition_penalty.value_or(1) != 1) return excludes("repetition_penalty");
  const int64_t width = r.beams->width;
  const int64_t n = r.n.value_or(1);
  if (width < 1 || width > kMostBeams || n < 1 || n > width)
    return invalid(r.n_param, "value_out_of_range", "use_beam_search keeps best_of beams, at most " + std::to_string(kMostBeams) + ", and tells n of them.");
  return std::nullopt;
}

class Search final : public Generation, public std::enable_shared_from_this<Search> {
 public:
  Search(InferenceService& service, GenerateRequest request, std::vector<TokenId> prompt, std::shared_ptr<GenerationObserver> observer)
      : service_(service),
        request_(std::move(request)),
        width_(static_cast<size_t>(request_.beams->width)),
        n_(static_cast<size_t>(request_.n.value_or(1))),
        max_tokens_(static_cast<size_t>(request_.max_tokens.value_or(kUsualTokens))),
        end_ids_(service.description().end_ids),
        prompt_(std::move(prompt)),
        observer_(std::move(observer)) {
    beams_.resize(1);
    prompts_.resize(1);
    if (request_.keep_prompt_ids) prompts_[0].token_ids = prompt_;
  }

  // Asks for the first step.
  Result<void> begin() { return ask(); }

  void cancel() override {
    std::map<int64_t, std::shared_ptr<Generation>> steps;
    {
      const std::lock_guard lock(mutex_);
      is_over_ = true;
      steps = std::move(steps_);
    }
    for (const auto& [number, step] : steps) step->cancel();
  }
  const std::vector<PromptInfo>& prompts() const override { return prompts_; }
  int num_choices() const override { return static_cast<int>(n_); }
  RequestRecord record() const override {
    std::shared_ptr<Generation> last;
    {
      const std::lock_guard lock(mutex_);
      if (!steps_.empty()) last = steps_.rbegin()->second;
    }
    return last ? last->record() : RequestRecord();
  }

 private:
  // Of one step. The service keeps it as long as it tells anything.
  class Step final : public GenerationObserver {
   public:
    Step(std::weak_ptr<Search> search, size_t num_beams) : search_(std::move(search)), best_(num_beams) {}
    void on_delta(Delta&& delta) override {
      for (const TokenLogprob& token : delta.logprobs) best_.at(static_cast<size_t>(delta.index)) = token.top;
    }
    void on_done(const Usage& usage) override {
      if (const auto search = search_.lock()) search->advance(best_, usage);
    }
    void on_error(const Error& error) override {
      if (const auto search = search_.lock()) search->fail(error);
    }

   private:
    const std::weak_ptr<Search> search_;
    std::vector<std::vector<TokenLogprob>> best_;  // by beam
  };

  Result<void> ask() {
    GenerateRequest step;
    step.beams = BeamSearch{.width = 0};
    step.model = request_.model;
    for (const Beam& beam : beams_) {
      std::vector<TokenId> ids = prompt_;
      ids.insert(ids.end(), beam.tokens.begin(), beam.tokens.end());
      step.prompts.emplace_back(std::move(ids));
    }
    step.max_tokens = 1;
    step.logprobs = static_cast<int64_t>(2 * width_);
    step.temperature = 0;
    step.ignore_eos = true;
    step.skip_special_tokens = false;
    step.whole = true;
    step.keep_prompt_ids = false;
    step.add_special_tokens = false;
    step.priority = request_.priority;
    step.cache_salt = request_.cache_salt;
    step.key = request_.key;
    step.timeout = request_.timeout;
    step.client_id = request_.client_id;
    const int64_t number = num_steps_++;
    auto running = service_.generate(std::move(step), std::make_shared<Step>(weak_from_this(), beams_.size()));
    if (!running) return running.error();
    std::shared_ptr<Generation> now = std::move(*running), before;
    const std::lock_guard lock(mutex_);
    // The one before may still be telling its end, on this thread, and this one may have ended already: each goes with the next but one.
    if (!is_over_) steps_[number] = std::move(now);
    if (const auto found = steps_.find(number - 2); found != steps_.end()) {
      before = std::move(found->second);
      steps_.erase(found);
    }
    return {};
  }

  // The delivery thread: the beams behind the next token (as transformers has it: of the 2 * width best continuations of all beams those that end
  // become candidates if they are among the first `width`, and the others beams until there are `width`).
  void advance(const std::vector<std::vector<TokenLogprob>>& best, const Usage& usage) {
    try {
      if (usage_.prompt_tokens == 0) usage_ = usage;
      struct Continuation {
        size_t beam;
        TokenId token;
        double sum;
      };
      std::vector<Continuation> all;
      for (size_t i = 0; i < beams_.size(); ++i)
        for (const TokenLogprob& next : best[i]) all.push_back({i, next.token, beams_[i].sum + static_cast<double>(next.logprob)});
      std::ranges::stable_sort(all, std::greater<>(), &Continuation::sum);
      all.resize(std::min(all.size(), 2 * width_));
      std::vector<Beam> next;
      for (size_t rank = 0; rank < all.size() && next.size() < width_; ++rank) {
        Beam beam{.tokens = beams_[all[rank].beam].tokens, .sum = all[rank].sum};
        beam.tokens.push_back(all[rank].token);
        beam.has_ended = !request_.ignore_eos && std::ranges::find(end_ids_, all[rank].token) != end_ids_.end();
        if (!beam.has_ended)
          next.push_back(std::move(beam));
        else if (rank < width_)
          end_beam(std::move(beam));
      }
      beams_ = std::move(next);
      const size_t length = beams_.empty() ? max_tokens_ : beams_.front().tokens.size();
      // What still runs can come to no more than this.
      const double attainable = all.empty() ? 0 : all.front().sum / std::pow(static_cast<double>(length), request_.beams->length_penalty);
      const bool is_settled = ended_.size() == width_ && ended_.back().score >= attainable;
      if (beams_.empty() || is_settled || length >= max_tokens_) return finish(is_settled);
      if (Result<void> asked = ask(); !asked) fail(asked.error());
    } catch (const std::exception&) {
      fail({ErrorKind::kUnavailable, "out_of_memory", "The server had no memory left for this request; try again shortly.", "", 1});
    }
  }

  // Keeps the best `width_`, best first.
  void end_beam(Beam beam) {
    beam.score = beam.sum / std::pow(static_cast<double>(beam.tokens.size()), request_.beams->length_penalty);
    const auto place = std::ranges::upper_bound(ended_, beam.score, std::greater<>(), &Beam::score);
    ended_.insert(place, std::move(beam));
    if (ended_.size() > width_) ended_.pop_back();
  }

  void finish(bool is_settled) {
    if (!is_settled)
      for (Beam& beam : beams_) end_beam(std::move(beam));
    ended_.resize(std::min(ended_.size(), n_));
    for (size_t i = 0; i < n_; ++i) {
      // Fewer have ended only where the vocabulary is smaller than the search.
      Beam& beam = ended_[std::min(i, ended_.size() - 1)];
      Delta delta;
      delta.index = static_cast<int>(i);
      delta.finish = beam.has_ended ? FinishReason::kStop : FinishReason::kLength;
      usage_.completion_tokens += i == 0 ? static_cast<int64_t>(beam.tokens.size()) - usage_.completion_tokens : static_cast<int64_t>(beam.tokens.size());
      delta.text = text_of(beam);
      delta.token_ids = beam.tokens;
      tell([&] { observer_->on_delta(std::move(delta)); });
    }
    tell([&] { observer_->on_done(usage_); }, /*is_last=*/true);
  }

  // As a completion's text has it: without the tokens that are marks.
  std::string text_of(const Beam& beam) const {
    std::vector<int64_t> ids;
    const std::vector<std::string> special = service_.description().special_tokens;
    for (const TokenId id : beam.tokens) {
      const bool is_mark = std::ranges::find(end_ids_, id) != end_ids_.end() || std::ranges::binary_search(special, service_.token_text(id));
      if (!is_mark || !request_.skip_special_tokens) ids.push_back(id);
    }
    // Behind the prompt, whose last token decides how the first of these is written.
    std::vector<int64_t> behind{prompt_.back()};
    behind.insert(behind.end(), ids.begin(), ids.end());
    const Result<std::string> before = service_.detokenize({prompt_.back()});
    const Result<std::string> whole = service_.detokenize(behind);
    if (before && whole && whole->starts_with(*before)) return whole->substr(before->size());
    const Result<std::string> alone = service_.detokenize(ids);
    return alone ? *alone : std::string();
  }

  void fail(const Error& error) {
    tell([&] { observer_->on_error(error); }, /*is_last=*/true);
  }

  // Nothing is told once it is over.
  template <class Tell>
  void tell(Tell say, bool is_last = false) {
    const std::lock_guard lock(mutex_);
    if (is_over_) return;
    say();
    is_over_ = is_last;
  }

  InferenceService& service_;
  const GenerateRequest request_;
  const size_t width_, n_, max_tokens_;
  const std::vector<TokenId> end_ids_;
  const std::vector<TokenId> prompt_;
  const std::shared_ptr<GenerationObserver> observer_;
  std::vector<PromptInfo> prompts_;

  // Of one step after the other.
  std::vector<Beam> beams_, ended_;
  Usage usage_;
  int64_t num_steps_ = 0;

  // Under a step's own lock while it tells, so that no step is called, or goes, under this one.
  mutable std::mutex mutex_;
  std::map<int64_t, std::shared_ptr<Generation>> steps_;  // the last two
  bool is_over_ = false;
};

// The caller's handle: the search ends with it.
class SearchHandle final : public Generation {
 public:
  explicit SearchHandle(std::shared_ptr<Search> search) : search_(std::move(search)) {}
  ~SearchHandle() override { search_->cancel(); }
  void cancel() override { search_->cancel(); }
  const std::vector<PromptInfo>& prompts() const override { return search_->prompts(); }
  int num_choices() const override { return search_->num_choices(); }
  RequestRecord record() const override { return search_->record(); }

 private:
  const std::shared_ptr<Search> search_;
};

}  // namespace

Result<std::unique_ptr<Generation>> search_beams(InferenceService& service, GenerateRequest request, std::shared_ptr<GenerationObserver> observer) {
  if (std::optional<Error> wrong = check(request)) return *wrong;
  GenerateRequest asked = request;
  asked.beams.reset();
  Result<PromptInfo> prompt = service.tokenize(std::move(asked));
  if (!prompt) return prompt.error();
  if (prompt->token_ids.empty()) return invalid(request.prompt_param, "empty_prompt", request.prompt_param + " has no tokens.");
  const std::optional<ModelInfo> model = find_model(service, request.model);
  const int64_t max_tokens = request.max_tokens.value_or(kUsualTokens);
  if (max_tokens < 1) return invalid(request.max_tokens_param, "value_out_of_range", request.max_tokens_param + " must be at least 1 with use_beam_search.");
  const auto num_prompt = static_cast<int64_t>(prompt->token_ids.size());
  if (model && num_prompt + max_tokens > model->max_model_len)
    return context_overflow(request.max_tokens_param, model->max_model_len, request.prompt_param, num_prompt, max_tokens);
  const auto search = std::make_shared<Search>(service, std::move(request), std::move(prompt->token_ids), std::move(observer));
  if (Result<void> begun = search->begin(); !begun) return begun.error();
  return std::unique_ptr<Generation>(std::make_unique<SearchHandle>(search));
}

}  // namespace serval
