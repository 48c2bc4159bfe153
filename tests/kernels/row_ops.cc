// Op cases of what works on each row alone: products, norms, activations, tables.
#include "tests/kernels/activation_definition.h"
#include "tests/kernels/op_bench.h"

namespace serval::testing {
namespace {

void check_linear(Backend& backend, WeightFormat weights, int64_t m, int64_t n, int64_t k, bool has_bias) {
  Bench bench(backend, weights, static_cast<uint32_t>(m * 7 + n * 3 + k));
  std::vector<double> weight, bias;
  const LinearWeight w = bench.weight(n, k, weights, has_bias, weight, bias);
  const Values x = bench.numbers({m, k});
  for (const DType out_type : {bench.type(), DType::kF32}) {
    const Tensor out = bench.poison({m, n}, out_type);
    backend.linear(x.tensor, w, out);
    std::vector<double> want, size;
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double sum = has_bias ? bias[j] : 0, terms = std::abs(sum);
        for (int64_t d = 0; d < k; ++d) {
          const double v = weight[j * k + d];
          sum += x.exact[i * k + d] * v;
          terms += std::abs(x.exact[i * k + d] * v);
        }
        want.push_back(sum);
        size.push_back(terms);
      }
    }
    const double rounding = rounding_of_rows(backend, weights, bench.number());
    const double tolerance = rounding > 0 ? rounding : precision_of(out_type).relative;
    // Sums in f32 err by the size of their terms; rounding the sum errs by the size of the sum.
    for (double& terms : size) terms *= rounding > 0 ? 1 : 1e-6 / tolerance;
    expect_near(bench.read(out), want, size, tolerance,
                "linear " + std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k));
  }
}

enum class Norm { kRms, kRmsWithoutWeight, kLayer, kLayerWithBias, kLayerWithoutWeight };

void check_norm(Backend& backend, WeightFormat weights, int64_t rows, int64_t dim, bool has_x, Norm norm) {
  Bench bench(backend, weights, static_cast<uint32_t>(rows + dim));
  const Values residual = bench.numbers({rows, dim}), x = bench.numbers({rows, dim}),
               weight = bench.numbers({dim}, DType::kF32), bias = bench.numbers({dim}, DType::kF32);
  const Tensor out = bench.poison({rows, dim}, bench.type());
  const bool is_centred = norm != Norm::kRms && norm != Norm::kRmsWithoutWeight;
  const bool has_bias = norm == Norm::kLayerWithBias;
  const bool has_weight = norm != Norm::kRmsWithoutWeight && norm != Norm::kLayerWithoutWeight;
  const Tensor given_weight = has_weight ? weight.tensor : Tensor();
  const Tensor added_x = has_x ? x.tensor : Tensor();
  if (is_centred) {
    backend.add_layer_norm(residual.tensor, added_x, given_weight, has_bias ? bias.tensor : Tensor(), 1e-5f,
                           out);
  } else {
    backend.add_rms_norm(residual.tensor, added_x, given_weight, 1e-5f, out);
  }
  const std::vector<double> sums = bench.read(residual.tensor);
  std::vector<double> want, size;
  for (int64_t r = 0; r < rows; ++r) {
    const double* const row = &sums[r * dim];
    const double mean = is_centred ? std::accumulate(row, row + dim, 0.0) / static_cast<double>(dim) : 0;
    double squares = 0;
    for (int64_t d = 0; d < dim; ++d) squares += (row[d] - mean) * (row[d] - mean);
    const double scale = 1 / std::sqrt(squares / static_cast<double>(dim) + 1e-5);
    for (int64_t d = 0; d < dim; ++d) {
      const double factor = has_weight ? weight.exact[d] : 1;
      want.push_back((row[d] - mean) * scale * factor + (has_bias ? bias.exact[d] : 0));
      // Near the mean the difference carries the rounding of both.
      size.push_back(is_centred ? std::abs(mean) * scale * std::abs(factor) : 0);
    }
  }
  std::vector<double> added;
  for (int64_t i = 0; i < rows * dim; ++i) added.push_back(residual.exact[i] + (has_x ? x.exact[i] : 0));
  expect_near(sums, added, std::vector<double>(rows * dim, 0.0), bench.tolerance(), "residual");
  expect_near(bench.read(out), want, size, bench.tolerance(), "norm");
}

void check_activation(Backend& backend, WeightFormat weights, int64_t rows, int64_t width) {
  Bench bench(backend, weights, 5);
  const Values in = bench.numbers({rows, 2 * width});
  const Tensor plain_in(in.tensor.data, bench.type(), {2 * rows, width});  // the same numbers, not gated
  for (const Activation act : kActivations) {
    const std::string name = "activation " + std::to_string(static_cast<int>(act));
    const Tensor gated = bench.poison({rows, width}, bench.type()),
                 plain = bench.poison({2 * rows, width}, bench.type());
    backend.gated_activation(act, in.tensor, gated);
    backend.activation(act, plain_in, plain);
    // The other half of the same rows gates what was gated.
    const Tensor twice = bench.poison({rows, width}, bench.type());
    backend.gate(act, Tensor(in.tensor.at(width), bench.type(), {rows, width}), 2 * width, gated, width, twice);
    std::vector<double> want_gated, want_plain;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < width; ++i)
        want_gated.push_back(activated(act, in.exact[r * 2 * width + i]) *
                             in.exact[r * 2 * width + width + i]);
    for (const double x : in.exact) want_plain.push_back(activated(act, x));
    std::vector<double> want_twice = bench.read(gated);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < width; ++i) want_twice[r * width + i] *= activated(act, in.exact[(2 * r + 1) * width + i]);
    const double tolerance = std::max(bench.tolerance(), 1e-5);
    const std::vector<double> size(2 * rows * width, 0.02);  // an exponential's own error
    expect_near(bench.read(gated), want_gated, size, tolerance, "gated " + name);
    expect_near(bench.read(plain), want_plain, size, tolerance, name);
    expect_near(bench.read(twice), want_twice, size, tolerance, "gate, " + name);
  }
}

void check_streams(Backend& backend, WeightFormat weights, int64_t dim) {
  if (!backend.has(RareOp::kStreams)) return;
  constexpr int64_t kRows = 3, kCount = 4;
  Bench bench(backend, weights, static_cast<uint32_t>(dim));
  const Values streams = bench.numbers({kCount * kRows, dim}), modes = bench.numbers({kRows, kCount}),
               mixing = bench.numbers({kCount * kCount, kCount}, DType::kF32),
               correcting = bench.numbers({kCount, kCount}, DType::kF32), before = bench.numbers({kRows, dim}),
               scale = bench.numbers({dim}, DType::kF32);
  const Tensor scaled = bench.poison({kRows, dim}, bench.type());
  const auto factor = [&](const Values& of, int64_t n, int64_t r) {
    double sum = 0;
    for (int64_t i = 0; i < kCount; ++i) sum += of.exact[n * kCount + i] * std::tanh(modes.exact[r * kCount + i]);
    return sum;
  };
  const StreamArgs of{streams.tensor, modes.tensor};
  backend.mix_streams({of, mixing.tensor});
  std::vector<double> want = streams.exact, size(want.size(), 4.0);
  for (int64_t o = 0; o < kCount; ++o)
    for (int64_t i = 0; i < kCount; ++i)
      for (int64_t r = 0; r < kRows; ++r)
        for (int64_t d = 0; d < dim; ++d)
          want[(o * kRows + r) * dim + d] += factor(mixing, o * kCount + i, r) * streams.exact[(i * kRows + r) * dim + d];
  const std::vector<double> mixed = bench.read(streams.tensor);
  const double tolerance = std::max(bench.tolerance(), 1e-5);
  expect_near(mixed, want, size, tolerance, "streams that are mixed");

  backend.correct_streams({of, correcting.tensor, before.tensor, scale.tensor, scaled});
  std::vector<double> want_scaled;
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t d = 0; d < dim; ++d) {
      const double was = before.exact[r * dim + d], change = mixed[r * dim + d] - was;
      for (int64_t i = 0; i < kCount; ++i)
        want[(i * kRows + r) * dim + d] =
            (i == 0 ? was : mixed[(i * kRows + r) * dim + d]) + (1 + factor(correcting, i, r)) * change;
      want_scaled.push_back(want[r * dim + d] * scale.exact[d]);
    }
  }
  for (double& one : size) one = 8;
  expect_near(bench.read(streams.tensor), want, size, tolerance, "streams that are corrected");
  size.resize(want_scaled.size());
  expect_near(bench.read(scaled), want_scaled, size, tolerance, "the first of them, scaled");
}

void check_mixed_residuals(Backend& backend, WeightFormat weights, int64_t dim, int64_t n) {
  if (!backend.has(RareOp::kMixedResiduals)) return;
  constexpr int64_t kRows = 3;
  constexpr double kEps = 1e-3;
  Bench bench(backend, weights, static_cast<uint32_t>(dim + n));
  const int64_t width = (2 + n) * n;
  const Values residuals = bench.numbers({kRows, n * dim}), mixes = bench.numbers({kRows, width}, DType::kF32),
               heads = bench.numbers({kRows, n}, DType::kF32), base = bench.numbers({width}, DType::kF32),
               scale = bench.numbers({3}, DType::kF32), x = bench.numbers({kRows, dim});
  const Tensor out = bench.poison({kRows, dim}, bench.type()), for_head = bench.poison({kRows, dim}, bench.type());
  MixedResidualsArgs args{.residuals = residuals.tensor, .mixes = mixes.tensor, .base = base.tensor, .scale = scale.tensor,
                          .eps = static_cast<float>(kEps), .rounds = 3};
  backend.collapse_residuals(args, out);
  args.mixes = heads.tensor;
  args.base = Tensor(base.tensor.data, DType::kF32, {n});
  args.scale = Tensor(scale.tensor.data, DType::kF32, {1});
  backend.collapse_residuals(args, for_head);
  backend.expand_residuals(residuals.tensor, mixes.tensor, x.tensor);
  const auto sigmoid = [](double v) { return 1 / (1 + std::exp(-v)); };
  std::vector<double> want, want_head, want_residuals(kRows * n * dim);
  for (int64_t r = 0; r < kRows; ++r) {
    const auto mix = [&](int64_t i, int of) { return mixes.exact[r * width + i] * scale.exact[of] + base.exact[i]; };
    std::vector<double> comb(n * n);
    for (int64_t i = 0; i < n; ++i) {
      double sum = 0;
      for (int64_t j = 0; j < n; ++j) sum += comb[i * n + j] = std::exp(mix(2 * n + i * n + j, 2));
      for (int64_t j = 0; j < n; ++j) comb[i * n + j] = comb[i * n + j] / sum + kEps;
    }
    for (const bool columns : {true, false, true, false, true}) {
      for (int64_t i = 0; i < n; ++i) {
        double sum = kEps;
        for (int64_t j = 0; j < n; ++j) sum += comb[columns ? j * n + i : i * n + j];
        for (int64_t j = 0; j < n; ++j) comb[columns ? j * n + i : i * n + j] /= sum;
      }
    }
    for (int64_t d = 0; d < dim; ++d) {
      const auto residual = [&](int64_t i) { return residuals.exact[(r * n + i) * dim + d]; };
      double read = 0, head = 0;
      for (int64_t i = 0; i < n; ++i) {
        read += (sigmoid(mix(i, 0)) + kEps) * residual(i);
        head += (sigmoid(heads.exact[r * n + i] * scale.exact[0] + base.exact[i]) + kEps) * residual(i);
        double& made = want_residuals[(r * n + i) * dim + d];
        made = 2 * sigmoid(mix(n + i, 1)) * x.exact[r * dim + d];
        for (int64_t j = 0; j < n; ++j) made += comb[j * n + i] * residual(j);
      }
      want.push_back(read);
      want_head.push_back(head);
    }
  }
  const double tolerance = std::max(bench.tolerance(), 1e-5);
  const std::vector<double> size(want_residuals.size(), 8.0), of_rows(want.size(), 8.0);
  expect_near(bench.read(out), want, of_rows, tolerance, "the mixture that a part reads");
  expect_near(bench.read(for_head), want_head, of_rows, tolerance, "the mixture that the head reads");
  expect_near(bench.read(residuals.tensor), want_residuals, size, tolerance, "residuals that are mixed");
}

void check_neighbour_rotation(Backend& backend, WeightFormat weights, bool turns_back) {
  if (!backend.has(RareOp::kKeptRows)) return;
  constexpr int64_t kRows = 5, kHeads = 3, kDim = 20, kRotary = 14, kPositions = 9;
  Bench bench(backend, weights, 3);
  const Values x = bench.numbers({kRows, kHeads * kDim}), cos_sin = bench.numbers({kPositions, kRotary}, DType::kF32);
  const std::vector<int32_t> positions = {0, 8, 3, 3, 1};
  const int64_t first = kDim - kRotary;
  backend.rope({.x = Tensor(x.tensor.at(first), bench.type(), {kRows, kHeads, kDim}), .row_stride = kHeads * kDim,
                .positions = positions.data(), .cos_sin = cos_sin.tensor, .rotary_dim = kRotary, .has_neighbour_pairs = true,
                .turns_back = turns_back});
  std::vector<double> want = x.exact;
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t h = 0; h < kHeads; ++h) {
      for (int64_t i = 0; i < kRotary / 2; ++i) {
        double* const pair = &want[(r * kHeads + h) * kDim + first + 2 * i];
        const double a = pair[0], b = pair[1], cos = cos_sin.exact[positions[r] * kRotary + i],
                     sin = cos_sin.exact[positions[r] * kRotary + kRotary / 2 + i] * (turns_back ? -1 : 1);
        pair[0] = a * cos - b * sin;
        pair[1] = b * cos + a * sin;
      }
    }
  }
  expect_near(bench.read(x.tensor), want, std::vector<double>(want.size(), 4.0), bench.tolerance(), "neighbours that rotate");
}

void check_row_sizes(Backend& backend, WeightFormat weights, int64_t dim) {
  if (!backend.has(RareOp::kStreams)) return;
  constexpr int64_t kRows = 3;
  Bench bench(backend, weights, static_cast<uint32_t>(dim + 1));
  const Values x = bench.numbers({kRows, dim}), target = bench.numbers({kRows, dim}), wide = bench.numbers({kRows, 2 * dim});
  backend.match_size(x.tensor, target.tensor, 1e-5f);
  backend.cut_rows(Tensor(wide.tensor.data, bench.type(), {kRows, dim}), 2 * dim, 0.7f);
  std::vector<double> want, want_cut = wide.exact;
  for (int64_t r = 0; r < kRows; ++r) {
    double own = 0, wanted = 0, mean = 0, variance = 0;
    for (int64_t d = 0; d < dim; ++d) {
      own += x.exact[r * dim + d] * x.exact[r * dim + d] / static_cast<double>(dim);
      wanted += target.exact[r * dim + d] * target.exact[r * dim + d] / static_cast<double>(dim);
      mean += wide.exact[2 * r * dim + d] / static_cast<double>(dim);
    }
    for (int64_t d = 0; d < dim; ++d)
      variance += std::pow(wide.exact[2 * r * dim + d] - mean, 2) / static_cast<double>(dim);
    for (int64_t d = 0; d < dim; ++d) {
      want.push_back(x.exact[r * dim + d] * std::sqrt(wanted / own));
      want_cut[2 * r * dim + d] =
          std::max(0.0, wide.exact[2 * r * dim + d] - mean - double{0.7f} * std::sqrt(variance));
    }
  }
  const double tolerance = std::max(bench.tolerance(), 1e-5);
  expect_near(bench.read(x.tensor), want, std::vector<double>(want.size(), 1.0), tolerance, "rows of a size");
  expect_near(bench.read(wide.tensor), want_cut, std::vector<double>(want_cut.size(), 1.0), tolerance, "rows that are cut");
}

void check_xielu(Backend& backend, WeightFormat weights) {
  Bench bench(backend, weights, 17);
  const Values x = bench.numbers({5, 37}), alphas = bench.numbers({2}, DType::kF32);
  const Tensor out = bench.poison({5, 37}, bench.type());
  backend.xielu(x.tensor, alphas.tensor, out);
  std::vector<double> want, size;
  for (const double value : x.exact) {
    want.push_back(xielu_of(value, alphas.exact[0], alphas.exact[1]));
    size.push_back(1 + value * value);
  }
  expect_near(bench.read(out), want, size, std::max(bench.tolerance(), 1e-6), "xielu");
}

void check_soft_cap(Backend& backend, WeightFormat weights) {
  Bench bench(backend, weights, 13);
  for (const float cap : {0.3f, 50.0f}) {
    const Values x = bench.numbers({5, 37}, DType::kF32);
    backend.soft_cap(x.tensor, cap);
    std::vector<double> want, size(x.exact.size(), cap);
    for (const double value : x.exact) want.push_back(cap * std::tanh(value / cap));
    expect_near(bench.read(x.tensor), want, size, 1e-6, "soft cap");
  }
}

void check_gate(Backend& backend, WeightFormat weights, int64_t width, int64_t stride) {
  constexpr int64_t kRows = 3;
  Bench bench(backend, weights, static_cast<uint32_t>(stride));
  const Values x = bench.numbers({kRows, width}), up = bench.numbers({kRows, stride});
  std::vector<double> want;
  for (int64_t r = 0; r < kRows; ++r)
    for (int64_t i = 0; i < width; ++i)
      want.push_back(activated(Activation::kGeluTanh, x.exact[r * width + i]) * up.exact[r * stride + i]);
  backend.gate(Activation::kGeluTanh, x.tensor, width, Tensor(up.tensor.data, bench.type(), {kRows, width}),
               stride, x.tensor);
  expect_near(bench.read(x.tensor), want, std::vector<double>(want.size(), 0.02),
              std::max(bench.tolerance(), 1e-5), "gate");
}

void check_scaled_add(Backend& backend, WeightFormat weights, int64_t rows, int64_t dim) {
  Bench bench(backend, weights, 21);
  for (const DType type : {bench.type(), DType::kF32}) {
    const Values x = bench.numbers({rows, dim}, type), y = bench.numbers({rows, dim}, type);
    const std::vector<double> size(rows * dim, 1.0);
    std::vector<double> scaled, added;
    for (int64_t i = 0; i < rows * dim; ++i) {
      scaled.push_back(0.3 * x.exact[i]);
      added.push_back(scaled.back() + y.exact[i]);
    }
    const double tolerance = precision_of(type).relative;
    const Tensor out = bench.poison({rows, dim}, type);
    backend.scaled_add(x.tensor, 0.3f, Tensor(), out);
    expect_near(bench.read(out), scaled, size, tolerance, "scaled");
    backend.scaled_add(x.tensor, 0.3f, y.tensor, y.tensor);
    expect_near(bench.read(y.tensor), added, size, tolerance, "scaled and added");
  }
}

void check_clamp(Backend& backend, WeightFormat weights) {
  Bench bench(backend, weights, 31);
  const Values x = bench.numbers({3, 37});
  backend.clamp(x.tensor, 0.5f);
  std::vector<double> want;
  for (const double value : x.exact) want.push_back(std::clamp(value, -0.5, 0.5));
  expect_near(bench.read(x.tensor), want, std::vector<double>(want.size(), 0.0), 0, "clamped");
}

// Each head by a weight of its own, in rows that hold more.
void check_head_layer_norm(Backend& backend, WeightFormat weights, bool has_bias) {
  constexpr int64_t kRows = 3, kHeads = 3, kDim = 40, kStride = 168;
  Bench bench(backend, weights, 32);
  const Values rows = bench.numbers({kRows, kStride}), weight = bench.numbers({kHeads, kDim}, DType::kF32),
               bias = bench.numbers({kHeads, kDim}, DType::kF32);
  backend.head_layer_norm(Tensor(rows.tensor.data, bench.type(), {kRows, kHeads, kDim}), kStride, weight.tensor,
                          has_bias ? bias.tensor : Tensor(), 1e-5f);
  std::vector<double> want = rows.exact;
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t h = 0; h < kHeads; ++h) {
      double* const head = &want[r * kStride + h * kDim];
      const double mean = std::accumulate(head, head + kDim, 0.0) / kDim;
      double squares = 0;
      for (int64_t d = 0; d < kDim; ++d) squares += (head[d] - mean) * (head[d] - mean);
      const double scale = 1 / std::sqrt(squares / kDim + 1e-5);
      for (int64_t d = 0; d < kDim; ++d) head[d] = (head[d] - mean) * scale * weight.exact[h * kDim + d] + (has_bias ? bias.exact[h * kDim + d] : 0);
    }
  }
  expect_near(bench.read(rows.tensor), want, std::vector<double>(want.size(), 1.0), bench.tolerance(), "heads");
}

// Heads without a weight, or one that is as wide as many, in rows that hold more.
void check_head_norm(Backend& backend, WeightFormat weights, int64_t heads, int64_t dim, int64_t stride,
                     bool has_weight) {
  constexpr int64_t kRows = 3;
  Bench bench(backend, weights, static_cast<uint32_t>(dim));
  const Values rows = bench.numbers({kRows, stride}), weight = bench.numbers({dim}, DType::kF32);
  backend.head_rms_norm(Tensor(rows.tensor.data, bench.type(), {kRows, heads, dim}), stride,
                        has_weight ? weight.tensor : Tensor(), 1e-5f);
  std::vector<double> want = rows.exact;
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t h = 0; h < heads; ++h) {
      double* const head = &want[r * stride + h * dim];
      double squares = 0;
      for (int64_t d = 0; d < dim; ++d) squares += head[d] * head[d];
      const double scale = 1 / std::sqrt(squares / static_cast<double>(dim) + 1e-5);
      for (int64_t d = 0; d < dim; ++d) head[d] *= scale * (has_weight ? weight.exact[d] : 1);
    }
  }
  expect_near(bench.read(rows.tensor), want, std::vector<double>(want.size(), 0.0), bench.tolerance(), "head norm");
}

void check_rows(Backend& backend, WeightFormat weights) {
  Bench bench(backend, weights, 9);
  const auto context = backend.make_step_context(op_table_limits());
  std::vector<double> table, none;
  const LinearWeight w = bench.weight(37, 72, weights, false, table, none);
  const std::vector<int32_t> ids = {36, 0, 5}, positions = {0, 1, 2}, slots = {0, 1, 2}, row_start = {0, 3},
                             first_pos = {0}, blocks = {0}, rows = {2, 2, 0};
  ForwardInput input{.token_ids = ids, .positions = positions, .groups = {}};
  input.groups[0] = {.slots = slots.data(),
                     .attention = {.num_seqs = 1,
                                   .num_rows = 3,
                                   .row_start = row_start.data(),
                                   .first_pos = first_pos.data(),
                                   .block_table = blocks.data(),
                                   .table_stride = 1}};
  input.groups[1] = input.groups[0];
  context->begin_step(input);
  const Tensor out = bench.poison({3, 72}, bench.type()), some = bench.poison({3, 72}, bench.type());
  backend.embed(w, ids, 1.0f, out);
  backend.gather_rows(out, rows, some);
  std::vector<double> want, gathered, size(3 * 72, 0.0);
  for (const int32_t id : ids)
    want.insert(want.end(), table.begin() + id * 72, table.begin() + (id + 1) * 72);
  expect_near(bench.read(out), want, size, bench.tolerance(), "embed");
  const Tensor scaled = bench.poison({3, 72}, bench.type());
  backend.embed(w, ids, 2.5f, scaled);
  std::vector<double> larger = want;
  for (double& value : larger) value *= 2.5;
  expect_near(bench.read(scaled), larger, size, bench.tolerance(), "scaled embed");
  for (const int32_t r : rows)
    gathered.insert(gathered.end(), want.begin() + r * 72, want.begin() + (r + 1) * 72);
  expect_near(bench.read(some), gathered, size, bench.tolerance(), "gather");
}

}  // namespace

void add_row_cases(std::vector<OpCase>& cases) {
  for (const auto& [m, n, k] : std::vector<std::tuple<int, int, int>>{{1, 16, 32},
                                                                      {1, 33, 172},
                                                                      {2, 17, 8},
                                                                      {7, 130, 1032},
                                                                      {16, 65, 520},
                                                                      {17, 48, 72},
                                                                      {63, 40, 100},
                                                                      {129, 50, 64}}) {
    for (const bool has_bias : {false, true}) {
      cases.push_back({"linear_" + std::to_string(m) + "_" + std::to_string(n) + "_" + std::to_string(k) +
                           (has_bias ? "_bias" : ""),
                       [=](Backend& b, WeightFormat w) { check_linear(b, w, m, n, k, has_bias); }});
    }
  }
  for (const int dim : {1, 7, 64, 200, 1030}) {
    for (const bool has_x : {false, true})
      for (const Norm norm : {Norm::kRms, Norm::kRmsWithoutWeight, Norm::kLayer, Norm::kLayerWithBias,
                              Norm::kLayerWithoutWeight})
        cases.push_back({"norm_" + std::to_string(dim) + (has_x ? "_added" : "") + "_" +
                             std::to_string(static_cast<int>(norm)),
                         [=](Backend& b, WeightFormat w) { check_norm(b, w, 3, dim, has_x, norm); }});
  }
  for (const int width : {1, 12, 65, 300})
    cases.push_back({"activation_" + std::to_string(width),
                     [=](Backend& b, WeightFormat w) { check_activation(b, w, 3, width); }});
  for (const auto& [width, stride] : {std::pair{8, 24}, {65, 131}, {256, 1024}})
    cases.push_back({"gate_" + std::to_string(width),
                     [=](Backend& b, WeightFormat w) { check_gate(b, w, width, stride); }});
  for (const int dim : {1, 37, 4100})
    cases.push_back({"scaled_add_" + std::to_string(dim),
                     [=](Backend& b, WeightFormat w) { check_scaled_add(b, w, 3, dim); }});
  for (const auto& [dim, stride] : {std::pair{24, 31}, {64, 128}, {4096, 6144}})
    cases.push_back({"wide_head_norm_" + std::to_string(dim),
                     [=](Backend& b, WeightFormat w) { check_head_norm(b, w, 1, dim, stride, true); }});
  cases.push_back({"head_norm_without_weight",
                   [](Backend& b, WeightFormat w) { check_head_norm(b, w, 3, 40, 168, false); }});
  for (const bool has_bias : {false, true})
    cases.push_back({has_bias ? "head_layer_norm_bias" : "head_layer_norm",
                     [=](Backend& b, WeightFormat w) { check_head_layer_norm(b, w, has_bias); }});
  cases.push_back({"clamp", check_clamp});
  for (const int dim : {1, 37, 200}) {
    cases.push_back({"streams_" + std::to_string(dim), [=](Backend& b, WeightFormat w) { check_streams(b, w, dim); }});
    if (dim > 1)
      cases.push_back({"row_sizes_" + std::to_string(dim), [=](Backend& b, WeightFormat w) { check_row_sizes(b, w, dim); }});
  }
  for (const auto& [dim, count] : {std::pair{1, 1}, {37, 3}, {200, 4}})
    cases.push_back({"mixed_residuals_" + std::to_string(dim),
                     [=](Backend& b, WeightFormat w) { check_mixed_residuals(b, w, dim, count); }});
  for (const bool turns_back : {false, true})
    cases.push_back({turns_back ? "neighbours_turned_back" : "neighbours_turned",
                     [=](Backend& b, WeightFormat w) { check_neighbour_rotation(b, w, turns_back); }});
  cases.push_back({"xielu", check_xielu});
  cases.push_back({"soft_cap", check_soft_cap});
  cases.push_back({"rows", check_rows});
}

}  // namespace serval::testing
