#include "kernels/cpu/dispatch.h"

#include <stdexcept>

namespace serval::cpu {

extern const KernelTable kGenericKernels;
#if defined(__x86_64__)
extern const KernelTable kAvx2Kernels;
extern const KernelTable kAvx512Kernels;
extern const KernelTable kAvx512Bf16Kernels;
#endif

namespace {

struct Isa {
  const KernelTable* kernels;
  bool (*runs_here)();  // cpuid and, for the wide registers, the operating system's xgetbv; libgcc asks both
  bool (*wanted)();     // whether auto may choose it where it runs
};

bool always() {
  return true;
}

#if defined(__x86_64__)
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
bool has_avx512bf16() {
  return has_avx512() && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vbmi");
}

// The bf16 dot product does twice the arithmetic of an FMA per cycle on AMD (Zen 4 and later), but half of it
// on the Intel cores measured; those widen bf16 weights to f32 instead. By vendor rather than by a timing at
// start-up: the choice decides the bits of every answer, and a timing may fall out differently tomorrow.
bool fast_bf16() {
  return __builtin_cpu_is("amd");
}
#endif

constexpr Isa kIsas[] = {
    {&kGenericKernels, always, always},
#if defined(__x86_64__)
    {&kAvx2Kernels, has_avx2, always},
    {&kAvx512Kernels, has_avx512, always},
    {&kAvx512Bf16Kernels, has_avx512bf16, fast_bf16},
#endif
};

}  // namespace

const KernelTable& choose_kernels(const std::string& isa) {
  const KernelTable* best = nullptr;
  std::string known = "auto";
  for (const Isa& candidate : kIsas) {
    const std::string name = candidate.kernels->name;
    known += ", " + name;
    if (isa == name) {
      if (candidate.runs_here()) return *candidate.kernels;
      throw std::runtime_error("this machine cannot run the instruction set '" + isa + "' that isa asks for");
    }
    if (candidate.runs_here() && candidate.wanted()) best = candidate.kernels;
  }
  if (isa != "auto") throw std::runtime_error("isa is '" + isa + "'; it takes one of " + known);
  return *best;
}

std::vector<std::string> runnable_isas() {
  std::vector<std::string> names;
  for (const Isa& isa : kIsas)
    if (isa.runs_here()) names.emplace_back(isa.kernels->name);
  return names;
}

}  // namespace serval::cpu
