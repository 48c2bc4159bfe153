// The InferenceService over a real Engine: prepares prompts, validates, submits, and turns TokenEvents into
// Deltas on a delivery thread of its own (detokenise, stop strings, log-probabilities), so that neither the
// engine nor an I/O thread waits for text.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/kv_geometry.h"
#include "engine/text/tokenizer/tokenizer.h"
#include "server/memory_budget.h"
#include "server/service/inference_service.h"
#include "server/service/pooling_head.h"
#include "server/service/prompt_builder.h"
#include "server/service/validator.h"

namespace serval {

class ServiceMetrics;

struct ServiceConfig {
  std::string model_id;              // the name answers carry
  std::vector<std::string> aliases;  // other names that reach the same model
  int64_t created = 0;               // unix seconds
  ServiceLimits limits;
  PromptSettings prompts;
  bool share_prefix_cache = false;  // among API keys; if not, what one key asked is found by that key alone
  int stall_seconds = 60;           // runnable work without a completed step, or events that are not told, for this long: not live
  GenerationDefaults defaults;
  std::shared_ptr<const PoolingHead> pooling;  // what becomes of prompts that are pooled; null: none are
  std::shared_ptr<MemoryBudget> answers;  // what is held for answers counts there; null: nowhere
  SchedulerConfig scheduler;
};

class EngineService final : public InferenceService {
 public:
  EngineService(ServiceConfig config, std::shared_ptr<const Tokenizer> tokenizer,
                ChatTemplates chat_templates, ServiceMetrics& metrics);
  ~EngineService() override;

  // Give this to the Engine; it hands events to the delivery thread.
  EventSink event_sink();
  // From now on requests are accepted; with nullptr not any more. Detach before the engine goes: nobody talks to
  // it once that returns.
  void attach(Engine* engine, const BlockGeometry& geometry);
  // New requests are refused ("draining"); those accepted go on.
  void begin_drain();
  // Waits until no generation is left, at most until `deadline` on the steady clock. False: some are left.
  bool wait_until_idle(Time timeout);
  // Ends every generation with an error of kind kUnavailable.
  void abort_all();

  Result<std::unique_ptr<Generation>> generate(GenerateRequest request,
                                               std::shared_ptr<GenerationObserver> observer) override;
  Result<std::vector<PromptInfo>> render(GenerateRequest request) override;
  Result<PromptInfo> tokenize(GenerateRequest request) override;
  Result<std::string> detokenize(const std::vector<int64_t>& token_ids) override;
  std::string token_text(TokenId id) const override;
  std::vector<ModelInfo> models() const override;
  PoolingInfo pooling() const override;
  ModelDescription description() const override;
  bool ready(std::string* reason) const override;
  bool live() const override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace serval
