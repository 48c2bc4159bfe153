#include "loadtest/gpu/model_bench.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "engine/model/weight_map.h"
#include "engine/runner/model_runner.h"
#include "kernels/base/check.h"
#include "kernels/cuda/cuda_backend.h"
#include "loadtest/gpu/random_memory.h"

namespace serval::gpu {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kBlockSize = 16;
constexpr int kWarmSteps = 3, kSteps = 24;
constexpr int kPrompts = 4;  // after one to warm up

ModelSpec spec_of(const LlamaShape& shape) {
  ModelSpec spec;
  spec.vocab_size = shape.vocab;
  spec.hidden_size = shape.hidden;
  spec.max_positions = shape.max_positions;
  spec.weight_dtype = DType::kBF16;
  spec.final_norm = {.kind = NormSpec::Kind::kRms, .eps = 1e-5f};
  spec.ropes = {{.theta = 500000, .scaling = {}, .rotary_dim = shape.head_dim}};
  LayerSpec layer;
  layer.mixer = GqaSpec{.num_heads = shape.num_heads,
                        .num_kv_heads = shape.num_kv_heads,
                        .head_dim = shape.head_dim,
                        .scale = 1 / std::sqrt(static_cast<float>(shape.head_dim))};
  layer.ffn = DenseFfnSpec{.intermediate_size = shape.intermediate};
  layer.mixer_norm = layer.ffn_norm = spec.final_norm;
  spec.layers.assign(shape.num_layers, layer);
  spec.kv_groups.resize(1);
  for (int l = 0; l < shape.num_layers; ++l) spec.kv_groups[0].layers.push_back(l);
  return spec;
}

LinearWeight random_weight(int64_t n, int64_t k, Backend& backend) {
  LinearWeight w;
  w.n = n;
  w.k = k;
  w.format = WeightFormat::kBF16;
  w.packed = backend.allocate(backend.packed_bytes(n, k, w.format, false));
  fill_random(w.packed.as<Bf16>(), static_cast<size_t>(n * k), 0.02f);
  return w;
}

Buffer ones(int64_t count, Backend& backend) {
  const std::vector<float> values(count, 1.0f);
  Buffer buffer = backend.allocate(values.size() * sizeof(float));
  backend.upload(buffer.data(), values.data(), buffer.bytes);
  return buffer;
}

ModelWeights random_weights(const ModelSpec& spec, Backend& backend) {
  ModelWeights weights;
  for (const WeightSlot& slot : map_weights(spec, weights)) {
    if (const auto* linear = std::get_if<LinearSlot>(&slot)) {
      int64_t n = 0;
      for (const SourceTensor& part : linear->parts) n += part.num_rows();
      *linear->target = random_weight(n, linear->parts[0].shape[1], backend);
    } else if (const auto* constant = std::get_if<ConstantSlot>(&slot)) {
      *constant->target = ones(std::ssize(constant->values), backend);
    } else {
      const auto& vector = std::get<VectorSlot>(slot);
      *vector.target = ones(vector.num_elements(), backend);
    }
  }
  return weights;
}

// All memory beside the weights is for keys and values, or what max_kv_tokens of them take.
MemoryPlan plan_for(const ModelSpec& spec, const ModelBenchLimits& limits, const Backend& backend) {
  const size_t available = backend.available_bytes();
  EngineConfig config;
  config.scheduler.max_num_seqs = limits.max_seqs;
  config.scheduler.max_num_batched_tokens = config.scheduler.max_prefill_chunk = limits.max_rows;
  config.scheduler.max_model_len = limits.max_len;
  config.block_size = kBlockSize;
  const MemoryPlan usual = plan_memory(spec, config, backend, available);
  const size_t block_bytes = usual.kv_cache_bytes / usual.geometry.groups[0].num_blocks;
  const size_t rest = available - (usual.total_bytes() - usual.kv_cache_bytes);
  config.kv_cache_bytes =
      limits.max_kv_tokens > 0 ? limits.max_kv_tokens / kBlockSize * block_bytes : rest / 20 * 19;
  return plan_memory(spec, config, backend, available);
}

double us_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}

}  // namespace

struct ModelBench::Impl {
  Impl(const LlamaShape& shape, const ModelBenchLimits& model_limits)
      : limits(model_limits), backend({.device = "cuda", .invariant = model_limits.is_invariant}) {
    ModelSpec spec = spec_of(shape);
    const MemoryPlan plan = plan_for(spec, limits, backend);
    ModelWeights weights = random_weights(spec, backend);
    runner.emplace(std::move(spec), std::move(weights), plan, backend);
    fill_blocks();
  }

  int num_blocks() const { return runner->plan().geometry.groups[0].num_blocks; }
  static int blocks_for(int positions) { return (positions + kBlockSize - 1) / kBlockSize; }

  // Puts sequences 0..count-1 into slots, with `known` tokens each. Their blocks, for `length` positions, lie apart,
  // as after many requests.
  void admit(int count, int known, int length, Batch& batch) const {
    const int blocks = blocks_for(length);
    if (count * blocks > num_blocks()) {
      throw std::runtime_error("keys and values of " + std::to_string(int64_t{count} * blocks * kBlockSize) +
                               " tokens do not fit, " + std::to_string(int64_t{num_blocks()} * kBlockSize) + " do");
    }
    batch.admitted.resize(count);
    batch.num_admitted = count;
    for (int s = 0; s < count; ++s) {
      Admission& newcomer = batch.admitted[s];
      newcomer.seq = newcomer.slot = s;
      newcomer.sampling.temperature = 0;
      newcomer.num_prompt = known;
      for (int p = 0; p < known; ++p) newcomer.tokens.push_back((p * 7919 + s) % runner->vocab_size());
      SeqStep& step = batch.seqs.emplace_back();
      step.seq = step.slot = s;
      step.blocks_begin[0] = static_cast<int32_t>(batch.blocks.size());
      step.num_blocks[0] = blocks;
      for (int b = 0; b < blocks; ++b) batch.blocks.push_back(b * count + s);
    }
  }

  // The rows of a step of the one prompt of so many tokens in slot 0.
  void prompt_rows(int first, int rows, int length, Batch& batch) const {
    if (batch.seqs.empty()) batch.seqs.emplace_back().first_block[0] = blocks_for(length);
    SeqStep& step = batch.seqs[0];
    step.first_pos = first;
    step.num_tokens = rows;
    step.sample = first + rows == length;
    for (int p = first; p < first + rows; ++p) batch.tokens.push_back(p * 7919 % runner->vocab_size());
  }

  void collect() {
    runner->wait(output);
    for (const SeqOutput& seq : output.seqs)
      if (seq.failed) throw std::runtime_error("the model's logits are not finite");
  }
  void leave(int count) {
    Batch batch;
    for (int s = 0; s < count; ++s) batch.freed.push_back(s);
    runner->execute(batch, output);
  }

  // A prompt in chunks, the next launched while one runs, up to the first token.
  void take_prompt(int length) {
    int in_flight = 0;
    for (int first = 0; first < length; first += limits.max_rows) {
      const int rows = std::min(limits.max_rows, length - first);
      Batch batch;
      if (first == 0) admit(1, length, length, batch);
      prompt_rows(first, rows, length, batch);
      runner->launch(batch);
      if (++in_flight == kMaxStepsInFlight) {
        collect();
        --in_flight;
      }
    }
    while (in_flight-- > 0) collect();
  }

  // Keys and values that were computed, in every block.
  void fill_blocks() {
    const int length = std::min(limits.max_len - 1, num_blocks() * kBlockSize);
    take_prompt(length);
    Batch batch;
    for (int b = blocks_for(length); b < num_blocks(); ++b)
      batch.copies.push_back({.group = 0, .copy = {b % blocks_for(length), b, kBlockSize}});
    runner->execute(batch, output);
    leave(1);
  }

  ModelBenchLimits limits;
  cuda::CudaBackend backend;
  std::optional<ModelRunner> runner;
  ModelOutput output;
};

ModelBench::ModelBench(const LlamaShape& shape, const ModelBenchLimits& limits)
    : impl_(std::make_unique<Impl>(shape, limits)) {}
ModelBench::~ModelBench() = default;

Measurement ModelBench::decode(int batch_size, int context) {
  Impl& m = *impl_;
  SERVAL_CHECK(context > kWarmSteps + kSteps && context <= m.limits.max_len, context, m.limits.max_len);
  const int begin = context - kWarmSteps - kSteps;
  Batch batch;
  m.admit(batch_size, begin, context, batch);
  std::vector<double> us;
  Clock::time_point delivered;
  for (int i = 0; i < kWarmSteps + kSteps; ++i) {
    batch.tokens.assign(batch_size, i == 0 ? 0 : kTokenOnDevice);
    for (int s = 0; s < batch_size; ++s) {
      SeqStep& step = batch.seqs[s];
      step.first_pos = begin + i;
      step.tokens_begin = s;
      step.num_tokens = 1;
      step.sample = true;
      if (i > 0) step.first_block[0] += std::exchange(step.num_blocks[0], 0);
    }
    if (i > 0) batch.num_admitted = 0;
    m.runner->launch(batch);
    if (i == 0) continue;
    m.collect();
    if (i > kWarmSteps) us.push_back(us_since(delivered));
    delivered = Clock::now();
  }
  m.collect();
  m.leave(batch_size);
  return summarise(std::move(us), 1);
}

Measurement ModelBench::prefill(int length) {
  Impl& m = *impl_;
  SERVAL_CHECK(length > 0 && length < m.limits.max_len, length, m.limits.max_len);
  std::vector<double> us;
  for (int prompt = -1; prompt < kPrompts; ++prompt) {
    const Clock::time_point begin = Clock::now();
    m.take_prompt(length);
    if (prompt >= 0) us.push_back(us_since(begin));
    m.leave(1);
  }
  return summarise(std::move(us), 1);
}

}  // namespace serval::gpu
