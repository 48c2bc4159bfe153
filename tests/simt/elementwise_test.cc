// Row-wise kernels in emulation against their definitions in double.
#include "kernels/cuda/elementwise.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/simt/device_array.h"
#include "tests/simt/emulation.h"
#include "tests/simt/runtime.h"

namespace serval::cuda {
namespace {

template <class T>
void expect_number(T got, double want, double extra = 0) {
  ASSERT_NEAR(to_float(got), want, (std::abs(want) + extra) * 1.01 * kEpsilon<T> + 1e-6);
}

template <class T>
class CudaRows : public testing::Test {
 public:
  CudaRows() { simt::set_schedule_seed(3); }
  ~CudaRows() override { simt::set_schedule_seed(0); }
  std::mt19937 random{11};
};
using Numbers = testing::Types<Bf16, Half>;
TYPED_TEST_SUITE(CudaRows, Numbers);

TYPED_TEST(CudaRows, AddThenNormaliseByTheRootMeanSquare) {
  using T = TypeParam;
  for (const int dim : {1, 7, 64, 100, 2048, 2056}) {
    for (const bool has_x : {true, false}) {
      const int rows = 3;
      const std::vector<T> residual = random_numbers<T>(rows * dim, this->random),
                           x = random_numbers<T>(rows * dim, this->random);
      const std::vector<float> weight = random_numbers<float>(dim, this->random);
      const DeviceArray<T> r(residual), added(x), out(rows * dim);
      const DeviceArray<float> w(weight);
      add_rms_norm<T>(nullptr,
                      {r.data(), has_x ? added.data() : nullptr, w.data(), 1e-5f, out.data(), rows, dim});
      simt::check_guards();
      for (int i = 0; i < rows; ++i) {
        std::vector<double> sum(dim);
        double squares = 0;
        for (int d = 0; d < dim; ++d) {
          const float exact = to_float(residual[i * dim + d]) + (has_x ? to_float(x[i * dim + d]) : 0);
          EXPECT_EQ(r[i * dim + d].bits, from_float<T>(exact).bits);
          sum[d] = to_float(r[i * dim + d]);
          squares += sum[d] * sum[d];
        }
        for (int d = 0; d < dim; ++d)
          expect_number(out[i * dim + d], sum[d] / std::sqrt(squares / dim + 1e-5) * weight[d]);
      }
    }
  }
}

struct HeadShape {
  int num_q, num_kv, head_dim, rotary_dim;
  bool has_norm, is_fp8;
};

TYPED_TEST(CudaRows, NormaliseRotateAndStoreHeads) {
  using T = TypeParam;
  for (const HeadShape s : {HeadShape{4, 2, 64, 64, true, false},
                            {3, 1, 96, 96, false, false},
                            {2, 2, 128, 64, true, true},
                            {5, 1, 40, 20, false, true}}) {
    SCOPED_TRACE(s.head_dim);
    constexpr int kRows = 5, kBlockSize = 16, kBlocks = 4, kPositions = 50;
    const int heads = s.num_q + 2 * s.num_kv;
    const int64_t stride = int64_t{heads} * s.head_dim + 8;
    const std::vector<T> in = random_numbers<T>(kRows * stride, this->random);
    const std::vector<float> q_norm = random_numbers<float>(s.head_dim, this->random),
                             k_norm = random_numbers<float>(s.head_dim, this->random);
    std::vector<float> angles;
    for (int p = 0; p < kPositions; ++p)
      for (int i = 0; i < s.rotary_dim; ++i)
        angles.push_back(i < s.rotary_dim / 2 ? std::cos(p * 0.1f + i)
                                              : std::sin(p * 0.1f + i - s.rotary_dim / 2));
    const std::vector<int32_t> positions = {0, 3, 49, 7, 8}, slots = {17, 0, 63, -1, 33};
    const DeviceArray<T> x(in);
    const DeviceArray<float> qn(q_norm), kn(k_norm), cos_sin(angles);
    const DeviceArray<int32_t> pos(positions), slot(slots);
    const size_t cache = static_cast<size_t>(kBlocks) * s.num_kv * kBlockSize * s.head_dim;
    const DeviceArray<T> keys(cache), values(cache);
    const DeviceArray<Fp8> small_keys(cache), small_values(cache);
    PrepareHeadsArgs<T> args;
    args.q = x.data();
    args.k = x.data() + s.num_q * s.head_dim;
    args.v = args.k + s.num_kv * s.head_dim;
    args.rows = kRows;
    args.num_q = s.num_q;
    args.num_kv = s.num_kv;
    args.head_dim = s.head_dim;
    args.row_stride = stride;
    if (s.has_norm) {
      args.q_norm = qn.data();
      args.k_norm = kn.data();
    }
    args.eps = 1e-6f;
    args.positions = pos.data();
    args.cos_sin = cos_sin.data();
    args.rotary_dim = s.rotary_dim;
    args.slots = slot.data();
    args.keys = s.is_fp8 ? static_cast<void*>(small_keys.data()) : keys.data();
    args.values = s.is_fp8 ? static_cast<void*>(small_values.data()) : values.data();
    args.is_fp8 = s.is_fp8;
    args.key_scale = s.is_fp8 ? 0.25f : 1;
    args.block_size = kBlockSize;
    prepare_heads(nullptr, args);
    simt::check_guards();

    for (int r = 0; r < kRows; ++r) {
      for (int h = 0; h < heads; ++h) {
        const bool is_q = h < s.num_q, is_v = h >= s.num_q + s.num_kv;
        const int kv_head = (h - s.num_q) % s.num_kv;
        std::vector<double> head(s.head_dim), turned(s.head_dim);
        double squares = 0;
        for (int d = 0; d < s.head_dim; ++d) {
          head[d] = to_float(in[r * stride + h * s.head_dim + d]);
          squares += head[d] * head[d];
        }
        if (s.has_norm && !is_v)
          for (int d = 0; d < s.head_dim; ++d)
            head[d] *= (is_q ? q_norm : k_norm)[d] / std::sqrt(squares / s.head_dim + 1e-6);
        turned = head;
        const int half = s.rotary_dim / 2;
        for (int i = 0; i < half && !is_v; ++i) {
          const double c = angles[positions[r] * s.rotary_dim + i],
                       sn = angles[positions[r] * s.rotary_dim + half + i];
          turned[i] = head[i] * c - head[i + half] * sn;
          turned[i + half] = head[i + half] * c + head[i] * sn;
        }
        for (int d = 0; d < s.head_dim; ++d) {
          double size = std::abs(head[d]);  // what rounding the normalised head to T may cost
          if (d < s.rotary_dim) size += std::abs(head[d < half ? d + half : d - half]);
          if (is_q) {
            expect_number(x[r * stride + h * s.head_dim + d], turned[d], size);
          } else if (slots[r] >= 0) {
            const size_t at =
                ((static_cast<size_t>(slots[r] / kBlockSize) * s.num_kv + kv_head) * kBlockSize +
                 slots[r] % kBlockSize) *
                    s.head_dim +
                d;
            if (s.is_fp8) {
              const float scale = is_v ? 1 : 0.25f;
              ASSERT_NEAR(to_float((is_v ? small_values : small_keys)[at]) * scale, turned[d],
                          std::abs(turned[d]) / 15 + size * 0.01 + 0x1p-9f * scale);
            } else {
              expect_number((is_v ? values : keys)[at], turned[d], size);
            }
          }
        }
      }
      EXPECT_EQ(x[(r + 1) * stride - 1].bits, in[(r + 1) * stride - 1].bits)
          << "what lies between rows stays";
    }
  }
}

TYPED_TEST(CudaRows, GateTheirOtherHalf) {
  using T = TypeParam;
  for (const int width : {1, 12, 64, 2056}) {
    const std::vector<T> in = random_numbers<T>(3 * 2 * width, this->random);
    const DeviceArray<T> x(in);
    for (const bool is_gelu : {false, true}) {
      const DeviceArray<T> out(3 * width);
      gated_activation<T>(nullptr, is_gelu, x.data(), out.data(), 3, width);
      simt::check_guards();
      for (int r = 0; r < 3; ++r) {
        for (int i = 0; i < width; ++i) {
          const double gate = to_float(in[r * 2 * width + i]), up = to_float(in[r * 2 * width + width + i]);
          const double gelu =
              0.5 * gate * (1 + std::tanh(0.7978845608 * (gate + 0.044715 * gate * gate * gate)));
          expect_number(out[r * width + i], (is_gelu ? gelu : gate / (1 + std::exp(-gate))) * up);
        }
      }
    }
  }
}

TYPED_TEST(CudaRows, AreEmbeddedGatheredAndTakenFromWhatWasDrawnLast) {
  using T = TypeParam;
  for (const int dim : {3, 64}) {
    const std::vector<T> table = random_numbers<T>(9 * dim, this->random);
    const DeviceArray<T> t(table), out(4 * dim), gathered(2 * dim);
    const DeviceArray<int32_t> ids(std::vector<int32_t>{8, 0, -1, -3}), last(std::vector<int32_t>{5, 1, 7}),
        rows(std::vector<int32_t>{3, 0});
    embed<T>(nullptr, t.data(), ids.data(), last.data(), out.data(), 4, dim);
    gather_rows<T>(nullptr, out.data(), rows.data(), gathered.data(), 2, dim);
    simt::check_guards();
    const int want[] = {8, 0, 5, 7};
    for (int i = 0; i < 4 * dim; ++i) EXPECT_EQ(out[i].bits, table[want[i / dim] * dim + i % dim].bits);
    for (int i = 0; i < 2 * dim; ++i)
      EXPECT_EQ(gathered[i].bits, table[want[i / dim == 0 ? 3 : 0] * dim + i % dim].bits);
  }
}

TEST(CudaLogits, AreCapped) {
  const DeviceArray<float> x(std::vector<float>{-100, -1, 0, 2, 50});
  soft_cap(nullptr, x.data(), 5, 30);
  for (const auto& [i, v] : {std::pair{0, -100.0}, {1, -1.0}, {2, 0.0}, {3, 2.0}, {4, 50.0}})
    EXPECT_NEAR(x[i], 30 * std::tanh(v / 30), 1e-5);
}

}  // namespace
}  // namespace serval::cuda
