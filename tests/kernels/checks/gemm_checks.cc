// Matrix products: both kernels of ours against sums in double over odd shapes, the same bits from both, and
// whether all ways to tile a product agree bit by bit, which only hardware can say.
#include "kernels/cuda/gemm.h"
#include "loadtest/gpu/device_array.h"
#include "tests/kernels/checks/check.h"
#include "tests/kernels/checks/invariance.h"

namespace serval::gpu {
namespace {

using cuda::GemmArgs;

template <class T>
struct Product {
  Product(int m_rows, int n_rows, int depth, bool has_bias)
      : m(m_rows),
        n(n_rows),
        k(depth),
        random(static_cast<uint32_t>(m_rows * 131 + n_rows * 17 + depth)),
        x(random_numbers<T>(static_cast<size_t>(m) * k, random)),
        weight(random_numbers<T>(static_cast<size_t>(n) * k, random, 0.1f)),
        bias(random_numbers<float>(has_bias ? n : 0, random)),
        device_x(x),
        device_weight(weight),
        device_bias(bias) {}

  template <class Out, class Kernel>
  std::vector<float> run(const Kernel& kernel) const {
    const DeviceArray<Out> out(static_cast<size_t>(m) * n);
    kernel(GemmArgs<T, Out>{device_x.data(), device_weight.data(),
                            bias.empty() ? nullptr : device_bias.data(), out.data(), m, n, k});
    return out.download_values();
  }

  // The product of `count` rows alone, from row `first`.
  template <class Out, class Kernel>
  std::vector<float> run_rows(int first, int count, const Kernel& kernel) const {
    const DeviceArray<Out> out(static_cast<size_t>(count) * n);
    kernel(GemmArgs<T, Out>{device_x.data() + static_cast<int64_t>(first) * k, device_weight.data(),
                            bias.empty() ? nullptr : device_bias.data(), out.data(), count, n, k});
    return out.download_values();
  }

  template <class Out>
  void expect_right(const std::vector<float>& got, Finding& finding) const {
    const int step = std::max<int64_t>(1, int64_t{m} * n * k / 400'000'000);  // all, or every so manieth
    for (int at = 0; at < m * n; at += step) {
      const int i = at / n, j = at % n;
      double sum = bias.empty() ? 0 : bias[j], size = 0;
      for (int d = 0; d < k; ++d) {
        const double term = double{value_of(x[static_cast<size_t>(i) * k + d])} *
                            value_of(weight[static_cast<size_t>(j) * k + d]);
        sum += term;
        size += std::abs(term);
      }
      // Tensor cores align the products of 16 terms and cut them off below some 25 bits: an error of each step of k that
      // grows with the terms' sizes and not with their sum.
      finding.expect_near(got[at], sum, std::abs(sum) * kEpsilon<Out> + size * 4e-6 + 1e-6,
                          "row " + std::to_string(i) + ", column " + std::to_string(j));
    }
  }

  int m, n, k;
  std::mt19937 random;
  std::vector<T> x, weight;
  std::vector<float> bias;
  DeviceArray<T> device_x, device_weight;
  DeviceArray<float> device_bias;
};

constexpr auto kSkinny = [](const auto& args) { cuda::gemm_skinny(nullptr, args); };
constexpr auto kTiled = [](const auto& args) { cuda::gemm_tiled(nullptr, args); };
constexpr auto kChosen = [](const auto& args) { cuda::gemm(nullptr, args); };

template <class T, class Out>
void add(std::vector<Check>& checks, int m, int n, int k, bool has_bias) {
  const std::string type = std::string(std::is_same_v<T, Half> ? "f16" : "bf16") +
                           (std::is_same_v<Out, float> ? " to f32" : "") + (has_bias ? " with bias" : "");
  const std::string shape =
      type + ", " + std::to_string(m) + " x " + std::to_string(n) + " x " + std::to_string(k);
  checks.push_back({"gemm", shape, [=](Finding& finding) {
                      const Product<T> product(m, n, k, has_bias);
                      const std::vector<float> tiled = product.template run<Out>(kTiled);
                      product.template expect_right<Out>(tiled, finding);
                      if (m <= cuda::kSkinnyRows) {
                        finding.expect_same(product.template run<Out>(kSkinny), tiled,
                                            "the kernels for few and for many rows differ");
                      }
                      finding.expect_same(product.template run<Out>(kChosen), tiled,
                                          "the chosen kernel differs");
                    }});
}

// Law 1: a row's bits do not depend on the number of rows nor on its index.
void check_company(int most, int n, int k, Finding& finding) {
  const Product<Bf16> product(most, n, k, true);
  const std::vector<float> all = product.run<float>(kChosen);
  for (const int m : {1, 2, 7, 8, 9, 16, 17, 32, 33, 64, 65, 128, 129}) {
    for (const int first : {0, most - m}) {
      const std::vector<float> want(all.begin() + static_cast<int64_t>(first) * n,
                                    all.begin() + static_cast<int64_t>(first + m) * n);
      finding.expect_same(product.run_rows<float>(first, m, kChosen), want,
                          std::to_string(m) + " rows from " + std::to_string(first) + " differ");
    }
  }
}

// The first row of a product by every kernel and tile size there is; all of them add in ascending k.
void compare_tilings(int n, int k, Finding& finding) {
  const Product<Bf16> product(129, n, k, false);
  struct Tiling {
    const char* name;
    int rows;
    bool is_skinny;
  };
  std::vector<float> first;
  for (const Tiling& tiling : {Tiling{"8 rows of the skinny kernel", 1, true},
                               {"16 rows of the skinny kernel", 16, true},
                               {"tiles of 32", 32, false},
                               {"tiles of 64", 64, false},
                               {"tiles of 128", 129, false}}) {
    std::vector<float> row = tiling.is_skinny ? product.run_rows<float>(0, tiling.rows, kSkinny)
                                              : product.run_rows<float>(0, tiling.rows, kTiled);
    row.resize(n);
    if (first.empty()) first = row;
    finding.expect_same(row, first, std::string(tiling.name) + " give other bits");
  }
}

}  // namespace

std::vector<Check> gemm_checks(Sizes sizes) {
  std::vector<Check> checks;
  add<Bf16, Bf16>(checks, 1, 16, 32, false);
  add<Bf16, Bf16>(checks, 1, 1, 8, true);
  add<Bf16, float>(checks, 3, 17, 40, true);
  add<Bf16, Bf16>(checks, 8, 33, 513 * 8, false);
  add<Bf16, float>(checks, 9, 63, 1024, true);
  add<Half, Half>(checks, 16, 129, 1032, true);
  add<Half, float>(checks, 2, 130, 520, false);
  add<Bf16, Bf16>(checks, 17, 128, 64, true);
  add<Bf16, Bf16>(checks, 33, 127, 1000, false);
  add<Half, Half>(checks, 65, 200, 72, true);
  add<Bf16, float>(checks, 129, 40, 96, false);
  add<Bf16, Bf16>(checks, 3, 5, 1, true);  // rows that no vector fits
  add<Bf16, float>(checks, 5, 19, 172, true);
  add<Half, Half>(checks, 20, 33, 517, false);
  if (sizes == Sizes::kAll) {
    for (const int m : {1, 8, 16, 64, 256}) {
      add<Bf16, Bf16>(checks, m, 6144, 4096, false);
      add<Bf16, Bf16>(checks, m, 4096, 14336, false);
    }
    add<Bf16, float>(checks, 64, 128256, 512, false);
  }
  return checks;
}

std::vector<Check> gemm_invariance(Sizes sizes) {
  std::vector<Check> checks = {
      {"gemm", "any company, 48 x 1080", [](Finding& f) { check_company(150, 48, 1080, f); }},
      {"gemm", "all tilings, 48 x 1080", [](Finding& f) { compare_tilings(48, 1080, f); }}};
  if (sizes == Sizes::kAll) {
    checks.push_back(
        {"gemm", "any company, 4096 x 4096", [](Finding& f) { check_company(256, 4096, 4096, f); }});
    checks.push_back(
        {"gemm", "all tilings, 4096 x 14336", [](Finding& f) { compare_tilings(4096, 14336, f); }});
  }
  return checks;
}

}  // namespace serval::gpu
