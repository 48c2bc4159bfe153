#include "kernels/cuda/elementwise.h"

#include <cmath>

#include "kernels/cuda/vector.cuh"

namespace serval::cuda {
namespace {

using simt::Shared;
using simt::SharedMemory;

constexpr int kRowThreads = 256;
constexpr int kHeadWarps = 4;
constexpr int kMaxWarps = 32;

int vectors_of(int dim) {
  return (dim + kVector - 1) / kVector;
}

// Threads for a row: one a vector, in whole warps, up to kRowThreads. A function of the row's length alone.
int threads_of(int dim) {
  const int warps = (vectors_of(dim) + simt::kWarp - 1) / simt::kWarp;
  return warps < kRowThreads / simt::kWarp ? warps * simt::kWarp : kRowThreads;
}

// One block a row. The row waits in shared memory between the sums and the scaling; a thread reads there only
// what it wrote itself. is_centred: LayerNorm, whose deviations are summed after the mean is known, which
// loses no digits to a large mean.
template <class T, bool is_centred>
SERVAL_KERNEL void SERVAL_MAX_THREADS(kRowThreads) add_norm_kernel(AddNormArgs<T> args) {
  SharedMemory memory;
  const int dim = args.dim, num_vectors = (dim + kVector - 1) / kVector;
  const Shared<float> row = memory.take<float>(num_vectors * kVector);
  const Shared<float> scratch = memory.take<float>(kMaxWarps);
  const int64_t stride = args.stride > 0 ? args.stride : dim;
  const bool aligned = is_vectorised(dim) && is_vectorised(stride);
  const int64_t begin = simt::block_x() * stride + simt::block_y() * dim;
  const float* const weight = args.weight == nullptr ? nullptr : args.weight + simt::block_y() * dim;
  const float* const bias = args.bias == nullptr ? nullptr : args.bias + simt::block_y() * dim;
  float sum = 0;
  for (int i = simt::thread() * kVector; i < dim; i += simt::num_threads() * kVector) {
    float value[kVector];
    load_vector(args.residual + begin + i, dim - i, aligned, value);
    if (args.x != nullptr) {
      float added[kVector];
      load_vector(args.x + begin + i, dim - i, aligned, added);
      SERVAL_UNROLL
      for (int j = 0; j < kVector; ++j) value[j] = to_float(from_float<T>(value[j] + added[j]));
      store_vector(args.residual + begin + i, dim - i, aligned, value);
    }
    SERVAL_UNROLL
    for (int j = 0; j < kVector; ++j) {
      row.set(i + j, value[j]);
      sum += is_centred ? value[j] : value[j] * value[j];
    }
  }
  float mean = 0, squares = simt::block_sum(sum, scratch) / static_cast<float>(dim);
  if constexpr (is_centred) {
    mean = squares;
    sum = 0;
    for (int i = simt::thread() * kVector; i < dim; i += simt::num_threads() * kVector) {
      SERVAL_UNROLL
      for (int j = 0; j < kVector; ++j) {
        const float deviation = i + j < dim ? row.get(i + j) - mean : 0.0f;
        sum += deviation * deviation;
      }
    }
    squares = simt::block_sum(sum, scratch) / static_cast<float>(dim);
  }
  const float scale = 1.0f / sqrtf(squares + args.eps);
  for (int i = simt::thread() * kVector; i < dim; i += simt::num_threads() * kVector) {
    float value[kVector];
    SERVAL_UNROLL
    for (int j = 0; j < kVector; ++j) {
      value[j] = i + j < dim ? (row.get(i + j) - mean) * scale : 0.0f;
      if (weight != nullptr && i + j < dim) value[j] *= weight[i + j];
      if (is_centred && bias != nullptr && i + j < dim) value[j] += bias[i + j];
    }
    store_vector(args.out + begin + i, dim - i, aligned, value);
  }
}

// One block a row, one warp a head at a time: normalise into shared memory, rotate out of it.
template <class T>
SERVAL_KERNEL void SERVAL_MAX_THREADS(kHeadWarps* simt::kWarp)
    qk_norm_rope_write_kv_kernel(QkNormRopeWriteKvArgs<T> args) {
  SharedMemory memory;
  const int head_dim = args.head_dim, half = args.rotary_dim / 2;
  const Shared<float> head = memory.take<float>(kHeadWarps * head_dim).at(simt::warp() * head_dim, head_dim);
  const int64_t r = simt::block_x();
  const int32_t slot = args.keys != nullptr ? args.slots[r] : 0;
  const float* const angles =
      args.cos_sin != nullptr ? args.cos_sin + int64_t{args.positions[r]} * args.rotary_dim : nullptr;
  const int num_heads =
      args.num_q + (args.k != nullptr ? args.num_kv : 0) + (args.v != nullptr ? args.num_kv : 0);
  for (int h = simt::warp(); h < num_heads; h += kHeadWarps) {
    const bool is_q = h < args.num_q, is_v = h >= args.num_q + args.num_kv;
    const int kv_head = (h - args.num_q) % (args.num_kv > 0 ? args.num_kv : 1);
    T* const x = is_q ? args.q + r * args.row_stride + int64_t{h} * head_dim
                      : (is_v ? args.v : args.k) + r * args.row_stride + int64_t{kv_head} * head_dim;
    const float* const norm = is_q ? args.q_norm : (is_v ? nullptr : args.k_norm);
    simt::sync_warp();  // the head before has been read
    float sum = 0;
    for (int d = simt::lane(); d < head_dim; d += simt::kWarp) {
      const float value = to_float(x[d]);
      sum += value * value;
      head.set(d, value);
    }
    float scale = 1;
    const bool is_normed = norm != nullptr || args.has_plain_norm;
    if (is_normed) scale = 1.0f / sqrtf(simt::warp_sum(sum) / static_cast<float>(head_dim) + args.eps);
    simt::sync_warp();
    const auto normalised = [&](int d) {
      const float value = head.get(d);
      return is_normed ? to_float(from_float<T>(norm != nullptr ? value * scale * norm[d] : value * scale)) : value;
    };
    const bool is_stored = !is_q && args.keys != nullptr;
    if (is_stored && slot < 0) continue;
    const int64_t at = is_stored
                           ? ((int64_t{slot / args.block_size} * args.num_kv + kv_head) * args.block_size +
                              slot % args.block_size) *
                                 head_dim
                           : 0;
    void* const cache = is_v ? args.values : args.keys;
    const float inverse = 1.0f / (is_v ? args.value_scale : args.key_scale);
    for (int d = simt::lane(); d < head_dim; d += simt::kWarp) {
      float value = normalised(d);
      if (angles != nullptr && !is_v && d < args.rotary_dim) {
        const bool is_low = d < half;
        const int i = is_low ? d : d - half;
        const float other = normalised(is_low ? d + half : d - half);
        value = value * angles[i] + (is_low ? -other : other) * angles[half + i];
      }
      if (!is_stored) {
        x[d] = from_float<T>(value);
      } else if (args.is_fp8) {
        static_cast<Fp8*>(cache)[at + d] = fp8_from_float(value * inverse);
      } else {
        static_cast<T*>(cache)[at + d] = from_float<T>(value);
      }
    }
  }
}

SERVAL_DEVICE float silu(float x) {
  return x / (1.0f + expf(-x));
}
// Hendrycks and Gimpel 2016, the tanh form.
SERVAL_DEVICE float gelu_tanh(float x) {
  return 0.5f * x * (1.0f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
}

// x times the normal distribution's function; erfc, so that nothing cancels on the left.
SERVAL_DEVICE float gelu(float x) {
  return 0.5f * x * erfcf(-0.7071067812f * x);
}
SERVAL_DEVICE float relu(float x) {
  return x < 0 ? 0.0f : x;  // NaN stays NaN
}
SERVAL_DEVICE float relu2(float x) {
  return relu(x) * relu(x);
}
SERVAL_DEVICE float gelu_sigmoid(float x) {
  return x / (1.0f + expf(-1.702f * x));
}
template <Activation act>
SERVAL_DEVICE float activated(float x) {
  if constexpr (act == Activation::kSilu) return silu(x);
  if constexpr (act == Activation::kGeluTanh) return gelu_tanh(x);
  if constexpr (act == Activation::kGelu) return gelu(x);
  if constexpr (act == Activation::kRelu2) return relu2(x);
  if constexpr (act == Activation::kGeluSigmoid) return gelu_sigmoid(x);
  if constexpr (act == Activation::kIdentity) return x;
  if constexpr (act == Activation::kSigmoid) return 1.0f / (1.0f + expf(-x));
  return relu(x);
}

// is_gated: the activated are multiplied by `up`.
template <class T, Activation act, bool is_gated>
SERVAL_KERNEL void SERVAL_MAX_THREADS(kRowThreads)
    activation_kernel(const T* x, int64_t x_stride, const T* up, int64_t up_stride, T* out, int width) {
  const auto begins_well = [](const T* p) { return reinterpret_cast<uintptr_t>(p) % (kVector * sizeof(T)) == 0; };
  const bool aligned = is_vectorised(width) && is_vectorised(x_stride) && is_vectorised(up_stride) && begins_well(x) &&
                       begins_well(up);
  const int i = (simt::block_y() * simt::num_threads() + simt::thread()) * kVector;
  if (i >= width) return;
  const int64_t r = simt::block_x();
  float value[kVector], factor[kVector];
  load_vector(x + r * x_stride + i, width - i, aligned, value);
  if constexpr (is_gated) load_vector(up + r * up_stride + i, width - i, aligned, factor);
  SERVAL_UNROLL
  for (int j = 0; j < kVector; ++j) {
    value[j] = activated<act>(value[j]);
    if constexpr (is_gated) value[j] *= factor[j];
  }
  store_vector(out + r * width + i, width - i, aligned, value);
}

// One block copies one row of `dim` numbers.
template <class T>
SERVAL_DEVICE void copy_row(const T* from, T* to, int dim) {
  if (is_vectorised(dim)) {
    for (int i = simt::thread(); i < dim / kVector; i += simt::num_threads())
      reinterpret_cast<Vector<T>*>(to)[i] = reinterpret_cast<const Vector<T>*>(from)[i];
  } else {
    for (int i = simt::thread(); i < dim; i += simt::num_threads()) to[i] = from[i];
  }
}

template <class T>
SERVAL_DEVICE void scale_row(const T* from, float scale, T* to, int dim) {
  const bool aligned = is_vectorised(dim);
  for (int i = simt::thread() * kVector; i < dim; i += simt::num_threads() * kVector) {
    float value[kVector];
    load_vector(from + i, dim - i, aligned, value);
    SERVAL_UNROLL
    for (int j = 0; j < kVector; ++j) value[j] *= scale;
    store_vector(to + i, dim - i, aligned, value);
  }
}

template <class T>
SERVAL_KERNEL void SERVAL_MAX_THREADS(kRowThreads)
    embed_kernel(const T* table, const int32_t* ids, const int32_t* last_tokens, float scale, T* out, int dim) {
  const int64_t r = simt::block_x();
  const int32_t id = ids[r] >= 0 ? ids[r] : last_tokens[-1 - ids[r]];
  scale_row(table + int64_t{id} * dim, scale, out + r * dim, dim);
}

// Comparisons that let NaN through.
template <class T>
SERVAL_KERNEL void SERVAL_MAX_THREADS(kRowThreads)
    clamp_gate_up_kernel(T* gate_up, int width, float limit, float up_offset) {
  const int i = simt::block_y() * simt::num_threads() + simt::thread();
  if (i >= width) return;
  T* const gate = gate_up + int64_t{simt::block_x()} * 2 * width + i;
  const float g = to_float(gate[0]), u = to_float(gate[width]);
  gate[0] = from_float<T>(g > limit ? limit : g);
  gate[width] = from_float<T>((u > limit ? limit : u < -limit ? -limit : u) + up_offset);
}

template <class T>
SERVAL_KERNEL void SERVAL_MAX_THREADS(kRowThreads)
    gather_rows_kernel(const T* x, const int32_t* rows, T* out, int dim) {
  const int64_t r = simt::block_x();
  copy_row(x + int64_t{rows[r]} * dim, out + r * dim, dim);
}

template <class T>
SERVAL_KERNEL void SERVAL_MAX_THREADS(kRowThreads)
    scaled_add_kernel(const T* x, float scale, const T* y, T* out, int64_t count) {
  const int64_t i = (int64_t{simt::block_x()} * kRowThreads + simt::thread()) * kVector;
  if (i >= count) return;
  const int valid = count - i < kVector ? static_cast<int>(count - i) : kVector;
  float value[kVector], added[kVector] = {};
  load_vector(x + i, valid, true, value);
  if (y != nullptr) load_vector(y + i, valid, true, added);
  SERVAL_UNROLL
  for (int j = 0; j < kVector; ++j) value[j] = fmaf(scale, value[j], added[j]);
  store_vector(out + i, valid, true, value);
}

template <class T>
SERVAL_KERNEL void SERVAL_MAX_THREADS(kRowThreads) clamp_kernel(T* x, int64_t count, float limit) {
  const int64_t i = int64_t{simt::block_x()} * kRowThreads + simt::thread();
  if (i >= count) return;
  const float value = to_float(x[i]);
  if (value > limit) x[i] = from_float<T>(limit);
  if (value < -limit) x[i] = from_float<T>(-limit);
}

template <class T>
SERVAL_KERNEL void SERVAL_MAX_THREADS(kRowThreads) xielu_kernel(const T* x, const float* alphas, T* out, int64_t count) {
  const int64_t i = int64_t{simt::block_x()} * kRowThreads + simt::thread();
  if (i >= count) return;
  const float v = to_float(x[i]);
  const float bent = v > 0.0f ? alphas[0] * v * v : alphas[1] * (expm1f(fminf(v, -1e-6f)) - v);
  out[i] = from_float<T>(bent + 0.5f * v);
}

SERVAL_KERNEL void SERVAL_MAX_THREADS(kRowThreads) soft_cap_kernel(float* x, int64_t count, float cap) {
  const int64_t i = int64_t{simt::block_x()} * kRowThreads + simt::thread();
  if (i < count) x[i] = cap * tanhf(x[i] / cap);
}

// A block for each KV head of keys and of values. A thread moves the same part of each position, so that no move
// meets one before it.
SERVAL_KERNEL void SERVAL_MAX_THREADS(simt::kWarp) move_kv_kernel(KvMoves m) {
  char* const side = static_cast<char*>(m.sides[simt::block_y()]);
  const auto row_at = [&](int place) {
    const int64_t block = place / m.block_size;
    return side + ((block * m.num_kv_heads + simt::block_x()) * m.block_size + place % m.block_size) * m.row_bytes;
  };
  for (int at = simt::thread() * 16; at < m.row_bytes; at += simt::num_threads() * 16) {
    for (int i = 0; i < m.count; ++i) {
      const Bytes16 part = *reinterpret_cast<const Bytes16*>(row_at(m.moves[i].from) + at);
      *reinterpret_cast<Bytes16*>(row_at(m.moves[i].to) + at) = part;
    }
  }
}

}  // namespace

template <class T>
void add_norm(simt::Stream stream, bool is_centred, const AddNormArgs<T>& args) {
  const size_t shared = sizeof(float) * (vectors_of(args.dim) * kVector + kMaxWarps);
  const simt::LaunchShape shape{
      .grid_x = args.rows, .grid_y = args.heads, .threads = threads_of(args.dim), .shared_bytes = shared};
  if (is_centred) return simt::launch<add_norm_kernel<T, true>>(stream, shape, args);
  simt::launch<add_norm_kernel<T, false>>(stream, shape, args);
}

template <class T>
void qk_norm_rope_write_kv(simt::Stream stream, const QkNormRopeWriteKvArgs<T>& args) {
  simt::launch<qk_norm_rope_write_kv_kernel<T>>(
      stream,
      {.grid_x = args.rows,
       .threads = kHeadWarps * simt::kWarp,
       .shared_bytes = (kHeadWarps * args.head_dim * sizeof(float) + 15) / 16 * 16},
      args);
}

// up null: nothing multiplies.
template <class T>
void activate(simt::Stream stream, Activation act, const T* x, int64_t x_stride, const T* up, int64_t up_stride,
              T* out, int rows, int width) {
  const simt::LaunchShape shape{
      .grid_x = rows, .grid_y = (vectors_of(width) + kRowThreads - 1) / kRowThreads, .threads = kRowThreads};
  const auto launch = [&]<Activation kind>() {
    if (up != nullptr)
      return simt::launch<activation_kernel<T, kind, true>>(stream, shape, x, x_stride, up, up_stride, out, width);
    simt::launch<activation_kernel<T, kind, false>>(stream, shape, x, x_stride, up, up_stride, out, width);
  };
  switch (act) {
    case Activation::kSilu:
      return launch.template operator()<Activation::kSilu>();
    case Activation::kGeluTanh:
      return launch.template operator()<Activation::kGeluTanh>();
    case Activation::kGelu:
      return launch.template operator()<Activation::kGelu>();
    case Activation::kRelu:
      return launch.template operator()<Activation::kRelu>();
    case Activation::kRelu2:
      return launch.template operator()<Activation::kRelu2>();
    case Activation::kGeluSigmoid:
      return launch.template operator()<Activation::kGeluSigmoid>();
    case Activation::kSigmoid:
      return launch.template operator()<Activation::kSigmoid>();
    case Activation::kIdentity:
      return launch.template operator()<Activation::kIdentity>();
  }
}

template <class T>
void activation(simt::Stream stream, Activation act, bool is_gated, const T* x, T* out, int rows, int width) {
  const int64_t stride = int64_t{is_gated ? 2 : 1} * width;
  activate<T>(stream, act, x, stride, is_gated ? x + width : nullptr, stride, out, rows, width);
}

template <class T>
void gate(simt::Stream stream, Activation act, const T* x, int64_t x_stride, const T* up, int64_t up_stride, T* out,
          int rows, int width) {
  activate<T>(stream, act, x, x_stride, up, up_stride, out, rows, width);
}

template <class T>
void embed(simt::Stream stream, const T* table, const int32_t* ids, const int32_t* last_tokens, float scale,
           T* out, int rows, int dim) {
  simt::launch<embed_kernel<T>>(stream, {.grid_x = rows, .threads = threads_of(dim)}, table, ids, last_tokens,
                                scale, out, dim);
}

template <class T>
void gather_rows(simt::Stream stream, const T* x, const int32_t* rows, T* out, int num_rows, int dim) {
  simt::launch<gather_rows_kernel<T>>(stream, {.grid_x = num_rows, .threads = threads_of(dim)}, x, rows, out,
                                      dim);
}

template <class T>
void clamp_gate_up(simt::Stream stream, T* gate_up, int rows, int width, float limit, float up_offset) {
  simt::launch<clamp_gate_up_kernel<T>>(
      stream, {.grid_x = rows, .grid_y = (width + kRowThreads - 1) / kRowThreads, .threads = kRowThreads}, gate_up,
      width, limit, up_offset);
}

void move_kv(simt::Stream stream, const KvMoves& moves) {
  simt::launch<move_kv_kernel>(stream, {.grid_x = moves.num_kv_heads, .grid_y = 2, .threads = simt::kWarp}, moves);
}

template <class T>
void scaled_add(simt::Stream stream, const T* x, float scale, const T* y, T* out, int64_t count) {
  constexpr int64_t kBlock = kRowThreads * kVector;
  simt::launch<scaled_add_kernel<T>>(
      stream, {.grid_x = static_cast<int>((count + kBlock - 1) / kBlock), .threads = kRowThreads}, x, scale, y,
      out, count);
}

template <class T>
void clamp(simt::Stream stream, T* x, int64_t count, float limit) {
  simt::launch<clamp_kernel<T>>(
      stream, {.grid_x = static_cast<int>((count + kRowThreads - 1) / kRowThreads), .threads = kRowThreads}, x, count,
      limit);
}

template <class T>
void xielu(simt::Stream stream, const T* x, const float* alphas, T* out, int64_t count) {
  simt::launch<xielu_kernel<T>>(
      stream, {.grid_x = static_cast<int>((count + kRowThreads - 1) / kRowThreads), .threads = kRowThreads}, x, alphas,
      out, count);
}

void soft_cap(simt::Stream stream, float* x, int64_t count, float cap) {
  simt::launch<soft_cap_kernel>(
      stream, {.grid_x = static_cast<int>((count + kRowThreads - 1) / kRowThreads), .threads = kRowThreads},
      x, count, cap);
}

#define SERVAL_INSTANTIATE(T)                                                                   \
  template void add_norm<T>(simt::Stream, bool, const AddNormArgs<T>&);                         \
  template void qk_norm_rope_write_kv<T>(simt::Stream, const QkNormRopeWriteKvArgs<T>&);                     \
  template void activation<T>(simt::Stream, Activation, bool, const T*, T*, int, int);          \
  template void gate<T>(simt::Stream, Activation, const T*, int64_t, const T*, int64_t, T*, int, int); \
  template void embed<T>(simt::Stream, const T*, const int32_t*, const int32_t*, float, T*, int, int); \
  template void xielu<T>(simt::Stream, const T*, const float*, T*, int64_t);                            \
  template void clamp<T>(simt::Stream, T*, int64_t, float);                                              \
  template void scaled_add<T>(simt::Stream, const T*, float, const T*, T*, int64_t);                   \
  template void clamp_gate_up<T>(simt::Stream, T*, int, int, float, float);                     \
  template void gather_rows<T>(simt::Stream, const T*, const int32_t*, T*, int, int);
template void scaled_add<float>(simt::Stream, const float*, float, const float*, float*, int64_t);
SERVAL_INSTANTIATE(Bf16)
SERVAL_INSTANTIATE(Half)
#undef SERVAL_INSTANTIATE

}  // namespace serval::cuda
