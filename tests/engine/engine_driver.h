// The real Engine over the real ModelRunner, as a test wants to see it: submit, wait, and everything that was
// reported of each sequence, comparable bit for bit.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "tests/engine/runner/loaded_runner.h"
#include "tests/support/mask_maker.h"

namespace serval::testing {

struct Told {
  std::vector<TokenId> tokens;
  std::vector<float> logprobs;
  std::vector<std::pair<TokenId, float>> top;  // of all tokens, one after another
  FinishReason finish = FinishReason::kNone;
  int cached_tokens = 0;
  std::vector<float> pooled;

  // Tokens and log-probabilities: what the laws are about.
  bool same_bits(const Told& other) const {
    return tokens == other.tokens && logprobs == other.logprobs && top == other.top && pooled == other.pooled;
  }
};

class EngineDriver {
 public:
  // When the next step may be launched: when the one before is over, or one ahead of it.
  enum class Order { kAsTheDeviceLikes, kInTurn, kOneAhead };
  EngineDriver(const std::filesystem::path& model, const EngineConfig& config,
               Order order = Order::kAsTheDeviceLikes, std::unique_ptr<Speculator> speculator = nullptr);
  ~EngineDriver() { masks_.stop(); }

  // Returns the request's id. Aborts the test when the engine refuses.
  RequestId submit(Request request);
  void abort(RequestId id) { engine_.abort(id); }
  // Blocks until every sequence of the request has ended; its n sequences in order.
  std::vector<Told> wait(RequestId id);
  // Blocks until some sequence of the request has this many tokens, or has ended.
  void wait_for_tokens(RequestId id, int num_output);
  EngineStats stats() const { return engine_.stats(); }
  // Called on the engine thread after each step's events were taken; set before the first submit.
  void on_step(std::function<void()> hook) { hook_ = std::move(hook); }

 private:
  struct State {
    std::vector<Told> sequences;
    int unfinished = 0;
  };
  void take(EventBatch& batch);

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<RequestId, State> states_;
  RequestId next_id_ = 0;
  std::function<void()> hook_;
  LoadedRunner runner_;
  MaskMaker masks_;  // of constrained requests
  Engine engine_;    // last: its thread uses what stands above
};

}  // namespace serval::testing
