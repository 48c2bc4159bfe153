// The products of every instruction set of this machine stay near the best loop of that set. No time is
// asserted but a ratio of two loops that ran in turns on one thread; as a machine that is shared can only
// lower it, a set has three tries.
#include "loadtest/bench/kernel_shares.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/cpu/dispatch.h"
#include "kernels/quant.h"

namespace serval {
namespace {

constexpr int kTries = 3;

class KernelShares : public ::testing::TestWithParam<std::string> {};

INSTANTIATE_TEST_SUITE_P(Cpu, KernelShares, ::testing::ValuesIn(cpu::runnable_isas()),
                         [](const auto& info) { return info.param; });

TEST_P(KernelShares, OfTallProductsAreNearTheBestLoop) {
  std::vector<KernelShare> best;
  // The generic set multiplies and adds apart, which some processors do beside each other (AMD's): to widen a weight
  // then takes its turn from both. And codes of few bits are widened one by one: there these formats save memory alone.
  const bool is_generic = GetParam() == "generic";
  const double bar = is_generic ? 0.7 : 0.8;
  const auto is_exempt = [&](const KernelShare& s) {
    return is_generic && (s.kernel.starts_with("linear int4") || s.kernel.starts_with("linear table4") || s.kernel.starts_with("linear fp"));
  };
  const auto low = [&](const KernelShare& s) { return s.is_tall_product && s.share < bar && !is_exempt(s); };
  for (int attempt = 0; attempt < kTries; ++attempt) {
    const std::vector<KernelShare> shares = measure_kernel_shares(GetParam());
    if (best.empty()) best = shares;
    for (size_t i = 0; i < shares.size(); ++i) best[i].share = std::max(best[i].share, shares[i].share);
    if (std::none_of(best.begin(), best.end(), low)) break;
  }
  int held = 0;
  for (const KernelShare& s : best) {
    held += s.is_tall_product;
    EXPECT_FALSE(low(s)) << s.kernel << ": " << s.share;
  }
  EXPECT_EQ(held, cpu::kNumLinearKernels) << "one for each format of weights that floats are multiplied with";
}

}  // namespace
}  // namespace serval
