#include "server/service/engine_service.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <iterator>
#include <mutex>
#include <random>
#include <shared_mutex>
#include <thread>
#include <unordered_map>

#include "server/out_of_memory.h"
#include "server/service/beam_search.h"
#include "server/service/generation_state.h"
#include "server/service/grammars.h"
#include "server/service/metrics.h"

namespace serval {
namespace {

Error not_ready(const std::string& reason) {
  return {ErrorKind::kUnavailable, reason, "The server is " + reason + "; try again shortly.", "", 1};
}

// Begins the salt of every request that has a key, and has one length: no salt of a client's makes it
// another's.
std::string salt_of_key(int key) {
  std::string salt(sizeof(key), 0);
  std::memcpy(salt.data(), &key, sizeof(key));
  return salt;
}

// Events the engine has published and the delivery thread has not yet taken. Both sides keep their memory, so
// that in steady state publishing allocates nothing.
struct PublishedEvents {
  EventBatch batch;
  std::vector<Time> times;  // of batch.events

  // Takes all of `from`, or throws and takes nothing.
  void append(EventBatch& from, Time now) {
    make_room(batch.events, from.events.size());
    make_room(times, from.events.size());
    make_room(batch.top, from.top.size());
    make_room(batch.pooled, from.pooled.size());
    make_room(batch.prompt_parts, from.prompt_parts.size());
    make_room(batch.prompt_logprobs, from.prompt_logprobs.size());
    const int32_t top_base = static_cast<int32_t>(batch.top.size());
    const int32_t pooled_base = static_cast<int32_t>(batch.pooled.size());
    for (TokenEvent event : from.events) {
      event.top_begin += top_base;
      event.pooled_begin += pooled_base;
      batch.events.push_back(event);
      times.push_back(now);
    }
    batch.top.insert(batch.top.end(), from.top.begin(), from.top.end());
    batch.pooled.insert(batch.pooled.end(), from.pooled.begin(), from.pooled.end());
    const int32_t prompt_base = static_cast<int32_t>(batch.prompt_logprobs.size());
    for (EventBatch::PromptPart part : from.prompt_parts) {
      part.begin += prompt_base;
      batch.prompt_parts.push_back(part);
    }
    for (PromptLogprob entry : from.prompt_logprobs) {
      entry.top_begin += top_base;
      batch.prompt_logprobs.push_back(entry);
    }
  }
  void clear() {
    batch.clear();
    times.clear();
  }
  void reserve(size_t events) {
    batch.events.reserve(events);
    batch.top.reserve(events * 4);
    times.reserve(events);
  }

 private:
  template <class T>
  static void make_room(std::vector<T>& vector, size_t more) {
    if (vector.capacity() - vector.size() < more)
      vector.reserve(std::max(vector.size() + more, 2 * vector.capacity()));
  }
};

Error out_of_memory() {
  return {ErrorKind::kUnavailable, "out_of_memory",
          "The server had no memory left for this request; try again shortly.", "", 1};
}

// All 64 bits drawn, so that two servers do not soon draw the same seeds.
std::mt19937_64 random_generator() {
  std::random_device device;
  std::seed_seq seed{device(), device(), device(), device(), device(), device(), device(), device()};
  return std::mt19937_64(seed);
}

// What validation and dialects must know of the head that the model has.
ServiceConfig with_pooling(ServiceConfig config, const ChatTemplates& templates) {
  if (!config.pooling) config.pooling = std::make_shared<const PoolingHead>();
  const PoolingHead& head = *config.pooling;
  PoolingInfo& info = config.limits.pooling;
  info.vector_size = head.vector_size;
  info.num_scores = head.num_scores();
  info.labels = head.labels;
  info.writes_text = head.writes_text;
  info.prompts = head.prompts;
  info.usual_prompt = head.usual_prompt;
  if (head.joins_texts) info.pair = PoolingInfo::Pair::kTwoTexts;
  const auto usual = templates.find(kDefaultTemplate);
  if (usual == templates.end()) return config;
  const std::string_view source = usual->second.source();
  const auto has = [&](std::string_view text) { return source.find(text) != source.npos; };
  if ((has("'document'") || has("\"document\"")) && (has("'query'") || has("\"query\""))) {
    info.pair = PoolingInfo::Pair::kRoles;
  } else if (has("<|im_start|>") && head.writes_text) {
    info.pair = PoolingInfo::Pair::kQwen3;
  }
  return config;
}

// Puts before each text what was asked for of the model's own, else what is usual.
std::optional<Error> put_prompt(const PoolingInfo& info, GenerateRequest& request) {
  const std::string name = request.pool->prompt_name.value_or(info.usual_prompt);
  if (name.empty()) return std::nullopt;
  const auto found = std::ranges::find_if(info.prompts, [&](const auto& prompt) { return prompt.first == name; });
  if (found == info.prompts.end()) {
    std::string names;
    for (const auto& [known, text] : info.prompts) names += (names.empty() ? " It has " : ", ") + ("'" + known + "'");
    return invalid("prompt_name", "invalid_value", "prompt_name names no prompt of this model." + (names.empty() ? "" : names + "."));
  }
  for (PromptInput& input : request.prompts) {
    if (std::string* const text = std::get_if<std::string>(&input)) {
      text->insert(0, found->second);
    } else if (request.pool->prompt_name) {
      return invalid("prompt_name", "invalid_value", "prompt_name stands before texts, not before token ids.");
    }
  }
  return std::nullopt;
}

}  // namespace

struct EngineService::Impl {
  Impl(ServiceConfig service_config, std::shared_ptr<const Tokenizer> service_tokenizer,
       ChatTemplates chat_templates, ServiceMetrics& service_metrics)
      : config(with_pooling(std::move(service_config), chat_templates)),
        tokenizer(std::move(service_tokenizer)),
        prompts(tokenizer, std::move(chat_templates), config.limits, config.prompts),
        metrics(service_metrics),
        random(random_generator()),
        grammars(tokenizer, config.limits.vocab_size,
                 {config.defaults.eos_token_ids.begin(), config.defaults.eos_token_ids.end()}, metrics,
                 [this](RequestId id, int index, int num_masks, uint64_t drafts, std::span<const TokenId> forced) {
                   with_engine([&](Engine& target) { target.mask_ready(id, index, num_masks, drafts, forced); });
                 },
                 [this](RequestId id, const Error& why) {
                   const auto entry = find(id);
                   if (!entry) return;
                   entry->state->fail(why);
                   closed(*entry, engine_now(), /*abort=*/true);
                 }) {
    incoming.reserve(4096);
    outgoing.reserve(4096);
    delivery = std::thread([this] { deliver_loop(); });
    pthread_setname_np(delivery.native_handle(), "serval-deliver");
  }

  ~Impl() {
    {
      std::lock_guard lock(mail_mutex);
      stopping = true;
    }
    mail_arrived.notify_one();
    delivery.join();
  }

  std::optional<Error> unknown_model(const GenerateRequest& request) const {
    const std::string& name = request.model;
    const auto& aliases = config.aliases;
    if (name.empty() || name == config.model_id ||
        std::find(aliases.begin(), aliases.end(), name) != aliases.end())
      return std::nullopt;
    return model_not_found(name);
  }

  // Prompts of one generation that wait for others of it, so that many do not fill the queue of all.
  struct Line {
    std::mutex mutex;
    std::deque<Request> requests;

    std::optional<Request> next() {
      const std::lock_guard lock(mutex);
      if (requests.empty()) return std::nullopt;
      Request first = std::move(requests.front());
      requests.pop_front();
      return first;
    }
  };

  // --- the registry of open generations, by engine request id ---

  struct Entry {
    std::shared_ptr<GenerationState> state;
    std::shared_ptr<const std::vector<RequestId>> ids;  // of all prompts of the generation
    int prompt_index = 0;
    std::shared_ptr<Line> line;  // of a generation that is not submitted at once; null: all of it is
  };

  std::optional<Entry> find(RequestId id) {
    std::lock_guard lock(registry_mutex);
    const auto it = registry.find(id);
    if (it == registry.end()) return std::nullopt;
    return it->second;
  }

  void register_prompts(size_t count, const std::shared_ptr<GenerationState>& state,
                        const std::shared_ptr<std::vector<RequestId>>& ids, const std::shared_ptr<Line>& line) {
    std::lock_guard lock(registry_mutex);
    for (size_t i = 0; i < count; ++i) ids->push_back(next_id++);
    for (size_t i = 0; i < count; ++i) registry.emplace((*ids)[i], Entry{state, ids, static_cast<int>(i), line});
  }

  void unregister(const std::vector<RequestId>& ids) noexcept {
    std::lock_guard lock(registry_mutex);
    for (const RequestId id : ids) registry.erase(id);
    if (registry.empty()) registry_empty.notify_all();
  }

  // Guesses at a time that its form may make.
  int most_forced(const Request& request) const {
    const SpeculationParams& asked = request.speculation;
    const int most = (config.limits.drafters & asked.drafters & drafter_bit(DrafterKind::kGrammar)) != 0 ? config.scheduler.num_draft_tokens : 0;
    return asked.depth > 0 ? std::min(asked.depth, most) : most;
  }

  // Talks to the engine, if there is one; it stays until `talk` is over.
  template <class Talk>
  void with_engine(Talk talk) const {
    std::shared_lock lock(engine_mutex);
    if (engine) talk(*engine);
  }

  Result<void> submit(Request&& request) {
    Result<void> result = not_ready("draining");  // it has gone since this request was accepted
    with_engine([&](Engine& target) { result = target.submit(std::move(request)); });
    return result;
  }

  void abort_in_engine(const std::vector<RequestId>& ids) noexcept {
    until_memory([&] {
      with_engine([&](Engine& target) {
        for (const RequestId id : ids) target.abort(id);
      });
    });
  }

  // A generation is over: counts it, and forgets it.
  void closed(const Entry& entry, Time time, bool abort) noexcept {
    until_memory([&] { metrics.finished(entry.state->record(time)); });
    if (abort) abort_in_engine(*entry.ids);
    unregister(*entry.ids);
  }

  // --- the delivery thread ---

  void deliver_loop() {
    for (;;) {
      {
        std::unique_lock lock(mail_mutex);
        mail_arrived.wait(lock, [&] {
          return stopping || !incoming.times.empty() || !incoming.batch.prompt_parts.empty();
        });
        if (stopping && incoming.times.empty()) return;
        std::swap(incoming, outgoing);
      }
      delivering_since = engine_now().count();
      for (const EventBatch::PromptPart& part : outgoing.batch.prompt_parts) deliver(part);
      for (size_t i = 0; i < outgoing.times.size(); ++i) deliver(outgoing.batch.events[i], outgoing.times[i]);
      outgoing.clear();
      delivering_since = 0;
    }
  }

  // Without memory for what happened to a generation, the generation fails, and that it is told.
  template <class Work>
  GenerationState::Outcome guarded(const Entry& entry, Work work) noexcept {
    try {
      return work();
    } catch (const std::exception&) {
    }
    until_memory([&] { entry.state->fail(out_of_memory()); });
    return {.finished = true, .failed = true};
  }

  void deliver(const EventBatch::PromptPart& part) {
    const auto entry = find(part.request);
    if (!entry) return;
    const GenerationState::Outcome outcome = guarded(*entry, [&]() -> GenerationState::Outcome {
      entry->state->deliver_prompt_logprobs(entry->prompt_index, part, outgoing.batch);
      return {};
    });
    if (outcome.finished) closed(*entry, engine_now(), outcome.failed);
  }

  void deliver(const TokenEvent& event, Time time) {
    const auto entry = find(event.request);
    if (!entry) return;  // cancelled, or failed earlier in this batch
    const GenerationState::Outcome outcome = guarded(*entry, [&] {
      GenerationState::Outcome delivered =
          entry->state->deliver(entry->prompt_index, event, outgoing.batch, time, metrics);
      if (delivered.stop_sequence) {
        with_engine([&](Engine& target) {
          target.stop_string_matched(event.request, event.index);
        });
      }
      if (delivered.finished || event.finish == FinishReason::kNone || !entry->line) return delivered;
      if (std::optional<Request> next = entry->line->next()) {
        if (Result<void> submitted = submit(std::move(*next)); !submitted) {
          entry->state->fail(submitted.error());
          delivered.finished = delivered.failed = true;
        }
      }
      return delivered;
    });
    if (outcome.finished) closed(*entry, time, outcome.failed);
  }

  ServiceConfig config;
  std::shared_ptr<const Tokenizer> tokenizer;
  PromptBuilder prompts;
  ServiceMetrics& metrics;

  mutable std::shared_mutex engine_mutex;  // held while somebody talks to the engine
  Engine* engine = nullptr;                // under engine_mutex
  BlockGeometry geometry;                  // written once, before `engine`
  std::atomic<bool> draining{false};

  std::mutex registry_mutex;
  std::condition_variable registry_empty;
  std::unordered_map<RequestId, Entry> registry;
  RequestId next_id = 1;  // under registry_mutex

  std::mutex random_mutex;
  std::mt19937_64 random;

  Grammars grammars;

  std::mutex mail_mutex;
  std::condition_variable mail_arrived;
  PublishedEvents incoming;  // under mail_mutex
  PublishedEvents outgoing;  // the delivery thread's
  std::atomic<Time::rep> delivering_since{0};  // when it took them; 0: it has told all
  bool stopping = false;
  std::thread delivery;
};

namespace {

// The caller's handle: cancels what is unfinished when it goes.
class RunningGeneration final : public Generation {
 public:
  RunningGeneration(std::shared_ptr<GenerationState> state, std::function<void()> on_cancel)
      : state_(std::move(state)), on_cancel_(std::move(on_cancel)) {}
  ~RunningGeneration() override { RunningGeneration::cancel(); }
  void cancel() override {
    if (state_->cancel()) on_cancel_();
  }
  const std::vector<PromptInfo>& prompts() const override { return state_->prompts(); }
  int num_choices() const override { return state_->num_choices(); }
  RequestRecord record() const override { return state_->record(engine_now()); }

 private:
  std::shared_ptr<GenerationState> state_;
  std::function<void()> on_cancel_;
};

}  // namespace

EngineService::EngineService(ServiceConfig config, std::shared_ptr<const Tokenizer> tokenizer,
                             ChatTemplates chat_templates, ServiceMetrics& metrics)
    : impl_(std::make_unique<Impl>(std::move(config), std::move(tokenizer), std::move(chat_templates),
                                   metrics)) {}

EngineService::~EngineService() = default;

EventSink EngineService::event_sink() {
  return [impl = impl_.get()](EventBatch& batch) {
    // Should there be no memory for so many, the engine waits until the delivery thread has taken some.
    until_memory([&] {
      std::lock_guard lock(impl->mail_mutex);
      impl->incoming.append(batch, engine_now());
    });
    impl->mail_arrived.notify_one();
    batch.clear();
  };
}

void EngineService::attach(Engine* engine, const BlockGeometry& geometry) {
  std::lock_guard lock(impl_->engine_mutex);
  if (engine) impl_->geometry = geometry;
  impl_->engine = engine;
}

void EngineService::begin_drain() {
  impl_->draining = true;
}

bool EngineService::wait_until_idle(Time timeout) {
  std::unique_lock lock(impl_->registry_mutex);
  return impl_->registry_empty.wait_for(lock, timeout, [&] { return impl_->registry.empty(); });
}

void EngineService::abort_all() {
  std::vector<std::pair<std::shared_ptr<GenerationState>, std::shared_ptr<const std::vector<RequestId>>>>
      open;
  {
    std::lock_guard lock(impl_->registry_mutex);
    for (const auto& [id, entry] : impl_->registry) {
      if (entry.prompt_index == 0) open.emplace_back(entry.state, entry.ids);
    }
  }
  for (const auto& [state, ids] : open) {
    state->fail(
        {ErrorKind::kUnavailable, "draining", "The server is shutting down and ended this request.", "", 1});
    impl_->abort_in_engine(*ids);
    impl_->unregister(*ids);
  }
}

Result<std::unique_ptr<Generation>> EngineService::generate(GenerateRequest request,
                                                            std::shared_ptr<GenerationObserver> observer) {
  if (request.beams && request.beams->width > 0) return search_beams(*this, std::move(request), std::move(observer));
  Impl& impl = *impl_;
  const Time received = engine_now();
  if (std::string reason; !ready(&reason)) return not_ready(reason);
  if (std::optional<Error> unknown = impl.unknown_model(request)) return *unknown;
  if (request.pool && request.pool->what == PoolRequest::What::kVector) {
    if (std::optional<Error> refused = put_prompt(impl.config.limits.pooling, request)) return *refused;
  }
  Result<std::vector<PromptInfo>> prompts = impl.prompts.build(request, {.must_fit = true, .with_text = request.echo});
  if (!prompts) return prompts.error();
  if (request.pool) {
    request.max_tokens = 0;
    request.ignore_eos = true;
    request.whole = true;
  }

  uint64_t random_seed;
  {
    std::lock_guard lock(impl.random_mutex);
    random_seed = impl.random();
  }
  Result<ValidatedRequest> valid = validate(request, *prompts, impl.config.limits, impl.config.defaults,
                                            impl.geometry, impl.config.scheduler, random_seed);
  if (!valid) return valid.error();

  std::shared_ptr<Grammars::Compiled> grammar;
  const FreeText before_form = prompts->front().before_form;
  if (request.format) {
    auto compiled = impl.grammars.compile(*request.format);
    if (!compiled.ok()) return compiled.error();
    grammar = std::move(*compiled);
  }

  TokenLists lists;
  lists.allowed.assign(request.allowed_token_ids.begin(), request.allowed_token_ids.end());
  for (const std::string& word : request.bad_words) impl.prompts.add_spellings(word, lists.banned);

  const SamplingParams& sampling = valid->requests.front().sampling;
  GenerationState::Options options;
  options.has_prediction = request.prediction.has_value();
  if (request.prediction && impl.config.limits.drafters != 0) {
    const std::vector<TokenId> prediction = impl.prompts.tokens_of(*request.prediction);
    for (Request& r : valid->requests) r.prediction = prediction;
  }
  if (request.pool) {
    options.pool = request.pool;
    options.head = impl.config.pooling;
    for (Request& r : valid->requests) {
      r.pooling = impl.config.pooling->rows;
      r.speculation.drafters = 0;
    }
  }
  const bool keeps_ids = request.keep_prompt_ids || sampling.num_prompt_logprobs >= 0;
  for (size_t i = 0; i < prompts->size(); ++i) {
    std::vector<TokenId>& ids = (*prompts)[i].token_ids;
    options.prompt_tokens += static_cast<int64_t>(ids.size());
    valid->requests[i].prompt = keeps_ids ? ids : std::move(ids);
    valid->requests[i].second_text = (*prompts)[i].second_text;
  }
  if ((options.reading = prompts->front().reading)) valid->detokenizer.shown_special = options.reading->shown_special;
  options.prompts = std::move(*prompts);
  options.n = valid->requests.front().n;
  options.num_logprobs = sampling.num_logprobs;
  options.num_prompt_logprobs = sampling.num_prompt_logprobs;
  options.eos_token_ids = sampling.eos_token_ids;
  options.max_tokens = sampling.max_tokens;
  options.include_stop = request.include_stop_str_in_output;
  options.skip_special = request.skip_special_tokens;
  options.drop_output = valid->drop_output;
  options.whole = request.whole;
  options.echo = request.echo;
  options.keep_prompt_ids = request.keep_prompt_ids;
  options.answers = impl.config.answers;
  options.received = received;
  auto state = std::make_shared<GenerationState>(*impl.tokenizer, valid->detokenizer, std::move(options),
                                                 std::move(observer));

  if (!state->hold_prompt_logprobs()) {
    return Error{ErrorKind::kOverloaded, "server_overloaded",
                 "The server holds as many answers as it can; try again shortly.", "", 1};
  }
  const auto ids = std::make_shared<std::vector<RequestId>>();
  const auto take_back = [&] {
    state->cancel();
    impl.abort_in_engine(*ids);
    impl.unregister(*ids);
  };
  try {
    // Registered before submitted: the first event may come before submit returns.
    const auto line = request.pool ? std::make_shared<Impl::Line>() : nullptr;
    impl.register_prompts(valid->requests.size(), state, ids, line);
    size_t num_at_once = line ? impl.config.scheduler.max_num_seqs : valid->requests.size();
    num_at_once = std::min(num_at_once, valid->requests.size());
    for (size_t i = 0; i < valid->requests.size(); ++i) {
      Request& r = valid->requests[i];
      r.id = (*ids)[i];
      r.flow = ids->front();
      if (request.key > 0 && !impl.config.share_prefix_cache)
        r.cache_salt.insert(0, salt_of_key(request.key));
      if (request.timeout > Time{0}) r.deadline = received + request.timeout;
      if (grammar || !lists.empty()) {
        r.constrained = true;
        auto constraint = impl.grammars.constraint(grammar, before_form, lists, r.id, r.n, impl.most_forced(r));
        if (!constraint) {
          take_back();
          return constraint.error();
        }
        r.constraint = std::move(*constraint);
      }
    }
    if (line) std::move(valid->requests.begin() + num_at_once, valid->requests.end(), std::back_inserter(line->requests));
    for (size_t i = 0; i < num_at_once; ++i) {
      Request& r = valid->requests[i];
      if (Result<void> submitted = impl.submit(std::move(r)); !submitted) {
        take_back();
        return submitted.error();
      }
    }
    return std::unique_ptr<Generation>(std::make_unique<RunningGeneration>(
        state, [&impl, ids, state] { impl.closed({state, ids}, engine_now(), /*abort=*/true); }));
  } catch (...) {
    take_back();
    throw;
  }
}

Result<std::vector<PromptInfo>> EngineService::render(GenerateRequest request) {
  if (std::optional<Error> unknown = impl_->unknown_model(request)) return *unknown;
  return impl_->prompts.build(request, {.with_text = true});
}

Result<PromptInfo> EngineService::tokenize(GenerateRequest request) {
  if (std::optional<Error> unknown = impl_->unknown_model(request)) return *unknown;
  Result<std::vector<PromptInfo>> prompts = impl_->prompts.build(request, {.may_be_empty = true});
  if (!prompts) return prompts.error();
  return std::move(prompts->front());
}

Result<std::string> EngineService::detokenize(const std::vector<int64_t>& token_ids) {
  std::vector<TokenId> ids;
  ids.reserve(token_ids.size());
  for (const int64_t id : token_ids) {
    if (id < 0 || id >= impl_->config.limits.vocab_size)
      return no_such_token("tokens", id, impl_->config.limits.vocab_size);
    ids.push_back(static_cast<TokenId>(id));
  }
  return impl_->tokenizer->decode(ids, /*skip_special=*/false);
}

std::string EngineService::token_text(TokenId id) const {
  return std::string(impl_->tokenizer->token_bytes(id));
}

std::vector<ModelInfo> EngineService::models() const {
  const ServiceConfig& config = impl_->config;
  std::vector<ModelInfo> result{{config.model_id, config.created, config.limits.max_model_len}};
  for (const std::string& alias : config.aliases)
    result.push_back({alias, config.created, config.limits.max_model_len});
  return result;
}

PoolingInfo EngineService::pooling() const {
  return impl_->config.limits.pooling;
}

ModelDescription EngineService::description() const {
  ModelDescription about = impl_->prompts.description();
  about.end_ids.assign(impl_->config.defaults.eos_token_ids.begin(), impl_->config.defaults.eos_token_ids.end());
  about.max_sequences = impl_->config.scheduler.max_num_seqs;
  impl_->with_engine([&](Engine& engine) { about.num_running = engine.stats().scheduler.num_running; });
  return about;
}

bool EngineService::ready(std::string* reason) const {
  const char* why = impl_->draining ? "draining" : "starting";
  if (!impl_->draining) impl_->with_engine([&](Engine&) { why = ""; });
  if (reason) *reason = why;
  return *why == '\0';
}

bool EngineService::live() const {
  const Time::rep taken = impl_->delivering_since;
  bool live = true;  // starting, or already taken down in order
  impl_->with_engine([&](Engine& engine) {
    const EngineStats stats = engine.stats();
    const Time since = engine_now() - Time{stats.last_progress_ns};
    const Time stall = std::chrono::seconds(impl_->config.stall_seconds);
    live = (!stats.has_runnable_work || since < stall) && (taken == 0 || engine_now() - Time{taken} < stall);
  });
  return live;
}

}  // namespace serval
