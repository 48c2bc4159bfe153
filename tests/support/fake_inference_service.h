// An InferenceService that says what a test scripts, from a thread of its own per generation, as the real
// one's delivery thread would. Keeps the interface's promises (no call after cancel, nothing after done), and
// counts what transports did with it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "server/service/inference_service.h"

namespace serval::testing {

struct Script {
  std::optional<Error> refusal;  // generate() answers this
  std::vector<Delta> deltas;
  bool forever = false;           // the deltas over and over, until cancelled
  size_t hold_before = SIZE_MAX;  // before this delta (or the end) wait for release()
  std::optional<Error> error;     // ends with it instead of done
  Usage usage;
  int n = 1;
};

class FakeInferenceService final : public InferenceService {
 public:
  FakeInferenceService();
  ~FakeInferenceService() override;

  // What the next generations do. Any thread.
  void set_script(Script script);
  void set_script(std::function<Script(const GenerateRequest&)> script);
  void release();  // lets every held generation go on, now and later
  // From now on tokenize() of a longer prompt waits for release(), as if it took that long.
  void hold_tokenizing_above(size_t bytes);
  int num_held() const { return held_; }  // tokenize() calls that wait for it
  std::vector<size_t> tokenized_bytes() const;  // of the texts tokenize() was done with, in order
  void set_ready(bool ready, std::string reason = "");
  void set_live(bool live);

  GenerateRequest last_request() const;
  int num_started() const { return started_; }
  int num_cancelled() const { return cancelled_; }  // before their end
  int num_finished() const { return finished_; }
  // Waits until `count()` is at least `least`; false after a generous while.
  bool wait_until(const std::function<bool()>& condition);

  Result<std::unique_ptr<Generation>> generate(GenerateRequest request,
                                               std::shared_ptr<GenerationObserver> observer) override;
  Result<std::vector<PromptInfo>> render(GenerateRequest request) override;
  Result<PromptInfo> tokenize(GenerateRequest request) override;
  Result<std::string> detokenize(const std::vector<int64_t>& token_ids) override;
  std::string token_text(TokenId id) const override;
  std::vector<ModelInfo> models() const override;
  PoolingInfo pooling() const override { return {.vector_size = 4}; }
  ModelDescription description() const override { return {.vocab_size = 128, .max_sequences = 8}; }
  bool ready(std::string* reason) const override;
  bool live() const override;

 private:
  struct Run;
  class Handle;
  void play(const std::shared_ptr<Run>& run);
  void changed();

  mutable std::mutex mutex_;
  std::condition_variable change_;
  std::function<Script(const GenerateRequest&)> script_;
  GenerateRequest last_request_;
  bool released_ = false;
  size_t max_unheld_bytes_ = SIZE_MAX;
  bool ready_ = true;
  std::string reason_;
  bool live_ = true;
  std::vector<std::thread> threads_;
  std::vector<std::weak_ptr<Run>> runs_;
  std::atomic<int> started_{0}, cancelled_{0}, finished_{0}, held_{0};
  std::vector<size_t> tokenized_bytes_;
};

// One token of choice `index` with its text; `finish` makes it the last.
Delta token(int index, std::string text, TokenId id, FinishReason finish = FinishReason::kNone);

}  // namespace serval::testing
