#include "loadtest/gpu/rows.h"

#include <algorithm>
#include <cstdio>
#include <sstream>

#include "loadtest/gpu/llama_shape.h"
#include "loadtest/gpu/micro_kernels.h"

namespace serval::gpu {
namespace {

constexpr LlamaShape kLlama;
constexpr double kAttentionRate = 620e12;  // FLOP/s of causal attention at its best
// What kernels reach that multiply with mma.sync, as ours do, instead of Hopper's warp-group products.
constexpr double kOurProductRate = 450e12;
constexpr double kOurAttentionRate = 330e12;
constexpr double kLaunchUs = 1.3;  // between two kernels of a graph
constexpr double kRampUs = 1.5;    // to fill the device with a kernel and to drain it
constexpr double kSmallKernelUs = 2.5;
constexpr double kKernelUs = kLaunchUs + kRampUs;
constexpr int kKernelsPerLayer = 10;
constexpr double kSamplingUs = 30;

double memory_us(double bytes) {
  return bytes / kBandwidth * 1e6;
}
double product_us(double flops, double rate = kProductRate) {
  return flops / rate * 1e6;
}

std::string times(int a, int b) {
  return std::to_string(a) + "x" + std::to_string(b);
}
std::string context_name(int tokens) {
  return tokens % 1024 == 0 ? std::to_string(tokens / 1024) + "k" : std::to_string(tokens);
}

struct Gate {
  double must_us = 0, good_us = 0;
};

Row copy_row() {
  constexpr double kBytes = 1 << 30;
  return {.kernel = "ceiling: copy",
          .shape = "1 GiB",
          .work = CopyWork{kBytes},
          .floor_us = memory_us(2 * kBytes),
          .predicted_us = memory_us(2 * kBytes) + kKernelUs};
}

Row gemm_row(const std::string& name, const GemmWork& w, Gate gate = {}) {
  const double flops = 2.0 * w.m * w.n * w.k;
  // Weights are what counts; from eight rows on what goes in and comes out is no longer nothing.
  const double rows = w.m < 8 ? 0 : 2.0 * w.m * w.k + (w.is_f32_out ? 4.0 : 2.0) * w.m * w.n;
  const double bytes = 2.0 * w.n * w.k + rows;
  const double memory = memory_us(bytes), products = product_us(flops);
  const double rate = w.is_vendor ? kProductRate : kOurProductRate;
  return {.kernel = w.is_vendor ? "GEMM cuBLASLt" : "GEMM",
          .shape = name + ", M " + std::to_string(w.m),
          .work = w,
          .limit = memory > products ? Limit::kMemory : Limit::kProducts,
          .floor_us = std::max(memory, products),
          .predicted_us = std::max(memory, product_us(flops, rate)) + kKernelUs,
          .must_us = gate.must_us,
          .good_us = gate.good_us};
}

Row decode_row(const DecodeAttentionWork& w, Gate gate = {}) {
  const double values = double(w.batch) * w.context * kLlama.kv_values_per_token();
  const double floor = memory_us(values * (w.is_fp8 ? 1 : 2));
  return {.kernel = w.is_fp8 ? "decode attention, fp8 KV" : "decode attention, bf16",
          .shape = "b" + std::to_string(w.batch) + ", " + context_name(w.context),
          .work = w,
          .floor_us = floor,
          .predicted_us = floor + 2 * kKernelUs,  // the items, then their merge
          .must_us = gate.must_us,
          .good_us = gate.good_us};
}

// Of the last `rows` positions of a context.
double causal_flops(int context, int rows) {
  return 4.0 * (double(rows) * context - 0.5 * rows * rows) * kLlama.num_heads * kLlama.head_dim;
}
double causal_flops(int length) {
  return causal_flops(length, length);
}

// Gates as rates: FLOP/s.
Row prefill_row(const PrefillAttentionWork& w, double must_rate = 0, double good_rate = 0) {
  const double flops = causal_flops(w.context, w.rows);
  return {.kernel = "prefill attention, causal",
          .shape = w.rows == w.context ? context_name(w.context)
                                       : std::to_string(w.rows) + " of " + context_name(w.context),
          .work = w,
          .limit = Limit::kProducts,
          .floor_us = product_us(flops, kAttentionRate),
          .predicted_us = product_us(flops, kOurAttentionRate) + kKernelUs,
          .must_us = must_rate > 0 ? product_us(flops, must_rate) : 0,
          .good_us = good_rate > 0 ? product_us(flops, good_rate) : 0};
}

Row norm_row(int rows, Gate gate) {
  const double floor = memory_us(4.0 * 2 * rows * kLlama.hidden);  // two read, two written
  return {.kernel = "residual + RMSNorm",
          .shape = times(rows, kLlama.hidden),
          .work = NormWork{rows, kLlama.hidden},
          .floor_us = floor,
          .predicted_us = std::max(kSmallKernelUs, floor + kKernelUs),
          .must_us = gate.must_us,
          .good_us = gate.good_us};
}

Row heads_row(int rows, Gate gate) {
  return {.kernel = "RoPE + KV write",
          .shape = std::to_string(rows) + " rows",
          .work = HeadsWork{rows},
          .floor_us = memory_us(2.0 * 2 * rows * kLlama.qkv()),
          .predicted_us = kSmallKernelUs,
          .must_us = gate.must_us,
          .good_us = gate.good_us};
}

Row sample_row(Sampling kind, int rows, Gate gate = {}) {
  struct Kind {
    const char* name;
    int passes;  // temperature: the largest, the sum, the draw; top-p: the edge too
  };
  constexpr Kind kKinds[] = {{"sampling, greedy", 1}, {"sampling, temperature", 3}, {"sampling, top-p", 4}, {"sampling, top-p, peaked", 4}};
  const auto& [name, passes] = kKinds[static_cast<int>(kind)];
  const double pass = memory_us(4.0 * rows * kLlama.vocab);
  return {.kernel = name,
          .shape = times(rows, kLlama.vocab),
          .work = SampleWork{rows, kind},
          .floor_us = pass,
          .predicted_us = passes * pass + kKernelUs,
          .must_us = gate.must_us,
          .good_us = gate.good_us};
}

// Second-level cache reads of an H200 as public microbenchmarks have them.
constexpr double kCachedBandwidth = 5.7e12;

Row read_row(const ReadWork& w, const char* shape) {
  const double floor = w.bytes / (w.is_cached ? kCachedBandwidth : kBandwidth) * 1e6;
  return {.kernel = w.is_cached ? "machine: cached reads" : "machine: reads",
          .shape = shape,
          .work = w,
          .floor_us = floor,
          .predicted_us = floor + kKernelUs};
}

Row register_product_row() {
  constexpr RegisterProductWork kWork{132, 20000};
  constexpr double kSyncShare = 0.62;  // of the warp-group products' rate
  const double floor = product_us(product_flops(kWork.blocks, kWork.rounds));
  return {.kernel = "machine: mma.sync from registers",
          .shape = std::to_string(kWork.blocks) + " blocks",
          .work = kWork,
          .limit = Limit::kProducts,
          .floor_us = floor,
          .predicted_us = floor / kSyncShare};
}

Row latency_row(const char* kernel, const char* shape, const Work& work, double floor, double predicted) {
  return {.kernel = kernel, .shape = shape, .work = work, .limit = Limit::kLatency, .floor_us = floor, .predicted_us = predicted};
}

struct Matrix {
  const char* name;
  int n, k;
  Gate few_rows;  // M <= 16
};
const Matrix kGateUp = {"gate+up", 2 * kLlama.intermediate, kLlama.hidden, {68, 62}};
const Matrix kDown = {"down", kLlama.hidden, kLlama.intermediate, {35, 31}};
const Matrix kQkv = {"qkv", kLlama.qkv(), kLlama.hidden, {17, 14.5}};
const Matrix kOutput = {"o", kLlama.hidden, kLlama.num_heads* kLlama.head_dim, {13, 10.5}};
const Matrix kHead = {"head", kLlama.vocab, kLlama.hidden, {}};

// The gates of cuBLASLt at M = 2048: 650 and 720 TFLOP/s for the two large matrices.
Gate large_gate(const Matrix& matrix, int m, bool is_vendor) {
  if (m != 2048 || !is_vendor || (&matrix != &kGateUp && &matrix != &kDown)) return {};
  const double flops = 2.0 * m * matrix.n * matrix.k;
  return {product_us(flops, 650e12), product_us(flops, 720e12)};
}

void add_gemm(std::vector<Row>& rows, int m, bool is_vendor) {
  for (const Matrix* matrix : {&kGateUp, &kDown, &kQkv, &kOutput, &kHead}) {
    const bool is_head = matrix == &kHead;
    if (is_head && m > 256) continue;  // a step draws from at most so many rows
    rows.push_back(gemm_row(matrix->name, {m, matrix->n, matrix->k, is_vendor, is_head},
                            m <= 16 && !is_vendor ? matrix->few_rows : large_gate(*matrix, m, is_vendor)));
  }
}

Row model_decode_row(int batch, int context, Gate gate = {}) {
  const double weights = kLlama.step_weights(), tokens = double(batch) * context;
  const double kv_bytes = 2 * tokens * kLlama.kv_values_per_token() * kLlama.num_layers;
  const double attention = 4.0 * tokens * kLlama.num_heads * kLlama.head_dim * kLlama.num_layers;
  const double memory = memory_us(2 * weights), products = product_us(2 * weights * batch);
  const double floor = std::max(memory, products) + std::max(memory_us(kv_bytes), product_us(attention));
  return {.kernel = "Llama-3.1-8B bf16, time per token",
          .shape = "b" + std::to_string(batch) + ", " + context_name(context),
          .work = ModelDecodeWork{batch, context},
          .limit = memory > products ? Limit::kMemory : Limit::kProducts,
          .floor_us = floor,
          .predicted_us = floor + kLlama.num_layers * kKernelsPerLayer * kKernelUs + kSamplingUs,
          .must_us = gate.must_us,
          .good_us = gate.good_us};
}

Row model_prefill_row(int length, Gate gate = {}) {
  const double flops = 2.0 * kLlama.num_layers * kLlama.layer_weights() * length;  // the head: one row
  const double attention = causal_flops(length) * kLlama.num_layers;
  return {.kernel = "Llama-3.1-8B bf16, time to first token",
          .shape = context_name(length),
          .work = ModelPrefillWork{length},
          .limit = Limit::kProducts,
          .floor_us = product_us(flops) + product_us(attention, kAttentionRate),
          .predicted_us = product_us(flops, kOurProductRate) + product_us(attention, kOurAttentionRate) +
                          kLlama.num_layers * kKernelsPerLayer * kKernelUs + kSamplingUs,
          .must_us = gate.must_us,
          .good_us = gate.good_us};
}

std::string cell(double us) {
  if (us == 0) return "–";
  char text[32];
  std::snprintf(text, sizeof text, us < 100 ? "%.1f" : "%.0f", us);
  return text;
}

void write_table(std::ostringstream& out, const std::vector<Row>& rows,
                 const std::vector<LedgerEntry>& measured) {
  out << "| kernel | shape | floor µs | predicted µs | must µs | good µs | measured µs | date | commit | "
         "device |\n"
         "|---|---|---|---|---|---|---|---|---|---|\n";
  for (const Row& row : rows) {
    out << "| " << row.kernel << " | " << row.shape << " | " << cell(row.floor_us) << " | "
        << cell(row.predicted_us) << " | " << cell(row.must_us) << " | " << cell(row.good_us) << " | ";
    const auto entry = std::find_if(measured.rbegin(), measured.rend(), [&](const LedgerEntry& e) {
      return e.kernel == row.kernel && e.shape == row.shape;
    });
    if (entry == measured.rend()) {
      out << "not measured | | | |\n";
    } else {
      out << cell(entry->measured_us) << " | " << entry->date << " | " << entry->commit << " | "
          << entry->device << " |\n";
    }
  }
}

}  // namespace

std::vector<Row> kernel_rows() {
  constexpr int kCube = 8192;
  const auto cube_row = [&](const char* kernel, bool is_vendor) {
    Row row = gemm_row("8192x8192x8192", {kCube, kCube, kCube, is_vendor, false});
    row.kernel = kernel;
    return row;
  };
  std::vector<Row> rows = {copy_row(), cube_row("ceiling: product, cuBLASLt", true)};
  rows.push_back(read_row({1 << 30, false}, "1 GiB"));
  rows.push_back(read_row({40e6, true}, "40 MB again and again"));
  rows.push_back(latency_row("machine: kernel that does nothing", "in a graph", EmptyWork{}, 0.9, kLaunchUs));
  rows.push_back(latency_row("machine: copy to the device and an event", "4 KiB", SmallCopyWork{4096}, 5, 10));
  rows.push_back(register_product_row());
  rows.push_back(decode_row({64, 8192, false}, {625, 570}));
  rows.push_back(decode_row({64, 1024, false}, {95, 80}));
  rows.push_back(decode_row({1, 8192, false}, {16, 12}));
  rows.push_back(decode_row({1, 1024, false}, {6, 4.5}));
  add_gemm(rows, 1, false);
  add_gemm(rows, 16, false);
  add_gemm(rows, 64, false);
  add_gemm(rows, 64, true);
  rows.push_back(norm_row(64, {4, 2.5}));
  rows.push_back(heads_row(64, {4, 2.5}));
  rows.push_back(sample_row(Sampling::kGreedy, 64, {15, 10}));
  rows.push_back(sample_row(Sampling::kTopP, 64, {60, 35}));
  rows.push_back(sample_row(Sampling::kPeaked, 64));
  for (const int m : {32, 128}) add_gemm(rows, m, false);
  rows.push_back(prefill_row({4096, 4096}, 480e12, 560e12));
  rows.push_back(prefill_row({8192, 512}));
  add_gemm(rows, 2048, true);
  add_gemm(rows, 2048, false);
  rows.push_back(norm_row(8192, {78, 70}));
  rows.push_back(decode_row({64, 8192, true}, {345, 310}));
  rows.push_back(decode_row({64, 1024, true}));
  rows.push_back(decode_row({1, 8192, true}));
  rows.push_back(decode_row({1, 1024, true}));
  rows.push_back(decode_row({16, 1024, false}));
  rows.push_back(decode_row({256, 1024, false}));
  rows.push_back(prefill_row({2048, 2048}));
  rows.push_back(prefill_row({16384, 16384}, 560e12, 610e12));
  for (const int m : {8, 24, 256, 512}) add_gemm(rows, m, false);
  for (const int m : {1, 8, 16, 32, 128, 256, 512}) add_gemm(rows, m, true);
  for (const int count : {1, 256}) rows.push_back(sample_row(Sampling::kGreedy, count));
  for (const int count : {1, 64, 256}) rows.push_back(sample_row(Sampling::kTemperature, count));
  for (const int count : {1, 256}) rows.push_back(sample_row(Sampling::kTopP, count));
  rows.push_back(cube_row("ceiling: product, own", false));
  return rows;
}

std::vector<Row> model_rows() {
  std::vector<Row> rows = {model_decode_row(1, 1024, {5000, 4300}), model_decode_row(64, 1024, {8000, 7000}),
                           model_prefill_row(2048, {55000, 48000})};
  for (const auto& [batch, context] : {std::pair{8, 1024}, {256, 1024}, {1, 8192}, {8, 8192}, {64, 8192}})
    rows.push_back(model_decode_row(batch, context));
  rows.push_back(model_prefill_row(8192));
  rows.push_back(model_decode_row(256, 8192));  // fits no device of today
  return rows;
}

std::string ledger(const std::vector<LedgerEntry>& measured) {
  std::ostringstream out;
  out << "## Kernels\n\n";
  write_table(out, kernel_rows(), measured);
  out << "\n## The whole model\n\n";
  write_table(out, model_rows(), measured);
  return out.str();
}

}  // namespace serval::gpu
