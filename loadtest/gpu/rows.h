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
  int length;
};
struct SampleWork {
  int rows;
  bool is_top_p;
};
struct ModelDecodeWork {
  int batch, context;
};
struct ModelPrefillWork {
  int length;
};
using Work = std::variant<CopyWork, GemmWork, NormWork, HeadsWork, DecodeAttentionWork, PrefillAttentionWork,
                          SampleWork, ModelDecodeWork, ModelPrefillWork>;

enum class Limit { kMemory, kProducts };  // what the floor comes from

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
