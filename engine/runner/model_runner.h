// One rank: takes a Batch, keeps the device-side tables of the running sequences, runs the forward pass,
// samples, and returns a ModelOutput. Knows nothing of queues, text or clients. All methods on the engine
// thread; execute() allocates nothing once warm.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "engine/batch.h"
#include "engine/config.h"
#include "engine/kv_geometry.h"
#include "engine/runner/speculators/speculator.h"

namespace serval {

class Backend;
struct ModelSpec;

// Every byte the engine will hold after ready, by arithmetic, before anything is loaded. `serval plan` prints
// it.
struct MemoryPlan {
  size_t weight_bytes = 0;
  size_t kv_cache_bytes = 0;
  size_t workspace_bytes = 0;  // activations, logits, scratch of the backend
  size_t table_bytes = 0;      // histories, block tables, scheduler structures
  BlockGeometry geometry;
  int full_sequences = 0;      // of max_model_len positions that the KV cache holds at once
  size_t available_bytes = 0;  // of memory, when the plan was made
  size_t total_bytes() const { return weight_bytes + kv_cache_bytes + workspace_bytes + table_bytes; }
};

// Throws std::runtime_error with a sentence when the configuration cannot fit the machine; it names a
// max_model_len that would, if there is one. Reserves the backend's own scratch, the only way to know its
// size.
MemoryPlan plan_memory(const ModelSpec& spec, const EngineConfig& config, Backend& backend);

// The largest max_model_len with which plan_memory() does not throw, up to what the model was made for; 0:
// none.
int largest_model_len(const ModelSpec& spec, const EngineConfig& config, Backend& backend);

// What is being done, bytes done, bytes in all: while weights are read and a large KV cache is cleared. May
// throw to give up.
using LoadProgress = std::function<void(const char* what, size_t done, size_t total)>;

class ModelRunner {
 public:
  // Loads the weights, allocates everything of the plan, touches it. Throws at start-up. Without a speculator
  // nothing is proposed.
  ModelRunner(const std::filesystem::path& model_dir, const EngineConfig& config,
              const LoadProgress& progress = {}, std::unique_ptr<Speculator> speculator = nullptr);
  ~ModelRunner();

  // Starts a step; at most two may be on their way. `batch` is not needed afterwards. A token of a step that
  // was not waited for yet is kTokenOnDevice in the next.
  void launch(const Batch& batch);
  // Waits for the oldest step on its way; `output` is cleared and filled, with guesses of what follows. Rows of a
  // sequence whose logits are not finite mark only that sequence as failed. Drafts that came true are then computed
  // positions like any other; the KV behind them is anything.
  void wait(ModelOutput& output);
  void execute(const Batch& batch, ModelOutput& output);  // launch, then wait

  // The device works on its own: a step may be launched while another runs, and should be.
  bool is_asynchronous() const;
  const MemoryPlan& plan() const;
  int vocab_size() const;  // output width: the bound of every caller-supplied token id

 private:
  struct Impl;
  void warm_up(const EngineConfig& config);
  std::unique_ptr<Impl> impl_;
};

}  // namespace serval
