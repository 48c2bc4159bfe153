#include "tests/support/fake_inference_service.h"

#include <chrono>
#include <map>

namespace serval::testing {
namespace {

void append(Delta& whole, const Delta& part) {
  whole.index = part.index;
  whole.text += part.text;
  whole.parts.insert(whole.parts.end(), part.parts.begin(), part.parts.end());
  whole.token_ids.insert(whole.token_ids.end(), part.token_ids.begin(), part.token_ids.end());
  whole.logprobs.insert(whole.logprobs.end(), part.logprobs.begin(), part.logprobs.end());
  if (part.prompt_logprobs) whole.prompt_logprobs = part.prompt_logprobs;
  whole.finish = part.finish;
  whole.stop_reason = part.stop_reason;
}

}  // namespace

struct FakeInferenceService::Run {
  Script script;
  std::shared_ptr<GenerationObserver> observer;
  std::vector<PromptInfo> prompts;
  bool whole = false;
  std::mutex mutex;  // held while the observer runs
  bool ended = false;
};

class FakeInferenceService::Handle final : public Generation {
 public:
  Handle(FakeInferenceService& service, std::shared_ptr<Run> run) : service_(service), run_(std::move(run)) {}
  ~Handle() override { Handle::cancel(); }
  void cancel() override {
    {
      std::lock_guard lock(run_->mutex);
      if (run_->ended) return;
      run_->ended = true;
    }
    ++service_.cancelled_;
    service_.changed();
  }
  const std::vector<PromptInfo>& prompts() const override { return run_->prompts; }
  int num_choices() const override { return run_->script.n * static_cast<int>(run_->prompts.size()); }
  RequestRecord record() const override {
    return {.finish = run_->script.deltas.empty() ? FinishReason::kNone : run_->script.deltas.back().finish,
            .prompt_tokens = static_cast<int>(run_->script.usage.prompt_tokens),
            .output_tokens = static_cast<int>(run_->script.usage.completion_tokens)};
  }

 private:
  FakeInferenceService& service_;
  std::shared_ptr<Run> run_;
};

FakeInferenceService::FakeInferenceService() {
  set_script(Script{});
}

FakeInferenceService::~FakeInferenceService() {
  release();
  for (const std::weak_ptr<Run>& weak : runs_) {
    const std::shared_ptr<Run> run = weak.lock();
    if (!run) continue;
    std::lock_guard lock(run->mutex);
    run->ended = true;
  }
  changed();
  for (std::thread& thread : threads_) thread.join();
}

void FakeInferenceService::set_script(Script script) {
  set_script([script](const GenerateRequest&) { return script; });
}

void FakeInferenceService::set_script(std::function<Script(const GenerateRequest&)> script) {
  std::lock_guard lock(mutex_);
  script_ = std::move(script);
}

void FakeInferenceService::release() {
  {
    std::lock_guard lock(mutex_);
    released_ = true;
  }
  change_.notify_all();
}

void FakeInferenceService::set_ready(bool ready, std::string reason) {
  std::lock_guard lock(mutex_);
  ready_ = ready;
  reason_ = std::move(reason);
}

void FakeInferenceService::set_live(bool live) {
  std::lock_guard lock(mutex_);
  live_ = live;
}

GenerateRequest FakeInferenceService::last_request() const {
  std::lock_guard lock(mutex_);
  return last_request_;
}

void FakeInferenceService::changed() {
  std::lock_guard lock(mutex_);
  change_.notify_all();
}

bool FakeInferenceService::wait_until(const std::function<bool()>& condition) {
  std::unique_lock lock(mutex_);
  return change_.wait_for(lock, std::chrono::seconds(20), condition);
}

Result<std::unique_ptr<Generation>> FakeInferenceService::generate(
    GenerateRequest request, std::shared_ptr<GenerationObserver> observer) {
  auto run = std::make_shared<Run>();
  {
    std::lock_guard lock(mutex_);
    last_request_ = request;
    run->script = script_(request);
  }
  if (run->script.refusal) return *run->script.refusal;
  run->prompts = render(request).value();
  run->observer = std::move(observer);
  run->whole = request.whole;
  std::lock_guard lock(mutex_);
  ++started_;
  runs_.push_back(run);
  threads_.emplace_back([this, run] { play(run); });
  change_.notify_all();
  return std::unique_ptr<Generation>(std::make_unique<Handle>(*this, run));
}

void FakeInferenceService::play(const std::shared_ptr<Run>& run) {
  const Script& script = run->script;
  const auto hold = [&](size_t position) {
    if (position != script.hold_before) return;
    std::unique_lock lock(mutex_);
    change_.wait(lock, [&] { return released_; });
  };
  std::map<int, Delta> gathered;  // by choice, when each is wanted whole
  do {
    for (size_t i = 0; i < script.deltas.size(); ++i) {
      hold(i);
      std::lock_guard lock(run->mutex);
      if (run->ended) return;
      Delta delta = script.deltas[i];
      if (run->whole) {
        append(gathered[delta.index], delta);
      } else {
        run->observer->on_delta(std::move(delta));
      }
    }
    if (script.forever) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  } while (script.forever);
  hold(script.deltas.size());
  {
    std::lock_guard lock(run->mutex);
    if (run->ended) return;
    for (auto& [index, delta] : gathered) run->observer->on_delta(std::move(delta));
    run->ended = true;
    ++finished_;  // before anybody can be told, so that whoever has the answer finds it counted
    script.error ? run->observer->on_error(*script.error) : run->observer->on_done(script.usage);
  }
  changed();
}

Result<std::vector<PromptInfo>> FakeInferenceService::render(GenerateRequest request) {
  if (!request.model.empty() && request.model != "fake") {
    return Error{ErrorKind::kNotFound, "model_not_found", "No such model.", "model"};
  }
  if (request.chat) return std::vector<PromptInfo>{{"<user>", {1, 2, 3}}};
  std::vector<PromptInfo> prompts;
  for (const PromptInput& input : request.prompts) {
    if (const auto* text = std::get_if<std::string>(&input)) {
      prompts.push_back({*text, {}});
      for (const char c : *text) prompts.back().token_ids.push_back(static_cast<unsigned char>(c));
    } else {
      prompts.push_back({"", std::get<std::vector<TokenId>>(input)});
      for (const TokenId id : prompts.back().token_ids) prompts.back().text += token_text(id);
    }
  }
  return prompts;
}

void FakeInferenceService::hold_tokenizing_above(size_t bytes) {
  std::lock_guard lock(mutex_);
  max_unheld_bytes_ = bytes;
}

std::vector<size_t> FakeInferenceService::tokenized_bytes() const {
  std::lock_guard lock(mutex_);
  return tokenized_bytes_;
}

Result<PromptInfo> FakeInferenceService::tokenize(GenerateRequest request) {
  if (const auto* text =
          request.prompts.empty() ? nullptr : std::get_if<std::string>(&request.prompts.front())) {
    std::unique_lock lock(mutex_);
    if (text->size() > max_unheld_bytes_) {
      ++held_;
      change_.notify_all();
      change_.wait(lock, [&] { return released_; });
    }
    tokenized_bytes_.push_back(text->size());
  }
  Result<std::vector<PromptInfo>> prompts = render(request);
  if (!prompts) return prompts.error();
  return std::move(prompts->front());
}

Result<std::string> FakeInferenceService::detokenize(const std::vector<int64_t>& token_ids) {
  std::string text;
  for (const int64_t id : token_ids) {
    if (id < 0 || id > 127) return invalid("tokens", "invalid_token_id", "tokens has an id beyond 127.");
    text += static_cast<char>(id);
  }
  return text;
}

std::string FakeInferenceService::token_text(TokenId id) const {
  return std::string(1, static_cast<char>(id));
}

std::vector<ModelInfo> FakeInferenceService::models() const {
  return {{"fake", 1700000000, 4096}, {"org/alias", 1700000000, 4096}};
}

bool FakeInferenceService::ready(std::string* reason) const {
  std::lock_guard lock(mutex_);
  if (reason) *reason = reason_;
  return ready_;
}

bool FakeInferenceService::live() const {
  std::lock_guard lock(mutex_);
  return live_;
}

Delta token(int index, std::string text, TokenId id, FinishReason finish) {
  Delta delta;
  delta.index = index;
  delta.text = std::move(text);
  delta.token_ids = {id};
  delta.finish = finish;
  return delta;
}

}  // namespace serval::testing
