// Law 1 on the CPU: the bits of a row do not depend on how many rows are computed beside it, on what they
// hold, on how a sequence is cut into chunks, on its neighbours in the batch, or on the number of threads;
// per instruction set.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "tests/kernels/paged_sequence.h"
#include "tests/kernels/support.h"

namespace serval {
namespace {

using testing::AttentionShape;
using testing::backend_of;
using testing::kAllFormats;
using testing::kMaxTestRows;
using testing::matrix;
using testing::PagedSequence;
using testing::Random;
using testing::same_bits;
using testing::Stored;

class Invariance : public ::testing::TestWithParam<std::string> {};

INSTANTIATE_TEST_SUITE_P(Cpu, Invariance, ::testing::ValuesIn(cpu::runnable_isas()),
                         [](const auto& info) { return info.param; });

constexpr int64_t kRows = 130;

std::vector<float> product(Backend& backend, const LinearWeight& w, const float* x, int64_t rows) {
  std::vector<float> y(rows * w.n);
  backend.linear(Tensor(const_cast<float*>(x), DType::kF32, {rows, w.k}), w, matrix(y, rows, w.n));
  return y;
}

TEST_P(Invariance, LinearRowsDoNotDependOnHowManyThereAre) {
  const auto backend = backend_of(GetParam());
  Random random(1);
  for (const WeightFormat format : kAllFormats) {
    for (const auto& [k, n] : {std::pair<int64_t, int64_t>{2304, 70}, {301, 133}, {64, 96}}) {
      const Stored weights(random.floats(n * k), n, k, format);
      const LinearSource part = weights.source();
      const LinearWeight w = backend->pack_linear({&part, 1}, {});
      const std::vector<float> x = random.floats(kRows * k);
      const std::vector<float> all = product(*backend, w, x.data(), kRows);
      for (const int64_t rows : {1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 16, 25, 31, 32, 64, 100, 129}) {
        for (const int64_t first : {int64_t{0}, (kRows - rows) / 2, kRows - rows}) {
          const std::vector<float> some = product(*backend, w, x.data() + first * k, rows);
          ASSERT_TRUE(same_bits(some.data(), &all[first * n], rows * n))
              << format_row(format).name << " k=" << k << " rows " << first << ".." << first + rows;
        }
      }
    }
  }
}

// k in several cache blocks, which only a call with several tiles has: partial sums wait in memory.
TEST_P(Invariance, LinearRowsDoNotDependOnCacheBlocks) {
  auto backend = backend_of(GetParam());
  backend.begin_step({.max_rows = 64, .num_heads = 1, .head_dim = 8, .max_k = 9001});
  Random random(2);
  for (const WeightFormat format : kAllFormats) {
    const int64_t k = 9001, n = 40;
    const Stored weights(random.floats(n * k), n, k, format);
    const LinearSource part = weights.source();
    const LinearWeight w = backend->pack_linear({&part, 1}, {});
    const std::vector<float> x = random.floats(64 * k), all = product(*backend, w, x.data(), 64);
    for (const int64_t row : {0, 17, 63})
      ASSERT_TRUE(same_bits(product(*backend, w, &x[row * k], 1).data(), &all[row * n], n))
          << format_row(format).name;
  }
}

TEST_P(Invariance, LinearRowsDoNotSeeTheirNeighboursNaNs) {
  const auto backend = backend_of(GetParam());
  Random random(3);
  for (const WeightFormat format : kAllFormats) {
    const int64_t k = 97, n = 45, rows = 20;
    const Stored weights(random.floats(n * k), n, k, format);
    const LinearSource part = weights.source();
    const LinearWeight w = backend->pack_linear({&part, 1}, {});
    std::vector<float> x = random.floats(rows * k);
    const std::vector<float> clean = product(*backend, w, x.data(), rows);
    x[7 * k + 3] = std::nanf("");
    x[12 * k + 96] = std::numeric_limits<float>::infinity();
    const std::vector<float> dirty = product(*backend, w, x.data(), rows);
    for (int64_t r = 0; r < rows; ++r) {
      if (r == 7 || r == 12) {
        EXPECT_FALSE(std::isfinite(dirty[r * n]));
        continue;
      }
      EXPECT_TRUE(same_bits(&dirty[r * n], &clean[r * n], n)) << format_row(format).name << " row " << r;
    }
  }
}

TEST_P(Invariance, NothingDependsOnTheNumberOfThreads) {
  const int64_t k = 515, n = 300;
  Random random(4);
  std::vector<Stored> weights;
  for (const WeightFormat format : kAllFormats) weights.emplace_back(random.floats(n * k), n, k, format);
  const std::vector<float> x = random.floats(kRows * k);
  std::vector<float> linear, attended;
  for (const int threads : {1, 2, 3, 5}) {
    const auto backend = backend_of(GetParam(), threads);
    std::vector<float> y;
    for (const Stored& stored : weights) {
      const LinearSource part = stored.source();
      const std::vector<float> product_of =
          product(*backend, backend->pack_linear({&part, 1}, {}), x.data(), kRows);
      y.insert(y.end(), product_of.begin(), product_of.end());
    }
    PagedSequence seq({.heads = 8, .kv_heads = 4, .head_dim = 64, .dtype = DType::kBF16}, 150, 5);
    seq.write(*backend, 0, 150);
    const std::vector<float> a = seq.attend(*backend, 0, 150);
    if (threads == 1) {
      linear = y;
      attended = a;
    }
    EXPECT_TRUE(same_bits(y.data(), linear.data(), y.size())) << threads;
    EXPECT_TRUE(same_bits(a.data(), attended.data(), a.size())) << threads;
  }
}

std::vector<AttentionShape> attention_shapes() {
  return {{4, 4, 64, 16, DType::kBF16, 0},
          {8, 2, 64, 16, DType::kF32, 0},
          {14, 2, 64, 16, DType::kBF16, 0},
          {12, 1, 24, 8, DType::kF32, 0},
          {4, 2, 128, 32, DType::kBF16, 0},
          {4, 2, 64, 16, DType::kBF16, 50},
          {6, 2, 8, 128, DType::kF32, 20},
          {2, 1, 256, 16, DType::kBF16, 100},
          {4, 2, 64, 16, DType::kF8, 50},
          {6, 1, 24, 8, DType::kF8, 0},
          {4, 2, 64, 16, DType::kI8, 50, 0.7f, true},
          {6, 1, 24, 8, DType::kI8, 0},
          {4, 2, 64, 16, DType::kI4, 50},
          {6, 1, 24, 8, DType::kI4, 0, 0, false, true},
          {4, 2, 64, 16, DType::kBF16, 50, 0.7f, true}};
}

// Keys are written and attended chunk by chunk, as the engine does it.
TEST_P(Invariance, AttentionDoesNotDependOnChunks) {
  const auto backend = backend_of(GetParam());
  constexpr int kContext = 190;
  for (const AttentionShape& shape : attention_shapes()) {
    PagedSequence whole(shape, kContext, 6);
    whole.write(*backend, 0, kContext);
    const std::vector<float> expected = whole.attend(*backend, 0, kContext);
    for (const int chunk : {1, 7, 64, 100}) {
      PagedSequence seq(shape, kContext, 6);
      for (int first = 0; first < kContext; first += chunk) {
        const int rows = std::min(chunk, kContext - first);
        seq.write(*backend, first, rows);
        seq.forget_before_window(first);
        const std::vector<float> out = seq.attend(*backend, first, rows);
        ASSERT_TRUE(same_bits(out.data(), &expected[static_cast<size_t>(first) * seq.q_row()], out.size()))
            << "head_dim " << shape.head_dim << " chunk " << chunk << " at " << first;
      }
    }
  }
}

// The last 40 tokens stand scattered, as a branch of a tree of drafts does, and then together again.
TEST_P(Invariance, ABranchHasTheBitsOfPlainText) {
  const auto backend = backend_of(GetParam());
  constexpr int kStart = 250, kDepth = 40, kLast = kStart + kDepth - 1;
  for (const AttentionShape& shape : attention_shapes()) {
    PagedSequence seq(shape, kStart + 64, 16);
    for (int first = 0; first < kStart + 64; first += kMaxTestRows)
      seq.write(*backend, first, std::min(kMaxTestRows, kStart + 64 - first));
    const std::vector<float> expected = seq.attend(*backend, kLast, 1);
    std::mt19937 random(17);
    uint64_t mask = 0;
    while (std::popcount(mask) < kDepth) mask |= uint64_t{1} << random() % 64;
    std::vector<std::pair<int, int>> apart, together;  // a place is left before another's token comes
    for (int bit = 0, k = 0; bit < 64; ++bit) {
      if ((mask >> bit & 1) != 0) together.emplace_back(kStart + bit, kStart + k++);
    }
    for (size_t i = together.size(); i-- > 0;) apart.emplace_back(together[i].second, together[i].first);
    seq.move_positions(*backend, apart);
    const std::vector<float> branch = seq.attend(*backend, kLast, 1, mask, kStart);
    EXPECT_TRUE(same_bits(branch.data(), expected.data(), branch.size())) << "head_dim " << shape.head_dim;
    const std::vector<float> scattered = seq.attend(*backend, kLast, 1);
    EXPECT_FALSE(same_bits(scattered.data(), expected.data(), branch.size()));
    seq.move_positions(*backend, together);
    const std::vector<float> again = seq.attend(*backend, kLast, 1);
    EXPECT_TRUE(same_bits(again.data(), expected.data(), branch.size())) << "head_dim " << shape.head_dim;
  }
}

// A context of several chunks (kernel_table.h) of positions: whole prompts, parts of them and single rows, by
// threads so many that rows are shared between them, and by one that shares nothing.
TEST_P(Invariance, AttentionDoesNotDependOnWhoComputesWhichChunk) {
  constexpr int kContext = 1100;
  for (const AttentionShape& shape :
       {AttentionShape{4, 2, 64, 16, DType::kBF16, 0}, AttentionShape{6, 1, 24, 8, DType::kF32, 0},
        AttentionShape{2, 1, 128, 32, DType::kBF16, 300}, AttentionShape{4, 2, 64, 16, DType::kF8, 0},
        AttentionShape{4, 2, 64, 16, DType::kI8, 0}, AttentionShape{4, 2, 64, 16, DType::kI4, 0},
        AttentionShape{4, 2, 64, 16, DType::kBF16, 0, 0.7f, true},
        AttentionShape{4, 2, 64, 16, DType::kF32, 90, 0, false, true}}) {
    const auto alone = backend_of(GetParam(), 1);
    PagedSequence seq(shape, kContext, 14);
    std::vector<float> expected;
    for (int first = 0; first < kContext; first += kMaxTestRows) {
      const int rows = std::min(kMaxTestRows, kContext - first);
      seq.write(*alone, first, rows);
      const std::vector<float> out = seq.attend(*alone, first, rows);
      expected.insert(expected.end(), out.begin(), out.end());
    }
    for (const int threads : {1, 2, 3, 8}) {
      const auto backend = backend_of(GetParam(), threads);
      for (const auto& [first, rows] : {std::pair{1099, 1},
                                        {1024, 1},
                                        {1023, 1},
                                        {512, 1},
                                        {511, 2},
                                        {256, 1},
                                        {255, 1},
                                        {0, 1},
                                        {1080, 20},
                                        {250, 9},
                                        {500, 150},
                                        {1000, 100}}) {
        const std::vector<float> out = seq.attend(*backend, first, rows);
        ASSERT_TRUE(same_bits(out.data(), &expected[static_cast<size_t>(first) * seq.q_row()], out.size()))
            << threads << " threads, head_dim " << shape.head_dim << ", rows " << first << ".."
            << first + rows;
      }
    }
  }
}

// The tile is a fixed number of positions, so that blocks of another size give the same bits too.
TEST_P(Invariance, AttentionDoesNotDependOnTheBlockSize) {
  const auto backend = backend_of(GetParam());
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF8, DType::kI8, DType::kI4}) {
    std::vector<float> expected;
    for (const int block_size : {8, 16, 64, 256}) {
      PagedSequence seq({6, 2, 40, block_size, dtype, 0}, 170, 7);
      seq.write(*backend, 0, 170);
      const std::vector<float> out = seq.attend(*backend, 0, 170);
      if (expected.empty()) expected = out;
      EXPECT_TRUE(same_bits(out.data(), expected.data(), out.size())) << block_size;
    }
  }
}

// One call over many sequences of mixed lengths that share a cache, against each of them alone.
TEST_P(Invariance, AttentionDoesNotDependOnNeighbours) {
  const auto backend = backend_of(GetParam());
  for (const AttentionShape& shape : attention_shapes()) {
    Random random(8);
    struct Seq {
      int first, rows;
    };
    std::vector<Seq> seqs = {{0, 1}, {76, 30}, {0, 65}, {128, 1}, {63, 1}, {17, 3}};
    constexpr int kStride = 24;  // table entries of a sequence, enough for blocks of 8
    const int q_row = shape.heads * shape.head_dim, kv_row = shape.kv_heads * shape.head_dim;
    KvLayer kv{.dtype = shape.dtype,
               .num_blocks = static_cast<int>(seqs.size()) * kStride,
               .block_size = shape.block_size,
               .num_kv_heads = shape.kv_heads,
               .head_dim = shape.head_dim};
    std::vector<std::byte> keys(kv.num_blocks * kv.block_bytes(), std::byte{0xff}), values = keys;
    kv.keys = keys.data();
    kv.values = values.data();
    std::vector<int32_t> table(seqs.size() * kStride), row_start = {0}, first_pos;
    for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<int32_t>(i * 35 % table.size());
    for (size_t s = 0; s < seqs.size(); ++s) {
      const int context = seqs[s].first + seqs[s].rows;
      std::vector<int32_t> slots(context);
      for (int p = 0; p < context; ++p)
        slots[p] = table[s * kStride + p / shape.block_size] * shape.block_size + p % shape.block_size;
      std::vector<float> k = random.floats(context * kv_row), v = random.floats(context * kv_row);
      backend->write_kv({.k = Tensor(k.data(), DType::kF32, {context, shape.kv_heads, shape.head_dim}),
                         .v = Tensor(v.data(), DType::kF32, {context, shape.kv_heads, shape.head_dim}),
                         .row_stride = kv_row,
                         .slots = slots.data(),
                         .kv = kv});
      row_start.push_back(row_start.back() + seqs[s].rows);
      first_pos.push_back(seqs[s].first);
    }
    std::vector<float> q = random.floats(static_cast<size_t>(row_start.back()) * q_row);
    const auto attend = [&](size_t begin, size_t end, bool sees_ahead) {
      const std::vector<int32_t> starts = [&] {
        std::vector<int32_t> shifted(row_start.begin() + begin, row_start.begin() + end + 1);
        for (int32_t& start : shifted) start -= row_start[begin];
        return shifted;
      }();
      const int rows = starts.back();
      const AttentionBatch batch{static_cast<int>(end - begin), rows,   starts.data(), &first_pos[begin],
                                 &table[begin * kStride],       kStride};
      std::vector<float> out(static_cast<size_t>(rows) * q_row);
      backend->attention({.q = Tensor(&q[static_cast<size_t>(row_start[begin]) * q_row], DType::kF32,
                                      {rows, shape.heads, shape.head_dim}),
                          .kv = kv,
                          .batch = &batch,
                          .scale = 0.2f,
                          .window = shape.window,
                          .sees_ahead = sees_ahead,
                          .out = matrix(out, rows, q_row)},
                         q_row);
      return out;
    };
    for (const bool sees_ahead : {false, true}) {
      if (sees_ahead && shape.window < 0) continue;
      const std::vector<float> together = attend(0, seqs.size(), sees_ahead);
      for (size_t s = 0; s < seqs.size(); ++s) {
        const std::vector<float> alone = attend(s, s + 1, sees_ahead);
        ASSERT_TRUE(same_bits(alone.data(), &together[static_cast<size_t>(row_start[s]) * q_row], alone.size()))
            << "head_dim " << shape.head_dim << " sequence " << s << (sees_ahead ? " that sees ahead" : "");
        for (const float x : alone) ASSERT_TRUE(std::isfinite(x)) << "read what nobody wrote";
      }
    }
  }
}

// A NaN in one sequence's keys stays there, even where another one's block was its block before.
TEST_P(Invariance, StalePositionsOfABlockAreNeverUsed) {
  const auto backend = backend_of(GetParam());
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF8, DType::kI8, DType::kI4}) {
    for (int context = 1; context <= 40; ++context) {
      PagedSequence seq({2, 1, 16, 16, dtype, 0}, context, 9);
      seq.write(*backend, 0, context);
      for (const float x : seq.attend(*backend, context - 1, 1)) ASSERT_TRUE(std::isfinite(x)) << context;
    }
  }
}

TEST_P(Invariance, RowKernelsDoNotDependOnHowManyRowsThereAre) {
  const auto backend = backend_of(GetParam());
  Random random(10);
  const int64_t rows = 150, dim = 300;
  std::vector<float> residual = random.floats(rows * dim), x = random.floats(rows * dim),
                     weight = random.floats(dim);
  const Tensor w(weight.data(), DType::kF32, {dim});
  const Tensor b(x.data(), DType::kF32, {dim});  // any numbers
  std::vector<float> all = residual, centred = residual, normed(rows * dim), layer(rows * dim),
                     activated(rows * dim), gated(rows * dim / 2);
  backend->add_layer_norm(matrix(centred, rows, dim), matrix(x, rows, dim), w, b, 1e-5f,
                          matrix(layer, rows, dim));
  backend->activation(Activation::kGelu, matrix(x, rows, dim), matrix(activated, rows, dim));
  backend->add_rms_norm(matrix(all, rows, dim), matrix(x, rows, dim), w, 1e-5f, matrix(normed, rows, dim));
  backend->gated_activation(Activation::kSilu, matrix(x, rows, dim), matrix(gated, rows, dim / 2));
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<float> one(&residual[r * dim], &residual[r * dim] + dim), out(dim), gate(dim / 2), act(dim),
        again = one, centred_out(dim);
    const Tensor x_row(&x[r * dim], DType::kF32, {1, dim});
    backend->add_rms_norm(matrix(one, 1, dim), x_row, w, 1e-5f, matrix(out, 1, dim));
    backend->gated_activation(Activation::kSilu, x_row, matrix(gate, 1, dim / 2));
    ASSERT_TRUE(same_bits(out.data(), &normed[r * dim], dim));
    ASSERT_TRUE(same_bits(gate.data(), &gated[r * dim / 2], dim / 2));
    backend->add_layer_norm(matrix(again, 1, dim), x_row, w, b, 1e-5f, matrix(centred_out, 1, dim));
    backend->activation(Activation::kGelu, x_row, matrix(act, 1, dim));
    ASSERT_TRUE(same_bits(centred_out.data(), &layer[r * dim], dim));
    ASSERT_TRUE(same_bits(act.data(), &activated[r * dim], dim));
  }
}

// A row's answer from its experts, among any others: they decide how many rows an expert has and where they
// lie.
TEST_P(Invariance, ExpertsRowsDoNotDependOnWhatOthersChoose) {
  const auto backend = backend_of(GetParam());
  Random random(12);
  constexpr int64_t kExperts = 6, kTopK = 2, kIn = 97, kOut = 45;
  for (const WeightFormat format : kAllFormats) {
    std::vector<LinearWeight> experts;
    for (int e = 0; e < kExperts; ++e) {
      const Stored weights(random.floats(kOut * kIn), kOut, kIn, format);
      const LinearSource part = weights.source();
      experts.push_back(backend->pack_linear({&part, 1}, {}));
    }
    std::vector<float> logits = random.floats(kRows * kExperts), x = random.floats(kRows * kIn);
    logits[7 * kExperts + 2] = std::nanf("");
    x[9 * kIn + 5] = std::nanf("");
    const auto answer = [&](int64_t first, int64_t rows) {
      std::vector<std::byte> memory(ExpertRouting::bytes(rows, kExperts, kTopK));
      const ExpertRouting routing(memory.data(), rows, kExperts, kTopK);
      std::vector<float> copies(rows * kTopK * kIn), products(rows * kTopK * kOut), out(rows * kOut);
      backend->route_experts({.renormalise = true}, Tensor(&logits[first * kExperts], DType::kF32, {rows, kExperts}), {},
                             routing);
      backend->dispatch_rows(Tensor(&x[first * kIn], DType::kF32, {rows, kIn}), routing,
                             matrix(copies, rows * kTopK, kIn));
      backend->expert_linear(matrix(copies, rows * kTopK, kIn), experts, routing,
                             matrix(products, rows * kTopK, kOut));
      backend->combine_experts(matrix(products, rows * kTopK, kOut), routing, {}, matrix(out, rows, kOut));
      return out;
    };
    const std::vector<float> all = answer(0, kRows);
    for (const auto& [first, rows] :
         {std::pair<int64_t, int64_t>{0, 1}, {7, 1}, {6, 3}, {20, 33}, {kRows - 1, 1}}) {
      const std::vector<float> some = answer(first, rows);
      ASSERT_TRUE(same_bits(some.data(), &all[first * kOut], rows * kOut))
          << format_row(format).name << " rows " << first << ".." << first + rows;
    }
    for (int64_t r = 0; r < kRows; ++r) ASSERT_EQ(std::isnan(all[r * kOut]), r == 9) << "row " << r;
  }
}

}  // namespace
}  // namespace serval
