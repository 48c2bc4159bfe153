#include "server/observe_inputs.h"

#include <algorithm>
#include <condition_variable>
#include <fstream>
#include <mutex>
#include <sstream>
#include <stdexcept>
#include <unordered_map>
#include <utility>

#include "engine/engine.h"
#include "engine/model/weight_loader.h"
#include "engine/runner/memory_plan.h"
#include "engine/runner/model_runner.h"
#include "engine/scheduler/scheduler.h"
#include "kernels/base/check.h"
#include "kernels/base/log.h"
#include "kernels/base/shown.h"
#include "kernels/cpu/observing_backend.h"
#include "server/service/served_model.h"

namespace serval {
namespace {

constexpr int kPiece = 512, kMaxTokens = 32768;

std::string text_in(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) throw std::runtime_error("cannot read " + path);
  return std::move(text).str();
}

// Sums of squares by where a matrix lies in memory.
class Sums {
 public:
  void add(const LinearWeight& weight, const Tensor& x) {
    std::vector<double>& sums = sums_[weight.packed.data()];
    sums.resize(static_cast<size_t>(x.dim(1)));
    const float* row = x.as<float>();
    for (int64_t r = 0; r < x.dim(0); ++r, row += x.dim(1))
      for (int64_t i = 0; i < x.dim(1); ++i) sums[i] += double{row[i]} * row[i];
  }
  void clear() { sums_.clear(); }
  const std::vector<double>* find(const void* memory) const {
    const auto at = sums_.find(memory);
    return at == sums_.end() ? nullptr : &at->second;
  }

 private:
  std::unordered_map<const void*, std::vector<double>> sums_;
};

// How the requests end.
class Ends {
 public:
  void see(const EventBatch& batch) {
    const std::lock_guard lock(mutex_);
    for (const TokenEvent& event : batch.events) {
      if (event.finish == FinishReason::kNone) continue;
      has_failed_ |= event.finish != FinishReason::kLength;
      ++count_;
    }
    changed_.notify_one();
  }
  // Whether all of so many ended well.
  bool wait(int count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return count_ >= count; });
    return !has_failed_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int count_ = 0;
  bool has_failed_ = false;
};

}  // namespace

InputPowers observe_inputs(const std::string& model, const std::string& text_file) {
  const ServedModel served = read_served_model(model);
  std::vector<TokenId> tokens = served.tokenizer->encode(text_in(text_file), false);
  if (tokens.empty()) throw std::runtime_error(text_file + " has no text");
  tokens.resize(std::min(tokens.size(), size_t{kMaxTokens}));
  const int piece = std::min(kPiece, served.spec.max_positions - 1);
  EngineConfig config;
  SchedulerConfig& scheduler = config.scheduler;
  scheduler.max_num_seqs = 1;
  scheduler.max_model_len = piece + 1;
  scheduler.max_num_batched_tokens = scheduler.max_prefill_chunk = piece;
  scheduler.enable_prefix_cache = false;
  scheduler.step_budget_ms = 0;
  check_scheduler_config(scheduler);

  Sums sums;
  cpu::ObservingBackend backend(config.device, [&sums](const LinearWeight& weight, const Tensor& x) { sums.add(weight, x); });
  const MemoryPlan plan = plan_memory(served.spec, config, backend, backend.available_bytes());
  ModelWeights weights = load_weights(served.folder, served.spec, backend);
  std::vector<std::pair<std::string, const void*>> places;
  for (const LayerMatrix& matrix : layer_matrices(served.folder, served.spec, weights))
    places.emplace_back(matrix.tensor, matrix.held->packed.data());
  ModelRunner runner(served.spec, std::move(weights), plan, backend);
  sums.clear();  // of steps before the first
  {
    Ends ends;
    Engine engine(config, plan.geometry, run_on(runner), [&ends](EventBatch& batch) { ends.see(batch); });
    int count = 0;
    for (size_t begin = 0; begin < tokens.size(); begin += static_cast<size_t>(piece)) {
      Request request;
      request.id = static_cast<RequestId>(++count);
      request.prompt.assign(tokens.begin() + static_cast<std::ptrdiff_t>(begin),
                            tokens.begin() + static_cast<std::ptrdiff_t>(std::min(tokens.size(), begin + static_cast<size_t>(piece))));
      request.sampling.temperature = 0;
      request.sampling.max_tokens = 1;
      request.sampling.ignore_eos = true;
      SERVAL_CHECK(engine.submit(std::move(request)).ok());
      if (!ends.wait(count)) throw std::runtime_error("the model's answers to " + text_file + " are no numbers");
    }
  }
  InputPowers powers;
  for (const auto& [tensor, memory] : places)
    if (const std::vector<double>* own = sums.find(memory)) powers[tensor] = *own;
  log_info("inputs of the layers are known", {{"tokens", tokens.size()}, {"matrices", powers.size()}});
  return powers;
}

}  // namespace serval
