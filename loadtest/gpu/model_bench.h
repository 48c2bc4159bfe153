// A whole model of random weights on the device, run by the real ModelRunner: time per token and time to the first
// one, as the engine thread sees them. No checkpoint, no scheduler.
#pragma once

#include <cstdint>
#include <memory>

#include "loadtest/gpu/llama_shape.h"
#include "loadtest/gpu/measure.h"

namespace serval::gpu {

struct ModelBenchLimits {
  int max_rows = 2048;  // of a step: prompts go in chunks of so many
  int max_seqs = 256;
  int max_len = 8256;         // of a sequence
  int64_t max_kv_tokens = 0;  // of all sequences; 0: all that fit beside the weights
  bool is_invariant = true;   // false: the vendor's matrix products
};

class ModelBench {
 public:
  // Throws std::runtime_error when there is no device, or when the weights do not fit on it.
  ModelBench(const LlamaShape& shape, const ModelBenchLimits& limits);
  ~ModelBench();

  // Steps of `batch` sequences whose contexts end at `context`; one step is launched ahead, as the engine does. Throws
  // std::runtime_error when the keys and values do not fit, or when a row is not finite.
  Measurement decode(int batch, int context);
  // One prompt up to its first token.
  Measurement prefill(int length);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace serval::gpu
