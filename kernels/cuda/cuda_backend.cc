#include "kernels/cuda/cuda_backend.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <stdexcept>

#include "kernels/base/check.h"
#include "kernels/base/log.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/experts.h"
#include "kernels/cuda/gemm.h"
#include "kernels/float_bits.h"

namespace serval::cuda {
namespace {

// Sizes of captured steps: small ones exactly, large ones in steps that waste little.
constexpr int kLadder[] = {1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256};
constexpr int kLadderStep = 64;  // beyond
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
      is_invariant_(config.invariant),
      staging_(stream_),
      sampler_(stream_) {
  name_ = "cuda-sm" + std::to_string(device_.compute_capability);
  if (!is_invariant_) vendor_gemm_ = VendorGemm::load();
}

CudaBackend::~CudaBackend() {
  synchronize(stream_);
  for (const Graph graph : graphs_)
    if (graph != nullptr) destroy_graph(graph);
}

Buffer CudaBackend::allocate(size_t bytes, const Progress&) {
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
  SERVAL_CHECK(!parts.empty() && (biases.empty() || biases.size() == parts.size()), parts.size(),
               biases.size());
  LinearWeight w;
  w.k = parts[0].k;
  w.format = parts[0].format;
  SERVAL_CHECK(supports(w.format), format_row(w.format).name);
  for (const LinearSource& part : parts) {
    SERVAL_CHECK(part.k == w.k && part.format == w.format, part.k, w.k, format_row(part.format).name);
    w.n += part.n;
  }
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

size_t CudaBackend::packed_bytes(int64_t n, int64_t k, WeightFormat format, bool bias) const {
  return code_bytes(format, n, k) + (bias ? static_cast<size_t>(n) * sizeof(float) : 0);
}

int32_t* CudaBackend::take_ints(int64_t count) {
  int32_t* const taken = int_memory_.as<int32_t>() + ints_taken_;
  ints_taken_ += (count + 15) / 16 * 16;  // a cache line each
  SERVAL_CHECK(ints_taken_ * sizeof(int32_t) <= int_memory_.bytes, ints_taken_, int_memory_.bytes);
  return taken;
}

size_t CudaBackend::reserve(const BackendLimits& limits) {
  const bool has_attention = limits.num_heads > 0;
  SERVAL_CHECK(!has_attention || (limits.num_kv_heads > 0 && limits.head_dim > 0 && limits.head_dim <= 256),
               limits.num_heads, limits.num_kv_heads, limits.head_dim);
  if (limits_.max_rows > 0) {  // a plan asked before; the limits of one model do not change
    SERVAL_CHECK(limits.max_rows == limits_.max_rows && limits.max_seqs == limits_.max_seqs, limits.max_rows,
                 limits_.max_rows, limits.max_seqs, limits_.max_seqs);
    return int_memory_.bytes + item_memory_.bytes + sampler_bytes_;
  }
  limits_ = limits;
  const int64_t rows = limits.max_rows, seqs = limits.max_seqs + limits.max_branches;
  const int64_t starts = seqs + 1, table = seqs * limits.table_stride;
  list_ints_ = rows;
  const int64_t group_ints = rows + table + 2 + 2 * starts;
  const int64_t tree_ints = limits.max_branches > 0 ? 3 * seqs : 0;
  const int64_t ints = 2 * rows + starts + seqs + tree_ints + limits.num_kv_groups * group_ints + list_ints_;
  constexpr int64_t kPieces = 18;  // what rounding each piece to a cache line may add
  int_memory_ = allocate(sizeof(int32_t) * (ints + 16 * kPieces));
  token_ids_ = take_ints(rows);
  positions_ = take_ints(rows);
  row_start_ = take_ints(starts);
  first_pos_ = take_ints(seqs);
  if (limits.max_branches > 0) {
    tree_masks_ = reinterpret_cast<uint64_t*>(take_ints(2 * seqs));
    tree_start_ = take_ints(seqs);
  }
  for (int g = 0; g < limits.num_kv_groups; ++g) {
    groups_[g] = {.slots = take_ints(rows),
                  .block_table = take_ints(table),
                  .counts = take_ints(2),
                  .item_start = take_ints(starts),
                  .tile_start = take_ints(starts)};
  }
  list_ = take_ints(list_ints_);
  mirrors_.reserve(4 + 2 * kMaxKvGroups);
  host_starts_.resize(2 * starts);
  staging_.reserve(sizeof(int32_t) * (ints + 16 * kPieces) + 64 * kPieces);

  // Items of a step that decodes every sequence at its full length, but no more than fill the device many
  // times over: sequences beyond take the kernel that needs no scratch.
  const int64_t chunks = tiles_of(limits.max_model_len, kChunkKeys);
  constexpr int64_t kItemsPerSm = 64;
  max_items_ =
      static_cast<int>(std::min(seqs * chunks, std::max<int64_t>(chunks, device_.num_sms * kItemsPerSm)));
  if (has_attention)
    item_memory_ = allocate(sizeof(float) * max_items_ * item_floats(limits.num_kv_heads, limits.head_dim));

  // Room for any one row (its biases and bans name each token once) or the tokens of one sequence to count,
  // and for as many usual rows as may come.
  const auto usual = static_cast<size_t>(limits.vocab / 32 + 256);
  const auto most = static_cast<size_t>(limits.max_model_len + limits.vocab / 32 + 1 + 3 * limits.vocab);
  max_list_ints_ = std::max(limits.max_logit_rows * usual, most);
  sampler_bytes_ = sampler_.reserve(limits.max_logit_rows, limits.vocab, limits.max_seqs, max_list_ints_);
  for (const int rung : kLadder)
    if (rung < limits.max_logit_rows) ladder_.push_back(rung);
  for (int rung = 256 + kLadderStep; rung < limits.max_logit_rows; rung += kLadderStep)
    ladder_.push_back(rung);
  ladder_.push_back(limits.max_logit_rows);
  graphs_.resize(ladder_.size());
  counted_.reserve(limits.max_seqs);
  return int_memory_.bytes + item_memory_.bytes + sampler_bytes_;
}

// --- the arrays of a step ---

void CudaBackend::mirror(const int32_t* host, int32_t* device, int64_t count) {
  staging_.copy(device, host, sizeof(int32_t) * count);
  mirrors_.push_back({host, device});
}

const int32_t* CudaBackend::device_array(const int32_t* host) const {
  for (const Mirror& m : mirrors_)
    if (m.host == host) return m.device;
  SERVAL_CHECK(false, "an op was given an array that is not the step's");
  return nullptr;
}

const CudaBackend::Group& CudaBackend::group_of(const AttentionBatch& batch) const {
  for (const Group& group : groups_)
    if (group.host_table == batch.block_table) return group;
  SERVAL_CHECK(false, "an op was given block tables that are not the step's");
  return groups_[0];
}

void CudaBackend::begin_step(const ForwardInput& input) {
  staging_.begin_step();
  mirrors_.clear();
  list_used_ = 0;
  const int rows = input.num_rows();
  if (rows == 0) return;
  mirror(input.token_ids.data(), token_ids_, rows);
  mirror(input.positions.data(), positions_, rows);
  const AttentionBatch& first = input.groups[0].attention;
  SERVAL_CHECK(rows <= limits_.max_rows && first.num_seqs <= limits_.max_seqs + limits_.max_branches, rows, limits_.max_rows,
               first.num_seqs, limits_.max_seqs);
  mirror(first.row_start, row_start_, first.num_seqs + 1);
  mirror(first.first_pos, first_pos_, first.num_seqs);
  // A captured step reads them whether there is a branch or not.
  if (limits_.max_branches > 0) {
    if (first.tree_masks != nullptr) {
      staging_.copy(tree_masks_, first.tree_masks, sizeof(uint64_t) * first.num_seqs);
      staging_.copy(tree_start_, first.tree_start, sizeof(int32_t) * first.num_seqs);
    } else {
      clear(stream_, tree_masks_, sizeof(uint64_t) * first.num_seqs);
    }
  }
  SERVAL_CHECK(first.tree_masks == nullptr || limits_.max_branches > 0, limits_.max_branches);
  is_split_only_ = true;
  const int starts = first.num_seqs + 1;
  for (int g = 0; g < limits_.num_kv_groups; ++g) {
    const KvGroupInput& in = input.groups[g];
    Group& group = groups_[g];
    SERVAL_CHECK(in.attention.table_stride <= limits_.table_stride, in.attention.table_stride,
                 limits_.table_stride);
    mirror(in.slots, group.slots, rows);
    staging_.copy(group.block_table, in.attention.block_table,
                  sizeof(int32_t) * in.attention.num_seqs * in.attention.table_stride);
    group.host_table = in.attention.block_table;
    const std::span<int32_t> items(host_starts_.data(), starts), tiles(host_starts_.data() + starts, starts);
    const int32_t counts[2] = {in.attention.num_seqs, in.attention.table_stride};
    staging_.copy(group.counts, counts, sizeof counts);
    if (limits_.num_heads == 0) continue;
    group.plan = plan_attention(in.attention, limits_.num_heads / limits_.num_kv_heads, limits_.windows[g],
                                max_items_, items, tiles);
    is_split_only_ &= group.plan.num_tiles == 0;
    staging_.copy(group.item_start, items.data(), sizeof(int32_t) * starts);
    staging_.copy(group.tile_start, tiles.data(), sizeof(int32_t) * starts);
  }
}

int CudaBackend::padded_rows(int num_rows) const {
  const auto rung = std::lower_bound(ladder_.begin(), ladder_.end(), num_rows);
  return rung == ladder_.end() ? num_rows : *rung;
}

void CudaBackend::run_captured(int num_rows, const std::function<void()>& body) {
  const int rung = captured_rung(num_rows);
  // What was captured knows only the kernel of split sequences.
  if (rung < 0 || !is_split_only_) return body();
  launch_graph(graphs_[rung], stream_);
}

int CudaBackend::captured_rung(int num_rows) const {
  const auto rung = std::lower_bound(ladder_.begin(), ladder_.end(), num_rows) - ladder_.begin();
  const bool is_captured =
      rung < std::ssize(ladder_) && ladder_[rung] == num_rows && graphs_[rung] != nullptr;
  return is_captured ? static_cast<int>(rung) : -1;
}

void CudaBackend::capture(int num_rows, const std::function<void()>& body) {
  const auto rung = std::lower_bound(ladder_.begin(), ladder_.end(), num_rows) - ladder_.begin();
  SERVAL_CHECK(rung < std::ssize(ladder_) && ladder_[rung] == num_rows && graphs_[rung] == nullptr, num_rows);
  SERVAL_CHECK(is_split_only_, "a captured step has no tiles");
  begin_capture(stream_);
  body();
  graphs_[rung] = end_capture(stream_);
}

const int32_t* CudaBackend::stage_list(const int32_t* values, int64_t count) {
  SERVAL_CHECK(list_used_ + count <= list_ints_, list_used_, count, list_ints_);
  int32_t* const list = list_ + list_used_;
  list_used_ += count;
  staging_.copy(list, values, sizeof(int32_t) * count);
  return list;
}

// --- ops ---

void CudaBackend::embed(const LinearWeight& table, std::span<const int32_t> ids, float scale,
                        const Tensor& out) {
  with_number(out.dtype, [&](auto number) {
    using T = decltype(number);
    cuda::embed<T>(stream_, table.packed.as<T>(), device_array(ids.data()), sampler_.last_tokens(),
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
                                     .positions = device_array(args.positions),
                                     .cos_sin = as<float>(args.cos_sin),
                                     .rotary_dim = args.rotary_dim,
                                     .slots = device_array(args.slots),
                                     .keys = args.kv.keys,
                                     .values = args.kv.values,
                                     .is_fp8 = args.kv.dtype == DType::kF8,
                                     .block_size = args.kv.block_size});
  });
}

void CudaBackend::head_rms_norm(const Tensor& x, int64_t row_stride, const Tensor& weight, float eps) {
  with_number(x.dtype, [&](auto number) {
    using T = decltype(number);
    cuda::qk_norm_rope_write_kv<T>(stream_, {.q = as<T>(x),
                                     .rows = static_cast<int>(x.dim(0)),
                                     .num_q = static_cast<int>(x.dim(1)),
                                     .head_dim = static_cast<int>(x.dim(2)),
                                     .row_stride = row_stride,
                                     .q_norm = as<float>(weight),
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
                                     .positions = device_array(args.positions),
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
                                     .slots = device_array(args.slots),
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
  const Group& group = group_of(*args.batch);
  const KvLayer& kv = args.kv;
  const auto num_heads = static_cast<int>(args.q.dim(1));
  SERVAL_CHECK(num_heads * limits_.num_kv_heads == limits_.num_heads * kv.num_kv_heads, num_heads,
               kv.num_kv_heads, "every layer packs as many heads to a KV head");
  SERVAL_CHECK(std::has_single_bit(static_cast<unsigned>(kv.block_size)), kv.block_size);
  SERVAL_CHECK(kv.head_dim % (kv.dtype == DType::kF8 ? 16 : 8) == 0, kv.head_dim);
  auto* const states = item_memory_.as<float>();
  const AttentionParams params{
      .q = args.q.data,
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
      .counts = group.counts,
      .row_start = row_start_,
      .first_pos = first_pos_,
      .block_table = group.block_table,
      .item_start = group.item_start,
      .tile_start = group.tile_start,
      .tree_masks = tree_masks_,
      .tree_start = tree_start_,
      .item_state = states,
      .item_out = states + int64_t{max_items_} * limits_.num_kv_heads * kItemRows * 2};
  const int blocks = device_.num_sms * kBlocksPerSm;
  with_number(args.q.dtype, [&](auto number) {
    using T = decltype(number);
    if (is_split_only_ || group.plan.num_items > 0)
      attend_split<T>(stream_, params, blocks, args.batch->num_rows, device_.shared_bytes_per_block);
    if (!is_split_only_) attend_tiles<T>(stream_, params, blocks);
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

void CudaBackend::soft_cap(const Tensor& x, float cap) {
  SERVAL_CHECK(x.dtype == DType::kF32, dtype_name(x.dtype));
  cuda::soft_cap(stream_, as<float>(x), x.num_elements(), cap);
}

StateBatch CudaBackend::state_batch(const AttentionBatch& batch, const KvLayer& kv) const {
  const Group& group = group_of(batch);
  return {.counts = group.counts,
          .row_start = row_start_,
          .first_pos = first_pos_,
          .block_table = group.block_table,
          .span = kv.block_size,
          .max_seqs = std::min(batch.num_rows, limits_.max_seqs)};
}

void CudaBackend::causal_conv(const CausalConvArgs& args) {
  with_number(args.out.dtype, [&](auto number) {
    using T = decltype(number);
    cuda::causal_conv<T>(stream_, {.batch = state_batch(*args.batch, args.kv),
                                   .x = as<T>(args.x),
                                   .x_stride = args.x_stride,
                                   .weight = as<float>(args.weight),
                                   .bias = as<float>(args.bias),
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
                                      .a = as<float>(args.a),
                                      .d = as<float>(args.d),
                                      .states = static_cast<float*>(args.kv.values),
                                      .out = as<T>(args.out),
                                      .channels = static_cast<int>(args.out.dim(1))});
  });
}

void CudaBackend::gather_rows(const Tensor& x, std::span<const int32_t> rows, const Tensor& out) {
  const int32_t* const list = stage_list(rows.data(), static_cast<int64_t>(rows.size()));
  with_number(out.dtype, [&](auto number) {
    using T = decltype(number);
    cuda::gather_rows<T>(stream_, as<T>(x), list, as<T>(out), static_cast<int>(rows.size()),
                         static_cast<int>(out.dim(1)));
  });
}

void CudaBackend::route_experts(RoutingRule rule, const Tensor& logits, const ExpertRouting& routing) {
  SERVAL_CHECK(logits.dtype == DType::kF32 && logits.dim(0) == routing.num_rows() &&
                   logits.dim(1) == routing.num_experts,
               logits.dim(0), routing.num_rows(), logits.dim(1), routing.num_experts);
  cuda::route_experts(stream_, {.logits = as<float>(logits),
                                .num_rows = static_cast<int>(routing.num_rows()),
                                .num_experts = routing.num_experts,
                                .top_k = routing.top_k,
                                .rule = rule,
                                .experts = as<int32_t>(routing.experts),
                                .weights = as<float>(routing.weights),
                                .places = as<int32_t>(routing.places),
                                .rows = as<int32_t>(routing.rows),
                                .starts = as<int32_t>(routing.starts)});
}

void CudaBackend::dispatch_rows(const Tensor& x, const ExpertRouting& routing, const Tensor& out) {
  SERVAL_CHECK(x.dim(0) == routing.num_rows() && out.dim(0) == routing.num_places() && x.dim(1) == out.dim(1),
               x.dim(0), routing.num_rows(), out.dim(0), routing.num_places(), x.dim(1), out.dim(1));
  with_number(out.dtype, [&](auto number) {
    using T = decltype(number);
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
                           .weights = {}};
    for (int e = 0; e < routing.num_experts; ++e) {
      const LinearWeight& w = experts[e];
      SERVAL_CHECK(
          format_of(x.dtype) == w.format && w.n == args.n && w.k == args.k && w.bias.data() == nullptr,
          format_row(w.format).name, w.n, args.n, w.k, args.k);
      args.weights[e] = w.packed.as<T>();
    }
    expert_gemm<T>(stream_, args);
  });
}

void CudaBackend::combine_experts(const Tensor& x, const ExpertRouting& routing, const Tensor& out) {
  SERVAL_CHECK(x.dim(0) == routing.num_places() && out.dim(0) == routing.num_rows() && x.dim(1) == out.dim(1),
               x.dim(0), routing.num_places(), out.dim(0), routing.num_rows(), x.dim(1), out.dim(1));
  with_number(out.dtype, [&](auto number) {
    using T = decltype(number);
    cuda::combine_experts<T>(stream_, {.x = as<T>(x),
                                       .places = as<int32_t>(routing.places),
                                       .weights = as<float>(routing.weights),
                                       .out = as<T>(out),
                                       .num_rows = static_cast<int>(routing.num_rows()),
                                       .top_k = routing.top_k,
                                       .dim = static_cast<int>(out.dim(1))});
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

int CudaBackend::sample(const SampleArgs& args) {
  // As many tokens to count and rows at once as their lists have room; nearly always all of them.
  const auto list_ints = [&](const SampleRow& row) {
    return static_cast<size_t>((row.has_penalty() ? row.num_recent : 0) + 2 * row.num_logit_bias +
                               row.num_banned + (row.mask != nullptr ? (limits_.vocab + 31) / 32 : 0));
  };
  const int64_t num_rows = args.logits.dim(0), vocab = args.logits.dim(1);
  int next_counted = 0, tokens_of_next = 0;  // the list to count next, and how much of it is counted
  for (int64_t begin = 0;;) {
    size_t room = max_list_ints_;
    counted_.clear();
    while (next_counted < args.num_counted && room > 0) {
      CountedTokens piece = args.counted[next_counted];
      const int left = piece.num_tokens - tokens_of_next;
      piece.restart &= tokens_of_next == 0;
      piece.tokens += tokens_of_next;
      piece.num_tokens = static_cast<int>(std::min<size_t>(room, left));
      piece.num_prompt = std::clamp(piece.num_prompt - tokens_of_next, 0, piece.num_tokens);
      counted_.push_back(piece);
      room -= piece.num_tokens;
      tokens_of_next = piece.num_tokens == left ? 0 : tokens_of_next + piece.num_tokens;
      if (tokens_of_next == 0) ++next_counted;
    }
    int64_t end = begin;
    while (next_counted == args.num_counted && end < num_rows) {
      const size_t ints = list_ints(args.rows[end]);
      if (ints > room && (end > begin || !counted_.empty())) break;
      room -= std::min(room, ints);
      ++end;
    }
    SampleArgs some = args;
    some.counted = counted_.data();
    some.num_counted = static_cast<int>(counted_.size());
    some.logits = Tensor(args.logits.at(begin * vocab), DType::kF32, {end - begin, vocab});
    some.rows += begin;
    some.results += begin;
    if (some.top != nullptr) some.top += begin * args.top_stride;
    const int ticket = sampler_.launch(some);
    tickets_[ticket] = some;
    if (end == num_rows) return ticket;
    wait_sampled(ticket);
    begin = end;
  }
}

void CudaBackend::wait_sampled(int ticket) {
  sampler_.wait_sampled(ticket, tickets_[ticket].results, tickets_[ticket].top);
}

}  // namespace serval::cuda
