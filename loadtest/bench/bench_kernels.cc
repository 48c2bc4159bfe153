#include "loadtest/bench/bench_kernels.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <iomanip>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/dispatch.h"
#include "loadtest/bench/bench_sampler.h"
#include "loadtest/bench/kernel_shares.h"

namespace serval {
namespace {

using Clock = std::chrono::steady_clock;
using Runs = std::vector<double>;

constexpr int kRuns = 7;
// A projection of a model with a billion weights, and enough of them that none is still in a cache when its
// turn comes.
constexpr int64_t kOutputs = 8192, kInputs = 2048;
constexpr size_t kRingBytes = size_t{256} << 20;
constexpr int kLargestRows = 512;

double seconds(const auto& body) {
  const auto begin = Clock::now();
  body();
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

double median(Runs runs) {
  std::sort(runs.begin(), runs.end());
  return runs[runs.size() / 2];
}

// The roofs. Each probe takes some hundredths of a second.
class Machine {
 public:
  Machine(const DeviceConfig& device, cpu::CpuBackend& backend)
      : kernels_(backend.kernels()),
        pool_(device.num_threads, device.pin_threads),
        memory_(backend.allocate(kRingBytes)) {}

  int num_threads() const { return pool_.num_threads(); }

  double f32_flops() { return flops(kernels_.peak_f32); }
  double bf16_flops() { return kernels_.peak_bf16 == nullptr ? 0 : flops(kernels_.peak_bf16); }
  double best_flops() { return std::max(f32_flops(), bf16_flops()); }

  double read_bytes_per_second() {
    constexpr int64_t kChunk = 1 << 20;
    const double time = seconds([&] {
      pool_.for_each(kRingBytes / kChunk, [&](int, int64_t c) {
        checksum_.fetch_xor(kernels_.read_all(memory_.as<std::byte>() + c * kChunk, kChunk));
      });
    });
    return static_cast<double>(kRingBytes) / time;
  }

  double hand_over_seconds() {
    constexpr int kCalls = 2000;
    const double time = seconds([&] {
      for (int i = 0; i < kCalls; ++i) pool_.for_each(pool_.num_threads(), [](int, int64_t) {});
    });
    return time / kCalls;
  }

 private:
  double flops(int64_t (*probe)(int64_t)) {
    constexpr int64_t kRounds = 2'000'000;
    std::vector<int64_t> done(pool_.num_threads());
    const double time = seconds(
        [&] { pool_.for_each(pool_.num_threads(), [&](int, int64_t i) { done[i] = probe(kRounds); }); });
    return static_cast<double>(done[0]) * pool_.num_threads() / time;
  }

  const cpu::KernelTable& kernels_;
  ThreadPool pool_;
  Buffer memory_;
  std::atomic<int32_t> checksum_{0};
};

// Of formats whose scales are of groups.
constexpr int64_t kGroup = 128;

// A ring of equal matrices; only their size matters.
class WeightRing {
 public:
  WeightRing(Backend& backend, WeightFormat format) {
    std::vector<std::byte> codes(code_bytes(format, kOutputs, kInputs));
    if (format == WeightFormat::kF32) {
      std::fill_n(reinterpret_cast<float*>(codes.data()), kOutputs * kInputs, 0.01f);
    } else {
      std::fill_n(reinterpret_cast<uint16_t*>(codes.data()), codes.size() / sizeof(uint16_t),
                  uint16_t{0x3c24});
    }
    const std::vector<float> scales(kOutputs * kInputs / kGroup, 0.01f), table(kTableSize, 0.5f);
    const LinearSource part{.format = format,
                            .n = kOutputs,
                            .k = kInputs,
                            .data = codes.data(),
                            .scales = scales.data(),
                            .group = format_row(format).has_groups() ? kGroup : 0,
                            .table = table.data()};
    for (size_t bytes = 0; bytes < kRingBytes; bytes += weights_.back().bytes())
      weights_.push_back(backend.pack_linear({&part, 1}, {}));
  }
  const LinearWeight& next() { return weights_[turn_++ % weights_.size()]; }
  double bytes() const { return static_cast<double>(weights_[0].bytes()); }

 private:
  std::vector<LinearWeight> weights_;
  size_t turn_ = 0;
};

struct Activations {
  std::vector<float> in = std::vector<float>(kLargestRows * kInputs);
  std::vector<float> out = std::vector<float>(kLargestRows * kOutputs);
  Activations() {
    for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(i % 251) * 0.01f - 1.0f;
  }
  void multiply(Backend& backend, const LinearWeight& w, int rows) {
    backend.linear(Tensor(in.data(), DType::kF32, {rows, kInputs}), w,
                   Tensor(out.data(), DType::kF32, {rows, kOutputs}));
  }
};

struct LinearSpeed {
  double flops, bytes_per_second, of_roof;
};

// Alternates kernel and probe. The roof of a product is the slower of reading its weights and doing its
// arithmetic.
LinearSpeed measure_linear(Machine& machine, Backend& backend, WeightRing& ring, Activations& rows,
                           int num_rows, double (Machine::*arithmetic)()) {
  const double work = 2.0 * num_rows * kOutputs * kInputs;
  const int calls = std::max(1, 64 / num_rows);
  Runs flops, ratios;
  for (int run = 0; run < kRuns; ++run) {
    const double roof =
        std::max(ring.bytes() / machine.read_bytes_per_second(), work / (machine.*arithmetic)());
    const double time = seconds([&] {
                          for (int i = 0; i < calls; ++i) rows.multiply(backend, ring.next(), num_rows);
                        }) /
                        calls;
    flops.push_back(work / time);
    ratios.push_back(roof / time);
  }
  const double speed = median(flops);
  return {.flops = speed, .bytes_per_second = speed / work * ring.bytes(), .of_roof = median(ratios)};
}

// How much faster products with `ring` are than with `other`.
double speed_ratio(Backend& backend, WeightRing& ring, WeightRing& other, Activations& rows, int num_rows) {
  const int calls = std::max(1, 64 / num_rows);
  const auto time = [&](WeightRing& weights) {
    return seconds([&] {
      for (int i = 0; i < calls; ++i) rows.multiply(backend, weights.next(), num_rows);
    });
  };
  Runs ratios;
  for (int run = 0; run < 2 * kRuns; ++run) ratios.push_back(time(other) / time(ring));
  return median(ratios);
}

// Paged attention over a cache of its own: `seqs` sequences of `context` positions, the last `rows` of each
// asking.
struct AttentionBench {
  int seqs, context, rows, heads = kHeads, kv_heads = 8;
  static constexpr int kHeads = 32, kHeadDim = 64, kBlock = 16;

  int blocks_each() const { return (context + kBlock - 1) / kBlock; }
  KvLayer layer_of(DType dtype) const {
    return {.dtype = dtype,
            .num_blocks = seqs * blocks_each(),
            .block_size = kBlock,
            .num_kv_heads = kv_heads,
            .head_dim = kHeadDim};
  }

  // Layers enough that none is still in a cache when its turn comes, and one step's attention over the next of them.
  class Ring {
   public:
    Ring(const AttentionBench& shape, Backend& backend, DType dtype)
        : shape_(shape),
          backend_(backend),
          kv_(shape.layer_of(dtype)),
          side_(kv_.num_blocks * kv_.block_bytes()),
          layers_(static_cast<int>(kRingBytes / (4 * side_)) + 1),
          memory_(backend.allocate(2 * side_ * layers_)),
          table_(kv_.num_blocks),
          first_pos_(shape.seqs, shape.context - shape.rows),
          q_(static_cast<size_t>(shape.seqs) * shape.rows * shape.heads * kHeadDim, 0.1f),
          attended_(q_.size()) {
      for (int b = 0; b < kv_.num_blocks; ++b) table_[b] = static_cast<int32_t>(int64_t{b} * 7919 % kv_.num_blocks);
      for (int s = 0; s <= shape.seqs; ++s) row_start_.push_back(s * shape.rows);
    }
    void attend() {
      const int rows = shape_.seqs * shape_.rows, heads = shape_.heads;
      const AttentionBatch batch{shape_.seqs, rows, row_start_.data(), first_pos_.data(), table_.data(), shape_.blocks_each()};
      kv_.keys = memory_.as<std::byte>() + 2 * side_ * next_;
      kv_.values = memory_.as<std::byte>() + 2 * side_ * next_ + side_;
      next_ = (next_ + 1) % layers_;
      backend_.attention({.q = Tensor(q_.data(), DType::kF32, {rows, heads, kHeadDim}),
                          .kv = kv_,
                          .batch = &batch,
                          .scale = 0.125f,
                          .out = Tensor(attended_.data(), DType::kF32, {rows, int64_t{heads} * kHeadDim})},
                         int64_t{heads} * kHeadDim);
    }
    // Seconds that a call takes.
    double time() {
      const int calls = std::min(layers_, 8);
      return seconds([&] {
               for (int i = 0; i < calls; ++i) attend();
             }) /
             calls;
    }
    double bytes() const { return 2.0 * static_cast<double>(side_); }

   private:
    const AttentionBench& shape_;
    Backend& backend_;
    KvLayer kv_;
    size_t side_;
    int layers_, next_ = 0;
    Buffer memory_;
    std::vector<int32_t> table_, row_start_, first_pos_;
    std::vector<float> q_, attended_;
  };

  // How much faster each of `types` is than bf16, in turns.
  void compare(Backend& backend, std::span<const DType> types, std::ostream& out) const {
    Ring bf16(*this, backend, DType::kBF16);
    out << "  attention over bf16, " << std::setw(2) << seqs << " x " << std::setw(3) << rows << " rows at " << std::setw(4)
        << context << ", " << heads << " heads of " << kv_heads << ":" << std::setprecision(2);
    for (const DType type : types) {
      Ring ring(*this, backend, type);
      Runs ratios;
      for (int run = 0; run < 2 * kRuns; ++run) ratios.push_back(bf16.time() / ring.time());
      out << "  " << dtype_name(type) << " " << median(ratios);
    }
    out << "\n" << std::flush;
  }

  void run(Machine& machine, Backend& backend, DType dtype, std::ostream& out) const {
    Ring ring(*this, backend, dtype);
    const double seen = static_cast<double>(seqs) * rows * (context - rows / 2.0);
    const double work = 4.0 * seen * heads * kHeadDim, bytes = ring.bytes();
    Runs times, ratios;
    for (int run = 0; run < kRuns; ++run) {
      const double roof = std::max(bytes / machine.read_bytes_per_second(), work / machine.f32_flops());
      times.push_back(ring.time());
      ratios.push_back(roof / times.back());
    }
    const double time = median(times);
    out << "  attention " << dtype_name(dtype) << " kv, " << std::setw(2) << seqs << " x " << std::setw(3)
        << rows << " rows at " << std::setw(4) << context << ", " << kv_heads << " kv heads" << std::setw(10)
        << std::setprecision(1) << work / time / 1e9 << std::setw(10) << bytes / time / 1e9 << std::setw(11)
        << std::setprecision(0) << 100 * median(ratios) << " %\n";
  }
};

bool row_has_the_same_bits(Backend& backend, const LinearWeight& w, Activations& rows) {
  constexpr int kTogether = 64;
  rows.multiply(backend, w, kTogether);
  const std::vector<float> together(rows.out.begin(), rows.out.begin() + kTogether * kOutputs);
  rows.multiply(backend, w, 1);
  return std::memcmp(rows.out.data(), together.data(), kOutputs * sizeof(float)) == 0;
}

}  // namespace

int bench_kernels(const DeviceConfig& device, std::ostream& out) {
  cpu::CpuBackend backend(device);
  const auto step = backend.make_step_context({.max_rows = kLargestRows,
                                               .num_heads = AttentionBench::kHeads,
                                               .head_dim = AttentionBench::kHeadDim,
                                               .max_k = kInputs});
  step->begin_step({});
  Machine machine(device, backend);
  Activations rows;
  out << std::fixed << std::setprecision(1);

  Runs f32, bf16, read, hand_over;
  for (int run = 0; run < kRuns; ++run) {
    f32.push_back(machine.f32_flops() / 1e9);
    bf16.push_back(machine.bf16_flops() / 1e9);
    read.push_back(machine.read_bytes_per_second() / 1e9);
    hand_over.push_back(machine.hand_over_seconds() * 1e6);
  }
  out << backend.name() << ", " << machine.num_threads() << " threads, medians of " << kRuns << " runs\n\n"
      << "roofs\n"
      << "  f32 multiply-add     " << std::setw(8) << median(f32) << " GFLOP/s\n"
      << "  bf16 dot product     " << std::setw(8) << median(bf16) << " GFLOP/s\n"
      << "  memory read          " << std::setw(8) << median(read) << " GB/s\n"
      << "  fork and join        " << std::setw(8) << median(hand_over) << " us\n\n"
      << "kernels                                                   GFLOP/s  GB/s read  of roof, measured "
         "beside each "
         "run\n";
  for (const WeightFormat format :
       {WeightFormat::kInt4, WeightFormat::kTable4, WeightFormat::kFp6, WeightFormat::kFp8, WeightFormat::kInt8Groups,
        WeightFormat::kInt8, WeightFormat::kInt8Dynamic, WeightFormat::kInt4Dynamic, WeightFormat::kBF16, WeightFormat::kF16, WeightFormat::kF32}) {
    WeightRing ring(backend, format);
    // What there is no probe for, bytes and tiles, stands beside the f32 loop, and beyond it.
    const bool dots = backend.kernels().peak_bf16 != nullptr && !format_row(format).rounds_rows &&
                      backend.kernels().linear[static_cast<int>(format)].multiplies_bf16;
    for (const int m : {1, 4, 8, 16, 32, 64, kLargestRows}) {
      const LinearSpeed speed =
          measure_linear(machine, backend, ring, rows, m, dots ? &Machine::bf16_flops : &Machine::f32_flops);
      out << "  linear " << std::setw(12) << format_row(format).name << " [" << kOutputs << ", " << kInputs
          << "], " << std::setw(3) << m << " rows" << std::setw(20) << std::setprecision(1)
          << speed.flops / 1e9 << std::setw(10) << speed.bytes_per_second / 1e9 << std::setw(11)
          << std::setprecision(0) << 100 * speed.of_roof << " %\n"
          << std::flush;
    }
  }
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    for (const AttentionBench& shape : {AttentionBench{1, 8192, 1}, AttentionBench{1, 8192, 1, 4, 1},
                                        AttentionBench{32, 512, 1}, AttentionBench{1, 512, 512}})
      shape.run(machine, backend, dtype, out);
  }
  constexpr DType kNarrow[] = {DType::kF8, DType::kI8, DType::kI4};
  for (const AttentionBench& shape : {AttentionBench{1, 8192, 1}, AttentionBench{1, 8192, 1, 8, 8}, AttentionBench{1, 8192, 1, 4, 1},
                                      AttentionBench{32, 512, 1}, AttentionBench{1, 512, 512}})
    shape.compare(backend, kNarrow, out);

  out << "\none thread, all in cache, against the best loop of each set: GFLOP/s (share)\n";
  for (const std::string& isa : cpu::runnable_isas()) {
    out << "  " << isa << "\n";
    for (const KernelShare& share : measure_kernel_shares(isa))
      out << "    " << std::left << std::setw(40) << share.kernel << std::right << std::setprecision(1)
          << std::setw(8) << share.gflops << std::setprecision(0) << std::setw(7) << 100 * share.share
          << " %\n";
    out << std::flush;
  }

  bench_sampler(backend.kernels(), out);

  out << "\nlaw 1: a row of 1 against the same row of 64\n"
      << "  set         weights  same bits    1 row GB/s (of read)   512 rows GFLOP/s (of this set's better "
         "peak)\n";
  bool all_same = true;
  for (const std::string& isa : cpu::runnable_isas()) {
    DeviceConfig forced = device;
    forced.isa = isa;
    cpu::CpuBackend forced_backend(forced);
    const auto forced_step = forced_backend.make_step_context(
        {.max_rows = kLargestRows, .num_heads = 1, .head_dim = 8, .max_k = kInputs});
    forced_step->begin_step({});
    Machine forced_machine(forced, forced_backend);
    WeightRing bf16(forced_backend, WeightFormat::kBF16), int8(forced_backend, WeightFormat::kInt8),
        int4(forced_backend, WeightFormat::kInt4);
    for (WeightRing* const ring : {&bf16, &int8, &int4}) {
      const bool same = row_has_the_same_bits(forced_backend, ring->next(), rows);
      all_same = all_same && same;
      const LinearSpeed one =
          measure_linear(forced_machine, forced_backend, *ring, rows, 1, &Machine::best_flops);
      const LinearSpeed many =
          measure_linear(forced_machine, forced_backend, *ring, rows, kLargestRows, &Machine::best_flops);
      out << "  " << std::left << std::setw(12) << isa << std::setw(9) << format_row(ring->next().format).name
          << std::setw(13) << (same ? "yes" : "NO") << std::right << std::setprecision(1) << std::setw(8)
          << one.bytes_per_second / 1e9 << std::setprecision(0) << std::setw(7) << 100 * one.of_roof << " %"
          << std::setw(16) << many.flops / 1e9 << std::setw(8) << 100 * many.of_roof << " %\n"
          << std::flush;
    }
    for (WeightRing* const ring : {&int8, &int4}) {
      out << "              speed of " << format_row(ring->next().format).name << " over bf16, in turns:" << std::setprecision(2);
      for (const int m : {1, 4, 8, 16, 64, kLargestRows})
        out << "  " << m << (m == 1 ? " row " : " rows ") << speed_ratio(forced_backend, *ring, bf16, rows, m);
      out << "\n" << std::flush;
    }
  }
  return all_same ? 0 : 1;
}

}  // namespace serval
