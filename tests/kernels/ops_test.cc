// Every operation of the CPU backend in one table: instruction set x stored precision x odd shapes, each
// against a reference in double precision. Says nothing about speed, and about invariance only what
// invariance_test.cc leaves out.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "tests/kernels/activation_definition.h"
#include "tests/kernels/paged_sequence.h"
#include "tests/kernels/support.h"

namespace serval {
namespace {

using testing::backend_of;
using testing::kAllFormats;
using testing::matrix;
using testing::PagedSequence;
using testing::Random;
using testing::Stored;

class Ops : public ::testing::TestWithParam<std::string> {
 protected:
  Ops() : backend_(backend_of(GetParam())) {}
  testing::SteppingBackend backend_;
};

INSTANTIATE_TEST_SUITE_P(Cpu, Ops, ::testing::ValuesIn(cpu::runnable_isas()),
                         [](const auto& info) { return info.param; });

// The bf16 dot products.
bool rounds_activations(const std::string& isa, WeightFormat format) {
  return (isa == "avx512bf16" && (format == WeightFormat::kBF16 || format == WeightFormat::kInt8)) ||
         (isa == "avx512amx" && format == WeightFormat::kBF16);
}

struct LinearCase {
  int64_t m, k;
  std::vector<int64_t> parts;
  bool bias;
  int64_t group = 24;
};

// f32 sums of products: 1e-6 of the sum of magnitudes, some ten times the expected rounding at these lengths.
void check_linear(Backend& backend, WeightFormat format, bool rounds_activations, const LinearCase& c) {
  SCOPED_TRACE(std::string(format_row(format).name) + " m=" + std::to_string(c.m) +
               " k=" + std::to_string(c.k) + " n0=" + std::to_string(c.parts[0]));
  Random random(c.m * 1000 + c.k);
  std::vector<Stored> weights;
  std::vector<std::vector<float>> biases;
  std::vector<LinearSource> weight_parts;
  std::vector<Tensor> bias_parts;
  weights.reserve(c.parts.size());
  biases.reserve(c.parts.size());
  int64_t n = 0;
  for (const int64_t part : c.parts) {
    weights.emplace_back(random.floats(part * c.k), part, c.k, format, c.group);
    biases.push_back(random.floats(part));
    weight_parts.push_back(weights.back().source());
    bias_parts.emplace_back(biases.back().data(), DType::kF32, std::initializer_list<int64_t>{part});
    n += part;
  }
  const LinearWeight w = backend.pack_linear(
      weight_parts, c.bias ? std::span<const Tensor>(bias_parts) : std::span<const Tensor>());
  ASSERT_EQ(w.n, n);
  ASSERT_EQ(w.bytes(), backend.packed_bytes(n, c.k, w.matrix_format(), c.bias));
  std::vector<float> x = random.floats(c.m * c.k), y(c.m * n + 1, 7.0f);
  const std::vector<float> multiplied = format_row(format).rounds_rows ? testing::rounded_rows(x, c.k) : x;
  backend.linear(matrix(x, c.m, c.k), w, Tensor(y.data(), DType::kF32, {c.m, n}));
  EXPECT_EQ(y.back(), 7.0f) << "wrote beyond its rows";
  for (int64_t r = 0; r < c.m; ++r) {
    int64_t column = 0;
    for (size_t p = 0; p < c.parts.size(); ++p) {
      for (int64_t j = 0; j < c.parts[p]; ++j, ++column) {
        double sum = c.bias ? biases[p][j] : 0, magnitude = std::abs(sum);
        for (int64_t i = 0; i < c.k; ++i) {
          const float a = multiplied[r * c.k + i];
          const double product =
              weights[p].values[j * c.k + i] * (rounds_activations ? bf16_to_float(float_to_bf16(a)) : a);
          sum += product;
          magnitude += std::abs(product);
        }
        ASSERT_NEAR(y[r * n + column], sum, 1e-6 * magnitude + 1e-30) << "row " << r << " column " << column;
      }
    }
  }
}

TEST_P(Ops, LinearEqualsTheProductInDouble) {
  const std::vector<LinearCase> cases = {
      {1, 1, {1}, false},         {1, 64, {64}, true},     {2, 63, {31}, true},   {3, 17, {33}, false},
      {5, 128, {40, 8, 8}, true}, {7, 250, {96}, false},   {12, 33, {70}, true},  {13, 129, {5}, false},
      {16, 96, {32, 32}, false},  {25, 40, {100}, true},   {64, 72, {48}, false}, {130, 50, {65}, true},
      {1, 2304, {37}, true},      {29, 2304, {34}, false},
  };
  for (const WeightFormat format : kAllFormats) {
    const bool rounds = rounds_activations(GetParam(), format);
    for (const LinearCase& c : cases) check_linear(*backend_, format, rounds, c);
  }
}

// Long k in several cache blocks and several blocks of rows.
TEST_P(Ops, LinearSurvivesItsOwnBlocking) {
  backend_.begin_step({.max_rows = 400, .num_heads = 4, .head_dim = 64, .max_k = 9000});
  for (const WeightFormat format : kAllFormats) {
    const bool rounds = rounds_activations(GetParam(), format);
    check_linear(*backend_, format, rounds, {27, 8999, {36}, true});
    check_linear(*backend_, format, rounds, {389, 24, {36}, true});
    check_linear(*backend_, format, rounds, {9, 1999, {36}, true, 768});
    check_linear(*backend_, format, rounds, {9, 1999, {36}, true, 2000});
  }
}

TEST_P(Ops, EmbedReadsRowsOfThePackedTable) {
  Random random(3);
  for (const WeightFormat format : kAllFormats) {
    const int64_t vocab = 77, dim = 45;
    const Stored table(random.floats(vocab * dim), vocab, dim, format);
    const LinearSource part = table.source();
    const LinearWeight w = backend_->pack_linear({&part, 1}, {});
    const std::vector<int32_t> ids = {0, 76, 31, 32, 33, 5, 5};
    std::vector<float> out(ids.size() * dim);
    backend_->embed(w, ids, 1.0f, matrix(out, ids.size(), dim));
    for (size_t i = 0; i < ids.size(); ++i)
      for (int64_t d = 0; d < dim; ++d)
        ASSERT_EQ(out[i * dim + d], static_cast<float>(table.values[ids[i] * dim + d])) << d;
  }
}

TEST_P(Ops, NormsEqualTheirDefinition) {
  Random random(4);
  for (const int64_t dim : {8, 20, 64, 100, 288, 1027}) {
    const int64_t rows = 5;
    std::vector<float> residual = random.floats(rows * dim), x = random.floats(rows * dim),
                       weight = random.floats(dim);
    for (const bool add : {false, true}) {
      std::vector<float> updated = residual, out(rows * dim);
      backend_->add_rms_norm(matrix(updated, rows, dim), add ? matrix(x, rows, dim) : Tensor(),
                             Tensor(weight.data(), DType::kF32, {dim}), 1e-5f, matrix(out, rows, dim));
      for (int64_t r = 0; r < rows; ++r) {
        double squares = 0;
        for (int64_t i = 0; i < dim; ++i) {
          const float expected = residual[r * dim + i] + (add ? x[r * dim + i] : 0);
          ASSERT_EQ(updated[r * dim + i], expected);
          squares += double{expected} * expected;
        }
        const double scale = 1 / std::sqrt(squares / dim + 1e-5);
        for (int64_t i = 0; i < dim; ++i) {
          const double expected = updated[r * dim + i] * scale * weight[i];
          ASSERT_NEAR(out[r * dim + i], expected, 1e-6 * std::abs(expected) + 1e-12);
        }
      }
    }
  }
}

// A mean far from zero: sums of squares would have lost the deviations.
TEST_P(Ops, LayerNormKeepsItsDigitsUnderALargeMean) {
  Random random(14);
  for (const int64_t dim : {1, 7, 64, 100, 1027}) {
    std::vector<float> x = random.floats(dim), weight = random.floats(dim), bias = random.floats(dim),
                       out(dim);
    for (float& v : x) v += 4096;
    backend_->add_layer_norm(matrix(x, 1, dim), Tensor(), Tensor(weight.data(), DType::kF32, {dim}),
                             Tensor(bias.data(), DType::kF32, {dim}), 1e-5f, matrix(out, 1, dim));
    const double mean = std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(dim);
    double squares = 0;
    for (const float v : x) squares += (v - mean) * (v - mean);
    const double scale = 1 / std::sqrt(squares / static_cast<double>(dim) + 1e-5);
    // The mean is rounded to a float: half a unit in the last place of 4096 and its sums.
    for (int64_t i = 0; i < dim; ++i)
      ASSERT_NEAR(out[i], (x[i] - mean) * scale * weight[i] + bias[i],
                  2e-3 * scale * std::abs(weight[i]) + 1e-5 * std::abs(out[i]) + 1e-6)
          << dim;
  }
}

TEST_P(Ops, HeadNormTouchesItsSliceOnly) {
  Random random(5);
  const int64_t rows = 3, heads = 2, head_dim = 24, stride = 100;
  std::vector<float> x = random.floats(rows * stride), weight = random.floats(head_dim);
  const std::vector<float> before = x;
  backend_->head_rms_norm(Tensor(x.data(), DType::kF32, {rows, heads, head_dim}), stride,
                          Tensor(weight.data(), DType::kF32, {head_dim}), 1e-6f);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < stride; ++c) {
      const float old = before[r * stride + c];
      if (c >= heads * head_dim) {
        ASSERT_EQ(x[r * stride + c], old);
        continue;
      }
      double squares = 0;
      for (int64_t i = 0; i < head_dim; ++i)
        squares += std::pow(double{before[r * stride + c / head_dim * head_dim + i]}, 2);
      const double expected = old / std::sqrt(squares / head_dim + 1e-6) * weight[c % head_dim];
      ASSERT_NEAR(x[r * stride + c], expected, 1e-6 * std::abs(expected) + 1e-12);
    }
  }
}

TEST_P(Ops, RopeTurnsPairsHalfARotationApart) {
  Random random(6);
  for (const int rotary : {8, 16, 40, 64}) {
    const int64_t rows = 4, heads = 3, head_dim = 64, stride = heads * head_dim + 7, positions = 50;
    std::vector<float> x = random.floats(rows * stride), table = random.floats(positions * rotary);
    const std::vector<float> before = x;
    const std::vector<int32_t> at = {0, 49, 7, 7};
    backend_->rope({.x = Tensor(x.data(), DType::kF32, {rows, heads, head_dim}),
                    .row_stride = stride,
                    .positions = at.data(),
                    .cos_sin = matrix(table, positions, rotary),
                    .rotary_dim = rotary});
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < stride; ++c) {
        const int64_t d = c % head_dim, half = rotary / 2;
        double expected = before[r * stride + c];
        if (c < heads * head_dim && d < rotary) {
          const double cos = table[at[r] * rotary + d % half], sin = table[at[r] * rotary + half + d % half];
          expected = d < half ? expected * cos - before[r * stride + c + half] * sin
                              : expected * cos + before[r * stride + c - half] * sin;
        }
        ASSERT_NEAR(x[r * stride + c], expected, 2e-6);
      }
    }
  }
}

TEST_P(Ops, ActivationsEqualTheirDefinition) {
  Random random(7);
  for (const int64_t f : {1, 16, 37, 172}) {
    std::vector<float> gate_up = random.floats(3 * 2 * f), out(3 * f);
    for (float& v : gate_up) v *= 8;
    for (const Activation act : testing::kActivations) {
      const auto of = [act](double g) { return testing::activated(act, g); };
      backend_->gated_activation(act, matrix(gate_up, 3, 2 * f), matrix(out, 3, f));
      for (int64_t i = 0; i < 3 * f; ++i) {
        const double g = gate_up[i / f * 2 * f + i % f], up = gate_up[i / f * 2 * f + f + i % f];
        ASSERT_NEAR(out[i], of(g) * up, 2e-6 * std::abs(of(g) * up) + 1e-6) << g;
      }
      std::vector<float> in_place = gate_up;
      backend_->activation(act, matrix(in_place, 6, f), matrix(in_place, 6, f));
      for (int64_t i = 0; i < 6 * f; ++i)
        ASSERT_NEAR(in_place[i], of(gate_up[i]), 2e-6 * std::abs(of(gate_up[i])) + 1e-6) << gate_up[i];
    }
  }
}

TEST_P(Ops, ExpStaysWithinTwoUnitsInTheLastPlace) {
  const cpu::KernelTable& kernels = cpu::choose_kernels(GetParam());
  std::vector<float> x;
  for (int i = 0; i < 200000; ++i) x.push_back(-87.3f + 175.2f * static_cast<float>(i) / 200000);
  std::vector<float> y(x.size());
  kernels.exp(x.data(), y.data(), static_cast<int64_t>(x.size()));
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double exact = std::exp(double{x[i]});
    worst = std::max(worst, std::abs(y[i] - exact) / (exact * 0x1p-23));
  }
  EXPECT_LT(worst, 2.0);
  RecordProperty("worst_ulp", std::to_string(worst));

  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> edges = {0.0f, -0.0f, -inf, -100.0f, inf, std::nanf("1")};
  std::vector<float> at(edges.size());
  kernels.exp(edges.data(), at.data(), static_cast<int64_t>(edges.size()));
  EXPECT_EQ(at[0], 1.0f);
  EXPECT_EQ(at[1], 1.0f);
  EXPECT_EQ(at[2], 0.0f);
  EXPECT_EQ(at[3], 0.0f);
  EXPECT_GT(at[4], 1e38f);
  EXPECT_TRUE(std::isnan(at[5]));
}

TEST_P(Ops, GatherCopiesRowsInTheOrderAsked) {
  std::vector<float> x(6 * 5), out(3 * 5);
  std::iota(x.begin(), x.end(), 0.0f);
  const std::vector<int32_t> rows = {4, 0, 4};
  backend_->gather_rows(matrix(x, 6, 5), rows, matrix(out, 3, 5));
  for (int i = 0; i < 15; ++i) EXPECT_EQ(out[i], static_cast<float>(rows[i / 5] * 5 + i % 5));
}

struct AttentionCase {
  int heads, kv_heads, head_dim, block_size, context, rows, window;
};

TEST_P(Ops, AttentionEqualsSoftmaxInDouble) {
  const std::vector<AttentionCase> cases = {
      {1, 1, 8, 16, 1, 1, 0},      {4, 4, 8, 8, 70, 70, 0},      {8, 2, 16, 16, 33, 5, 0},
      {4, 1, 32, 32, 130, 130, 0}, {14, 2, 64, 16, 200, 3, 0},   {6, 2, 64, 64, 150, 90, 0},
      {4, 2, 128, 16, 300, 1, 0},  {2, 2, 256, 128, 140, 20, 0}, {4, 2, 24, 16, 100, 100, 7},
      {4, 2, 40, 8, 190, 64, 33},  {12, 1, 64, 16, 129, 2, 64},  {3, 1, 48, 256, 180, 90, 100},
      {4, 1, 64, 16, 1100, 2, 0},  {7, 1, 64, 16, 1030, 1, 0},   {4, 2, 64, 16, 1300, 30, 600},
  };
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF8, DType::kI8, DType::kI4}) {
    for (const AttentionCase& c : cases) {
      SCOPED_TRACE(std::string(dtype_name(dtype)) + " heads=" + std::to_string(c.heads) +
                   " dim=" + std::to_string(c.head_dim) + " block=" + std::to_string(c.block_size) +
                   " context=" + std::to_string(c.context) + " window=" + std::to_string(c.window));
      PagedSequence seq({.heads = c.heads,
                         .kv_heads = c.kv_heads,
                         .head_dim = c.head_dim,
                         .block_size = c.block_size,
                         .dtype = dtype,
                         .window = c.window},
                        c.context, /*seed=*/c.context * 7 + c.head_dim);
      seq.write(*backend_, 0, c.context);
      seq.forget_before_window(c.context - c.rows);
      const std::vector<float> out = seq.attend(*backend_, c.context - c.rows, c.rows);
      for (int r = 0; r < c.rows; ++r) {
        const std::vector<double> expected = seq.reference(c.context - c.rows + r);
        for (size_t i = 0; i < expected.size(); ++i)
          // A score of about 10 carries the rounding of 256 products into an exponent.
          ASSERT_NEAR(out[r * expected.size() + i], expected[i], 1e-5) << "row " << r << " element " << i;
      }
    }
  }
}

TEST_P(Ops, CopiedBlocksHoldTheSameKeysAndValues) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF8, DType::kI8, DType::kI4}) {
    PagedSequence seq({.heads = 2, .kv_heads = 2, .head_dim = 16, .block_size = 16, .dtype = dtype}, 30, 11);
    seq.write(*backend_, 0, 30);
    const std::vector<float> before = seq.attend(*backend_, 29, 1);
    seq.move_block(*backend_, 1);
    const std::vector<float> after = seq.attend(*backend_, 29, 1);
    EXPECT_TRUE(testing::same_bits(before.data(), after.data(), before.size()));
  }
}

TEST_P(Ops, AllocatedMemoryIsZeroedAndAligned) {
  for (const size_t bytes : {size_t{1}, size_t{4097}, size_t{9} << 20}) {
    const Buffer buffer = backend_->allocate(bytes);
    EXPECT_EQ(buffer.bytes, bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0u);
    const auto* p = buffer.as<const unsigned char>();
    EXPECT_TRUE(std::all_of(p, p + bytes, [](unsigned char c) { return c == 0; }));
  }
}

}  // namespace
}  // namespace serval
