// Matrix products in emulation: both kernels against sums in double over odd shapes, and the same bits from
// both.
#include "kernels/cuda/gemm.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/simt/device_array.h"
#include "tests/simt/emulation.h"
#include "tests/simt/runtime.h"

namespace serval::cuda {
namespace {

template <class T>
struct Product {
  Product(int m_rows, int n_rows, int depth, bool has_bias)
      : m(m_rows),
        n(n_rows),
        k(depth),
        random(static_cast<uint32_t>(m_rows * 131 + n_rows * 17 + depth)),
        x(random_numbers<T>(static_cast<size_t>(m) * k, random)),
        weight(random_numbers<T>(static_cast<size_t>(n) * k, random, 0.1f)),
        bias(random_numbers<float>(has_bias ? n : 0, random)) {}

  template <class Out, class Kernel>
  std::vector<float> run(const Kernel& kernel) const {
    const DeviceArray<T> device_x(x), device_weight(weight);
    const DeviceArray<float> device_bias(bias);
    const DeviceArray<Out> out(static_cast<size_t>(m) * n);
    kernel(GemmArgs<T, Out>{device_x.data(), device_weight.data(),
                            bias.empty() ? nullptr : device_bias.data(), out.data(), m, n, k});
    simt::check_guards();
    return as_floats<Out>(out.span());
  }

  template <class Out>
  void expect_right(const std::vector<float>& got) const {
    for (int i = 0; i < m; ++i) {
      for (int j = 0; j < n; ++j) {
        double sum = bias.empty() ? 0 : bias[j], size = 0;
        for (int d = 0; d < k; ++d) {
          const double term = double{to_float(x[static_cast<size_t>(i) * k + d])} *
                              to_float(weight[static_cast<size_t>(j) * k + d]);
          sum += term;
          size += std::abs(term);
        }
        const double bound = std::abs(sum) * kEpsilon<Out> + size * 1e-6 + 1e-6;
        ASSERT_NEAR(got[static_cast<size_t>(i) * n + j], sum, bound) << i << ", " << j;
      }
    }
  }

  int m, n, k;
  std::mt19937 random;
  std::vector<T> x, weight;
  std::vector<float> bias;
};

template <class T, class Out>
void check(int m, int n, int k, bool has_bias) {
  SCOPED_TRACE(testing::Message() << "m " << m << " n " << n << " k " << k);
  const Product<T> product(m, n, k, has_bias);
  for (const uint64_t schedule : {0, 1}) {
    simt::set_schedule_seed(schedule);
    const std::vector<float> tiled =
        product.template run<Out>([](const auto& args) { gemm_tiled(nullptr, args); });
    product.template expect_right<Out>(tiled);
    if (m <= kSkinnyRows) {
      EXPECT_EQ(product.template run<Out>([](const auto& args) { gemm_skinny(nullptr, args); }), tiled);
    }
    EXPECT_EQ(product.template run<Out>([](const auto& args) { gemm(nullptr, args); }), tiled);
  }
  simt::set_schedule_seed(0);
}

TEST(CudaGemm, MatchesTheDefinitionOverOddShapes) {
  check<Bf16, Bf16>(1, 16, 32, false);
  check<Bf16, Bf16>(1, 1, 8, true);
  check<Bf16, float>(3, 17, 40, true);
  check<Bf16, Bf16>(8, 33, 513 * 8, false);
  check<Bf16, float>(9, 63, 1024, true);
  check<Half, Half>(16, 129, 1032, true);
  check<Half, float>(2, 130, 520, false);
  check<Bf16, Bf16>(17, 128, 64, true);
  check<Bf16, Bf16>(33, 127, 1000, false);
  check<Half, Half>(65, 200, 72, true);
  check<Bf16, float>(129, 40, 96, false);
}

TEST(CudaGemm, TakesRowsThatNoVectorFits) {
  check<Bf16, Bf16>(3, 5, 1, true);
  check<Bf16, float>(5, 19, 172, true);
  check<Half, Half>(20, 33, 517, false);
}

// Law 1: a row's bits do not depend on the number of rows, across both kernels and all tile sizes.
TEST(CudaGemm, GivesARowTheSameBitsInAnyCompany) {
  constexpr int kMost = 150, kN = 48, kK = 1080;
  const Product<Bf16> product(kMost, kN, kK, true);
  const std::vector<float> all = product.run<float>([](const auto& args) { gemm(nullptr, args); });
  for (const int m : {1, 2, 7, 8, 9, 16, 17, 32, 33, 64, 65, 128, 129}) {
    for (const int first : {0, kMost - m}) {
      const std::vector<float> some = product.run<float>([&](GemmArgs<Bf16, float> args) {
        args.x += static_cast<int64_t>(first) * kK;
        args.out += static_cast<int64_t>(first) * kN;
        args.m = m;
        gemm(nullptr, args);
      });
      for (int i = first * kN; i < (first + m) * kN; ++i)
        ASSERT_EQ(some[i], all[i]) << m << " rows, element " << i;
    }
  }
}

}  // namespace
}  // namespace serval::cuda
