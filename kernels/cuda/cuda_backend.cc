#include "kernels/cuda/cuda_backend.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <stdexcept>

#include "kernels/base/check.h"
#include "kernels/base/log.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/experts.h"
#include "kernels/cuda/gemm.h"
#include "kernels/float_bits.h"

namespace serval::cuda {
namespace {

constexpr int kBlocksPerSm = 2;

// Calls run with a number type: Bf16 or Half.
template <class Run>
void with_number(DType type, const Run& run) {
  if (type == DType::kBF16) return run(Bf16());
  SERVAL_CHECK(type == DType::kF16, dtype_name(type));
  run(Half());
}

template <class T>
T* as(const Tensor& tensor) {
  return static_cast<T*>(tensor.data);
}

}  // namespace

CudaBackend::CudaBackend(const DeviceConfig& config)
    : device_([] {
        const std::string problem = device_problem();
        if (!problem.empty()) throw std::runtime_error("device is 'cuda', but " + problem);
        return device_properties();
      }()),
      is_invariant_(config.invariant) {
  name_ = "cuda-sm" + std::to_string(device_.compute_capability);
  if (!is_invariant_) vendor_gemm_ = VendorGemm::load();
}

Buffer CudaBackend::allocate(size_t bytes) {
  Buffer buffer;
  if (bytes == 0) return buffer;
  void* const memory = allocate_device(bytes);
  if (memory == nullptr)
    throw std::runtime_error(device_.name + " has no " + std::to_string(bytes) + " bytes of memory left");
  buffer.memory = {memory, [](void* p) { free_device(p); }};
  buffer.bytes = bytes;
  clear(stream_, memory, bytes);
  synchronize(stream_);
  return buffer;
}

void CudaBackend::upload(void* to, const void* from, size_t bytes) {
  copy_to_device(stream_, to, from, bytes);
  synchronize(stream_);
}

void CudaBackend::download(void* to, const void* from, size_t bytes) {
  copy_to_host(stream_, to, from, bytes);
  synchronize(stream_);
}

DType CudaBackend::activation_dtype(DType weights) const {
  return weights == DType::kF16 ? DType::kF16 : DType::kBF16;
}

bool CudaBackend::takes_kv_dtype(DType kv, DType weights) const {
  return kv == activation_dtype(weights) || kv == DType::kF8;
}

LinearWeight CudaBackend::pack_linear(std::span<const LinearSource> parts, std::span<const Tensor> biases) {
  LinearWeight w = fused_shape(parts, biases);
  SERVAL_CHECK(supports(w.format), format_row(w.format).name);
  w.packed = allocate(packed_bytes(w.n, w.k, w.format, false));
  auto* to = w.packed.as<std::byte>();
  for (const LinearSource& part : parts) {
    const size_t bytes = code_bytes(part.format, part.n, part.k);
    upload(to, part.data, bytes);
    to += bytes;
  }
  if (!biases.empty()) {
    std::vector<float> bias;
    for (const Tensor& part : biases)
      bias.insert(bias.end(), part.as<float>(), part.as<float>() + part.num_elements());
    w.bias = allocate(bias.size() * sizeof(float));
    upload(w.bias.data(), bias.data(), w.bias.bytes);
  }
  return w;
}

size_t CudaBackend::packed_bytes(int64_t n, int64_t k, const MatrixFormat& format, bool bias) const {
  return code_bytes(format.id, n, k) + (bias ? static_cast<size_t>(n) * sizeof(float) : 0);
}

std::unique_ptr<StepContext> CudaBackend::make_step_context(const StepLimits& limits) {
  return std::make_unique<CudaStepContext>(limits, *this, stream_, device_, step_);
}

size_t CudaBackend::step_context_bytes(const StepLimits& limits) const {
  return CudaStepContext::planned_bytes(limits, device_);
}

CudaStepContext& CudaBackend::step() {
  SERVAL_CHECK(step_ != nullptr, "an op before any step has begun");
  return *step_;
}

// --- ops ---

void CudaBackend::embed(const LinearWeight& table, std::span<const int32_t> ids, float scale,
                        const Tensor& out) {
  with_number(out.dtype, [&](auto number) {
    using T = decltype(number);
    cuda::embed<T>(stream_, table.packed.as<T>(), step().device_array(ids.data()), step().last_tokens(),
                   scale, as<T>(out), static_cast<int>(ids.size()), static_cast<int>(table.k));
  });
}

void CudaBackend::add_norm(bool is_centred, const Tensor& residual, const Tensor& x, const Tensor& weight,
                           const Tensor& bias, float eps, const Tensor& out) {
  with_number(out.dtype, [&](auto number) {
    using T = decltype(number);
    cuda::add_norm<T>(stream_, is_centred,
                      {.residual = as<T>(residual),
                       .x = as<T>(x),
                       .weight = as<float>(weight),
                       .eps = eps,
                       .out = as<T>(out),
                       .rows = static_cast<int>(residual.dim(0)),
                       .dim = static_cast<int>(residual.dim(1)),
                       .bias = as<float>(bias)});
  });
}

void CudaBackend::add_rms_norm(const Tensor& residual, const Tensor& x, const Tensor& weight, float eps,
                               const Tensor& out) {
  add_norm(false, residual, x, weight, Tensor(), eps, out);
}

void CudaBackend::add_layer_norm(const Tensor& residual, const Tensor& x, const Tensor& weight,
                                 const Tensor& bias, float eps, const Tensor& out) {
  add_norm(true, residual, x, weight, bias, eps, out);
}

void CudaBackend::qk_norm_rope_write_kv(const serval::QkNormRopeWriteKvArgs& args) {
  SERVAL_CHECK(args.kv.dtype == args.q.dtype || args.kv.dtype == DType::kF8, dtype_name(args.kv.dtype));
  with_number(args.q.dtype, [&](auto number) {
    using T = decltype(number);
    cuda::qk_norm_rope_write_kv<T>(stream_, {.q = as<T>(args.q),
                                     .k = as<T>(args.k),
                                     .v = as<T>(args.v),
                                     .rows = static_cast<int>(args.q.dim(0)),
                                     .num_q = static_cast<int>(args.q.dim(1)),
                                     .num_kv = static_cast<int>(args.k.dim(1)),
                                     .head_dim = static_cast<int>(args.q.dim(2)),
                                     .row_stride = args.row_stride,
                                     .q_norm = as<float>(args.q_norm),
                                     .k_norm = as<float>(args.k_norm),
                                     .eps = args.eps,
                                     .positions = step().device_array(args.positions),
                                     .cos_sin = as<float>(args.cos_sin),
                                     .rotary_dim = args.rotary_dim,
                                     .slots = step().device_array(args.slots),
                                     .keys = args.kv.keys,
                                     .values = args.kv.values,
                                     .is_fp8 = args.kv.dtype == DType::kF8,
                                     .block_size = args.kv.block_size});
  });
}

void CudaBackend::head_rms_norm(const Tensor& x, int64_t row_stride, const Tensor& weight, float eps) {
  with_number(x.dtype, [&](auto number) {
    using T = decltype(number);
    if (x.dim(1) == 1) {  // a block a row: it may be wide
      return cuda::add_norm<T>(stream_, /*is_centred=*/false,
                               {.residual = as<T>(x),
                                .x = nullptr,
                                .weight = as<float>(weight),
                                .eps = eps,
                                .out = as<T>(x),
                                .rows = static_cast<int>(x.dim(0)),
                                .dim = static_cast<int>(x.dim(2)),
                                .stride = row_stride});
    }
    cuda::qk_norm_rope_write_kv<T>(stream_, {.q = as<T>(x),
                                     .rows = static_cast<int>(x.dim(0)),
                                     .num_q = static_cast<int>(x.dim(1)),
                                     .head_dim = static_cast<int>(x.dim(2)),
                                     .row_stride = row_stride,
                                     .q_norm = as<float>(weight),
                                     .has_plain_norm = true,
                                     .eps = eps});
  });
}

void CudaBackend::rope(const RopeArgs& args) {
  with_number(args.x.dtype, [&](auto number) {
    using T = decltype(number);
    cuda::qk_norm_rope_write_kv<T>(stream_, {.q = as<T>(args.x),
                                     .rows = static_cast<int>(args.x.dim(0)),
                                     .num_q = static_cast<int>(args.x.dim(1)),
                                     .head_dim = static_cast<int>(args.x.dim(2)),
                                     .row_stride = args.row_stride,
                                     .positions = step().device_array(args.positions),
                                     .cos_sin = as<float>(args.cos_sin),
                                     .rotary_dim = args.rotary_dim});
  });
}

void CudaBackend::write_kv(const WriteKvArgs& args) {
  with_number(args.k.dtype, [&](auto number) {
    using T = decltype(number);
    cuda::qk_norm_rope_write_kv<T>(stream_, {.k = as<T>(args.k),
                                     .v = as<T>(args.v),
                                     .rows = static_cast<int>(args.k.dim(0)),
                                     .num_kv = static_cast<int>(args.k.dim(1)),
                                     .head_dim = static_cast<int>(args.k.dim(2)),
                                     .row_stride = args.row_stride,
                                     .slots = step().device_array(args.slots),
                                     .keys = args.kv.keys,
                                     .values = args.kv.values,
                                     .is_fp8 = args.kv.dtype == DType::kF8,
                                     .block_size = args.kv.block_size});
  });
}

void CudaBackend::linear(const Tensor& x, const LinearWeight& w, const Tensor& out) {
  const auto m = static_cast<int>(x.dim(0)), n = static_cast<int>(w.n), k = static_cast<int>(w.k);
  SERVAL_CHECK(format_of(x.dtype) == w.format && x.dim(1) == k && out.dim(0) == m && out.dim(1) == n,
               dtype_name(x.dtype), format_row(w.format).name, x.dim(1), k, out.dim(0), m, out.dim(1), n);
  if (vendor_gemm_ && m > kSkinnyRows && w.bias.data() == nullptr &&
      vendor_gemm_->multiply(stream_, x.dtype, out.dtype, x.data, w.packed.data(), out.data, m, n, k))
    return;
  with_number(x.dtype, [&](auto number) {
    using T = decltype(number);
    if (out.dtype == DType::kF32) {
      gemm<T, float>(stream_, {as<T>(x), w.packed.as<T>(), w.bias.as<float>(), as<float>(out), m, n, k});
    } else {
      gemm<T, T>(stream_, {as<T>(x), w.packed.as<T>(), w.bias.as<float>(), as<T>(out), m, n, k});
    }
  });
}

void CudaBackend::attention(const AttentionArgs& args, int64_t q_row_stride) {
  const KvLayer& kv = args.kv;
  const auto num_heads = static_cast<int>(args.q.dim(1));
  SERVAL_CHECK(std::has_single_bit(static_cast<unsigned>(kv.block_size)), kv.block_size);
  SERVAL_CHECK(kv.head_dim % (kv.dtype == DType::kF8 ? 16 : 8) == 0 && kv.value_width() == kv.head_dim, kv.head_dim,
               kv.value_dim);
  const CudaStepContext::Attention step_part = step().attention(*args.batch, num_heads, kv.num_kv_heads);
  const AttentionParams params{.q = args.q.data,
                               .q_stride = q_row_stride,
                               .out = args.out.data,
                               .keys = kv.keys,
                               .values = kv.values,
                               .is_fp8 = kv.dtype == DType::kF8,
                               .num_heads = num_heads,
                               .num_kv_heads = kv.num_kv_heads,
                               .head_dim = kv.head_dim,
                               .block_shift = std::countr_zero(static_cast<unsigned>(kv.block_size)),
                               .scale = args.scale,
                               .soft_cap = args.soft_cap,
                               .window = args.window,
                               .sinks = as<float>(args.sinks),
                               .slopes = as<float>(args.slopes),
                               .counts = step_part.counts,
                               .row_start = step_part.row_start,
                               .first_pos = step_part.first_pos,
                               .block_table = step_part.block_table,
                               .item_start = step_part.item_start,
                               .tile_start = step_part.tile_start,
                               .tree_masks = step_part.tree_masks,
                               .tree_start = step_part.tree_start,
                               .item_state = step_part.item_state,
                               .item_out = step_part.item_out};
  const int blocks = device_.num_sms * kBlocksPerSm;
  with_number(args.q.dtype, [&](auto number) {
    using T = decltype(number);
    if (step_part.has_items)
      attend_split<T>(stream_, params, blocks, args.batch->num_rows, device_.shared_bytes_per_block);
    if (step_part.has_tiles) attend_tiles<T>(stream_, params, blocks);
  });
}

void CudaBackend::gated_activation(Activation act, const Tensor& gate_up, const Tensor& out) {
  with_number(out.dtype, [&](auto number) {
    using T = decltype(number);
    cuda::activation<T>(stream_, act, /*is_gated=*/true, as<T>(gate_up), as<T>(out),
                        static_cast<int>(out.dim(0)), static_cast<int>(out.dim(1)));
  });
}

void CudaBackend::activation(Activation act, const Tensor& x, const Tensor& out) {
  with_number(out.dtype, [&](auto number) {
    using T = decltype(number);
    cuda::activation<T>(stream_, act, /*is_gated=*/false, as<T>(x), as<T>(out), static_cast<int>(out.dim(0)),
                        static_cast<int>(out.dim(1)));
  });
}

void CudaBackend::gate(Activation act, const Tensor& x, int64_t x_stride, const Tensor& up, int64_t up_stride,
                       const Tensor& out) {
  with_number(out.dtype, [&](auto number) {
    using T = decltype(number);
    cuda::gate<T>(stream_, act, as<T>(x), x_stride, as<T>(up), up_stride, as<T>(out), static_cast<int>(out.dim(0)),
                  static_cast<int>(out.dim(1)));
  });
}

void CudaBackend::scaled_add(const Tensor& x, float scale, const Tensor& y, const Tensor& out) {
  if (out.dtype == DType::kF32)
    return cuda::scaled_add(stream_, as<float>(x), scale, as<float>(y), as<float>(out), out.num_elements());
  with_number(out.dtype, [&](auto number) {
    using T = decltype(number);
    cuda::scaled_add(stream_, as<T>(x), scale, as<T>(y), as<T>(out), out.num_elements());
  });
}

void CudaBackend::head_layer_norm(const Tensor& x, int64_t row_stride, const Tensor& weight, const Tensor& bias, float eps) {
  with_number(x.dtype, [&](auto number) {
    using T = decltype(number);
    cuda::add_norm<T>(stream_, /*is_centred=*/true,
                      {.residual = as<T>(x),
                       .x = nullptr,
                       .weight = as<float>(weight),
                       .eps = eps,
                       .out = as<T>(x),
                       .rows = static_cast<int>(x.dim(0)),
                       .dim = static_cast<int>(x.dim(2)),
                       .bias = as<float>(bias),
                       .stride = row_stride,
                       .heads = static_cast<int>(x.dim(1))});
  });
}

void CudaBackend::clamp(const Tensor& x, float limit) {
  with_number(x.dtype, [&](auto number) {
    using T = decltype(number);
    cuda::clamp(stream_, as<T>(x), x.num_elements(), limit);
  });
}

void CudaBackend::xielu(const Tensor& x, const Tensor& alphas, const Tensor& out) {
  with_number(x.dtype, [&](auto number) {
    using T = decltype(number);
    cuda::xielu<T>(stream_, as<T>(x), as<float>(alphas), as<T>(out), out.num_elements());
  });
}

void CudaBackend::soft_cap(const Tensor& x, float cap) {
  SERVAL_CHECK(x.dtype == DType::kF32, dtype_name(x.dtype));
  cuda::soft_cap(stream_, as<float>(x), x.num_elements(), cap);
}

StateBatch CudaBackend::state_batch(const AttentionBatch& batch, const KvLayer& kv) {
  const CudaStepContext::Sequences seqs = step().sequences(batch);
  return {.counts = seqs.counts,
          .row_start = seqs.row_start,
          .first_pos = seqs.first_pos,
          .block_table = seqs.block_table,
          .slots = seqs.slots,
          .span = kv.block_size,
          .max_seqs = seqs.max_seqs};
}

void CudaBackend::causal_conv(const CausalConvArgs& args) {
  with_number(args.out.dtype, [&](auto number) {
    using T = decltype(number);
    cuda::causal_conv<T>(stream_, {.batch = state_batch(*args.batch, args.kv),
                                   .x = as<T>(args.x),
                                   .in_gate = as<T>(args.in_gate),
                                   .out_gate = as<T>(args.out_gate),
                                   .x_stride = args.x_stride,
                                   .taps = static_cast<int>(args.weight.dim(0)),
                                   .weight = as<float>(args.weight),
                                   .bias = as<float>(args.bias),
                                   .has_silu = args.has_silu,
                                   .inputs = static_cast<float*>(args.kv.keys),
                                   .out = as<T>(args.out),
                                   .channels = static_cast<int>(args.out.dim(1))});
  });
}

void CudaBackend::selective_scan(const SelectiveScanArgs& args) {
  with_number(args.out.dtype, [&](auto number) {
    using T = decltype(number);
    cuda::selective_scan<T>(stream_, {.batch = state_batch(*args.batch, args.kv),
                                      .u = as<T>(args.u),
                                      .dt = as<float>(args.dt),
                                      .b = as<T>(args.b),
                                      .c = as<T>(args.c),
                                      .bc_stride = args.bc_stride,
                                      .gate = as<T>(args.gate),
                                      .gate_stride = args.gate_stride,
                                      .num_states = static_cast<int>(args.a.dim(0)),
                                      .a = as<float>(args.a),
                                      .d = as<float>(args.d),
                                      .states = static_cast<float*>(args.kv.values),
                                      .out = as<T>(args.out),
                                      .channels = static_cast<int>(args.out.dim(1))});
  });
}

void CudaBackend::scan_gates(const serval::ScanGatesArgs& args) {
  with_number(args.x.dtype, [&](auto number) {
    using T = decltype(number);
    cuda::scan_gates<T>(stream_, {.x = as<T>(args.x),
                                  .x_stride = args.x_stride,
                                  .beta = as<T>(args.beta),
                                  .beta_stride = args.beta_stride,
                                  .bias = as<float>(args.bias),
                                  .rate = as<float>(args.rate),
                                  .x_scale = args.x_scale,
                                  .least = args.least,
                                  .most = args.most,
                                  .lower_bound = args.lower_bound,
                                  .beta_scale = args.beta_scale,
                                  .decay = as<float>(args.decay),
                                  .strength = as<float>(args.strength),
                                  .rows = static_cast<int>(args.decay.dim(0)),
                                  .n = static_cast<int>(args.decay.dim(1)),
                                  .heads = static_cast<int>(args.rate.num_elements())});
  });
}

void CudaBackend::linear_scan(const serval::LinearScanArgs& args) {
  with_number(args.out.dtype, [&](auto number) {
    using T = decltype(number);
    cuda::linear_scan<T>(stream_, {.batch = state_batch(*args.batch, args.kv),
                                   .q = as<T>(args.q),
                                   .k = as<T>(args.k),
                                   .v = as<T>(args.v),
                                   .qkv_stride = args.qkv_stride,
                                   .decay = as<float>(args.decay),
                                   .decay_stride = args.decay.dim(0) == 1 && args.out.dim(0) > 1 ? 0 : args.decay.dim(1),
                                   .decays = static_cast<int>(args.decay.dim(1)),
                                   .strength = as<float>(args.strength),
                                   .skip = as<float>(args.skip),
                                   .has_delta_rule = args.has_delta_rule,
                                   .scale = args.scale,
                                   .states = static_cast<float*>(args.kv.values),
                                   .out = as<T>(args.out),
                                   .key_heads = static_cast<int>(args.k.dim(1)),
                                   .heads = static_cast<int>(args.v.dim(1)),
                                   .keys = static_cast<int>(args.k.dim(2)),
                                   .values = static_cast<int>(args.v.dim(2))});
  });
}

void CudaBackend::gather_rows(const Tensor& x, std::span<const int32_t> rows, const Tensor& out) {
  const int32_t* const list = step().stage_list(rows.data(), static_cast<int64_t>(rows.size()));
  with_number(out.dtype, [&](auto number) {
    using T = decltype(number);
    cuda::gather_rows<T>(stream_, as<T>(x), list, as<T>(out), static_cast<int>(rows.size()),
                         static_cast<int>(out.dim(1)));
  });
}

void CudaBackend::clamp_gate_up(const Tensor& gate_up, float limit, float up_offset) {
  with_number(gate_up.dtype, [&](auto number) {
    using T = decltype(number);
    cuda::clamp_gate_up<T>(stream_, as<T>(gate_up), static_cast<int>(gate_up.dim(0)),
                           static_cast<int>(gate_up.dim(1) / 2), limit, up_offset);
  });
}

void CudaBackend::route_experts(const RoutingRule& rule, const Tensor& logits, const Tensor& bias,
                                const ExpertRouting& routing) {
  SERVAL_CHECK(logits.dtype == DType::kF32 && logits.dim(0) == routing.num_rows() &&
                   logits.dim(1) == routing.num_experts,
               logits.dim(0), routing.num_rows(), logits.dim(1), routing.num_experts);
  cuda::route_experts(stream_, {.logits = as<float>(logits),
                                .num_rows = static_cast<int>(routing.num_rows()),
                                .num_experts = routing.num_experts,
                                .top_k = routing.top_k,
                                .rule = rule,
                                .bias = as<float>(bias),
                                .experts = as<int32_t>(routing.experts),
                                .weights = as<float>(routing.weights),
                                .places = as<int32_t>(routing.places),
                                .rows = as<int32_t>(routing.rows),
                                .starts = as<int32_t>(routing.starts),
                                .scales = as<float>(routing.scales)});
}

void CudaBackend::dispatch_rows(const Tensor& x, const ExpertRouting& routing, const Tensor& out) {
  SERVAL_CHECK(x.dim(0) == routing.num_rows() && out.dim(0) == routing.num_places() && x.dim(1) == out.dim(1),
               x.dim(0), routing.num_rows(), out.dim(0), routing.num_places(), x.dim(1), out.dim(1));
  with_number(out.dtype, [&](auto number) {
    using T = decltype(number);
    if (routing.weighs_inputs)
      return cuda::dispatch_weighted<T>(stream_, {.x = as<T>(x),
                                                  .places = as<int32_t>(routing.places),
                                                  .weights = as<float>(routing.weights),
                                                  .out = as<T>(out),
                                                  .num_rows = static_cast<int>(routing.num_rows()),
                                                  .top_k = routing.top_k,
                                                  .dim = static_cast<int>(out.dim(1))});
    cuda::gather_rows<T>(stream_, as<T>(x), as<int32_t>(routing.rows), as<T>(out),
                         static_cast<int>(out.dim(0)), static_cast<int>(out.dim(1)));
  });
}

void CudaBackend::expert_linear(const Tensor& x, std::span<const LinearWeight> experts,
                                const ExpertRouting& routing, const Tensor& out) {
  SERVAL_CHECK(std::ssize(experts) == routing.num_experts && x.dim(0) == routing.num_places() &&
                   out.dim(0) == x.dim(0) && out.dtype == x.dtype,
               experts.size(), routing.num_experts, x.dim(0), routing.num_places(), out.dim(0));
  with_number(x.dtype, [&](auto number) {
    using T = decltype(number);
    ExpertGemmArgs<T> args{.x = as<T>(x),
                           .out = as<T>(out),
                           .starts = as<int32_t>(routing.starts),
                           .num_rows = static_cast<int>(routing.num_rows()),
                           .num_places = static_cast<int>(routing.num_places()),
                           .num_experts = routing.num_experts,
                           .n = static_cast<int>(out.dim(1)),
                           .k = static_cast<int>(x.dim(1)),
                           .weights = {},
                           .biases = {}};
    for (int e = 0; e < routing.num_experts; ++e) {
      const LinearWeight& w = experts[e];
      SERVAL_CHECK(format_of(x.dtype) == w.format && w.n == args.n && w.k == args.k, format_row(w.format).name, w.n,
                   args.n, w.k, args.k);
      args.weights[e] = w.packed.as<T>();
      args.biases[e] = w.bias.as<float>();
    }
    expert_gemm<T>(stream_, args);
  });
}

void CudaBackend::combine_experts(const Tensor& x, const ExpertRouting& routing, const Tensor& shared_gate,
                                  const Tensor& out) {
  const bool has_shared = x.dim(0) == routing.num_places() + routing.num_rows();
  SERVAL_CHECK((x.dim(0) == routing.num_places() || has_shared) && out.dim(0) == routing.num_rows() &&
                   x.dim(1) == out.dim(1) && (shared_gate.data == nullptr || has_shared),
               x.dim(0), routing.num_places(), out.dim(0), routing.num_rows(), x.dim(1), out.dim(1));
  with_number(out.dtype, [&](auto number) {
    using T = decltype(number);
    cuda::combine_experts<T>(stream_, {.x = as<T>(x),
                                       .places = as<int32_t>(routing.places),
                                       .weights = routing.weighs_inputs ? nullptr : as<float>(routing.weights),
                                       .out = as<T>(out),
                                       .num_rows = static_cast<int>(routing.num_rows()),
                                       .top_k = routing.top_k,
                                       .dim = static_cast<int>(out.dim(1)),
                                       .has_shared = has_shared,
                                       .shared_gate = as<float>(shared_gate)});
  });
}

void CudaBackend::copy_kv_blocks(const KvLayer& kv, std::span<const BlockCopy> copies) {
  // Rare (the first step of a fork or of a partial hit): the whole block is the simplest superset.
  for (const BlockCopy& copy : copies) {
    SERVAL_CHECK(copy.from >= 0 && copy.from < kv.num_blocks && copy.to >= 0 && copy.to < kv.num_blocks,
                 copy.from, copy.to, kv.num_blocks);
    for (const auto& [side, bytes] : {std::pair{kv.keys, kv.key_bytes()}, {kv.values, kv.value_bytes()}}) {
      auto* const blocks = static_cast<std::byte*>(side);
      copy_on_device(stream_, blocks + copy.to * bytes, blocks + copy.from * bytes, bytes);
    }
  }
}

void CudaBackend::move_kv(const KvLayer& kv, std::span<const KvMove> moves) {
  while (!moves.empty()) {
    KvMoves some{.sides = {kv.keys, kv.values},
                 .row_bytes = kv.head_dim * static_cast<int>(dtype_bytes(kv.dtype)),
                 .num_kv_heads = kv.num_kv_heads,
                 .block_size = kv.block_size,
                 .count = static_cast<int>(std::min<size_t>(moves.size(), KvMoves::kMost))};
    std::copy_n(moves.begin(), some.count, some.moves);
    cuda::move_kv(stream_, some);
    moves = moves.subspan(some.count);
  }
}

}  // namespace serval::cuda
