// The device seam: memory and every operation a decoder needs, on one device. The forward pass
// (engine/model/transformer.cc) is written against this page; a backend knows nothing of requests.
//
// Law 1 (invariance) is a promise of this interface: every output row of every op depends only on that row's
// own inputs, bit for bit, whatever the number of rows in the call and whatever the other rows hold. One
// backend instance is used by one thread at a time (the engine thread); it may fan out to its own workers
// inside a call. Ops return when the result can be read by the next op on the same backend. Nothing here
// allocates except allocate(), pack_linear() and make_step_context().
//
// Ops belong to a step: arrays of integers that they are given are those of the StepContext whose step has begun,
// and their scratch is its own (step_context.h).
//
// Tensors and Buffers are the device's memory, which the host may not be able to touch: upload() and
// download() move bytes between the two. Arrays of integers (spans, the pointers of AttentionBatch) are host
// memory.
#pragma once

#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "kernels/activation.h"
#include "kernels/expert_routing.h"
#include "kernels/quant.h"
#include "kernels/step_context.h"
#include "kernels/tensor.h"

namespace serval {

// A weight matrix [n, k] in the backend's own layout, with an optional bias [n]. y = x W^T + b.
struct LinearWeight {
  int64_t n = 0;
  int64_t k = 0;
  WeightFormat format = WeightFormat::kF32;
  int64_t group = 0;  // these two as MatrixFormat has them
  bool has_offsets = false;
  Buffer packed;
  Buffer scales;  // as the format has them (kernels/quant.h), empty when it has none
  Buffer bias;    // f32 [n], empty when there is none
  MatrixFormat matrix_format() const { return {format, group, has_offsets}; }
  size_t bytes() const { return packed.bytes + scales.bytes + bias.bytes; }
};

// The matrix that the parts' rows make in order, without memory yet: what pack_linear() begins with. Parts share k
// and format; biases are f32, none or one of n elements a part.
LinearWeight fused_shape(std::span<const LinearSource> parts, std::span<const Tensor> biases);

// Of the recurrent layers' ops at most: taps of a convolution, states of a channel of a selective scan, the width of a
// key of a linear scan.
inline constexpr int kMaxConvTaps = 8, kMaxScanStates = 32, kMaxScanKeys = 256;

// What one layer keeps of the positions of a block: keys and values, or a recurrent layer's state. The layout
// inside a block belongs to the backend; blocks are copied with copy_kv_blocks.
struct KvLayer {
  void* keys = nullptr;    // [num_blocks] of key_bytes()
  void* values = nullptr;  // [num_blocks] of value_bytes()
  DType dtype = DType::kBF16;
  int num_blocks = 0;
  int block_size = 16;  // positions in a block
  int num_kv_heads = 0;
  int head_dim = 0;   // of a key, and of a value
  int value_dim = 0;  // of a value, where it is less; 0: it is not
  // Of a recurrent layer (the others: 0), f32 numbers: a block holds what the layer has come to behind the last
  // computed of its block_size positions. As keys the inputs of its convolution that the next rows need, [taps - 1,
  // channels], oldest first; as values the states of its scan, whose layout is the op's.
  int64_t conv_floats = 0, scan_floats = 0;
  // Of a layer whose keys are its values (AttendRowsArgs; the others: 0): rows of so many f32 numbers, one for every row_span
  // positions, which lies in the block of the last of them. As keys; values there are none.
  int64_t row_floats = 0;
  int row_span = 1;
  // A key is several vectors side by side, of sizes of their own: one scale would suit none of them.
  bool has_joint_keys = false;

  bool keeps_state() const { return conv_floats + scan_floats > 0; }
  size_t key_bytes() const {
    if (row_floats > 0) return rows_of_block() * row_floats * sizeof(float);
    return keeps_state() ? conv_floats * sizeof(float) : block_bytes();
  }
  size_t value_bytes() const {
    if (row_floats > 0) return 0;
    return keeps_state() ? scan_floats * sizeof(float)
                         : static_cast<size_t>(block_size) * num_kv_heads * head_bytes(value_width());
  }
  int64_t rows_of_block() const { return (block_size + row_span - 1) / row_span; }
  // The row whose last position is `last`, by the block table of its sequence.
  float* row_at(const int32_t* blocks, int last) const {
    return static_cast<float*>(keys) +
           (blocks[last / block_size] * rows_of_block() + last % block_size / row_span) * row_floats;
  }
  int value_width() const { return value_dim > 0 ? value_dim : head_dim; }
  size_t block_bytes() const {  // of keys of heads
    return static_cast<size_t>(block_size) * num_kv_heads * head_bytes(head_dim);
  }
  // Codes stand for numbers under a scale of each position and head: kI8 by round_row(), kI4 by round_between()
  // (kernels/quant.h). Scales lie in the block of their codes, so that whatever moves blocks moves them too.
  static constexpr size_t kScaleBytes = 4;
  bool has_scales() const { return dtype == DType::kI8 || dtype == DType::kI4; }
  // Of one position of one head: its `width` numbers, and all of it.
  size_t number_bytes(int width) const { return width * dtype_bits(dtype) / 8; }
  size_t head_bytes(int width) const { return number_bytes(width) + (has_scales() ? kScaleBytes : 0); }
};

struct AttentionArgs {
  // [num_rows, num_heads, dim], already rotated; what a kept key has beyond dim (ChooseKeysArgs) plays no part
  Tensor q;
  KvLayer kv;
  const AttentionBatch* batch = nullptr;
  float scale = 1.0f;
  float soft_cap = 0;  // 0: none; c: scores become c * tanh(score / c)
  // 0: all; w: a row at position p sees those > p - w (and < p + w, where it sees ahead); -c: those from the last multiple of c on (Llama 4).
  int window = 0;
  Tensor sinks;        // f32 [num_heads]: a score that joins each softmax without a value; data null: none
  // f32 [num_heads]: a score falls by this for each position between its key and its query (ALiBi, Press et al. 2022),
  // after the cap; data null: none.
  Tensor slopes;
  // A second query of each row, laid out as q: it instead of q meets the keys that stand `near` or more positions before
  // the row, and of those only the first num_far positions (0: all). Needs near > 0 and no window; data null: none.
  // RareOp::kFarQueries.
  Tensor far_q;
  int near = 0;
  int num_far = 0;
  // Of the keys that a row sees, those that choose_keys() chose last in this step.
  bool is_chosen = false;
  // A row sees those of its sequence that stand behind it in this step, too (an encoder's). Without chunks, far_q, slopes,
  // is_chosen and branches. RareOp::kSeesAhead.
  bool sees_ahead = false;
  Tensor out;          // [num_rows, num_heads * value_width]
};

// Which keys the rows attend to (DeepSeek-V3.2, section 2.1; MiniMax-M3). Positions are taken in blocks, counted from 0,
// and of the blocks up to a row's own the top_k of the highest scores are chosen, of equal ones the earlier. A block's
// score is that of the best of its positions that the row sees; the last `local` ones go first. What a position is scored
// by, [dim] numbers, is kept in as many pieces as there are KV heads, behind the first `kept_from` numbers of each key.
// RareOp::kChosenKeys.
struct ChooseKeysArgs {
  Tensor q;  // [num_rows, heads, dim], rows together
  // [num_rows, heads]: a score is the sum over heads of weight * max(0, q . key), for all KV heads alike. Data null: heads
  // are as many as KV heads, and each of those attends to what its own q . key chooses.
  Tensor weights;
  int kept_from = 0;
  int top_k = 0;
  int block = 1, local = 0;
  KvLayer kv;
  const AttentionBatch* batch = nullptr;
};

// out [num_rows, heads, dim] = x of the same shape, or zeros where its data is null, each with its own distance between
// rows and between heads, in elements.
struct CopyHeadsArgs {
  Tensor x;
  int64_t x_row_stride = 0, x_head_stride = 0;
  Tensor out;
  int64_t out_row_stride = 0, out_head_stride = 0;
};

// A product for each head, by its own weight: out [num_rows, heads, n] from x [num_rows, heads, k], each with its own
// distance between rows and between heads, in elements.
struct HeadLinearArgs {
  Tensor x;
  int64_t x_row_stride = 0, x_head_stride = 0;
  std::span<const LinearWeight> heads;  // [n, k] each, of one shape and format, all with biases or none
  Tensor out;
  int64_t out_row_stride = 0, out_head_stride = 0;
};

// Rotary embedding in the half-rotation layout (Su et al. 2021; pair (i, i + rotary_dim/2)), cos/sin from a
// table by position.
struct RopeArgs {
  Tensor x;                            // [num_rows, num_heads, head_dim], in place
  int64_t row_stride = 0;              // elements between rows of x (x may be a slice of the fused qkv)
  const int32_t* positions = nullptr;  // [num_rows]
  Tensor cos_sin;                      // [max_positions, rotary_dim] f32: cos half then sin half
  int rotary_dim = 0;
  // Pairs are (2i, 2i + 1) instead; they turn the other way. RareOp::kKeptRows, both.
  bool has_neighbour_pairs = false, turns_back = false;
};

// x [num_rows, width] into rows of kv at `first`, kv.row_span being 1. RareOp::kKeptRows, as are the next three.
struct WriteRowsArgs {
  Tensor x;
  int64_t first = 0;
  const int32_t* slots = nullptr;  // [num_rows], as WriteKvArgs has them
  KvLayer kv;
};

// Compresses windows of to.row_span positions, counted from 0, into a row each, when their last position is computed
// (DeepSeek-V4, sections 2.3.1 and 2.3.2). At `first` in a row of `from` there are `dim` numbers c and as many weights z,
// which are softmaxed over the window, number by number: the row is rotate(norm(sum of softmax(z + bias) c)), as its first
// position rotates the last of its numbers. Windows that overlap have twice as many of each: of the first half those of the
// window before come into it (the first window has none), of the second half the window's own.
struct CompressRowsArgs {
  KvLayer from;
  int64_t first = 0;
  const AttentionBatch* batch = nullptr;
  bool overlaps = false;
  Tensor bias;  // f32 [to.row_span, dim, or 2 dim]: by place in the window
  Tensor norm;  // f32 [dim], of an RMS norm
  float eps = 0;
  const int32_t* positions = nullptr;  // [num_rows], into cos_sin
  Tensor cos_sin;
  KvLayer to;
  int64_t to_first = 0;  // where in its row the compressed lies
  const AttentionBatch* to_batch = nullptr;
};

// Of the windows that have closed, those whose rows a row attends to: the top_k of the highest scores, of equal ones the
// earlier. A score is the sum over heads of weight * max(0, q . row), of `dim` numbers of the row from `first` on.
struct ChooseRowsArgs {
  Tensor q;        // [num_rows, heads, dim], rows together
  Tensor weights;  // [num_rows, heads]
  int64_t first = 0;
  int top_k = 0;
  KvLayer kv;
  const AttentionBatch* batch = nullptr;
};

// Attention to rows that are keys and values at once, by their first `dim` numbers: those of the last `window` positions, the
// row's own among them, and those of windows that have closed. One softmax over both and the sinks.
struct AttendRowsArgs {
  Tensor q;      // [num_rows, heads, dim], rows together
  KvLayer near;  // row_span 1
  const AttentionBatch* near_batch = nullptr;
  int window = 0;
  KvLayer far;  // row_floats 0: there are none
  const AttentionBatch* far_batch = nullptr;
  bool is_chosen = false;  // of `far` those alone that choose_rows() chose last in this step
  float scale = 1;
  Tensor sinks;  // f32 [heads]
  Tensor out;    // [num_rows, heads * dim]
};

struct WriteKvArgs {
  Tensor k;                        // [num_rows, num_kv_heads, head_dim]
  Tensor v;                        // the same, of value_width; may lie where k does
  int64_t row_stride = 0;          // elements between rows of k and of v
  const int32_t* slots = nullptr;  // [num_rows]: block * block_size + offset
  KvLayer kv;
};

// All that happens to the fused projection between it and attention: heads are normalised (where there is a
// weight), queries and keys rotated (where rotary_dim > 0), keys and values stored. q is left in place for
// attention.
struct QkNormRopeWriteKvArgs {
  Tensor q;  // [num_rows, num_heads, head_dim]; k and v lie behind it in the same rows
  Tensor k;  // [num_rows, num_kv_heads, head_dim]
  Tensor v;
  int64_t row_stride = 0;
  Tensor q_norm, k_norm;  // f32 [head_dim]; data null: none
  float eps = 0;
  const int32_t* positions = nullptr;
  Tensor cos_sin;
  int rotary_dim = 0;
  const int32_t* slots = nullptr;
  KvLayer kv;
};

// Causal convolution of each channel by itself: out[p] = f(bias + sum over t of weight[t] * x[p - taps + 1 + t]), with
// zeros before position 0. Its input and its output may be gated: x is multiplied by in_gate before, out by
// out_gate. `kv` keeps the inputs across steps.
struct CausalConvArgs {
  Tensor x;                  // [num_rows, channels]
  Tensor in_gate, out_gate;  // [num_rows, channels] of the rows that x is a slice of; data null: none
  int64_t x_stride = 0;      // elements between those rows
  Tensor weight;             // f32 [taps, channels], 2..kMaxConvTaps taps
  Tensor bias;               // f32 [channels]; data null: none
  bool has_silu = true;      // f is SiLU; else nothing
  KvLayer kv;
  const AttentionBatch* batch = nullptr;
  Tensor out;  // [num_rows, channels]
};

// Selective scan (Gu and Dao 2023, Algorithm 2), and the gate behind it. For each channel and state n, from zero
// before position 0, in f32: h_n = h_n exp(dt a_n) + dt u b_n with dt = softplus of what is given; then
// out = (sum over n of h_n c_n + d u) * silu(gate). `kv` keeps h across steps.
struct SelectiveScanArgs {
  Tensor u;               // [num_rows, channels]
  Tensor dt;              // f32 [num_rows, channels]
  Tensor b, c;            // [num_rows, states], 1..kMaxScanStates of them
  int64_t bc_stride = 0;  // elements between rows of b and of c
  // Channels are so many heads of neighbours, of which each has b and c of its own, so many elements apart. More than 1:
  // RareOp::kHeadScan.
  int heads = 1;
  int64_t bc_head_stride = 0;
  Tensor gate;            // [num_rows, channels]
  int64_t gate_stride = 0;
  Tensor a;  // f32 [states, channels], negative
  Tensor d;  // f32 [channels]
  KvLayer kv;
  const AttentionBatch* batch = nullptr;
  Tensor out;  // [num_rows, channels]
};

// Scan of matrix states, of every recurrence that adds products of keys and values to them (linear attention: Yang et
// al. 2024, table 4). A head's state S is [key_dim, value_dim], zero before position 0. In f32, for a row with key k,
// value v, query q, decay d and strength s:
//   S = diag(d) S;   S = S + k (s (v - m))^T  with m = S^T k by the delta rule, else 0;   out = scale S^T q + skip v
// Mamba 2 (Dao and Gu 2024): q, k, d, s are C, B, exp(dt A), dt. Gated delta net (Yang et al. 2025): delta rule. `kv`
// keeps the heads' states across steps, [heads, key_dim, value_dim].
struct LinearScanArgs {
  Tensor q, k;             // [num_rows, key_heads, key_dim]; neighbouring value heads share one
  Tensor v;                // [num_rows, heads, value_dim]
  int64_t qkv_stride = 0;  // elements between rows of each
  // f32 factors, [num_rows, heads] or, one for each of a head's keys, [num_rows, heads * key_dim]; one row: of all rows.
  Tensor decay;
  Tensor strength;  // f32 [num_rows, heads]; data null: 1
  bool has_delta_rule = false;
  float scale = 1;
  Tensor skip;  // f32 [heads]; data null: 0
  KvLayer kv;
  const AttentionBatch* batch = nullptr;
  Tensor out;  // [num_rows, heads * value_dim]
};

// Scan of real-gated linear units (RG-LRU; De et al. 2024, section 2.4). For each channel, from zero before position 0,
// in f32: a = exp(rate sigmoid(decay_gate + decay_bias)); h = a h + m sigmoid(in_gate + in_bias) x with m = sqrt(1 - a^2),
// at position 0: 1; out = h. `kv` keeps h across steps.
struct GatedScanArgs {
  Tensor x;                    // [num_rows, channels], as all below
  Tensor in_gate, decay_gate;
  Tensor in_bias, decay_bias;  // f32 [channels]
  Tensor rate;                 // f32 [channels], negative
  KvLayer kv;
  const AttentionBatch* batch = nullptr;
  Tensor out;
};

// Scan of weighted means (RWKV-4; Peng et al. 2023, section 3.1). For each channel, in f32, with a state of sums num and
// den that are zero before position 0: out = (num + exp(first + k) v) / (den + exp(first + k)), then num = num exp(decay) +
// exp(k) v and den likewise. `kv` keeps [num, den, the exponent they are relative to] of all channels.
struct MeanScanArgs {
  Tensor k, v;          // [num_rows, channels]
  Tensor decay, first;  // f32 [channels], the decay negative
  KvLayer kv;
  const AttentionBatch* batch = nullptr;
  Tensor out;  // [num_rows, channels]
};

// Scan of matrix states that replace what they hold of a key (RWKV-7; Peng et al. 2025, sections 4.1 and 4.2). A head's state
// S is [dim, dim], zero before position 0. In f32, for a row with r, key k, value v, decay d and rate a, f the key_scale * k of
// length one, k' = k (1 + (a - 1) key_rate):
//   S = diag(d) S - (a f) (S^T f)^T + k' v^T;   out = S^T r;   direct = (sum of r k' bonus) v
// `kv` keeps the heads' states across steps, [heads, dim, dim].
struct ReplacingScanArgs {
  Tensor r, k, v;                     // [num_rows, heads, dim], rows together
  Tensor decay, rate;                 // f32 [num_rows, heads * dim]
  Tensor key_scale, key_rate, bonus;  // f32 [heads * dim]
  float length_eps = 0;               // added to the square of a length
  KvLayer kv;
  const AttentionBatch* batch = nullptr;
  Tensor out, direct;  // [num_rows, heads * dim]
};

// What a linear scan's rows do to its states, of what a layer projects: step = softplus(x_scale x + bias) in [least, most];
// decay = exp(rate * step), or exp(lower_bound * sigmoid(-rate * (x_scale x + bias))) with a bound below 0; strength =
// the step, or beta_scale * sigmoid(beta).
struct ScanGatesArgs {
  Tensor x;                  // [num_rows, n]
  int64_t x_stride = 0;      // elements between its rows
  Tensor beta;               // [num_rows, heads]; data null: none
  int64_t beta_stride = 0;
  Tensor bias;  // f32 [n]; data null: none
  Tensor rate;  // f32 [heads], negative: each of n / heads neighbours
  float x_scale = 1, least = 0, most = std::numeric_limits<float>::infinity();
  float lower_bound = 0;
  float beta_scale = 1;
  Tensor decay;     // f32 [num_rows, n]
  Tensor strength;  // f32 [num_rows, heads], with beta; without it [num_rows, n]
};

// Of several residual streams of one row each (AltUp; Baykal et al. 2023), at most kMaxStreams. Row r has modes m = tanh
// of what is given.
inline constexpr int kMaxStreams = 8;
struct StreamArgs {
  Tensor streams;  // [count * num_rows, dim]: stream by stream
  Tensor modes;    // [num_rows, count]
};
// In place, x_i of stream i: x_o += sum over i of c[o * count + i] x_i with c = weights m.
struct MixStreamsArgs {
  StreamArgs of;
  Tensor weights;  // f32 [count * count, count]
};
// Stream 0 holds what became of `before`, by d = x_0 - before. Then x_0 = before + (1 + c[0]) d, and of the others
// x_i += (1 + c[i]) d, with c = weights m.
struct CorrectStreamsArgs {
  StreamArgs of;
  Tensor weights;  // f32 [count, count]
  Tensor before;   // [num_rows, dim]
  Tensor scale;    // f32 [dim]
  Tensor scaled;   // [num_rows, dim]: x_0 times scale, at last
};

// Residuals of a row side by side, [num_rows, count * dim], count at most kMaxStreams, of which a part reads one mixture and to
// which it gives back another (hyper-connections on the manifold of doubly stochastic matrices; DeepSeek-V4, section 2.2).
struct MixedResidualsArgs {
  Tensor residuals;
  // f32 [num_rows, count, or (2 + count) count], of what the row's own projection has made: pre, then post and comb. They
  // become the mixtures: pre = sigmoid(scale pre + base) + eps, post = 2 sigmoid(...), comb = softmax of its rows, + eps, whose
  // columns and rows are made to add up to 1 in turn, `rounds` times, columns first.
  Tensor mixes;
  Tensor base;   // f32, as wide as mixes
  Tensor scale;  // f32 [1, or 3], of pre, post, comb
  float eps = 0;
  int rounds = 0;
};

// How far something long at the start is: (bytes done, bytes in all). May throw to give up.
using Progress = std::function<void(size_t, size_t)>;

class Backend {
 public:
  virtual ~Backend() = default;

  // "cpu-avx512", ...: goes into logs and the cache of law 1's meaning
  virtual std::string_view name() const = 0;
  // Ops return before they are done; whoever needs a result waits with StepContext::wait_sampled() or download().
  virtual bool is_asynchronous() const { return false; }
  // Zeroed and touched, 64-byte aligned (huge pages where they help); throws at start-up.
  virtual Buffer allocate(size_t bytes) = 0;
  // Zeroed, and touched by and by: by whoever comes first, or by a thread that nobody waits for. The memory itself may be
  // late, never the zeros.
  virtual Buffer reserve(size_t bytes) { return allocate(bytes); }
  // Calls task(i) for each i of [0, count) on the threads that compute, where there are any: for the host's work at
  // start-up. Tasks must not throw.
  virtual void for_each_on_host(int64_t count, const std::function<void(int64_t)>& task) {
    for (int64_t i = 0; i < count; ++i) task(i);
  }
  // The name of the layout that pack_linear() writes, where that is host memory whose bytes mean the same in another
  // process of this program; empty: it is not.
  virtual std::string_view packed_layout() const { return {}; }
  virtual void upload(void* to, const void* from, size_t bytes) = 0;    // done when it returns
  virtual void download(void* to, const void* from, size_t bytes) = 0;  // waits for what was asked before
  // Bytes of memory that are free for allocate().
  virtual size_t available_bytes() const = 0;
  // Of every activation but logits, which are f32.
  virtual DType activation_dtype(DType weights) const = 0;
  // Whether there are kernels for weights of this format.
  virtual bool supports(WeightFormat format) const = 0;
  // Whether there is a kernel for an op that not every device has one for.
  virtual bool has(RareOp /*op*/) const { return true; }
  // What to pack weights of this format as: as they are where that is supported, or dequantised.
  MatrixFormat held_format(const MatrixFormat& format) const {
    if (supports(format.id)) return format;
    return supports(format.plain) ? format.plain : WeightFormat::kBF16;
  }
  // Fuses the parts' rows in order (q, k, v -> one [nq+nk+nv, k]); all parts share k and a supported format.
  // Biases (f32): empty, or one per part.
  virtual LinearWeight pack_linear(std::span<const LinearSource> parts, std::span<const Tensor> biases) = 0;
  virtual size_t packed_bytes(int64_t n, int64_t k, const MatrixFormat& format,
                              bool bias) const = 0;  // what pack_linear will take
  virtual DType preferred_kv_dtype(DType weights) const = 0;
  virtual bool takes_kv_dtype(DType kv, DType weights) const = 0;
  // Room for the steps of one model, within these limits; throws at start-up. step_context_bytes() is what it will
  // take of the device's memory, by arithmetic.
  virtual std::unique_ptr<StepContext> make_step_context(const StepLimits& limits) = 0;
  virtual size_t step_context_bytes(const StepLimits& limits) const = 0;

  // out [rows, k] = scale * table[id of the row].
  virtual void embed(const LinearWeight& table, std::span<const int32_t> ids, float scale,
                     const Tensor& out) = 0;
  // residual += x (x may be absent: data null); out = rms_norm(residual) * weight. residual, out: [rows,
  // dim]; weight f32 [dim], may be absent. Without x, out may be residual itself.
  virtual void add_rms_norm(const Tensor& residual, const Tensor& x, const Tensor& weight, float eps,
                            const Tensor& out) = 0;
  // The same with out = (residual - mean) / deviation * weight + bias (Ba et al. 2016), eps added to the
  // variance; bias f32 [dim], may be absent.
  virtual void add_layer_norm(const Tensor& residual, const Tensor& x, const Tensor& weight,
                              const Tensor& bias, float eps, const Tensor& out) = 0;
  // out = scale * x + y (y may be absent: data null). All [rows, dim] of one type, activations or f32; out may be x
  // or y.
  virtual void scaled_add(const Tensor& x, float scale, const Tensor& y, const Tensor& out) = 0;
  // In place over each head of each row: x [rows, heads, head_dim] with row_stride elements between rows
  // (Qwen3's q_norm, k_norm); weight f32 [head_dim], may be absent. A single head may be as wide as all heads are together (OLMo 2).
  virtual void head_rms_norm(const Tensor& x, int64_t row_stride, const Tensor& weight, float eps) = 0;
  // The same with LayerNorms; weight, bias: f32 [heads, head_dim], of each head, the bias's data null: none.
  virtual void head_layer_norm(const Tensor& x, int64_t row_stride, const Tensor& weight, const Tensor& bias,
                               float eps) = 0;
  // x [rows, dim] = what lies within -limit..limit, in place.
  virtual void clamp(const Tensor& x, float limit) = 0;
  virtual void linear(const Tensor& x, const LinearWeight& w,
                      const Tensor& out) = 0;  // [m, k] -> [m, n], of activations or f32
  virtual void rope(const RopeArgs& args) = 0;
  virtual void write_kv(const WriteKvArgs& args) = 0;
  // head_rms_norm, rope and write_kv in one: by default those three.
  virtual void qk_norm_rope_write_kv(const QkNormRopeWriteKvArgs& args);
  virtual void copy_heads(const CopyHeadsArgs& args);  // RareOp::kFarQueries
  // q rows may be a slice of the fused qkv: q_row_stride elements between rows.
  virtual void attention(const AttentionArgs& args, int64_t q_row_stride) = 0;
  virtual void choose_keys(const ChooseKeysArgs& args);  // RareOp::kChosenKeys
  virtual void write_rows(const WriteRowsArgs& args);
  virtual void compress_rows(const CompressRowsArgs& args);
  virtual void choose_rows(const ChooseRowsArgs& args);
  virtual void attend_rows(const AttendRowsArgs& args);
  virtual void gated_activation(Activation act, const Tensor& gate_up,
                                const Tensor& out) = 0;  // [m, 2f] -> act(gate) * up [m, f]
  // gate_up [m, 2f] in place: gate = min(gate, limit), up = clamp(up, -limit, limit) + up_offset.
  virtual void clamp_gate_up(const Tensor& gate_up, float limit, float up_offset) = 0;
  virtual void activation(Activation act, const Tensor& x, const Tensor& out) = 0;  // [m, f]; out may be x
  // out = act(x) * up, all [m, f], the rows of x and of up so many elements apart; out may be either that lies as it
  // does.
  virtual void gate(Activation act, const Tensor& x, int64_t x_stride, const Tensor& up, int64_t up_stride,
                    const Tensor& out) = 0;
  // out = f(x), all [m, f], out may be x: f(x) = a x^2 + x / 2 right of 0, b (e^x - 1 - x) + x / 2 left of it, with
  // alphas f32 [2] = a, b (xIELU; Huang and Schlag 2024).
  virtual void xielu(const Tensor& x, const Tensor& alphas, const Tensor& out) = 0;
  // x = cap * tanh(x / cap), f32, in place.
  virtual void soft_cap(const Tensor& x, float cap) = 0;
  // Rows of a sequence are computed in their order; one of a step without a sequence (padding) is left as it is.
  virtual void causal_conv(const CausalConvArgs& args) = 0;
  virtual void selective_scan(const SelectiveScanArgs& args) = 0;
  virtual void linear_scan(const LinearScanArgs& args);  // RareOp::kLinearScan, both
  virtual void scan_gates(const ScanGatesArgs& args);
  virtual void gated_scan(const GatedScanArgs& args);  // RareOp::kGatedScan
  virtual void mean_scan(const MeanScanArgs& args);    // RareOp::kMeanScan
  virtual void replacing_scan(const ReplacingScanArgs& args);  // RareOp::kReplacingScan
  // RareOp::kStreams, the next four.
  virtual void mix_streams(const MixStreamsArgs& args);
  virtual void correct_streams(const CorrectStreamsArgs& args);
  // x [rows, dim] in place, to the size of target's rows: x *= sqrt(mean of target^2 / max(mean of x^2, least)).
  virtual void match_size(const Tensor& x, const Tensor& target, float least);
  // x [rows, dim] with x_stride elements between rows, in place: what lies above so many deviations from the row's
  // mean, x = max(0, x - mean - deviations * deviation).
  virtual void cut_rows(const Tensor& x, int64_t x_stride, float deviations);
  // RareOp::kMixedResiduals, both. Makes the mixtures; out [num_rows, dim] = the sum over i of pre_i residual_i.
  virtual void collapse_residuals(const MixedResidualsArgs& args, const Tensor& out);
  // Each residual_i = post_i x + the sum over j of comb[j, i] residual_j, x [num_rows, dim].
  virtual void expand_residuals(const Tensor& residuals, const Tensor& mixes, const Tensor& x);
  virtual void gather_rows(const Tensor& x, std::span<const int32_t> rows, const Tensor& out) = 0;

  // Routed experts (kernels/expert_routing.h), in the order of these calls. No expert has a capacity: nothing
  // is dropped however unevenly rows choose. logits f32 [rows, num_experts] -> all of `routing`; bias f32
  // [num_experts], data null: none. Of experts that are equally good the lower is chosen; NaN counts as the worst.
  virtual void route_experts(const RoutingRule& rule, const Tensor& logits, const Tensor& bias,
                             const ExpertRouting& routing) = 0;
  // [rows, dim] -> [places, dim]: each row once for every expert that it chose, an expert's rows together; times the
  // weight where it weighs inputs.
  virtual void dispatch_rows(const Tensor& x, const ExpertRouting& routing, const Tensor& out) = 0;
  // x [places, k] -> out [places, n]: an expert's places by its own weight, as linear() of that row. experts:
  // [num_experts] of one shape and format, all with biases or none.
  virtual void expert_linear(const Tensor& x, std::span<const LinearWeight> experts,
                             const ExpertRouting& routing, const Tensor& out) = 0;
  // x [places, dim] -> out [rows, dim]: the sum of a row's places by their weights, in the order of its
  // ranks. x [places + rows, dim]: behind the places lie the answers of an expert that all rows share, which are
  // added last, times the sigmoid of shared_gate f32 [rows] (data null: as they are).
  virtual void combine_experts(const Tensor& x, const ExpertRouting& routing, const Tensor& shared_gate,
                               const Tensor& out) = 0;
  virtual void head_linear(const HeadLinearArgs& args);  // RareOp::kHeadLinear
  virtual void copy_kv_blocks(const KvLayer& kv, std::span<const BlockCopy> copies) = 0;
  // In order.
  virtual void move_kv(const KvLayer& kv, std::span<const KvMove> moves) = 0;
};

// Why no CUDA device can be used, in one sentence; empty when one can.
std::string cuda_problem();

// Throws std::runtime_error with a sentence when the device or the instruction set is not there. "auto" takes
// the CPU then, and says why in one line of log.
std::unique_ptr<Backend> make_backend(const DeviceConfig& config);

}  // namespace serval
