#include "tests/kernels/checks/check.h"

#include <exception>

#include "tests/kernels/checks/invariance.h"

namespace serval::gpu {

std::vector<Check> invariance_checks(Sizes sizes) {
  std::vector<Check> all;
  for (const auto family :
       {row_invariance, gemm_invariance, expert_invariance, attention_invariance, sampler_invariance}) {
    const std::vector<Check> checks = family(sizes);
    all.insert(all.end(), checks.begin(), checks.end());
  }
  return all;
}

Finding run_check(const Check& check) {
  Finding finding;
  try {
    check.run(finding);
  } catch (const std::exception& e) {
    finding.fail(e.what());
  }
  return finding;
}

}  // namespace serval::gpu
