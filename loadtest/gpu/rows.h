// The table of measurements: what is run at which shape, its floor and predicted time from a model of the
// machine, and the gates it must pass. Arithmetic alone; knows no device. The model is that of an H200:
// memory at 4.3 TB/s, bf16 products at 788 TFLOP/s, both as measured there, and Llama-3.1-8B's shapes.
#pragma once

#include <string>
#include <variant>
#include <vector>

namespace serval::gpu {

// What a row runs.
struct CopyWork {
  double bytes;  // read, and as many written
};
struct GemmWork {
  int m, n, k;
  bool is_vendor;  // cuBLASLt instead of our kernels
  bool is_f32_out;
};
struct NormWork {
  int rows, dim;
};
struct HeadsWork {
  int rows;
};
struct DecodeAttentionWork {
  int batch, context;
  bool is_fp8;
};
struct PrefillAttentionWork {
  int context, rows;  // the last `rows` positions of the context
};
// kPeaked: top-p over logits that fall like a language's word counts, as a model's do; the other kinds are flat.
enum class Sampling { kGreedy, kTemperature, kTopP, kPeaked };
struct SampleWork {
  int rows;
  Sampling kind;
};
// What the machine does by itself: reads, once or again and again from the second-level cache; products from registers;
// launches of nothing; a small copy to the device with an event behind it.
struct ReadWork {
  double bytes;
  bool is_cached;
};
struct RegisterProductWork {
  int blocks, rounds;
};
struct EmptyWork {};
struct SmallCopyWork {
  int bytes;
};
struct ModelDecodeWork {
  int batch, context;
};
struct ModelPrefillWork {
  int length;
};
using Work = std::variant<CopyWork, GemmWork, NormWork, HeadsWork, DecodeAttentionWork, PrefillAttentionWork,
                          SampleWork, ReadWork, RegisterProductWork, EmptyWork, SmallCopyWork, ModelDecodeWork, ModelPrefillWork>;

enum class Limit { kMemory, kProducts, kLatency };  // what the floor comes from

struct Row {
  std::string kernel, shape;
  Work work;
  Limit limit = Limit::kMemory;
  double floor_us = 0, predicted_us = 0;
  double must_us = 0, good_us = 0;  // 0: no gate
};

inline constexpr double kBandwidth = 4.3e12;    // bytes/s
inline constexpr double kProductRate = 788e12;  // FLOP/s

// Most important first; the first three measure the machine itself.
std::vector<Row> kernel_rows();
std::vector<Row> model_rows();

// What a run found for a row.
struct LedgerEntry {
  std::string kernel, shape;
  double measured_us = 0;
  std::string date, commit, device;
};
// The two tables as Markdown, docs/gpu-ledger.md: a row that several runs measured shows the last entry's
// time.
std::string ledger(const std::vector<LedgerEntry>& measured);

}  // namespace serval::gpu
