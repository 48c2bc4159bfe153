// Norms, rotary embedding, gates and row copies: one row at a time, rows spread over the pool.
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/base/check.h"
#include "kernels/cpu/cpu_backend.h"

namespace serval::cpu {

void CpuBackend::add_rms_norm(const Tensor& residual, const Tensor& x, const Tensor& weight, float eps,
                              const Tensor& out) {
  const int64_t dim = residual.dim(1);
  SERVAL_CHECK(weight.data == nullptr || (weight.dtype == DType::kF32 && weight.num_elements() == dim), dtype_name(weight.dtype),
               weight.num_elements(), dim);
  for_rows(residual.dim(0), dim, [&](int64_t r) {
    kernels_.rms_norm(residual.as<float>() + r * dim, x.data == nullptr ? nullptr : x.as<float>() + r * dim,
                      weight.as<float>(), eps, out.as<float>() + r * dim, dim);
  });
}

void CpuBackend::add_layer_norm(const Tensor& residual, const Tensor& x, const Tensor& weight,
                                const Tensor& bias, float eps, const Tensor& out) {
  const int64_t dim = residual.dim(1);
  SERVAL_CHECK((weight.data == nullptr || (weight.dtype == DType::kF32 && weight.num_elements() == dim)) &&
                   (bias.data == nullptr || bias.num_elements() == dim),
               dtype_name(weight.dtype), weight.num_elements(), bias.num_elements(), dim);
  for_rows(residual.dim(0), 2 * dim, [&](int64_t r) {
    kernels_.layer_norm(residual.as<float>() + r * dim, x.data == nullptr ? nullptr : x.as<float>() + r * dim,
                        weight.as<float>(), bias.as<float>(), eps, out.as<float>() + r * dim, dim);
  });
}

void CpuBackend::head_rms_norm(const Tensor& x, int64_t row_stride, const Tensor& weight, float eps) {
  const int64_t heads = x.dim(1), head_dim = x.dim(2);
  SERVAL_CHECK(weight.data == nullptr || (weight.dtype == DType::kF32 && weight.num_elements() == head_dim),
               weight.num_elements(),
               head_dim);
  for_rows(x.dim(0), heads * head_dim, [&](int64_t r) {
    for (int64_t h = 0; h < heads; ++h) {
      float* const head = x.as<float>() + r * row_stride + h * head_dim;
      kernels_.rms_norm(head, nullptr, weight.as<float>(), eps, head, head_dim);
    }
  });
}

void CpuBackend::head_layer_norm(const Tensor& x, int64_t row_stride, const Tensor& weight, const Tensor& bias, float eps) {
  const int64_t heads = x.dim(1), head_dim = x.dim(2);
  SERVAL_CHECK(weight.dtype == DType::kF32 && weight.num_elements() == heads * head_dim, weight.num_elements(), heads,
               head_dim);
  for_rows(x.dim(0), 2 * heads * head_dim, [&](int64_t r) {
    for (int64_t h = 0; h < heads; ++h) {
      float* const head = x.as<float>() + r * row_stride + h * head_dim;
      const float* const own_bias = bias.data == nullptr ? nullptr : bias.as<float>() + h * head_dim;
      kernels_.layer_norm(head, nullptr, weight.as<float>() + h * head_dim, own_bias, eps, head, head_dim);
    }
  });
}

void CpuBackend::clamp(const Tensor& x, float limit) {
  const int64_t dim = x.dim(1);
  for_rows(x.dim(0), dim, [&](int64_t r) { kernels_.clamp(x.as<float>() + r * dim, limit, dim); });
}

void CpuBackend::rope(const RopeArgs& args) {
  const int64_t heads = args.x.dim(1), head_dim = args.x.dim(2), half = args.rotary_dim / 2;
  SERVAL_CHECK(args.rotary_dim > 0 && args.rotary_dim % 2 == 0 && args.rotary_dim <= head_dim &&
                   args.cos_sin.dim(1) == args.rotary_dim,
               args.rotary_dim, head_dim, args.cos_sin.dim(1));
  for_rows(args.x.dim(0), heads * head_dim, [&](int64_t r) {
    const int32_t position = args.positions[r];
    SERVAL_CHECK(position >= 0 && position < args.cos_sin.dim(0), position, args.cos_sin.dim(0));
    const float* const cos = args.cos_sin.as<float>() + position * args.rotary_dim;
    for (int64_t h = 0; h < heads; ++h) {
      float* const head = args.x.as<float>() + r * args.row_stride + h * head_dim;
      if (args.has_neighbour_pairs) kernels_.rotate_neighbours(head, cos, cos + half, args.turns_back ? -1 : 1, half);
      else kernels_.rotate(head, cos, cos + half, half);
    }
  });
}

void CpuBackend::copy_heads(const CopyHeadsArgs& args) {
  const int64_t heads = args.out.dim(1), dim = args.out.dim(2);
  const float* const x = args.x.as<float>();
  SERVAL_CHECK(x == nullptr || (args.x.dim(1) == heads && args.x.dim(2) == dim), args.x.dim(1), heads, dim);
  for_rows(args.out.dim(0), heads * dim, [&](int64_t r) {
    for (int64_t h = 0; h < heads; ++h) {
      float* const out = args.out.as<float>() + r * args.out_row_stride + h * args.out_head_stride;
      if (x == nullptr) std::fill_n(out, dim, 0.0f);
      else std::copy_n(x + r * args.x_row_stride + h * args.x_head_stride, dim, out);
    }
  });
}

void CpuBackend::gated_activation(Activation act, const Tensor& gate_up, const Tensor& out) {
  const int64_t f = out.dim(1);
  SERVAL_CHECK(gate_up.dim(1) == 2 * f && gate_up.dim(0) == out.dim(0), gate_up.dim(1), f);
  const auto gate = kernels_.gate[static_cast<int>(act)];
  for_rows(out.dim(0), 4 * f, [&](int64_t r) {  // an exponential costs a few plain operations
    const float* const row = gate_up.as<float>() + r * 2 * f;
    gate(row, row + f, out.as<float>() + r * f, f);
  });
}

void CpuBackend::clamp_gate_up(const Tensor& gate_up, float limit, float up_offset) {
  const int64_t f = gate_up.dim(1) / 2;
  for_rows(gate_up.dim(0), 2 * f, [&](int64_t r) {
    float* const gate = gate_up.as<float>() + r * 2 * f;
    float* const up = gate + f;
    for (int64_t i = 0; i < f; ++i) gate[i] = std::min(gate[i], limit);
    for (int64_t i = 0; i < f; ++i) up[i] = std::clamp(up[i], -limit, limit) + up_offset;
  });
}

void CpuBackend::activation(Activation act, const Tensor& x, const Tensor& out) {
  const int64_t f = out.dim(1);
  SERVAL_CHECK(x.dim(1) == f && x.dim(0) == out.dim(0), x.dim(0), x.dim(1), out.dim(0), f);
  const auto activate = kernels_.activate[static_cast<int>(act)];
  for_rows(out.dim(0), 4 * f,
           [&](int64_t r) { activate(x.as<float>() + r * f, out.as<float>() + r * f, f); });
}

void CpuBackend::gate(Activation act, const Tensor& x, int64_t x_stride, const Tensor& up, int64_t up_stride,
                      const Tensor& out) {
  const int64_t f = out.dim(1);
  SERVAL_CHECK(x.dim(1) == f && up.dim(1) == f && x.dim(0) == out.dim(0) && x_stride >= f && up_stride >= f, x.dim(0),
               x.dim(1), x_stride, up.dim(1), up_stride, out.dim(0), f);
  const auto gate = kernels_.gate[static_cast<int>(act)];
  for_rows(out.dim(0), 4 * f, [&](int64_t r) {
    gate(x.as<float>() + r * x_stride, up.as<float>() + r * up_stride, out.as<float>() + r * f, f);
  });
}

void CpuBackend::scaled_add(const Tensor& x, float scale, const Tensor& y, const Tensor& out) {
  const int64_t dim = out.dim(1);
  SERVAL_CHECK(x.dim(0) == out.dim(0) && x.dim(1) == dim, x.dim(0), x.dim(1), out.dim(0), dim);
  for_rows(out.dim(0), dim, [&](int64_t r) {
    kernels_.scaled_add(x.as<float>() + r * dim, scale, y.data == nullptr ? nullptr : y.as<float>() + r * dim,
                        out.as<float>() + r * dim, dim);
  });
}

namespace {

// weights [n, count] by tanh of a row's modes.
void stream_factors(const StreamArgs& of, int64_t row, const Tensor& weights, float* out) {
  const int64_t count = of.modes.dim(1);
  float modes[kMaxStreams];
  for (int64_t i = 0; i < count; ++i) modes[i] = std::tanh(of.modes.as<float>()[row * count + i]);
  for (int64_t n = 0; n < weights.dim(0); ++n) {
    out[n] = 0;
    for (int64_t i = 0; i < count; ++i) out[n] += weights.as<float>()[n * count + i] * modes[i];
  }
}

void check_streams(const StreamArgs& of, const Tensor& weights) {
  static_assert(kMaxStreams == kMaxStreamsOfRow);
  const int64_t count = of.modes.dim(1);
  SERVAL_CHECK(count > 0 && count <= kMaxStreams && of.streams.dim(0) == count * of.modes.dim(0) &&
                   weights.dim(1) == count,
               count, of.streams.dim(0), of.modes.dim(0), weights.dim(1));
}

}  // namespace

void CpuBackend::mix_streams(const MixStreamsArgs& args) {
  check_streams(args.of, args.weights);
  const int64_t rows = args.of.modes.dim(0), count = args.of.modes.dim(1), dim = args.of.streams.dim(1);
  for_rows(rows, count * count * dim, [&](int64_t r) {
    float c[kMaxStreams * kMaxStreams];
    stream_factors(args.of, r, args.weights, c);
    kernels_.mix_streams(args.of.streams.as<float>() + r * dim, rows * dim, static_cast<int>(count), c, dim);
  });
}

void CpuBackend::correct_streams(const CorrectStreamsArgs& args) {
  check_streams(args.of, args.weights);
  const int64_t rows = args.of.modes.dim(0), count = args.of.modes.dim(1), dim = args.of.streams.dim(1);
  for_rows(rows, 2 * count * dim, [&](int64_t r) {
    float c[kMaxStreams];
    stream_factors(args.of, r, args.weights, c);
    for (int64_t i = 0; i < count; ++i) c[i] += 1;
    kernels_.correct_streams(args.of.streams.as<float>() + r * dim, rows * dim, static_cast<int>(count), c,
                             args.before.as<float>() + r * dim, args.scale.as<float>(),
                             args.scaled.as<float>() + r * dim, dim);
  });
}

void CpuBackend::match_size(const Tensor& x, const Tensor& target, float least) {
  const int64_t dim = x.dim(1);
  for_rows(x.dim(0), 3 * dim, [&](int64_t r) {
    kernels_.match_size(x.as<float>() + r * dim, target.as<float>() + r * dim, least, dim);
  });
}

namespace {

// Of a row's numbers, as MixedResidualsArgs has them; of pre alone where there are no more.
void make_mixtures(const MixedResidualsArgs& args, int count, int64_t width, float* mixes) {
  const auto* const base = args.base.as<float>();
  const auto* const scale = args.scale.as<float>();
  const auto sigmoid = [](float x) { return 1 / (1 + std::exp(-x)); };
  for (int i = 0; i < count; ++i) mixes[i] = sigmoid(mixes[i] * scale[0] + base[i]) + args.eps;
  if (width == count) return;
  for (int i = count; i < 2 * count; ++i) mixes[i] = 2 * sigmoid(mixes[i] * scale[1] + base[i]);
  float* const comb = mixes + 2 * count;
  for (int r = 0; r < count; ++r) {
    float* const row = comb + r * count;
    float most = -std::numeric_limits<float>::infinity(), sum = 0;
    for (int c = 0; c < count; ++c) {
      row[c] = row[c] * scale[2] + base[2 * count + r * count + c];
      most = std::max(most, row[c]);
    }
    for (int c = 0; c < count; ++c) sum += row[c] = std::exp(row[c] - most);
    for (int c = 0; c < count; ++c) row[c] = row[c] / sum + args.eps;
  }
  const auto level = [&](int step, int across) {
    for (int i = 0; i < count; ++i) {
      float sum = args.eps;
      for (int j = 0; j < count; ++j) sum += comb[i * step + j * across];
      for (int j = 0; j < count; ++j) comb[i * step + j * across] /= sum;
    }
  };
  level(1, count);
  for (int round = 1; round < args.rounds; ++round) {
    level(count, 1);
    level(1, count);
  }
}

}  // namespace

void CpuBackend::collapse_residuals(const MixedResidualsArgs& args, const Tensor& out) {
  const int64_t rows = out.dim(0), dim = out.dim(1), count = args.residuals.dim(1) / dim, width = args.mixes.dim(1);
  SERVAL_CHECK(count >= 1 && count <= kMaxStreams && args.residuals.dim(1) == count * dim && args.mixes.dtype == DType::kF32 &&
                   (width == count || width == (2 + count) * count) && args.base.num_elements() == width &&
                   args.scale.num_elements() == (width == count ? 1 : 3),
               count, dim, args.residuals.dim(1), width, args.base.num_elements(), args.scale.num_elements());
  constexpr int32_t kInOrder[kMaxStreams] = {0, 1, 2, 3, 4, 5, 6, 7};
  for_rows(rows, count * dim + 64 * width, [&](int64_t r) {
    float* const mixes = args.mixes.as<float>() + r * width;
    make_mixtures(args, static_cast<int>(count), width, mixes);
    kernels_.weighted_sum(args.residuals.as<float>() + r * count * dim, kInOrder, mixes, static_cast<int>(count),
                          out.as<float>() + r * dim, dim);
  });
}

void CpuBackend::expand_residuals(const Tensor& residuals, const Tensor& mixes, const Tensor& x) {
  const int64_t rows = x.dim(0), dim = x.dim(1), count = residuals.dim(1) / dim;
  SERVAL_CHECK(mixes.dim(1) == (2 + count) * count, mixes.dim(1), count);
  for_rows(rows, count * count * dim, [&](int64_t r) {
    const float* const post = mixes.as<float>() + r * mixes.dim(1) + count;
    kernels_.expand_residuals(residuals.as<float>() + r * count * dim, static_cast<int>(count), post, post + count,
                              x.as<float>() + r * dim, dim);
  });
}

void CpuBackend::cut_rows(const Tensor& x, int64_t x_stride, float deviations) {
  for_rows(x.dim(0), 4 * x.dim(1),
           [&](int64_t r) { kernels_.cut_row(x.as<float>() + r * x_stride, deviations, x.dim(1)); });
}

void CpuBackend::xielu(const Tensor& x, const Tensor& alphas, const Tensor& out) {
  const int64_t width = out.dim(1);
  SERVAL_CHECK(x.dim(0) == out.dim(0) && x.dim(1) == width && alphas.num_elements() == 2, x.dim(1), width);
  for_rows(out.dim(0), 4 * width, [&](int64_t r) {
    kernels_.xielu(x.as<float>() + r * width, alphas.as<float>(), out.as<float>() + r * width, width);
  });
}

void CpuBackend::soft_cap(const Tensor& x, float cap) {
  const int64_t dim = x.dim(1);
  for_rows(x.dim(0), 4 * dim, [&](int64_t r) { kernels_.soft_cap(x.as<float>() + r * dim, cap, dim); });
}

void CpuBackend::gather_rows(const Tensor& x, std::span<const int32_t> rows, const Tensor& out) {
  const int64_t dim = x.dim(1);
  SERVAL_CHECK(out.dim(0) == static_cast<int64_t>(rows.size()) && out.dim(1) == dim, out.dim(0), rows.size(),
               out.dim(1), dim);
  for_rows(out.dim(0), dim, [&](int64_t r) {
    SERVAL_CHECK(rows[r] >= 0 && rows[r] < x.dim(0), rows[r], x.dim(0));
    std::memcpy(out.as<float>() + r * dim, x.as<float>() + rows[r] * dim, dim * sizeof(float));
  });
}

}  // namespace serval::cpu
