// Op cases of recurrent layers.
#include <functional>

#include "tests/kernels/op_bench.h"

namespace serval::testing {
namespace {

double silu(double v) {
  return v / (1 + std::exp(-v));
}

// Negative numbers of f32.
Values negatives(Bench& bench, Backend& backend, std::initializer_list<int64_t> shape) {
  Values values = bench.numbers(shape, DType::kF32);
  std::vector<float> stored;
  for (double& value : values.exact) {
    stored.push_back(static_cast<float>(-std::abs(value) - 0.01));
    value = stored.back();
  }
  backend.upload(values.tensor.data, stored.data(), stored.size() * sizeof(float));
  return values;
}

// Some sequences of a recurrent layer, whose positions lie one sequence after another in all arrays. They are computed in
// two steps (of each `past` positions, then `rows`), in one, and their last rows again from the last snapshot,
// which must give the same bits.
class StateRun {
 public:
  // of_rows(rows, batch, kv): runs the layer over these of all positions, and reads [rows, width] of each output.
  using Run = std::function<std::vector<std::vector<double>>(const std::vector<int64_t>& rows,
                                                             const AttentionBatch& batch, const KvLayer& kv)>;

  StateRun(Backend& backend, Bench& bench, std::vector<Seq> seqs, int span)
      : backend_(backend), bench_(bench), seqs_(std::move(seqs)), span_(span) {
    for (const Seq& s : seqs_) begin_.push_back(begin_.back() + s.past + s.rows);
  }

  int64_t total() const { return begin_.back(); }
  size_t num_seqs() const { return seqs_.size(); }
  int64_t begin(size_t seq) const { return begin_[seq]; }

  // Every position's outputs. kv: the sizes of what the layer keeps.
  std::vector<std::vector<double>> check(KvLayer kv, const Run& run, const std::string& what) {
    const auto context = backend_.make_step_context(op_table_limits());
    const int stride = kMaxLen / kBlockSize;
    kv.block_size = span_;
    const auto blocks_of = [&](const Seq& s) { return (s.past + s.rows + span_ - 1) / span_; };
    for (const Seq& s : seqs_) kv.num_blocks += blocks_of(s);
    std::vector<int32_t> free(kv.num_blocks), table(seqs_.size() * stride, -1);
    std::iota(free.begin(), free.end(), 0);
    std::shuffle(free.begin(), free.end(), bench_.random());
    for (size_t s = 0; s < seqs_.size(); ++s) {
      for (int b = 0; b < blocks_of(seqs_[s]); ++b) {
        table[s * stride + b] = free.back();
        free.pop_back();
      }
    }
    std::vector<std::vector<double>> all;
    const auto forget = [&] {
      kv.keys = bench_.poison({kv.conv_floats * kv.num_blocks}, DType::kF32).data;
      kv.values = bench_.poison({kv.scan_floats * kv.num_blocks}, DType::kF32).data;
    };
    // Positions from `first` on of each sequence, `count` of them, the last `guesses` of which leave the state as it is.
    const auto step = [&](const auto& first, const auto& count, const auto& guesses) {
      std::vector<int32_t> ids, positions, slots, row_start = {0}, first_pos, tables;
      std::vector<int64_t> rows;
      for (size_t s = 0; s < seqs_.size(); ++s) {
        if (count(seqs_[s]) == 0) continue;
        first_pos.push_back(first(seqs_[s]));
        tables.insert(tables.end(), &table[s * stride], &table[s * stride] + stride);
        const int end = first(seqs_[s]) + count(seqs_[s]);
        for (int p = first(seqs_[s]); p < end; ++p) {
          ids.push_back(0);
          positions.push_back(p);
          slots.push_back(p < end - guesses(seqs_[s]) ? 0 : -1);
          rows.push_back(begin_[s] + p);
        }
        row_start.push_back(static_cast<int32_t>(ids.size()));
      }
      ForwardInput input{.token_ids = ids, .positions = positions, .groups = {}};
      for (KvGroupInput& group : input.groups)
        group = {.slots = slots.data(),
                 .attention = {.num_seqs = static_cast<int>(first_pos.size()),
                               .num_rows = static_cast<int>(ids.size()),
                               .row_start = row_start.data(),
                               .first_pos = first_pos.data(),
                               .block_table = tables.data(),
                               .table_stride = stride,
                               .state_slots = slots.data()}};
      context->begin_step(input);
      const std::vector<std::vector<double>> outputs = run(rows, input.groups[0].attention, kv);
      all.resize(outputs.size());
      for (size_t o = 0; o < outputs.size(); ++o) {
        const size_t width = outputs[o].size() / rows.size();
        all[o].resize(total() * width);
        for (size_t r = 0; r < rows.size(); ++r)
          std::copy_n(outputs[o].begin() + r * width, width, all[o].begin() + rows[r] * width);
      }
    };
    const auto zero = [](const Seq&) { return 0; };
    const auto past = [](const Seq& s) { return s.past; };
    forget();
    step(zero, past, zero);
    step(past, [](const Seq& s) { return s.rows; }, zero);
    const std::vector<std::vector<double>> in_two = all;
    forget();
    step(zero, [](const Seq& s) { return s.past + s.rows; }, zero);
    EXPECT_EQ(all, in_two) << what << ": where a prompt is cut changes it";
    const auto snapshot = [&](const Seq& s) { return (s.past + s.rows - 1) / span_ * span_; };
    step(snapshot, [&](const Seq& s) { return s.past + s.rows - snapshot(s); }, zero);
    EXPECT_EQ(all, in_two) << what << ": a snapshot is not what it had come to";
    forget();
    step(zero, past, zero);
    const auto guesses = [](const Seq& s) { return s.rows / 2; };
    step(past, [](const Seq& s) { return s.rows; }, guesses);
    EXPECT_EQ(all, in_two) << what << ": guesses are computed otherwise";
    step([&](const Seq& s) { return s.past + s.rows - guesses(s); }, guesses, zero);
    EXPECT_EQ(all, in_two) << what << ": the state has taken guesses in";
    return all;
  }

 private:
  Backend& backend_;
  Bench& bench_;
  std::vector<Seq> seqs_;
  int span_;
  std::vector<int64_t> begin_ = {0};
};

std::vector<Seq> seqs_of(int span) {
  return {{3, 1}, {0, 37}, {2 * span, 1}, {2 * span - 1, span + 2}, {90, 5}};
}

struct SelectiveCase {
  int channels, span;
  bool has_bias;
  int taps, num_states;
  bool is_gated = false;  // the convolution, in place of its SiLU
  int heads = 1;
};

// A convolution and what its channels' scan makes of it.
void check_selective(Backend& backend, WeightFormat weights, const SelectiveCase& test) {
  if (test.heads > 1 && !backend.has(RareOp::kHeadScan)) return;
  const auto& [width, span, has_bias, taps, num_states, is_gated, heads] = test;
  const int64_t channels = width;
  Bench bench(backend, weights, static_cast<uint32_t>(channels + span));
  StateRun state(backend, bench, seqs_of(span), span);
  const int64_t total = state.total();
  const Values x_gate = bench.numbers({total, 2 * channels}), bc = bench.numbers({total, int64_t{heads} * 2 * num_states}),
               dt = bench.numbers({total, channels}, DType::kF32, 2),
               weight = bench.numbers({taps, channels}, DType::kF32, 0.5f),
               bias = bench.numbers({channels}, DType::kF32), d = bench.numbers({channels}, DType::kF32),
               a = negatives(bench, backend, {num_states, channels});
  const auto run = [&](const std::vector<int64_t>& rows, const AttentionBatch& batch, const KvLayer& kv) {
    const auto num_rows = static_cast<int64_t>(rows.size());
    const Tensor in = bench.rows_of(x_gate, rows), b_c = bench.rows_of(bc, rows);
    const Tensor convolved = bench.poison({num_rows, channels}, bench.type()),
                 out = bench.poison({num_rows, channels}, bench.type());
    const auto half = [&](const Tensor& both, int which) {
      return Tensor(both.at(which * both.dim(1) / 2), both.dtype, {num_rows, both.dim(1) / 2});
    };
    backend.causal_conv({.x = half(in, 0),
                         .in_gate = is_gated ? half(in, 1) : Tensor(),
                         .out_gate = is_gated ? half(in, 1) : Tensor(),
                         .x_stride = 2 * channels,
                         .weight = weight.tensor,
                         .bias = has_bias ? bias.tensor : Tensor(),
                         .has_silu = !is_gated,
                         .kv = kv,
                         .batch = &batch,
                         .out = convolved});
    backend.selective_scan({.u = convolved,
                            .dt = bench.rows_of(dt, rows),
                            .b = Tensor(b_c.data, b_c.dtype, {num_rows, num_states}),
                            .c = Tensor(b_c.at(num_states), b_c.dtype, {num_rows, num_states}),
                            .bc_stride = b_c.dim(1),
                            .heads = heads,
                            .bc_head_stride = 2 * num_states,
                            .gate = half(in, 1),
                            .gate_stride = 2 * channels,
                            .a = a.tensor,
                            .d = d.tensor,
                            .kv = kv,
                            .batch = &batch,
                            .out = out});
    return std::vector{bench.read(convolved), bench.read(out)};
  };
  const auto outputs = state.check({.conv_floats = (taps - 1) * channels, .scan_floats = num_states * channels}, run,
                                   "a selective scan");
  const std::vector<double>&conv = outputs[0], &scan = outputs[1];

  std::vector<double> want_conv, want_scan, conv_size, scan_size;
  for (size_t s = 0; s < state.num_seqs(); ++s) {
    std::vector<double> states(num_states * channels, 0.0);
    for (int64_t p = state.begin(s); p < state.begin(s + 1); ++p) {
      for (int64_t c = 0; c < channels; ++c) {
        const auto gate_of = [&](int64_t at) { return x_gate.exact[(2 * at + 1) * channels + c]; };
        double sum = has_bias ? bias.exact[c] : 0, size = std::abs(sum);
        for (int t = 0; t < taps; ++t) {
          const int64_t from = p - taps + 1 + t;
          if (from < state.begin(s)) continue;
          const double term = weight.exact[t * channels + c] * x_gate.exact[2 * from * channels + c] *
                              (is_gated ? gate_of(from) : 1);
          sum += term;
          size += std::abs(term);
        }
        want_conv.push_back(is_gated ? sum * gate_of(p) : silu(sum));
        conv_size.push_back(is_gated ? size * std::abs(gate_of(p)) : size);
        // From what the device's own convolution came to.
        const double u = conv[p * channels + c], step_size = std::log1p(std::exp(dt.exact[p * channels + c]));
        double y = d.exact[c] * u, terms = std::abs(y);
        const int64_t of_head = (p * heads + c / (channels / heads)) * 2 * num_states;
        for (int n = 0; n < num_states; ++n) {
          double& h = states[n * channels + c];
          h = h * std::exp(step_size * a.exact[n * channels + c]) +
              step_size * u * bc.exact[of_head + n];
          const double term = h * bc.exact[of_head + num_states + n];
          y += term;
          terms += std::abs(term);
        }
        want_scan.push_back(y * silu(gate_of(p)));
        scan_size.push_back(terms * std::abs(silu(gate_of(p))));
      }
    }
  }
  const double tolerance = std::max(bench.tolerance(), 1e-5);
  for (double& size : conv_size) size *= 1e-5 / tolerance;
  for (double& size : scan_size) size *= 1e-4 / tolerance;  // what each step's decay errs by, over many steps
  expect_near(conv, want_conv, conv_size, tolerance, "causal_conv");
  expect_near(scan, want_scan, scan_size, tolerance, "selective_scan");
}

void check_gated_scan(Backend& backend, WeightFormat weights, int64_t channels, int span) {
  if (!backend.has(RareOp::kGatedScan)) return;
  Bench bench(backend, weights, static_cast<uint32_t>(channels + span));
  StateRun state(backend, bench, seqs_of(span), span);
  const int64_t total = state.total();
  const Values x = bench.numbers({total, channels}), in_gate = bench.numbers({total, channels}),
               decay_gate = bench.numbers({total, channels}), in_bias = bench.numbers({channels}, DType::kF32),
               decay_bias = bench.numbers({channels}, DType::kF32), rate = negatives(bench, backend, {channels});
  const auto run = [&](const std::vector<int64_t>& rows, const AttentionBatch& batch, const KvLayer& kv) {
    const Tensor out = bench.poison({static_cast<int64_t>(rows.size()), channels}, bench.type());
    backend.gated_scan({.x = bench.rows_of(x, rows),
                        .in_gate = bench.rows_of(in_gate, rows),
                        .decay_gate = bench.rows_of(decay_gate, rows),
                        .in_bias = in_bias.tensor,
                        .decay_bias = decay_bias.tensor,
                        .rate = rate.tensor,
                        .kv = kv,
                        .batch = &batch,
                        .out = out});
    return std::vector<std::vector<double>>{bench.read(out)};
  };
  const std::vector<double> got = state.check({.scan_floats = channels}, run, "a gated scan")[0];
  const auto sigmoid = [](double v) { return 1 / (1 + std::exp(-v)); };
  std::vector<double> want, size;
  for (size_t s = 0; s < state.num_seqs(); ++s) {
    std::vector<double> h(channels, 0.0);
    for (int64_t p = state.begin(s); p < state.begin(s + 1); ++p) {
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t at = p * channels + c;
        const double a = std::exp(rate.exact[c] * sigmoid(decay_gate.exact[at] + decay_bias.exact[c]));
        const double input = sigmoid(in_gate.exact[at] + in_bias.exact[c]) * x.exact[at];
        h[c] = p == state.begin(s) ? input : a * h[c] + std::sqrt(1 - a * a) * input;
        want.push_back(h[c]);
        size.push_back(1);
      }
    }
  }
  expect_near(got, want, size, std::max(bench.tolerance(), 1e-5), "gated_scan");
}

void check_mean_scan(Backend& backend, WeightFormat weights, int64_t channels, int span) {
  if (!backend.has(RareOp::kMeanScan)) return;
  Bench bench(backend, weights, static_cast<uint32_t>(channels + span));
  StateRun state(backend, bench, seqs_of(span), span);
  const int64_t total = state.total();
  const Values k = bench.numbers({total, channels}), v = bench.numbers({total, channels}),
               first = bench.numbers({channels}, DType::kF32), decay = negatives(bench, backend, {channels});
  const auto run = [&](const std::vector<int64_t>& rows, const AttentionBatch& batch, const KvLayer& kv) {
    const Tensor out = bench.poison({static_cast<int64_t>(rows.size()), channels}, bench.type());
    backend.mean_scan({.k = bench.rows_of(k, rows),
                       .v = bench.rows_of(v, rows),
                       .decay = decay.tensor,
                       .first = first.tensor,
                       .kv = kv,
                       .batch = &batch,
                       .out = out});
    return std::vector<std::vector<double>>{bench.read(out)};
  };
  const std::vector<double> got = state.check({.scan_floats = 3 * channels}, run, "a scan of means")[0];
  std::vector<double> want;
  for (size_t s = 0; s < state.num_seqs(); ++s) {
    std::vector<double> num(channels, 0.0), den(channels, 0.0);
    for (int64_t p = state.begin(s); p < state.begin(s + 1); ++p) {
      for (int64_t c = 0; c < channels; ++c) {
        const double x = v.exact[p * channels + c], key = k.exact[p * channels + c], own = std::exp(first.exact[c] + key);
        want.push_back((num[c] + own * x) / (den[c] + own));
        num[c] = num[c] * std::exp(decay.exact[c]) + std::exp(key) * x;
        den[c] = den[c] * std::exp(decay.exact[c]) + std::exp(key);
      }
    }
  }
  expect_near(got, want, std::vector<double>(want.size(), 1.0), std::max(bench.tolerance(), 1e-5), "mean_scan");
}

void check_replacing_scan(Backend& backend, WeightFormat weights, int64_t heads, int64_t dim, int span) {
  if (!backend.has(RareOp::kReplacingScan)) return;
  const int64_t width = heads * dim;
  Bench bench(backend, weights, static_cast<uint32_t>(width + span));
  StateRun state(backend, bench, seqs_of(span), span);
  const int64_t total = state.total();
  const Values r = bench.numbers({total, width}), k = bench.numbers({total, width}), v = bench.numbers({total, width}),
               raw_decay = bench.numbers({total, width}, DType::kF32), raw_rate = bench.numbers({total, width}, DType::kF32),
               key_scale = bench.numbers({width}, DType::kF32), key_rate = bench.numbers({width}, DType::kF32),
               bonus = bench.numbers({width}, DType::kF32);
  // Within 0 and 1, where decays and rates are.
  const auto between = [&](const Values& x, double low) {
    Values values = x;
    std::vector<float> stored;
    for (double& value : values.exact) {
      stored.push_back(static_cast<float>(low + (1 - low) / (1 + std::exp(-value))));
      value = stored.back();
    }
    backend.upload(values.tensor.data, stored.data(), stored.size() * sizeof(float));
    return values;
  };
  const Values decay = between(raw_decay, 0.5), rate = between(raw_rate, 0);
  const auto run = [&](const std::vector<int64_t>& rows, const AttentionBatch& batch, const KvLayer& kv) {
    const auto count = static_cast<int64_t>(rows.size());
    const auto of_heads = [&](const Values& x) {
      const Tensor picked = bench.rows_of(x, rows);
      return Tensor(picked.data, picked.dtype, {count, heads, dim});
    };
    const Tensor out = bench.poison({count, width}, bench.type()), direct = bench.poison({count, width}, bench.type());
    backend.replacing_scan({.r = of_heads(r),
                            .k = of_heads(k),
                            .v = of_heads(v),
                            .decay = bench.rows_of(decay, rows),
                            .rate = bench.rows_of(rate, rows),
                            .key_scale = key_scale.tensor,
                            .key_rate = key_rate.tensor,
                            .bonus = bonus.tensor,
                            .length_eps = 1e-2f,
                            .kv = kv,
                            .batch = &batch,
                            .out = out,
                            .direct = direct});
    return std::vector{bench.read(out), bench.read(direct)};
  };
  const auto got = state.check({.scan_floats = width * dim}, run, "a scan that replaces");
  std::vector<double> want, want_direct, size;
  for (size_t s = 0; s < state.num_seqs(); ++s) {
    std::vector<double> states(width * dim, 0.0);
    for (int64_t p = state.begin(s); p < state.begin(s + 1); ++p) {
      for (int64_t h = 0; h < heads; ++h) {
        const auto of = [&](const Values& x, int64_t n) { return x.exact[p * width + h * dim + n]; };
        std::vector<double> unit(dim), added(dim);
        double squares = double{1e-2f}, product = 0;
        for (int64_t n = 0; n < dim; ++n) {
          unit[n] = of(k, n) * key_scale.exact[h * dim + n];
          squares += unit[n] * unit[n];
          added[n] = of(k, n) * (1 + (of(rate, n) - 1) * key_rate.exact[h * dim + n]);
          product += of(r, n) * added[n] * bonus.exact[h * dim + n];
        }
        for (double& one : unit) one /= std::sqrt(squares);
        for (int64_t j = 0; j < dim; ++j) {
          double held = 0, y = 0, terms = 0;
          for (int64_t n = 0; n < dim; ++n) held += states[(h * dim + n) * dim + j] * unit[n];
          for (int64_t n = 0; n < dim; ++n) {
            double& one = states[(h * dim + n) * dim + j];
            one = one * of(decay, n) - held * unit[n] * of(rate, n) + added[n] * of(v, j);
            y += one * of(r, n);
            terms += std::abs(one * of(r, n)) + std::abs(added[n] * of(v, j) * of(r, n));
          }
          want.push_back(y);
          size.push_back(terms);
          want_direct.push_back(product * of(v, j));
        }
      }
    }
  }
  const double tolerance = std::max(bench.tolerance(), 1e-5);
  for (double& terms : size) terms = (terms + 1) * 1e-4 / tolerance;
  expect_near(got[0], want, size, tolerance, "replacing_scan");
  expect_near(got[1], want_direct, std::vector<double>(want.size(), static_cast<double>(dim)), tolerance, "direct part of replacing_scan");
}

struct LinearCase {
  int key_heads, heads, keys, values, span;
  bool has_delta_rule, decays_by_key, has_strength, has_skip, is_constant = false;
  float lower_bound = 0;
};

// The scan of matrix states and what gates it.
void check_linear(Backend& backend, WeightFormat weights, const LinearCase& test) {
  if (!backend.has(RareOp::kLinearScan)) return;
  const int64_t heads = test.heads, keys = test.keys, values = test.values, key_width = test.key_heads * keys;
  const int64_t width = 2 * key_width + heads * values, decays = test.decays_by_key ? heads * keys : heads;
  Bench bench(backend, weights, static_cast<uint32_t>(width));
  StateRun state(backend, bench, seqs_of(test.span), test.span);
  const int64_t total = state.total();
  const Values qkv = bench.numbers({total, width}, bench.type(), 0.1f), x = bench.numbers({total, decays + heads}),
               bias = bench.numbers({decays}, DType::kF32), rate = negatives(bench, backend, {heads}),
               skip = bench.numbers({heads}, DType::kF32), constant = [&] {
                 Values values = negatives(bench, backend, {1, decays});
                 std::vector<float> stored;
                 for (double& v : values.exact) v = stored.emplace_back(static_cast<float>(std::exp(v)));
                 backend.upload(values.tensor.data, stored.data(), stored.size() * sizeof(float));
                 return values;
               }();
  const float scale = 0.7f;
  const bool has_beta = test.has_strength && (test.has_delta_rule || test.decays_by_key);
  const auto run = [&](const std::vector<int64_t>& rows, const AttentionBatch& batch, const KvLayer& kv) {
    const auto num_rows = static_cast<int64_t>(rows.size());
    const Tensor in = bench.rows_of(qkv, rows), raw = bench.rows_of(x, rows);
    const Tensor decay = bench.poison({num_rows, decays}, DType::kF32),
                 strength = bench.poison({num_rows, has_beta ? heads : decays}, DType::kF32),
                 out = bench.poison({num_rows, heads * values}, bench.type());
    backend.scan_gates({.x = Tensor(raw.data, raw.dtype, {num_rows, decays}),
                        .x_stride = decays + heads,
                        .beta = has_beta ? Tensor(raw.at(decays), raw.dtype, {num_rows, heads}) : Tensor(),
                        .beta_stride = decays + heads,
                        .bias = bias.tensor,
                        .rate = rate.tensor,
                        .x_scale = 0.9f,
                        .least = 0.1f,
                        .most = 1.5f,
                        .lower_bound = test.lower_bound,
                        .beta_scale = 2,
                        .decay = decay,
                        .strength = strength});
    backend.linear_scan({.q = Tensor(in.data, in.dtype, {num_rows, test.key_heads, keys}),
                         .k = Tensor(in.at(key_width), in.dtype, {num_rows, test.key_heads, keys}),
                         .v = Tensor(in.at(2 * key_width), in.dtype, {num_rows, heads, values}),
                         .qkv_stride = width,
                         .decay = test.is_constant ? constant.tensor : decay,
                         .strength = test.has_strength ? strength : Tensor(),
                         .has_delta_rule = test.has_delta_rule,
                         .scale = scale,
                         .skip = test.has_skip ? skip.tensor : Tensor(),
                         .kv = kv,
                         .batch = &batch,
                         .out = out});
    return std::vector{bench.read(out), bench.read(decay), bench.read(strength)};
  };
  const auto outputs = state.check({.scan_floats = heads * keys * values}, run, "a linear scan");
  const std::vector<double>&got = outputs[0], &decay = outputs[1], &strength = outputs[2];

  std::vector<double> want, sizes, want_decay, want_strength;
  for (int64_t p = 0; p < total; ++p) {
    for (int64_t i = 0; i < decays; ++i) {
      const double raw = double{0.9f} * x.exact[p * (decays + heads) + i] + bias.exact[i];
      const double step = std::clamp(std::log1p(std::exp(raw)), 0.1, 1.5), own = rate.exact[i / (decays / heads)];
      const double logarithm = test.lower_bound != 0 ? test.lower_bound / (1 + std::exp(own * raw)) : own * step;
      want_decay.push_back(std::exp(logarithm));
      if (!has_beta) want_strength.push_back(step);
    }
    for (int64_t h = 0; h < heads && has_beta; ++h)
      want_strength.push_back(2 / (1 + std::exp(-x.exact[p * (decays + heads) + decays + h])));
  }
  for (size_t s = 0; s < state.num_seqs(); ++s) {
    std::vector<double> states(heads * keys * values, 0.0);
    for (int64_t p = state.begin(s); p < state.begin(s + 1); ++p) {
      for (int64_t h = 0; h < heads; ++h) {
        const double* const q = &qkv.exact[p * width + h * test.key_heads / heads * keys];
        const double *const k = q + key_width, *const v = &qkv.exact[p * width + 2 * key_width + h * values];
        for (int64_t j = 0; j < values; ++j) {
          double m = 0, y = 0, terms = 0;
          for (int64_t n = 0; n < keys; ++n) {
            const int64_t at = test.decays_by_key ? h * keys + n : h;
            double& one = states[(h * keys + n) * values + j];
            one *= test.is_constant ? constant.exact[at] : decay[p * decays + at];
            m += one * k[n];
          }
          const double own = test.has_strength ? strength[p * heads + h] : 1;
          for (int64_t n = 0; n < keys; ++n) {
            double& one = states[(h * keys + n) * values + j];
            one += k[n] * own * (v[j] - (test.has_delta_rule ? m : 0));
            y += one * q[n];
            terms += std::abs(one * q[n]) + std::abs(k[n] * own * v[j] * q[n]);
          }
          const double skipped = test.has_skip ? skip.exact[h] * v[j] : 0;
          want.push_back(scale * y + skipped);
          sizes.push_back(terms + std::abs(skipped));
        }
      }
    }
  }
  const double tolerance = std::max(bench.tolerance(), 1e-5);
  for (double& size : sizes) size *= 1e-4 / tolerance;
  expect_near(got, want, sizes, tolerance, "linear_scan");
  expect_near(decay, want_decay, std::vector<double>(want_decay.size(), 1), 1e-6, "decay");
  expect_near(strength, want_strength, std::vector<double>(want_strength.size(), 1), 1e-6, "strength");
}

}  // namespace

void add_recurrence_cases(std::vector<OpCase>& cases) {
  for (const auto& [channels, span] : {std::pair{7, 32}, {40, 64}, {300, 16}}) {
    cases.push_back({"gated_scan_" + std::to_string(channels),
                     [=](Backend& b, WeightFormat w) { check_gated_scan(b, w, channels, span); }});
    cases.push_back({"mean_scan_" + std::to_string(channels),
                     [=](Backend& b, WeightFormat w) { check_mean_scan(b, w, channels, span); }});
  }
  for (const auto& [heads, dim, span] : {std::tuple{1, 7, 32}, {3, 64, 64}, {2, 100, 16}})
    cases.push_back({"replacing_scan_" + std::to_string(dim),
                     [=](Backend& b, WeightFormat w) { check_replacing_scan(b, w, heads, dim, span); }});
  for (const SelectiveCase& test : std::vector<SelectiveCase>{{1, 16, true, 4, 16},
                                                             {37, 32, true, 3, 5, true},
                                                             {200, 64, false, 2, 32},
                                                             {285, 32, true, 4, 16, false, 3},
                                                             {70, 32, false, 8, 16, true}}) {
    cases.push_back({"selective_scan_" + std::to_string(test.channels),
                     [=](Backend& b, WeightFormat w) { check_selective(b, w, test); }});
  }
  for (const auto& [name, test] : std::vector<std::pair<std::string, LinearCase>>{
           {"mamba2", {2, 6, 24, 40, 32, false, false, true, true}},
           {"gated_delta", {2, 4, 64, 37, 32, true, false, true, false}},
           {"delta_by_key", {3, 3, 16, 16, 64, true, true, true, false}},
           {"gated", {2, 2, 128, 9, 32, false, true, false, false}},
           {"bounded", {2, 2, 24, 40, 32, true, true, true, false, false, -3.0f}},
           {"lightning", {4, 4, 8, 33, 32, false, false, false, false, true}}}) {
    cases.push_back({"linear_scan_" + name, [=](Backend& b, WeightFormat w) { check_linear(b, w, test); }});
  }
}

}  // namespace serval::testing
