// What one instruction set provides: the inner loops of the CPU backend as a struct of pointers, and the
// packed layouts that those loops and their callers agree on. hot_kernels.cc is compiled once per instruction
// set and fills one table each; dispatch.cc chooses.
//
// This header is compiled with every instruction set's flags, so it holds plain data only: an inline function
// emitted with AVX-512 here could be the copy that the linker keeps for everybody.
//
// Law 1 in the kernels: every output has one accumulator that takes its terms in one order (k ascending,
// position ascending), by one instruction, however many rows are computed beside it. Register tiles, cache
// blocks and threads split rows and outputs only; between cache blocks of k an accumulator waits in memory as
// the float it is.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/activation.h"

namespace serval::cpu {

// ---- Linear: y[m, n] = x[m, k] W[n, k]^T + b
//
// Weights lie in panels of 32 outputs, k-major, so that a vector holds one k of neighbouring outputs:
//   f32, f16   [n/32][k][32]
//   bf16       [n/32][k/2][32][2], k rounded up to even: pairs of k interleaved, as the dot product
//              instruction wants them and as two cheap integer operations widen them
//   int8       [n/32][k][32], k rounded up to even; E4M3 too, and int8 with groups
//   4 bits     [n/32][k/8][32] of 32 bits, k rounded up to 8: eight k, the first in the lowest bits
//   E3M2       [n/32][k/16][3][32] of 32 bits, k rounded up to 16: five k in each of the three, the first in the lowest bits, each
//              with its sign below its magnitude; of the sixteenth two bits above each five, the lowest in the first word
// Scales of groups are [n/32][groups of a row][32] f32, or [2][32] where each group's offsets follow.
// Outputs beyond n (and the odd k) are zeros; their products are never stored.
inline constexpr int kPanel = 32;

// One panel times a range of row tiles.
struct PanelArgs {
  const void* weights;      // the panel
  size_t panel_bytes;       // to the next panel, which is prefetched along the way
  const void* activations;  // packed rows: tile after tile, see LinearKernel::pack
  int num_tiles;
  int tile_rows;   // of every tile,
  int tall_tiles;  // and one more in each of the first ones
  int64_t k;
  const float* scales;  // [valid], null where the format has none: of the outputs, applied to whole sums
  // Where scales are of groups of `group` k: the panel's, and what codes of 4 bits mean. A weight is
  // fma(code, scale, offset), the same whatever it is multiplied with.
  const float* group_scales = nullptr;
  int64_t group = 0;
  bool has_offsets = false;
  const float* table = nullptr;  // [16]
  const float* bias;    // [valid], may be null
  float* out;           // first row, the panel's first column
  int64_t out_stride;
  int valid;  // columns of this panel that exist, 1..32
};

inline constexpr int kNumLinearKernels = 9;  // by WeightFormat (kernels/quant.h); the rest is dot_table.h's

struct LinearKernel {
  int max_rows;          // rows of the largest register tile
  int k_multiple;        // packed rows are padded with zeros to a multiple of this
  size_t element_bytes;  // of a packed activation
  // By the dot product instruction: activations are rounded to bf16, each row by itself.
  bool multiplies_bf16;
  bool direct_single;   // a tile of one row whose k needs no padding may point at the row itself
  // Packs `rows` (<= max_rows) rows of x into one tile: [k / k_multiple][rows][k_multiple].
  void (*pack)(const float* x, int64_t x_stride, int rows, int64_t k, void* tile);
  void (*panel)(const PanelArgs& args);
};

// ---- Attention over paged keys and values
//
// Inside a block, for each KV head, keys are transposed so that a vector holds one dimension of neighbouring
// positions, and values so that it holds neighbouring dimensions of one position:
//   keys    f32 [kv_heads][head_dim][block_size]         bf16 [kv_heads][head_dim/2][block_size][2]
//   values  f32 [kv_heads][block_size][value_dim]        bf16 [kv_heads][block_size/2][value_dim][2]
// E4M3 and int8 lie as f32 does, int4 as bf16 does, the even one of a pair in the low half of their byte. Behind the codes of
// int8 and int4 stand their positions' scales, [block_size] of KvLayer::kScaleBytes, of each head's keys and of its values. The
// scale of a key multiplies the sum over its codes, that of a value its weight: what widens a code is what widens E4M3.
//
// Softmax runs online (Milakov and Gimelshein 2018) over tiles of kTile positions at multiples of kTile, from
// anew in each chunk of kChunk positions at multiples of kChunk; the results of the chunks are merged in
// ascending order. That holds whatever the block size, the chunk of the prompt, the window, and whoever
// computes which chunk, so a long context can be shared by many threads (Flash-Decoding, Dao et al. 2023, cut
// at absolute positions).
inline constexpr int kTile = 64;
inline constexpr int kChunk = 256;
inline constexpr int kMinBlock = 8;
inline constexpr int kMaxStreamsOfRow = 8;  // kMaxStreams

// What a chunk leaves of a query vector: [value_dim] sums of weighted values relative to the maximum of its
// scores, then that maximum, and the sum of its weights (0: the vector sees no position of it).
inline constexpr int kPartialExtra = 2;

struct AttendArgs {  // some rows of one sequence, one KV head with all its query heads
  const float* q;    // first row, first query head of the group
  const float* far_q;  // the same of those for far keys (AttentionArgs::far_q); null: none. Then partials is null.
  int near, num_far;
  int64_t q_stride;  // between rows
  // Where results go: either the finished rows to out, or, when partials is not null, what each chunk leaves
  // of vector v to partials + chunk * partial_stride + v * (value_dim + kPartialExtra), chunks counted
  // from begin.
  float* out;
  int64_t out_stride;
  float* partials;
  int64_t partial_stride;
  int num_rows;
  int first_pos;   // of the first row
  int seen_end;    // 0: a row sees up to its own position; else all rows see up to before this one
  int begin, end;  // of the positions that the rows see, those to attend to; multiples of kChunk
  int heads;       // query heads that share the KV head
  int head_dim;    // of a query, and of a key as far as it is met
  int kept_dim;    // of a key
  int value_dim;   // of a value, at most head_dim
  const char* keys;  // of the whole layer
  const char* values;
  size_t key_block_bytes, value_block_bytes;
  size_t key_offset, value_offset;  // of this KV head inside a block
  const int32_t* blocks;
  // From this index on blocks are not those of the table: the keys of this KV head in one, then its values, lie at
  // tail, one block after another.
  int tail_block;
  const char* tail;
  int block_shift;  // log2 of positions in a block
  float scale;
  float soft_cap;  // 0: none
  int window;
  const float* sinks;   // [heads]; null: none
  const float* slopes;  // [heads]; null: none
  // Of the first row, chosen_words of each row: a bit for each so many positions that it attends to; null: to all.
  const uint64_t* chosen;
  int64_t chosen_words;
  int chosen_block;
  float* scratch;       // (2 * vectors + 2 * kTile) * (head_dim + 4) floats, vectors = num_rows * heads
};

// What one row's index queries give of positions [begin, end), over one KV head's piece of the index keys.
struct IndexArgs {
  const float* q;  // [heads] vectors of dim, q_stride apart
  int64_t q_stride;
  const float* weights;  // [heads], of what is above 0; null: each head by itself
  int heads, dim;        // dim even
  int begin, end;        // begin a multiple of kTile
  const char* keys;      // of the whole layer
  size_t key_block_bytes;
  size_t key_offset;  // of this piece inside a block
  const int32_t* blocks;
  int tail_block;  // as AttendArgs has it; tail: that of this piece
  const char* tail;
  size_t tail_block_bytes;
  int block_shift;
  bool adds;  // to out
  float* out;  // by position; without weights heads of them, out_stride apart
  int64_t out_stride;
  float* scratch;  // heads * dim + 8 * kTile floats
};

// ---- Rows that are keys and values at once
//
// Softmax runs online over tiles of kRowTile of a row's keys in their order, near ones first.
inline constexpr int kRowTile = 64, kRowHeads = 8;

struct AttendRowsOf {  // some heads of one row, over one tile of keys
  const float* q;  // [heads, dim]
  int heads, dim;  // at most kRowHeads heads
  const float* const* keys;  // [num_keys]
  int num_keys;              // 1..kRowTile
  float scale;
  float *most, *sum;  // [heads]: of the scores so far, and of their exponentials relative to that
  float* out;         // [heads, dim]: the sum of what they weigh
};

// Each key's sum over heads of weight * max(0, q . key).
struct IndexRowsOf {
  const float* q;  // [heads, dim]
  const float* weights;
  int heads, dim;
  const float* const* keys;
  int num_keys;
  float* out;  // [num_keys]
};

// Backend::compress_rows of one window, but for the norm and the rotation.
struct CompressRowsOf {
  const float* rows;  // of the layer, at what is compressed
  const int32_t* blocks;
  int block_size;
  int64_t row_floats;
  int last, span;  // the window's last position
  bool overlaps;
  const float* bias;
  int64_t dim;
  float* out;  // [dim]
};

// ---- Recurrent layers
//
// What a layer keeps of a sequence lies in blocks of which block i of its table covers positions [i * span,
// (i + 1) * span): the last inputs of its convolution, oldest first, and the states of its scan. Rows begin from
// the block of the position before the first, and leave what they come to in the block of each span they end.
inline constexpr int kMaxConvTaps = 8, kMaxScanStates = 32, kMaxScanKeys = 256;

struct StateRows {  // of one sequence, and some channels of them
  int num_rows;
  int first_pos;
  int span;
  const int32_t* blocks;
  const int32_t* slots;  // AttentionBatch::state_slots, of the first row on; may be null
  int64_t channels;      // of the layer, or of one head of a linear scan
  int64_t begin, end;
};

// out = f(bias + sum over t of weight[t] * x of t - taps + 1 positions further on) * out_gate, channel by channel,
// where x is multiplied by in_gate before.
struct ConvArgs {
  StateRows rows;
  const float* x;  // first row; likewise below
  const float *in_gate, *out_gate;  // may be null
  int64_t x_stride;                 // of all three
  int taps;                         // 2..kMaxConvTaps
  const float* weight;              // [taps, channels]
  const float* bias;                // [channels], may be null
  bool has_silu;                    // what f is; else nothing
  float* inputs;                    // [blocks, taps - 1, channels]
  float* out;                       // [num_rows, channels]
};

// state = state * exp(dt a) + dt u b; out = (state . c + d u) * silu(gate), with dt = softplus of what is given.
struct ScanArgs {
  StateRows rows;
  const float* u;   // [num_rows, channels]
  const float* dt;  // [num_rows, channels]
  const float *b, *c;
  int64_t bc_stride;
  const float* gate;
  int64_t gate_stride;
  int num_states;  // 1..kMaxScanStates
  const float* a;  // [num_states, channels]
  const float* d;  // [channels]
  float* states;   // [blocks, num_states, channels]
  float* out;      // [num_rows, channels]
};

// Backend::gated_scan of some channels of a sequence.
struct GatedScanOfRows {
  StateRows rows;
  const float *x, *in_gate, *decay_gate;      // [num_rows, channels]
  const float *in_bias, *decay_bias, *rate;   // [channels]
  float* states;                              // [blocks, channels]
  float* out;                                 // [num_rows, channels]
};

// Backend::mean_scan of some channels of a sequence.
struct MeanScanOfRows {
  StateRows rows;
  const float *k, *v;           // [num_rows, channels]
  const float *decay, *first;   // [channels]
  float* states;                // [blocks, 3, channels]
  float* out;                   // [num_rows, channels]
};

// One head's state [keys, values]: S = diag(decay) S, S += k (strength (v - m))^T with m = S^T k by the delta rule,
// else 0; out = scale S^T q + skip v. The channels of `rows` are the head's values.
struct LinearScanArgs {
  StateRows rows;
  int keys;  // 1..kMaxScanKeys
  const float *q, *k, *v;
  int64_t qkv_stride;
  const float* decay;    // of a row: one, or one a key
  int64_t decay_stride;  // 0: the same for all rows
  bool decays_by_key;
  const float* strength;  // of a row one; null: 1
  int64_t strength_stride;
  bool has_delta_rule;
  float scale, skip;
  float* states;        // of this head in block 0
  int64_t block_floats;  // to the next block
  float* out;
  int64_t out_stride;
};

// Backend::replacing_scan of one head's state [dim, dim]. The channels of `rows` are the head's values.
struct ReplacingScanOfRows {
  StateRows rows;
  int dim;  // 1..kMaxScanKeys
  const float *r, *k, *v, *decay, *rate;
  int64_t stride;  // of those, and of both outputs
  const float *key_scale, *key_rate, *bonus;  // [dim]
  float length_eps;
  float* states;         // of this head in block 0
  int64_t block_floats;  // to the next block
  float *out, *direct;
};

// step = softplus(x_scale x + bias) within [least, most]; decay = exp(rate * step), or, with a lower bound,
// exp(lower_bound * sigmoid(-rate * (x_scale x + bias))); rate of each `share` neighbours.
struct DecayArgs {
  const float *x, *bias;  // bias may be null
  const float* rate;      // [n / share]
  int64_t n, share;
  float x_scale, least, most;
  float lower_bound;  // 0: none
  float *step, *decay;  // [n]; step may be null
};

// ---- Sampling
//
// A row of logits is walked in blocks whose maxima are kept: they let later passes skip the blocks that
// cannot matter to them. Tokens are found as (bits of the probability) << 32 | token.
inline constexpr int kLogitBlock = 64;
inline constexpr float kExpUnderflow = -87.3f;  // below it e^x leaves the normal range and counts as 0

struct LogitRow {
  const float* logits;  // [vocab]
  int64_t vocab;
  float* block_max;   // [blocks]
  float max;          // these three are scan's result
  int64_t max_block;  // the first block that holds max
  bool has_nan;
};

struct Penalties {
  float repetition, presence, frequency;
};

// The race of kernels/gumbel.h over some blocks. A token that is left out would not lead.
struct RaceArgs {
  int64_t begin_block, end_block;
  float scale;
  float floor;  // blocks whose (max - row.max) * scale is below are left out
  float min_p;
  uint64_t stream;  // noise_stream()
  float limit;      // Race::limit()
};

// p of a token is exp((logit - row.max) * scale).
struct SampleKernels {
  void (*scan)(LogitRow& row);
  double (*sum_of_exp)(const LogitRow& row, float scale);
  void (*exp_block)(const float* block, float max, float scale, float* p);  // [kLogitBlock]
  // Tokens of p >= least and p > 0, ascending, of blocks whose (max - row.max) * scale is not below floor.
  // found: [vocab + kLogitBlock], returns how many.
  int64_t (*probable)(const LogitRow& row, float scale, float floor, float least, uint64_t* found);
  int64_t (*race)(const LogitRow& row, const RaceArgs& args,
                  uint64_t* found);  // found: [vocab of the blocks]
  int64_t (*count_larger)(const LogitRow& row, float value);
  // counts: 0, or in the low 31 bits how often the output holds the token.
  void (*penalise)(float* logits, const uint32_t* counts, int64_t n, const Penalties& penalties);
};

// ---- The table

struct KernelTable {
  const char* name;
  LinearKernel linear[kNumLinearKernels];
  void (*attend_f32)(const AttendArgs& args);
  void (*attend_bf16)(const AttendArgs& args);
  void (*attend_fp8)(const AttendArgs& args);
  void (*attend_int8)(const AttendArgs& args);
  void (*attend_int4)(const AttendArgs& args);
  void (*index_f32)(const IndexArgs& args);
  void (*index_bf16)(const IndexArgs& args);
  void (*index_fp8)(const IndexArgs& args);
  void (*attend_rows)(const AttendRowsOf& args);
  void (*index_rows)(const IndexRowsOf& args);
  void (*compress_rows)(const CompressRowsOf& args);
  // out [value_dim] of one vector from what num_chunks chunks left, `stride` floats apart, and its sink (null:
  // none).
  void (*merge_chunks)(const float* partials, int64_t stride, int num_chunks, int value_dim, const float* sink,
                       float* out);
  // residual += x when x is not null; out = residual / rms(residual) * weight, weight may be null. out may be
  // residual when x is null.
  void (*rms_norm)(float* residual, const float* x, const float* weight, float eps, float* out, int64_t n);
  // The same; out = (residual - mean) / deviation * weight + bias, bias may be null.
  void (*layer_norm)(float* residual, const float* x, const float* weight, const float* bias, float eps,
                     float* out, int64_t n);
  // By Activation. gate: out = act(gate) * up, out may be up; activate: out = act(x), out may be x.
  void (*gate[kNumActivations])(const float* gate, const float* up, float* out, int64_t n);
  void (*activate[kNumActivations])(const float* x, float* out, int64_t n);
  // out [n] = the sum of weights[i] * x[indices[i] * n ..] in the order of i.
  void (*weighted_sum)(const float* x, const int32_t* indices, const float* weights, int count, float* out,
                       int64_t n);
  // out = scale * x + y, y may be null; out may be x or y.
  void (*scaled_add)(const float* x, float scale, const float* y, float* out, int64_t n);
  void (*soft_cap)(float* x, float cap, int64_t n);
  // Of a row, as Backend's ops of streams; streams lie `stride` apart, c are the row's factors.
  void (*mix_streams)(float* x, int64_t stride, int count, const float* c, int64_t n);
  void (*correct_streams)(float* x, int64_t stride, int count, const float* c, const float* before,
                          const float* scale, float* scaled, int64_t n);
  void (*match_size)(float* x, const float* target, float least, int64_t n);
  // Of a row, [count, n]: x_i = post[i] added + the sum over j of comb[j * count + i] x_j.
  void (*expand_residuals)(float* x, int count, const float* post, const float* comb, const float* added, int64_t n);
  void (*cut_row)(float* x, float deviations, int64_t n);
  // Backend::xielu of a row.
  void (*xielu)(const float* x, const float* alphas, float* out, int64_t n);
  void (*clamp)(float* x, float limit, int64_t n);
  void (*rotate)(float* x, const float* cos, const float* sin, int64_t half);
  // The pairs are neighbours; sign: 1, or -1 to turn them back.
  void (*rotate_neighbours)(float* x, const float* cos, const float* sin, float sign, int64_t half);
  void (*causal_conv)(const ConvArgs& args);
  void (*selective_scan)(const ScanArgs& args);
  void (*gated_scan)(const GatedScanOfRows& args);
  void (*mean_scan)(const MeanScanOfRows& args);
  void (*replacing_scan)(const ReplacingScanOfRows& args);
  void (*linear_scan)(const LinearScanArgs& args);
  void (*decay_row)(const DecayArgs& args);
  SampleKernels sample;
  void (*exp)(const float* x, float* out, int64_t n);  // the exponential of all of the above, for tests
  // Probes of the machine's roofs. The first two run `iterations` rounds of independent multiply-adds in
  // registers and return how many floating point operations that was; peak_bf16 is null where the dot product
  // instruction is absent. The third reads memory (a multiple of 1 KiB) once and returns something that
  // depends on all of it.
  int64_t (*peak_f32)(int64_t iterations);
  int64_t (*peak_bf16)(int64_t iterations);
  int32_t (*read_all)(const void* memory, int64_t bytes);
};

}  // namespace serval::cpu
