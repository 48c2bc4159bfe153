#include "loadtest/bench/kernel_shares.h"

#include <algorithm>
#include <ctime>
#include <functional>
#include <numeric>

#include "kernels/cpu/dispatch.h"
#include "kernels/quant.h"
#include "kernels/tensor.h"

namespace serval {
namespace {

constexpr int kTurns = 40;
constexpr double kTurnSeconds = 0.001;

double thread_seconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

struct alignas(64) Line {
  std::byte bytes[64] = {};
};
using Memory = std::vector<Line>;

std::byte* place(Memory& memory, size_t bytes) {
  memory.assign((bytes + sizeof(Line) - 1) / sizeof(Line), Line());
  return memory[0].bytes;
}

constexpr int kTallTiles = 12;

// Work that takes some microseconds, and how much it is.
struct Load {
  std::function<void()> run;
  double units;  // floating point operations
};

// Units a second, over a turn.
class Stopwatch {
 public:
  explicit Stopwatch(Load load) : load_(std::move(load)) {
    load_.run();  // into the cache
    while (take() < kTurnSeconds) calls_ *= 2;
  }
  double rate() { return static_cast<double>(calls_) * load_.units / take(); }

 private:
  double take() {
    const double begin = thread_seconds();
    for (int64_t i = 0; i < calls_; ++i) load_.run();
    return thread_seconds() - begin;
  }
  Load load_;
  int64_t calls_ = 1;
};

KernelShare compare(const std::string& name, Load kernel, Stopwatch& probe) {
  Stopwatch watch(std::move(kernel));
  double best = 0, roof = 0;
  for (int turn = 0; turn < kTurns; ++turn) {
    roof = std::max(roof, probe.rate());
    best = std::max(best, watch.rate());
  }
  return {.kernel = name, .gflops = best * 1e-9, .share = best / roof};
}

// Two panels in turns, each the one that the other fetches ahead.
Load product(const cpu::LinearKernel& kernel, WeightFormat format, int num_tiles, Memory& memory) {
  constexpr int64_t kInputs = 512;
  const int rows = num_tiles * kernel.max_rows;
  constexpr int64_t kGroup = 128;
  const size_t panel = static_cast<size_t>(cpu::kPanel * kInputs) * format_row(format).bits / 8,
               packed = rows * kInputs * kernel.element_bytes;
  std::byte* const panels = place(memory, 3 * panel + packed + (rows + kInputs / kGroup) * cpu::kPanel * sizeof(float));
  std::byte* const activations = panels + 3 * panel;
  float* const out = reinterpret_cast<float*>(activations + packed);
  const bool has_groups = format_row(format).has_groups();
  const float* const scales = out + rows * cpu::kPanel;
  return {.run =
              [=, turn = 0]() mutable {
                turn = 1 - turn;
                kernel.panel({.weights = panels + turn * panel,
                              .panel_bytes = panel,
                              .activations = activations,
                              .num_tiles = num_tiles,
                              .tile_rows = kernel.max_rows,
                              .tall_tiles = 0,
                              .k = kInputs,
                              .scales = format == WeightFormat::kInt8 ? scales : nullptr,
                              .group_scales = has_groups ? scales : nullptr,
                              .group = kGroup,
                              .table = scales,
                              .bias = nullptr,
                              .out = out,
                              .out_stride = cpu::kPanel,
                              .valid = cpu::kPanel});
              },
          .units = 2.0 * rows * kInputs * cpu::kPanel};
}

// The last `rows` of `context` positions, `heads` query heads to the one KV head.
Load attention(void (*attend)(const cpu::AttendArgs&), DType dtype, int context, int rows, int heads,
               Memory& memory) {
  constexpr int kHeadDim = 128, kBlock = 16;
  const size_t side = static_cast<size_t>(context) * kHeadDim * dtype_bytes(dtype);
  const size_t table = context / kBlock * sizeof(int32_t),
               query = static_cast<size_t>(rows) * heads * kHeadDim * sizeof(float),
               scratch =
                   2 * (static_cast<size_t>(rows) * heads + cpu::kTile) * (kHeadDim + 4) * sizeof(float);
  std::byte* const keys = place(memory, 2 * side + table + 2 * query + scratch);
  auto* const blocks = reinterpret_cast<int32_t*>(keys + 2 * side);
  std::iota(blocks, blocks + context / kBlock, 0);
  auto* const q = reinterpret_cast<float*>(keys + 2 * side + table);
  const cpu::AttendArgs args{.q = q,
                             .q_stride = int64_t{heads} * kHeadDim,
                             .out = q + query / sizeof(float),
                             .out_stride = int64_t{heads} * kHeadDim,
                             .partials = nullptr,
                             .partial_stride = 0,
                             .num_rows = rows,
                             .first_pos = context - rows,
                             .begin = 0,
                             .end = context,
                             .heads = heads,
                             .head_dim = kHeadDim,
                             .value_dim = kHeadDim,
                             .keys = reinterpret_cast<const char*>(keys),
                             .values = reinterpret_cast<const char*>(keys + side),
                             .key_block_bytes = side / (context / kBlock),
                             .value_block_bytes = side / (context / kBlock),
                             .key_offset = 0,
                             .value_offset = 0,
                             .blocks = blocks,
                             .tail_block = context / kBlock,
                             .tail = nullptr,
                             .block_shift = 4,
                             .scale = 0.1f,
                             .window = 0,
                             .scratch = q + 2 * query / sizeof(float)};
  return {.run = [=] { attend(args); },
          .units = 4.0 * rows * (context - (rows - 1) / 2.0) * heads * kHeadDim};
}

}  // namespace

std::vector<KernelShare> measure_kernel_shares(const std::string& isa) {
  const cpu::KernelTable& kernels = cpu::choose_kernels(isa);
  constexpr int64_t kRounds = 1000;
  const auto probe_of = [&](int64_t (*probe)(int64_t)) {
    return Stopwatch({.run = [=] { probe(kRounds); }, .units = static_cast<double>(probe(kRounds))});
  };
  Stopwatch f32 = probe_of(kernels.peak_f32),
            bf16 = probe_of(kernels.peak_bf16 == nullptr ? kernels.peak_f32 : kernels.peak_bf16);
  std::vector<KernelShare> shares;
  Memory memory;
  for (const WeightFormat format :
       {WeightFormat::kF32, WeightFormat::kF16, WeightFormat::kBF16, WeightFormat::kInt8, WeightFormat::kInt8Groups,
        WeightFormat::kInt4, WeightFormat::kTable4, WeightFormat::kFp8, WeightFormat::kFp6}) {
    const cpu::LinearKernel& kernel = kernels.linear[static_cast<int>(format)];
    for (const int num_tiles : {1, kTallTiles}) {
      shares.push_back(compare(std::string("linear ") + format_row(format).name + ", " +
                                   std::to_string(num_tiles * kernel.max_rows) + " rows",
                               product(kernel, format, num_tiles, memory),
                               kernel.multiplies_bf16 ? bf16 : f32));
      shares.back().is_tall_product = num_tiles == kTallTiles;
    }
  }
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const auto attend = dtype == DType::kF32 ? kernels.attend_f32 : kernels.attend_bf16;
    for (const auto& [rows, heads] : {std::pair{1, 4}, {1, 8}, {16, 4}})
      shares.push_back(compare(std::string("attention ") + dtype_name(dtype) + " kv, " +
                                   std::to_string(rows) + " rows of " + std::to_string(heads) + " heads",
                               attention(attend, dtype, 512, rows, heads, memory), f32));
  }
  return shares;
}

}  // namespace serval
