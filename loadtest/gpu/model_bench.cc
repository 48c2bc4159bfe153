#include "loadtest/gpu/model_bench.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/model/transformer.h"
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

Buffer ones(int count, Backend& backend) {
  const std::vector<float> values(count, 1.0f);
  Buffer buffer = backend.allocate(values.size() * sizeof(float));
  backend.upload(buffer.data(), values.data(), buffer.bytes);
  return buffer;
}

ModelWeights random_weights(const LlamaShape& shape, Backend& backend) {
  ModelWeights weights;
  weights.embedding = random_weight(shape.vocab, shape.hidden, backend);
  weights.lm_head = random_weight(shape.vocab, shape.hidden, backend);
  weights.final_norm.weight = ones(shape.hidden, backend);
  for (int l = 0; l < shape.num_layers; ++l) {
    GqaWeights attention;
    attention.qkv = random_weight(shape.qkv(), shape.hidden, backend);
    attention.output = random_weight(shape.hidden, shape.num_heads * shape.head_dim, backend);
    DenseFfnWeights ffn;
    ffn.gate_up = random_weight(2 * shape.intermediate, shape.hidden, backend);
    ffn.down = random_weight(shape.hidden, shape.intermediate, backend);
    LayerWeights layer;
    layer.mixer_norm.weight = ones(shape.hidden, backend);
    layer.mixer = std::move(attention);
    layer.ffn_norm.weight = ones(shape.hidden, backend);
    layer.ffn = std::move(ffn);
    weights.layers.push_back(std::move(layer));
  }
  return weights;
}

Transformer::Limits transformer_limits(const ModelBenchLimits& limits) {
  return {.max_positions = limits.max_len,
          .max_rows = limits.max_rows,
          .max_logit_rows = limits.max_seqs,
          .max_seqs = limits.max_seqs,
          .table_stride = (limits.max_len + kBlockSize - 1) / kBlockSize};
}

// Keys and values of every layer, random as if they had been computed. They stay where they are: graphs of
// steps remember it.
struct KvPool {
  KvPool(const LlamaShape& shape, int64_t max_tokens, Backend& backend) {
    KvLayer layer{.dtype = DType::kBF16,
                  .block_size = kBlockSize,
                  .num_kv_heads = shape.num_kv_heads,
                  .head_dim = shape.head_dim};
    if (max_tokens == 0) {
      const double free = 0.95 * static_cast<double>(backend.available_bytes());
      const double token = 2.0 * static_cast<double>(layer.block_bytes()) / kBlockSize * shape.num_layers;
      max_tokens = static_cast<int64_t>(free / token);
    }
    layer.num_blocks = static_cast<int>(max_tokens / kBlockSize);
    const size_t bytes = layer.block_bytes() * layer.num_blocks;
    for (int l = 0; l < shape.num_layers; ++l) {
      for (void** side : {&layer.keys, &layer.values}) {
        memory.push_back(backend.allocate(bytes));
        *side = memory.back().data();
        fill_random(static_cast<Bf16*>(*side), bytes / sizeof(Bf16));
      }
      layers.push_back(layer);
    }
  }

  std::vector<Buffer> memory;
  std::vector<KvLayer> layers;
};

// Which blocks sequences of one length have.
struct Placement {
  Placement(const KvPool& pool, int sequences, int length)
      : num_seqs(sequences), blocks_per_seq((length + kBlockSize - 1) / kBlockSize) {
    const int needed = num_seqs * blocks_per_seq, there = pool.layers[0].num_blocks;
    if (needed > there) {
      throw std::runtime_error("keys and values of " + std::to_string(int64_t{needed} * kBlockSize) +
                               " tokens do not fit, " + std::to_string(int64_t{there} * kBlockSize) + " do");
    }
  }
  // Blocks of a sequence lie apart, as after many requests.
  int block(int seq, int index) const { return index * num_seqs + seq; }
  int slot(int seq, int position) const {
    return block(seq, position / kBlockSize) * kBlockSize + position % kBlockSize;
  }

  int num_seqs, blocks_per_seq;
};

// The flat arrays of a step: every sequence's next `rows` positions from `first` on.
class StepInput {
 public:
  StepInput(const Placement& place, int max_rows)
      : place_(place),
        ids_(max_rows),
        positions_(max_rows),
        slots_(max_rows),
        row_start_(place.num_seqs + 1),
        first_pos_(place.num_seqs) {
    for (int s = 0; s < place.num_seqs; ++s)
      for (int b = 0; b < place.blocks_per_seq; ++b) table_.push_back(place.block(s, b));
  }

  // token(seq, position) is the id of a row.
  template <class Token>
  const ForwardInput& set(int first, int rows, const Token& token) {
    int row = 0;
    for (int s = 0; s < place_.num_seqs; ++s) {
      row_start_[s] = row;
      first_pos_[s] = first;
      for (int position = first; position < first + rows; ++position, ++row) {
        ids_[row] = token(s, position);
        positions_[row] = position;
        slots_[row] = place_.slot(s, position);
      }
    }
    row_start_[place_.num_seqs] = row;
    input_.token_ids = {ids_.data(), static_cast<size_t>(row)};
    input_.positions = {positions_.data(), static_cast<size_t>(row)};
    input_.groups[0] = {.slots = slots_.data(),
                        .attention = {.num_seqs = place_.num_seqs,
                                      .num_rows = row,
                                      .row_start = row_start_.data(),
                                      .first_pos = first_pos_.data(),
                                      .block_table = table_.data(),
                                      .table_stride = place_.blocks_per_seq}};
    return input_;
  }

 private:
  const Placement place_;
  std::vector<int32_t> ids_, positions_, slots_, row_start_, first_pos_, table_;
  ForwardInput input_{};
};

double us_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}

}  // namespace

struct ModelBench::Impl {
  Impl(const LlamaShape& model_shape, const ModelBenchLimits& model_limits)
      : shape(model_shape),
        limits(model_limits),
        backend({.device = "cuda", .invariant = model_limits.is_invariant}),
        transformer(spec_of(shape), random_weights(shape, backend), transformer_limits(limits), backend),
        workspace(transformer.spec(), limits.max_rows, limits.max_seqs, backend),
        kv(shape, limits.max_kv_tokens, backend) {}

  int draw(const Tensor& logits, std::vector<SampleResult>& results) {
    rows.resize(results.size());
    for (size_t r = 0; r < rows.size(); ++r) {
      rows[r].temperature = 0;
      rows[r].slot = static_cast<int32_t>(r);
    }
    return backend.sample({.logits = logits, .rows = rows.data(), .results = results.data()});
  }
  void collect(int ticket, const std::vector<SampleResult>& results) {
    backend.wait_sampled(ticket);
    for (const SampleResult& result : results) {
      if (!result.finite || result.token < 0 || result.token >= shape.vocab)
        throw std::runtime_error("the model's logits are not finite");
    }
  }

  LlamaShape shape;
  ModelBenchLimits limits;
  cuda::CudaBackend backend;
  Transformer transformer;
  Workspace workspace;
  KvPool kv;
  std::vector<SampleRow> rows;
};

ModelBench::ModelBench(const LlamaShape& shape, const ModelBenchLimits& limits)
    : impl_(std::make_unique<Impl>(shape, limits)) {}
ModelBench::~ModelBench() = default;

Measurement ModelBench::decode(int batch, int context) {
  Impl& m = *impl_;
  SERVAL_CHECK(m.backend.padded_rows(batch) == batch, "not a size of captured steps", batch);
  SERVAL_CHECK(context > kWarmSteps + kSteps && context <= m.limits.max_len, context, m.limits.max_len);
  StepInput arrays(Placement(m.kv, batch, context), batch);
  std::vector<SampleResult> results[2] = {std::vector<SampleResult>(batch), std::vector<SampleResult>(batch)};
  std::vector<double> us;
  int pending = -1;
  Clock::time_point delivered;
  for (int step = 0; step < kWarmSteps + kSteps; ++step) {
    const ForwardInput& input = arrays.set(context - kWarmSteps - kSteps + step, 1, [&](int seq, int) {
      return step == 0 ? seq % m.shape.vocab : -1 - seq;
    });
    const auto forward = [&] {
      m.transformer.forward(input, m.kv.layers, m.workspace);
      m.transformer.all_logits(m.workspace);
    };
    if (!m.backend.is_captured(batch)) {  // as ModelRunner does before it serves: plainly, then kept
      m.backend.begin_step(input);
      forward();
      m.backend.begin_step(input);
      m.backend.capture(batch, forward);
    }
    m.backend.begin_step(input);
    m.backend.run_captured(batch, forward);
    // Not the workspace's own view: a graph that is repeated does not set its rows again.
    const Tensor logits(m.workspace.logits.data, DType::kF32, {batch, m.shape.vocab});
    const int ticket = m.draw(logits, results[step % 2]);
    if (pending >= 0) {
      m.collect(pending, results[1 - step % 2]);
      if (step > kWarmSteps) us.push_back(us_since(delivered));
      delivered = Clock::now();
    }
    pending = ticket;
  }
  m.collect(pending, results[(kWarmSteps + kSteps - 1) % 2]);
  return summarise(std::move(us), 1);
}

bool ModelBench::is_captured(int batch) const {
  return impl_->backend.is_captured(batch);
}

Measurement ModelBench::prefill(int length) {
  Impl& m = *impl_;
  SERVAL_CHECK(length > 0 && length <= m.limits.max_len, length, m.limits.max_len);
  StepInput arrays(Placement(m.kv, 1, length), m.limits.max_rows);
  std::vector<SampleResult> results(1);
  std::vector<double> us;
  for (int prompt = -1; prompt < kPrompts; ++prompt) {
    const Clock::time_point begin = Clock::now();
    int last = 0;
    for (int first = 0; first < length; first += m.limits.max_rows) {
      const int rows = std::min(m.limits.max_rows, length - first);
      const ForwardInput& input =
          arrays.set(first, rows, [&](int, int position) { return position * 7919 % m.shape.vocab; });
      m.backend.begin_step(input);
      m.transformer.forward(input, m.kv.layers, m.workspace);
      last = rows - 1;
    }
    const int32_t row[] = {last};
    m.collect(m.draw(m.transformer.logits(row, m.workspace), results), results);
    if (prompt >= 0) us.push_back(us_since(begin));
  }
  return summarise(std::move(us), 1);
}

}  // namespace serval::gpu
