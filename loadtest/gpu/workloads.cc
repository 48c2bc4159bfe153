#include "loadtest/gpu/workloads.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <deque>
#include <numeric>
#include <stdexcept>

#include "kernels/attention_plan.h"
#include "kernels/base/check.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/vendor_gemm.h"
#include "loadtest/gpu/llama_shape.h"
#include "loadtest/gpu/micro_kernels.h"
#include "loadtest/gpu/random_memory.h"

namespace serval::gpu {
namespace {

constexpr LlamaShape kLlama;
constexpr int kBlockSize = 16;

// Memory that a workload's function shares.
using Kept = std::shared_ptr<void>;

template <class T>
T* as(const Kept& memory) {
  return static_cast<T*>(memory.get());
}
template <class T>
Kept random(size_t count, float scale = 1) {
  return random_memory<T>(count, scale);
}
Kept room(size_t bytes) {
  return take_memory(bytes);
}
template <class T>
Kept keep(const std::vector<T>& values) {
  return memory_of(values);
}

Workload make(const CopyWork& work) {
  const auto bytes = static_cast<size_t>(work.bytes);
  const Kept from = random<float>(bytes / sizeof(float)), to = room(bytes);
  return {[=](simt::Stream stream, int) { cuda::copy_on_device(stream, to.get(), from.get(), bytes); }};
}

Workload make(const GemmWork& w, cuda::VendorGemm* vendor) {
  const auto m = static_cast<size_t>(w.m), n = static_cast<size_t>(w.n), k = static_cast<size_t>(w.k);
  const size_t out_bytes = w.is_f32_out ? sizeof(float) : sizeof(Bf16);
  const int copies = copies_beyond_cache(2.0 * n * k);
  const Kept x = random<Bf16>(m * k), weights = random<Bf16>(copies * n * k, 0.02f),
             out = room(m * n * out_bytes);
  const auto weight_of = [=](int copy) { return as<Bf16>(weights) + copy * n * k; };
  if (w.is_vendor) {
    if (vendor == nullptr) throw std::runtime_error("cuBLASLt is not there");
    const DType out_type = w.is_f32_out ? DType::kF32 : DType::kBF16;
    return {[=](simt::Stream stream, int copy) {
              const bool is_done = vendor->multiply(stream, DType::kBF16, out_type, x.get(), weight_of(copy),
                                                    out.get(), w.m, w.n, w.k);
              SERVAL_CHECK(is_done, "cuBLASLt has no way to do it", w.m, w.n, w.k);
            },
            copies};
  }
  return {[=](simt::Stream stream, int copy) {
            if (w.is_f32_out) {
              cuda::gemm<Bf16, float>(stream,
                                      {as<Bf16>(x), weight_of(copy), nullptr, as<float>(out), w.m, w.n, w.k});
            } else {
              cuda::gemm<Bf16, Bf16>(stream,
                                     {as<Bf16>(x), weight_of(copy), nullptr, as<Bf16>(out), w.m, w.n, w.k});
            }
          },
          copies};
}

Workload make(const NormWork& w) {
  const size_t count = static_cast<size_t>(w.rows) * w.dim;
  const int copies = copies_beyond_cache(6.0 * count);
  // x is small beside the residual: the sum of many launches stays finite.
  const Kept residual = random<Bf16>(copies * count), x = random<Bf16>(copies * count, 0.01f),
             out = room(copies * count * sizeof(Bf16)), weight = random<float>(w.dim);
  return {[=](simt::Stream stream, int copy) {
            cuda::add_norm<Bf16>(stream, /*is_centred=*/false,
                                 {as<Bf16>(residual) + copy * count, as<Bf16>(x) + copy * count,
                                  as<float>(weight), 1e-5f, as<Bf16>(out) + copy * count, w.rows, w.dim});
          },
          copies};
}

Workload make(const HeadsWork& w) {
  const size_t count = static_cast<size_t>(w.rows) * kLlama.qkv();
  const int copies = copies_beyond_cache(2.0 * count);
  const int num_blocks = w.rows;
  const size_t cache = static_cast<size_t>(num_blocks) * kBlockSize * kLlama.num_kv_heads * kLlama.head_dim;
  std::vector<int32_t> positions(w.rows), slots(w.rows);
  for (int r = 0; r < w.rows; ++r) {
    positions[r] = 17 * r;
    slots[r] = r * kBlockSize + r % kBlockSize;  // each row's sequence has blocks of its own
  }
  std::vector<float> cos_sin;  // true rotations: rows keep their size however often they are turned
  for (int p = 0; p < 17 * w.rows; ++p) {
    for (int i = 0; i < kLlama.head_dim; ++i) {
      const float angle = 0.37f * p + i % (kLlama.head_dim / 2);
      cos_sin.push_back(i < kLlama.head_dim / 2 ? std::cos(angle) : std::sin(angle));
    }
  }
  const Kept qkv = random<Bf16>(copies * count), keys = room(cache * sizeof(Bf16)),
             values = room(cache * sizeof(Bf16)), device_positions = keep(positions),
             device_slots = keep(slots), angles = keep(cos_sin);
  return {[=](simt::Stream stream, int copy) {
            cuda::QkNormRopeWriteKvArgs<Bf16> args;
            args.q = as<Bf16>(qkv) + copy * count;
            args.k = args.q + kLlama.num_heads * kLlama.head_dim;
            args.v = args.k + kLlama.num_kv_heads * kLlama.head_dim;
            args.rows = w.rows;
            args.num_q = kLlama.num_heads;
            args.num_kv = kLlama.num_kv_heads;
            args.head_dim = args.rotary_dim = kLlama.head_dim;
            args.row_stride = kLlama.qkv();
            args.positions = as<int32_t>(device_positions);
            args.cos_sin = as<float>(angles);
            args.slots = as<int32_t>(device_slots);
            args.keys = keys.get();
            args.values = values.get();
            args.block_size = kBlockSize;
            cuda::qk_norm_rope_write_kv<Bf16>(stream, args);
          },
          copies};
}

// Attention over `batch` sequences of `context` positions each, whose last `rows` rows are asked about.
template <class Stored>
Workload make_attention(int batch_size, int context, int rows) {
  constexpr bool is_fp8 = std::is_same_v<Stored, Fp8>;
  const int blocks_per_seq = tiles_of(context, kBlockSize), num_blocks = batch_size * blocks_per_seq;
  const size_t cache = static_cast<size_t>(num_blocks) * kBlockSize * kLlama.num_kv_heads * kLlama.head_dim;
  const size_t q_row = static_cast<size_t>(kLlama.num_heads) * kLlama.head_dim;
  const int copies = copies_beyond_cache(2.0 * cache * sizeof(Stored));

  std::vector<int32_t> table(num_blocks), row_start(batch_size + 1), first_pos(batch_size, context - rows),
      items(batch_size + 1), tiles(batch_size + 1);
  std::iota(table.begin(), table.end(), 0);
  std::mt19937 shuffle(3);
  std::shuffle(table.begin(), table.end(), shuffle);
  for (int s = 0; s <= batch_size; ++s) row_start[s] = s * rows;
  const AttentionBatch batch{.num_seqs = batch_size,
                             .num_rows = batch_size * rows,
                             .row_start = row_start.data(),
                             .first_pos = first_pos.data()};
  const AttentionPlan plan =
      plan_attention(batch, kLlama.num_heads / kLlama.num_kv_heads, 0, 1 << 20, items, tiles);

  const size_t states = static_cast<size_t>(plan.num_items) * kLlama.num_kv_heads * kItemRows;
  const Kept q = random<Bf16>(batch.num_rows * q_row), out = room(batch.num_rows * q_row * sizeof(Bf16)),
             keys = random<Stored>(copies * cache), values = random<Stored>(copies * cache),
             device_table = keep(table), device_row_start = keep(row_start),
             device_first_pos = keep(first_pos), device_items = keep(items), device_tiles = keep(tiles),
             counts = keep(std::vector<int32_t>{batch_size, blocks_per_seq}),
             item_state = room(states * 2 * sizeof(float)),
             item_out = room(states * kLlama.head_dim * sizeof(float));
  const cuda::DeviceProperties device = cuda::device_properties();
  return {[=](simt::Stream stream, int copy) {
            cuda::AttentionParams p;
            p.q = q.get();
            p.q_stride = static_cast<int64_t>(q_row);
            p.out = out.get();
            p.keys = as<Stored>(keys) + copy * cache;
            p.values = as<Stored>(values) + copy * cache;
            p.is_fp8 = is_fp8;
            p.num_heads = kLlama.num_heads;
            p.num_kv_heads = kLlama.num_kv_heads;
            p.head_dim = kLlama.head_dim;
            p.block_shift = __builtin_ctz(kBlockSize);
            p.scale = 0.08838835f;
            p.counts = as<int32_t>(counts);
            p.row_start = as<int32_t>(device_row_start);
            p.first_pos = as<int32_t>(device_first_pos);
            p.block_table = as<int32_t>(device_table);
            p.item_start = as<int32_t>(device_items);
            p.tile_start = as<int32_t>(device_tiles);
            p.item_state = as<float>(item_state);
            p.item_out = as<float>(item_out);
            if (plan.num_items > 0) {
              cuda::attend_split<Bf16>(stream, p, 2 * device.num_sms, batch_size * rows,
                                       device.shared_bytes_per_block);
            }
            if (plan.num_tiles > 0) cuda::attend_tiles<Bf16>(stream, p, 2 * device.num_sms);
          },
          copies};
}

Workload make(const DecodeAttentionWork& w) {
  return w.is_fp8 ? make_attention<Fp8>(w.batch, w.context, 1) : make_attention<Bf16>(w.batch, w.context, 1);
}
Workload make(const PrefillAttentionWork& w) {
  return make_attention<Bf16>(1, w.context, w.rows);
}

// Normal, or the logarithm of Zipf's law (one over the rank) over shuffled ranks, the same in every row.
Kept logits_of(const SampleWork& work) {
  const size_t count = static_cast<size_t>(work.rows) * kLlama.vocab;
  if (work.kind != Sampling::kPeaked) return random<float>(count, 2);
  std::vector<int> ranks(kLlama.vocab);
  std::iota(ranks.begin(), ranks.end(), 1);
  std::mt19937 shuffle(5);
  std::shuffle(ranks.begin(), ranks.end(), shuffle);
  std::vector<float> logits(count);
  for (size_t i = 0; i < count; ++i)
    logits[i] = -1.5f * std::log(static_cast<float>(ranks[i % kLlama.vocab]));
  return keep(logits);
}

// The sampler with all that a step does around its kernel: it hands over parameters and fetches tokens, which
// no graph can keep.
struct SamplingStep {
  explicit SamplingStep(const SampleWork& work) : rows(work.rows), logits(logits_of(work)) {
    const bool has_top_p = work.kind == Sampling::kTopP || work.kind == Sampling::kPeaked;
    for (int r = 0; r < work.rows; ++r) {
      rows[r].temperature = work.kind == Sampling::kGreedy ? 0.0f : 0.8f;
      rows[r].top_p = has_top_p ? 0.9f : 1.0f;
      rows[r].seed = static_cast<uint64_t>(r);
    }
    results.resize(rows.size());
  }
  std::vector<SampleRow> rows;
  std::vector<SampleResult> results;
  Kept logits;
  std::unique_ptr<cuda::DeviceSampler> sampler;  // made for the stream of the first launch
  simt::Stream stream = nullptr;
  std::deque<int> tickets;  // given out and not delivered, oldest first
};

Workload make(const SampleWork& w) {
  const auto s = std::make_shared<SamplingStep>(w);
  return {
      .launch =
          [s](simt::Stream stream, int) {
            const auto num_rows = static_cast<int64_t>(s->rows.size());
            if (s->sampler == nullptr) {
              s->sampler = std::make_unique<cuda::DeviceSampler>(stream);
              s->sampler->reserve(static_cast<int>(num_rows), kLlama.vocab, static_cast<int>(num_rows), 1024);
              s->stream = stream;
            }
            SERVAL_CHECK(stream == s->stream, "a sampler keeps to its stream");
            if (s->tickets.size() == cuda::DeviceSampler::kMaxTickets) {
              s->sampler->wait_sampled(s->tickets.front(), s->results.data(), nullptr);
              s->tickets.pop_front();
            }
            s->tickets.push_back(
                s->sampler->launch({.logits = Tensor(s->logits.get(), DType::kF32, {num_rows, kLlama.vocab}),
                                    .rows = s->rows.data(),
                                    .results = s->results.data()}));
          },
      .is_capturable = false};
}

Workload make(const ReadWork& w) {
  const auto bytes = static_cast<int64_t>(w.bytes) / 16 * 16;
  const int copies = w.is_cached ? 1 : copies_beyond_cache(w.bytes);
  const auto numbers = static_cast<size_t>(bytes) / sizeof(float);
  const Kept from = random<float>(copies * numbers), sums = keep(std::vector<uint32_t>(kReadBlocks));
  return {[=](simt::Stream stream, int copy) {
            read_once(stream, as<float>(from) + copy * numbers, bytes, as<uint32_t>(sums));
          },
          copies};
}

Workload make(const RegisterProductWork& w) {
  const Kept sums = room(sizeof(float) * w.blocks * kProductThreads);
  return {[=](simt::Stream stream, int) { multiply_registers(stream, w.blocks, w.rounds, as<float>(sums)); }};
}

Workload make(const EmptyWork&) {
  return {[](simt::Stream stream, int) { do_nothing(stream); }};
}

// From pinned memory, then an event that the host waits for: what a step pays to hand over its arrays, one
// way and back.
Workload make(const SmallCopyWork& w) {
  const auto bytes = static_cast<size_t>(w.bytes);
  const std::shared_ptr<void> from(cuda::allocate_pinned(bytes), cuda::free_pinned),
      event(cuda::create_event(), cuda::destroy_event);
  if (from == nullptr) throw std::runtime_error("no pinned memory is left");
  std::memset(from.get(), 1, bytes);
  const Kept to = room(bytes);
  return {.launch =
              [=](simt::Stream stream, int) {
                cuda::copy_to_device(stream, to.get(), from.get(), bytes);
                cuda::record(event.get(), stream);
                cuda::wait(event.get());
              },
          .is_capturable = false};
}

Workload make(const ModelDecodeWork&) {
  SERVAL_CHECK(false, "a model is not a kernel");
  return {};
}
Workload make(const ModelPrefillWork&) {
  return make(ModelDecodeWork{});
}

}  // namespace

Workload make_workload(const Work& work, cuda::VendorGemm* vendor) {
  return std::visit(
      [&](const auto& w) {
        if constexpr (std::is_same_v<std::decay_t<decltype(w)>, GemmWork>) {
          return make(w, vendor);
        } else {
          return make(w);
        }
      },
      work);
}

}  // namespace serval::gpu
