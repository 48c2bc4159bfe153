// Op cases of recurrent layers.
#include "tests/kernels/op_bench.h"

namespace serval::testing {
namespace {

// A recurrent layer: sequences of which each has `past` positions computed by an earlier step and `rows` new ones;
// then all of them in one step from anew, and the last ones again from the last snapshot, which must give the same
// bits.
void check_recurrence(Backend& backend, WeightFormat weights, const std::vector<Seq>& seqs, int64_t channels,
                      int span, bool has_bias) {
  Bench bench(backend, weights, static_cast<uint32_t>(channels + span));
  const auto context = backend.make_step_context(op_table_limits());
  std::vector<int64_t> begin = {0};  // of each sequence's positions among all
  for (const Seq& s : seqs) begin.push_back(begin.back() + s.past + s.rows);
  const int64_t total = begin.back();
  const Values x_gate = bench.numbers({total, 2 * channels}), bc = bench.numbers({total, 2 * kScanStates}),
               dt = bench.numbers({total, channels}, DType::kF32, 2),
               weight = bench.numbers({kConvTaps, channels}, DType::kF32, 0.5f),
               bias = bench.numbers({channels}, DType::kF32), d = bench.numbers({channels}, DType::kF32);
  Values a = bench.numbers({kScanStates, channels}, DType::kF32);
  std::vector<float> negative;
  for (double& value : a.exact) negative.push_back(static_cast<float>(value = -std::abs(value) - 0.01));
  for (size_t i = 0; i < negative.size(); ++i) a.exact[i] = negative[i];
  backend.upload(a.tensor.data, negative.data(), negative.size() * sizeof(float));

  const int stride = kMaxLen / kBlockSize;
  KvLayer kv{.block_size = span, .state_channels = static_cast<int>(channels)};
  const auto blocks_of = [&](const Seq& s) { return (s.past + s.rows + span - 1) / span; };
  for (const Seq& s : seqs) kv.num_blocks += blocks_of(s);
  std::vector<int32_t> free(kv.num_blocks), table(seqs.size() * stride, -1);
  std::iota(free.begin(), free.end(), 0);
  std::shuffle(free.begin(), free.end(), bench.random());
  for (size_t s = 0; s < seqs.size(); ++s) {
    for (int b = 0; b < blocks_of(seqs[s]); ++b) {
      table[s * stride + b] = free.back();
      free.pop_back();
    }
  }
  std::vector<double> conv(total * channels), scan(total * channels);
  const auto forget = [&] {
    kv.keys = bench.poison({static_cast<int64_t>(kv.key_bytes()) / 4 * kv.num_blocks}, DType::kF32).data;
    kv.values = bench.poison({static_cast<int64_t>(kv.value_bytes()) / 4 * kv.num_blocks}, DType::kF32).data;
  };
  // Positions from `first` on of each sequence, `count` of them.
  const auto step = [&](const auto& first, const auto& count) {
    std::vector<int32_t> ids, positions, slots, row_start = {0}, first_pos, tables;
    std::vector<int64_t> rows;
    for (size_t s = 0; s < seqs.size(); ++s) {
      if (count(seqs[s]) == 0) continue;
      first_pos.push_back(first(seqs[s]));
      tables.insert(tables.end(), &table[s * stride], &table[s * stride] + stride);
      for (int p = first(seqs[s]); p < first(seqs[s]) + count(seqs[s]); ++p) {
        ids.push_back(0);
        positions.push_back(p);
        slots.push_back(-1);
        rows.push_back(begin[s] + p);
      }
      row_start.push_back(static_cast<int32_t>(ids.size()));
    }
    const auto num_rows = static_cast<int64_t>(ids.size());
    ForwardInput input{.token_ids = ids, .positions = positions, .groups = {}};
    input.groups[0] = {.slots = slots.data(),
                       .attention = {.num_seqs = static_cast<int>(first_pos.size()),
                                     .num_rows = static_cast<int>(num_rows),
                                     .row_start = row_start.data(),
                                     .first_pos = first_pos.data(),
                                     .block_table = tables.data(),
                                     .table_stride = stride}};
    input.groups[1] = input.groups[0];
    context->begin_step(input);
    const Tensor in = bench.rows_of(x_gate, rows), b_c = bench.rows_of(bc, rows);
    const Tensor convolved = bench.poison({num_rows, channels}, bench.type()),
                 out = bench.poison({num_rows, channels}, bench.type());
    const auto half = [&](const Tensor& both, int which) {
      const int64_t width = both.dim(1) / 2;
      return Tensor(both.at(which * width), both.dtype, {num_rows, width});
    };
    backend.causal_conv({.x = half(in, 0),
                         .x_stride = 2 * channels,
                         .weight = weight.tensor,
                         .bias = has_bias ? bias.tensor : Tensor(),
                         .kv = kv,
                         .batch = &input.groups[0].attention,
                         .out = convolved});
    backend.selective_scan({.u = convolved,
                            .dt = bench.rows_of(dt, rows),
                            .b = half(b_c, 0),
                            .c = half(b_c, 1),
                            .bc_stride = 2 * kScanStates,
                            .gate = half(in, 1),
                            .gate_stride = 2 * channels,
                            .a = a.tensor,
                            .d = d.tensor,
                            .kv = kv,
                            .batch = &input.groups[0].attention,
                            .out = out});
    const std::vector<double> u = bench.read(convolved), y = bench.read(out);
    for (int64_t r = 0; r < num_rows; ++r) {
      std::copy_n(u.begin() + r * channels, channels, conv.begin() + rows[r] * channels);
      std::copy_n(y.begin() + r * channels, channels, scan.begin() + rows[r] * channels);
    }
  };
  forget();
  step([](const Seq&) { return 0; }, [](const Seq& s) { return s.past; });
  step([](const Seq& s) { return s.past; }, [](const Seq& s) { return s.rows; });
  const std::vector<double> conv_in_two = conv, scan_in_two = scan;
  forget();
  step([](const Seq&) { return 0; }, [](const Seq& s) { return s.past + s.rows; });
  EXPECT_EQ(conv, conv_in_two) << "where a prompt is cut changes the convolution";
  EXPECT_EQ(scan, scan_in_two) << "where a prompt is cut changes the scan";
  const auto snapshot = [&](const Seq& s) { return (s.past + s.rows - 1) / span * span; };
  step(snapshot, [&](const Seq& s) { return s.past + s.rows - snapshot(s); });
  EXPECT_EQ(conv, conv_in_two) << "a snapshot is not what the convolution had come to";
  EXPECT_EQ(scan, scan_in_two) << "a snapshot is not what the scan had come to";

  const auto silu = [](double v) { return v / (1 + std::exp(-v)); };
  std::vector<double> want_conv, want_scan, conv_size, scan_size;
  for (size_t s = 0; s < seqs.size(); ++s) {
    std::vector<double> state(kScanStates * channels, 0.0);
    for (int64_t p = begin[s]; p < begin[s + 1]; ++p) {
      for (int64_t c = 0; c < channels; ++c) {
        double sum = has_bias ? bias.exact[c] : 0, size = std::abs(sum);
        for (int t = 0; t < kConvTaps; ++t) {
          const int64_t from = p - kConvTaps + 1 + t;
          if (from < begin[s]) continue;
          const double term = weight.exact[t * channels + c] * x_gate.exact[from * 2 * channels + c];
          sum += term;
          size += std::abs(term);
        }
        want_conv.push_back(silu(sum));
        conv_size.push_back(size);
        // From what the device's own convolution came to.
        const double u = conv[p * channels + c], step_size = std::log1p(std::exp(dt.exact[p * channels + c]));
        double y = d.exact[c] * u, terms = std::abs(y);
        for (int n = 0; n < kScanStates; ++n) {
          double& h = state[n * channels + c];
          h = h * std::exp(step_size * a.exact[n * channels + c]) +
              step_size * u * bc.exact[p * 2 * kScanStates + n];
          const double term = h * bc.exact[p * 2 * kScanStates + kScanStates + n];
          y += term;
          terms += std::abs(term);
        }
        const double gate = silu(x_gate.exact[p * 2 * channels + channels + c]);
        want_scan.push_back(y * gate);
        scan_size.push_back(terms * std::abs(gate));
      }
    }
  }
  const double tolerance = std::max(bench.tolerance(), 1e-5);
  for (double& size : conv_size) size *= 1e-5 / tolerance;
  for (double& size : scan_size) size *= 1e-4 / tolerance;  // what each step's decay errs by, over many steps
  expect_near(conv, want_conv, conv_size, tolerance, "causal_conv");
  expect_near(scan, want_scan, scan_size, tolerance, "selective_scan");
}

}  // namespace

void add_recurrence_cases(std::vector<OpCase>& cases) {
  for (const auto& [channels, span, has_bias] :
       std::vector<std::tuple<int, int, bool>>{{1, 16, true}, {37, 32, true}, {200, 64, false}}) {
    cases.push_back({"recurrence_" + std::to_string(channels), [=](Backend& b, WeightFormat w) {
                       check_recurrence(b, w, {{3, 1}, {0, 37}, {2 * span, 1}, {2 * span - 1, span + 2}, {90, 5}},
                                        channels, span, has_bias);
                     }});
  }
}

}  // namespace serval::testing
