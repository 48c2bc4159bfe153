#include "kernels/cpu/dispatch.h"

#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "kernels/quant.h"

namespace serval::cpu {

extern const KernelTable kGenericKernels;
#if defined(__x86_64__)
extern const KernelTable kAvx2Kernels;
extern const KernelTable kAvx512Kernels;
extern const KernelTable kAvx512Bf16Kernels;
extern const LinearKernel kAmxBf16Product;
#endif
extern const DotTable kGenericDots;
#if defined(__x86_64__)
extern const DotTable kAvx2Dots;
extern const DotTable kAvxVnniDots;
extern const DotTable kAvx512Dots;
extern const DotTable kAvx512VnniDots;
extern const DotTable kAmxDots;
#endif

namespace {

#if defined(__x86_64__)
// avx512 with other products of bf16.
const KernelTable kAvx512AmxKernels = [] {
  KernelTable table = kAvx512Kernels;
  table.name = "avx512amx";
  table.linear[static_cast<int>(WeightFormat::kBF16)] = kAmxBf16Product;
  return table;
}();
#endif

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

// What GCC 12 cannot be asked for by name: of the leaf 7 the subleaf's register `word` (eax, ebx, ecx, edx).
bool has_feature(unsigned subleaf, int word, int bit) {
  unsigned words[4] = {};
  return __get_cpuid_count(7, subleaf, &words[0], &words[1], &words[2], &words[3]) != 0 && (words[word] >> bit & 1) != 0;
}
bool has_avxvnni() {
  return has_avx2() && has_feature(1, 0, 4);
}
bool has_avx512vnni() {
  return has_avx512() && __builtin_cpu_supports("avx512vnni");
}
// The system gives a process the registers of tiles when it asks for them.
bool has_amx() {
  constexpr long kAskForState = 0x1023, kTileData = 18;
  static const bool is_granted =
      has_avx512vnni() && has_feature(0, 3, 22) && has_feature(0, 3, 24) && has_feature(0, 3, 25) && syscall(SYS_arch_prctl, kAskForState, kTileData) == 0;
  return is_granted;
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
    {&kAvx512AmxKernels, has_amx, always},
#endif
};

struct Dots {
  const DotTable* table;
  const KernelTable* beside;  // the first of kIsas that may use it
  bool (*runs_here)();
};
constexpr Dots kDots[] = {
    {&kGenericDots, &kGenericKernels, always},
#if defined(__x86_64__)
    {&kAvx2Dots, &kAvx2Kernels, has_avx2},
    {&kAvxVnniDots, &kAvx2Kernels, has_avxvnni},
    {&kAvx512Dots, &kAvx512Kernels, has_avx512},
    {&kAvx512VnniDots, &kAvx512Kernels, has_avx512vnni},
    {&kAmxDots, &kAvx512Kernels, has_amx},
#endif
};

}  // namespace

const DotTable& choose_dots(const KernelTable& kernels) {
  const DotTable* best = nullptr;
  for (const Isa& isa : kIsas) {
    for (const Dots& dots : kDots)
      if (dots.beside == isa.kernels && dots.runs_here()) best = dots.table;
    if (isa.kernels == &kernels) break;
  }
  return *best;
}

std::vector<const DotTable*> runnable_dots() {
  std::vector<const DotTable*> tables;
  for (const Dots& dots : kDots)
    if (dots.runs_here()) tables.push_back(dots.table);
  return tables;
}

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
