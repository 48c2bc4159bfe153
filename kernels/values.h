// Plain values that both the engine and a device speak of; no device is needed to name them.
#pragma once

#include <cstdint>
#include <string>

namespace serval {

inline constexpr int kMaxKvGroups = 3;  // full attention, windowed attention, recurrent state

struct LogitBias {
  int32_t token = 0;
  float bias = 0;
};

struct TopLogprob {
  int32_t token = 0;
  float logprob = 0;
};

// Copy the first num_tokens positions of block `from` into block `to` (the copy of a copy-on-write).
struct BlockCopy {
  int32_t from = 0;
  int32_t to = 0;
  int32_t num_tokens = 0;
};

// Move one position's keys and values; a place is block * block_size + offset.
struct KvMove {
  int32_t from = 0;
  int32_t to = 0;
};

struct DeviceConfig {
  std::string device = "cpu";  // cpu, cuda, or auto: cuda when this build and machine have it, else cpu
  int num_threads = 0;         // 0: as plan_threads() of kernels/cpu/thread_plan.h chooses
  std::string isa = "auto";    // auto, generic, avx2, avx512, avx512bf16, avx512amx
  bool pin_threads = true;
  bool invariant = true;  // on cuda: law 1 holds, without the vendor's matrix products
};

}  // namespace serval
