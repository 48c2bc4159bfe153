// Op cases of attention over paged keys and values, and of the branches of draft trees.
#include <bit>
#include <limits>
#include <numeric>
#include <optional>
#include <utility>

#include "tests/kernels/op_bench.h"

namespace serval::testing {
namespace {

// Of AttentionArgs: far keys and whose they are.
struct Far {
  int near = 0, num_far = 0;
};

// What keys and values are kept in; none: what the backend prefers.
using KvType = std::optional<DType>;

// Of a number that is kept, of the largest it shares a scale with.
double rounding_of(DType kv) {
  if (kv == DType::kI8) return 1 / 254.0;
  return kv == DType::kI4 ? 1 / 15.0 : precision_of(kv).relative;
}

// A layer whose memory nobody has written.
KvLayer poisoned(Bench& bench, KvLayer kv) {
  const auto side = [&](size_t bytes) { return bench.poison({static_cast<int64_t>(bytes * kv.num_blocks / sizeof(float))}, DType::kF32).data; };
  kv.keys = side(kv.key_bytes());
  kv.values = side(kv.value_bytes());
  return kv;
}

// Heads are prepared and stored, then attended to.
void check_attention(Backend& backend, WeightFormat weights, const std::vector<Seq>& seqs, int heads,
                     int kv_heads, int head_dim, int window, bool is_rotated = true, float soft_cap = 0,
                     bool has_sinks = false, bool has_slopes = false, Far far = {}, KvType kept_in = {}, bool sees_ahead = false) {
  if ((far.near > 0 && !backend.has(RareOp::kFarQueries)) || (sees_ahead && !backend.has(RareOp::kSeesAhead))) return;
  Bench bench(backend, weights, static_cast<uint32_t>(heads * 100 + head_dim + window));
  const auto context = backend.make_step_context(op_table_limits());
  const DType kv_type = kept_in.value_or(backend.preferred_kv_dtype(bench.number()));
  if (!backend.takes_kv_dtype(kv_type, bench.number())) return;
  int num_blocks = 2;
  for (const Seq& s : seqs) num_blocks += (s.past + s.rows + kBlockSize - 1) / kBlockSize;
  const KvLayer kv = poisoned(bench, {.dtype = kv_type,
                                      .num_blocks = num_blocks,
                                      .block_size = kBlockSize,
                                      .num_kv_heads = kv_heads,
                                      .head_dim = head_dim});

  std::vector<int32_t> free(num_blocks);
  std::iota(free.begin(), free.end(), 0);
  std::shuffle(free.begin(), free.end(), bench.random());
  const int stride = kMaxLen / kBlockSize;
  std::vector<int32_t> table(seqs.size() * stride, -1);
  for (size_t s = 0; s < seqs.size(); ++s) {
    for (int b = 0; b * kBlockSize < seqs[s].past + seqs[s].rows; ++b) {
      table[s * stride + b] = free.back();
      free.pop_back();
    }
  }
  const int rotary = is_rotated ? head_dim / 2 * 2 : 0;
  std::vector<float> angles;
  for (int p = 0; p < kMaxLen; ++p)
    for (int i = 0; i < rotary; ++i)
      angles.push_back(i < rotary / 2 ? std::cos(p / std::pow(100.0, i / 8.0))
                                      : std::sin(p / std::pow(100.0, (i - rotary / 2) / 8.0)));
  const Tensor cos_sin = is_rotated ? bench.poison({kMaxLen, rotary}, DType::kF32) : Tensor();
  if (is_rotated) backend.upload(cos_sin.data, angles.data(), angles.size() * sizeof(float));
  const Values q_norm = bench.numbers({head_dim}, DType::kF32),
               k_norm = bench.numbers({head_dim}, DType::kF32), sinks = bench.numbers({heads}, DType::kF32),
               slopes = bench.numbers({heads}, DType::kF32);

  const int64_t width = int64_t{heads + 2 * kv_heads} * head_dim;
  // keys[s][pos][h][d], values likewise, as the definition makes them
  std::vector<std::vector<double>> keys(seqs.size()), values(seqs.size());
  const auto step = [&](bool is_past) {
    std::vector<int32_t> ids, positions, slots, row_start = {0}, first_pos;
    for (size_t s = 0; s < seqs.size(); ++s) {
      const int first = is_past ? 0 : seqs[s].past, count = is_past ? seqs[s].past : seqs[s].rows;
      first_pos.push_back(first);
      for (int p = first; p < first + count; ++p) {
        ids.push_back(0);
        positions.push_back(p);
        slots.push_back(table[s * stride + p / kBlockSize] * kBlockSize + p % kBlockSize);
      }
      row_start.push_back(static_cast<int32_t>(ids.size()));
    }
    const auto rows = static_cast<int64_t>(ids.size());
    if (rows == 0) return;
    ForwardInput input{.token_ids = ids, .positions = positions, .groups = {}};
    input.groups[0] = {.slots = slots.data(),
                       .attention = {.num_seqs = static_cast<int>(seqs.size()),
                                     .num_rows = static_cast<int>(rows),
                                     .row_start = row_start.data(),
                                     .first_pos = first_pos.data(),
                                     .block_table = table.data(),
                                     .table_stride = stride}};
    input.groups[1] = input.groups[0];
    context->begin_step(input);
    const Values qkv = bench.numbers({rows, width});
    const auto head_at = [&](int64_t element, int count) {
      return Tensor(qkv.tensor.at(element), bench.type(), {rows, count, head_dim});
    };
    backend.qk_norm_rope_write_kv({.q = head_at(0, heads),
                           .k = head_at(int64_t{heads} * head_dim, kv_heads),
                           .v = head_at(int64_t{heads + kv_heads} * head_dim, kv_heads),
                           .row_stride = width,
                           .q_norm = q_norm.tensor,
                           .k_norm = k_norm.tensor,
                           .eps = 1e-6f,
                           .positions = positions.data(),
                           .cos_sin = cos_sin,
                           .rotary_dim = rotary,
                           .slots = slots.data(),
                           .kv = kv});
    // The definition, from the numbers that went in.
    const auto prepared = [&](int64_t row, int64_t head, const std::vector<double>* norm) {
      std::vector<double> x(qkv.exact.begin() + row * width + head * head_dim,
                            qkv.exact.begin() + row * width + (head + 1) * head_dim);
      if (norm == nullptr) return x;
      double squares = 0;
      for (const double v : x) squares += v * v;
      for (int d = 0; d < head_dim; ++d) x[d] *= (*norm)[d] / std::sqrt(squares / head_dim + 1e-6);
      const std::vector<double> before = x;
      for (int i = 0; i < rotary / 2; ++i) {
        const double c = angles[positions[row] * rotary + i],
                     sn = angles[positions[row] * rotary + rotary / 2 + i];
        x[i] = before[i] * c - before[i + rotary / 2] * sn;
        x[i + rotary / 2] = before[i + rotary / 2] * c + before[i] * sn;
      }
      return x;
    };
    for (size_t s = 0; s < seqs.size(); ++s) {
      for (int r = row_start[s]; r < row_start[s + 1]; ++r) {
        for (int h = 0; h < kv_heads; ++h) {
          const std::vector<double> k = prepared(r, heads + h, &k_norm.exact),
                                    v = prepared(r, heads + kv_heads + h, nullptr);
          keys[s].insert(keys[s].end(), k.begin(), k.end());
          values[s].insert(values[s].end(), v.begin(), v.end());
        }
      }
    }
    if (is_past) return;
    const Tensor out = bench.poison({rows, int64_t{heads} * head_dim}, bench.type());
    const float scale = 1 / std::sqrt(static_cast<float>(head_dim)) / 4;
    const Values far_q = bench.numbers({rows, width});
    backend.attention({.q = head_at(0, heads),
                       .kv = kv,
                       .batch = &input.groups[0].attention,
                       .scale = scale,
                       .soft_cap = soft_cap,
                       .window = window,
                       .sinks = has_sinks ? sinks.tensor : Tensor(),
                       .slopes = has_slopes ? slopes.tensor : Tensor(),
                       .far_q = far.near > 0 ? Tensor(far_q.tensor.data, bench.type(), {rows, heads, head_dim}) : Tensor(),
                       .near = far.near,
                       .num_far = far.num_far,
                       .sees_ahead = sees_ahead,
                       .out = out},
                      width);
    std::vector<double> want, size;
    for (size_t s = 0; s < seqs.size(); ++s) {
      for (int r = row_start[s]; r < row_start[s + 1]; ++r) {
        for (int h = 0; h < heads; ++h) {
          const std::vector<double> q = prepared(r, h, &q_norm.exact);
          const int own = positions[r], first = window < 0 ? own - own % -window : window > 0 ? std::max(0, own - window + 1) : 0,
                    end = seqs[s].past + seqs[s].rows - 1,
                    last = !sees_ahead ? own : window > 0 ? std::min(end, own + window - 1) : end, kv_head = h / (heads / kv_heads);
          std::vector<double> logits, sum(head_dim, 0.0);
          for (int p = first; p <= last; ++p) {
            const bool is_far = far.near > 0 && own - p >= far.near;
            if (is_far && far.num_far > 0 && p >= far.num_far) {
              logits.push_back(-std::numeric_limits<double>::infinity());
              continue;
            }
            double dot = 0;
            for (int d = 0; d < head_dim; ++d)
              dot += (is_far ? far_q.exact[r * width + h * head_dim + d] : q[d]) * keys[s][(int64_t{p} * kv_heads + kv_head) * head_dim + d];
            dot *= scale;
            if (soft_cap > 0) dot = soft_cap * std::tanh(dot / soft_cap);
            logits.push_back(has_slopes ? dot - slopes.exact[h] * (own - p) : dot);
          }
          double most = *std::max_element(logits.begin(), logits.end()), total = 0, largest = 0;
          if (has_sinks) {
            most = std::max(most, sinks.exact[h]);
            total = std::exp(sinks.exact[h] - most);
          }
          for (int p = first; p <= last; ++p) {
            const double weight = std::exp(logits[p - first] - most);
            total += weight;
            for (int d = 0; d < head_dim; ++d) {
              const double v = values[s][(int64_t{p} * kv_heads + kv_head) * head_dim + d];
              sum[d] += weight * v;
              largest = std::max(largest, std::abs(v));
            }
          }
          for (const double v : sum) {
            want.push_back(v / total);
            size.push_back(largest);  // rounded queries and keys move weights between values
          }
        }
      }
    }
    const double rounding = std::max(bench.tolerance(), rounding_of(kv_type));
    expect_near(bench.read(out), want, size, std::max(4 * rounding, 1e-5), "attention");
  };
  step(true);
  step(false);
}

// A branch of a tree of drafts stands apart: it has the bits of the same tokens in a row, before its places are left
// and after they come together again.
void check_branch(Backend& backend, WeightFormat weights, int window, KvType kept_in = {}) {
  constexpr int kHeads = 4, kKvHeads = 2, kDim = 64, kStart = 60, kDepth = 20, kTokens = kStart + 64;
  Bench bench(backend, weights, static_cast<uint32_t>(11 + window));
  const auto context = backend.make_step_context(op_table_limits());
  const DType kv_type = kept_in.value_or(backend.preferred_kv_dtype(bench.number()));
  if (!backend.takes_kv_dtype(kv_type, bench.number())) return;
  const KvLayer kv = poisoned(bench, {.dtype = kv_type,
                                      .num_blocks = kTokens / kBlockSize + 2,
                                      .block_size = kBlockSize,
                                      .num_kv_heads = kKvHeads,
                                      .head_dim = kDim});
  std::vector<int32_t> table(kMaxLen / kBlockSize, -1);
  for (int b = 0; b * kBlockSize < kTokens; ++b) table[b] = kv.num_blocks - 1 - b;
  const auto place = [&](int p) { return table[p / kBlockSize] * kBlockSize + p % kBlockSize; };
  const Values q = bench.numbers({1, kHeads, kDim}), k = bench.numbers({kTokens, kKvHeads, kDim}),
               v = bench.numbers({kTokens, kKvHeads, kDim});
  const auto step = [&](int first, int rows, uint64_t mask, const auto& run) {
    std::vector<int32_t> ids(rows), positions(rows), slots(rows);
    for (int r = 0; r < rows; ++r) positions[r] = first + r, slots[r] = place(first + r);
    const std::vector<int32_t> row_start = {0, rows};
    const int32_t tree_start = kStart;
    ForwardInput input{.token_ids = ids, .positions = positions, .groups = {}};
    input.groups[0] = {.slots = slots.data(),
                       .attention = {.num_seqs = 1,
                                     .num_rows = rows,
                                     .row_start = row_start.data(),
                                     .first_pos = &first,
                                     .block_table = table.data(),
                                     .table_stride = static_cast<int>(table.size()),
                                     .tree_masks = mask != 0 ? &mask : nullptr,
                                     .tree_start = &tree_start}};
    input.groups[1] = input.groups[0];
    context->begin_step(input);
    run(input);
  };
  step(0, kTokens, 0, [&](const ForwardInput& input) {
    backend.write_kv({.k = k.tensor,
                      .v = v.tensor,
                      .row_stride = kKvHeads * kDim,
                      .slots = input.groups[0].slots,
                      .kv = kv});
  });
  const auto attended = [&](uint64_t mask) {
    const Tensor out = bench.poison({1, kHeads * kDim}, bench.type());
    step(kStart + kDepth - 1, 1, mask, [&](const ForwardInput& input) {
      backend.attention({.q = q.tensor,
                         .kv = kv,
                         .batch = &input.groups[0].attention,
                         .scale = 0.1f,
                         .window = window,
                         .out = out},
                        kHeads * kDim);
    });
    return bench.read(out);
  };
  const auto in_a_row = attended(0);
  uint64_t mask = 0;
  while (std::popcount(mask) < kDepth) mask |= uint64_t{1} << bench.random()() % 64;
  std::vector<KvMove> apart, together;  // a place is left before another's token comes
  for (int bit = 0, i = 0; bit < 64; ++bit) {
    if ((mask >> bit & 1) != 0) together.push_back({place(kStart + bit), place(kStart + i++)});
  }
  for (size_t i = together.size(); i-- > 0;) apart.push_back({together[i].to, together[i].from});
  backend.move_kv(kv, apart);
  EXPECT_EQ(attended(mask), in_a_row);
  EXPECT_NE(attended(0), in_a_row);
  backend.move_kv(kv, together);
  EXPECT_EQ(attended(0), in_a_row);
}

// Keys by random index queries, then attention to them alone.
void check_chosen(Backend& backend, WeightFormat weights, const std::vector<Seq>& seqs, int heads, int kv_heads, int index_heads,
                  int index_dim, int top_k, int block, int local) {
  if (!backend.has(RareOp::kChosenKeys)) return;
  constexpr int kDim = 24;
  const bool weighs = kv_heads == 1;
  const int piece = index_dim / kv_heads, kept = kDim + piece;
  Bench bench(backend, weights, static_cast<uint32_t>(top_k * 100 + index_dim + block));
  StepLimits limits = op_table_limits();
  limits.index_size = int64_t{index_heads} * index_dim;
  limits.key_choices = weighs ? 1 : index_heads;
  limits.choice_block = block;
  const auto context = backend.make_step_context(limits);
  const DType kv_type = backend.preferred_kv_dtype(bench.number());
  int num_blocks = 2;
  for (const Seq& s : seqs) num_blocks += (s.past + s.rows + kBlockSize - 1) / kBlockSize;
  const KvLayer kv = poisoned(bench, {.dtype = kv_type, .num_blocks = num_blocks, .block_size = kBlockSize, .num_kv_heads = kv_heads, .head_dim = kept, .value_dim = kDim});
  const int stride = kMaxLen / kBlockSize;
  std::vector<int32_t> table(seqs.size() * stride, -1), free(num_blocks);
  std::iota(free.begin(), free.end(), 0);
  std::shuffle(free.begin(), free.end(), bench.random());
  std::vector<int32_t> slots, row_start = {0}, first_pos, ids, positions;
  std::vector<int64_t> begin = {0};
  int64_t total = 0;
  for (size_t s = 0; s < seqs.size(); ++s) {
    for (int p = 0; p < seqs[s].past + seqs[s].rows; ++p, ++total) {
      if (p % kBlockSize == 0) {
        table[s * stride + p / kBlockSize] = free.back();
        free.pop_back();
      }
      slots.push_back(table[s * stride + p / kBlockSize] * kBlockSize + p % kBlockSize);
      if (p < seqs[s].past) continue;
      ids.push_back(0);
      positions.push_back(p);
    }
    begin.push_back(total);
    first_pos.push_back(seqs[s].past);
    row_start.push_back(static_cast<int32_t>(ids.size()));
  }
  const auto rows = static_cast<int64_t>(ids.size());
  const AttentionBatch batch{.num_seqs = static_cast<int>(seqs.size()), .num_rows = static_cast<int>(rows), .row_start = row_start.data(),
                             .first_pos = first_pos.data(), .block_table = table.data(), .table_stride = stride};
  ForwardInput input{.token_ids = ids, .positions = positions, .groups = {}};
  input.groups[0] = {.slots = slots.data(), .attention = batch};
  context->begin_step(input);
  // A key and the row's value lie `kept` apart, as both do.
  const Values keys = bench.numbers({total, int64_t{kv_heads} * kept}), values = bench.numbers({total, int64_t{kv_heads} * kept});
  backend.write_kv({.k = Tensor(keys.tensor.data, bench.type(), {total, kv_heads, kept}),
                    .v = Tensor(values.tensor.data, bench.type(), {total, kv_heads, kDim}),
                    .row_stride = int64_t{kv_heads} * kept,
                    .slots = slots.data(),
                    .kv = kv});
  const Values index_q = bench.numbers({rows, int64_t{index_heads} * index_dim}), index_w = bench.numbers({rows, index_heads}),
               q = bench.numbers({rows, int64_t{heads} * kDim});
  backend.choose_keys({.q = Tensor(index_q.tensor.data, bench.type(), {rows, index_heads, index_dim}),
                       .weights = weighs ? index_w.tensor : Tensor(),
                       .kept_from = kDim,
                       .top_k = top_k,
                       .block = block,
                       .local = local,
                       .kv = kv,
                       .batch = &batch});
  const Tensor out = bench.poison({rows, int64_t{heads} * kDim}, bench.type());
  backend.attention({.q = Tensor(q.tensor.data, bench.type(), {rows, heads, kDim}), .kv = kv, .batch = &batch, .scale = 0.3f, .is_chosen = true, .out = out},
                    int64_t{heads} * kDim);
  const auto stored = [&](double x) { return kv_type == DType::kBF16 ? bf16_to_float(float_to_bf16(static_cast<float>(x))) : static_cast<float>(x); };
  std::vector<double> want(rows * heads * kDim, 0.0);
  for (size_t s = 0; s < seqs.size(); ++s) {
    for (int r = row_start[s]; r < row_start[s + 1]; ++r) {
      const int length = first_pos[s] + r - row_start[s] + 1, blocks = (length + block - 1) / block;
      for (int h = 0; h < heads; ++h) {
        const int kv_head = h / (heads / kv_heads);
        std::vector<std::pair<float, int>> order;  // by a block's score, falling, then by its place
        for (int b = 0; b < blocks; ++b) order.push_back({std::numeric_limits<float>::infinity(), b});
        for (int p = 0; p < length; ++p) {
          double score = 0;
          for (int i = weighs ? 0 : kv_head; i < (weighs ? index_heads : kv_head + 1); ++i) {
            double dot = 0;
            for (int d = 0; d < index_dim; ++d)
              dot += index_q.exact[(r * index_heads + i) * index_dim + d] *
                     stored(keys.exact[((begin[s] + p) * kv_heads + d / piece) * kept + kDim + d % piece]);
            score += weighs ? index_w.exact[r * index_heads + i] * std::max(0.0, dot) : dot;
          }
          float& best = order[p / block].first;
          best = p % block == 0 ? static_cast<float>(-score) : std::min(best, static_cast<float>(-score));
        }
        for (int b = std::max(0, blocks - local); b < blocks; ++b) order[b].first = -std::numeric_limits<float>::infinity();
        std::sort(order.begin(), order.end());
        std::vector<bool> taken(blocks);
        for (int n = 0; n < std::min(top_k, blocks); ++n) taken[order[n].second] = true;
        std::vector<double> weight(length, 0.0);
        double sum = 0;
        for (int p = 0; p < length; ++p) {
          if (!taken[p / block]) continue;
          double dot = 0;
          for (int d = 0; d < kDim; ++d)
            dot += q.exact[(r * heads + h) * kDim + d] * stored(keys.exact[((begin[s] + p) * kv_heads + kv_head) * kept + d]);
          sum += weight[p] = std::exp(0.3 * dot);
        }
        for (int p = 0; p < length; ++p)
          for (int d = 0; d < kDim; ++d)
            want[(r * heads + h) * kDim + d] += weight[p] / sum * stored(values.exact[(begin[s] + p) * kv_heads * kept + kv_head * kDim + d]);
      }
    }
  }
  expect_near(bench.read(out), want, std::vector<double>(want.size(), 1.0), std::max(bench.tolerance(), 1e-5), "chosen");
}

void check_copied_heads(Backend& backend, WeightFormat weights, bool has_x) {
  if (!backend.has(RareOp::kFarQueries)) return;
  constexpr int64_t kRows = 5, kHeads = 3, kDim = 12, kWide = 20;
  Bench bench(backend, weights, 3);
  const Values x = bench.numbers({kRows, kHeads * kDim}), out = bench.numbers({kRows, kHeads * kWide});
  backend.copy_heads({.x = has_x ? Tensor(x.tensor.data, bench.type(), {kRows, kHeads, kDim}) : Tensor(),
                      .x_row_stride = kHeads * kDim,
                      .x_head_stride = kDim,
                      .out = Tensor(out.tensor.data, bench.type(), {kRows, kHeads, kDim}),
                      .out_row_stride = kHeads * kWide,
                      .out_head_stride = kWide});
  std::vector<double> want = out.exact;
  for (int64_t head = 0; head < kRows * kHeads; ++head)
    for (int64_t d = 0; d < kDim; ++d) want[head * kWide + d] = has_x ? x.exact[head * kDim + d] : 0;
  EXPECT_EQ(bench.read(out.tensor), want);
}

}  // namespace

void add_attention_cases(std::vector<OpCase>& cases) {
  const std::vector<Seq> ragged = {{0, 1}, {17, 1}, {255, 2}, {0, 37}, {300, 5}};
  for (const int head_dim : {8, 20, 64, 96, 100, 128})
    cases.push_back({"attention_dim_" + std::to_string(head_dim), [=](Backend& b, WeightFormat w) {
                       if (head_dim % 8 != 0 && b.is_asynchronous()) return;  // a GPU's are multiples of 8
                       check_attention(b, w, ragged, 4, 2, head_dim, 0);
                     }});
  for (const int window : {1, 20, 270, -16, -300})
    cases.push_back({(window < 0 ? "attention_chunks_" : "attention_window_") + std::to_string(std::abs(window)),
                     [=](Backend& b, WeightFormat w) { check_attention(b, w, ragged, 4, 2, 64, window); }});
  cases.push_back({"attention_unrotated", [=](Backend& b, WeightFormat w) {
                     check_attention(b, w, ragged, 4, 2, 64, 0, /*is_rotated=*/false);
                   }});
  cases.push_back({"attention_that_sees_ahead", [=](Backend& b, WeightFormat w) {
                     check_attention(b, w, ragged, 4, 2, 64, 0, /*is_rotated=*/false, 0, false, false, {}, {}, /*sees_ahead=*/true);
                   }});
  for (const int window : {1, 20, 270})
    cases.push_back({"attention_that_sees_ahead_in_a_window_" + std::to_string(window), [=](Backend& b, WeightFormat w) {
                       check_attention(b, w, ragged, 4, 2, 64, window, /*is_rotated=*/true, 0, false, false, {}, {}, /*sees_ahead=*/true);
                     }});
  for (const auto& [name, far] : {std::pair{"sinks_of_a_stream", Far{20, 3}}, {"far_keys", Far{70, 0}}, {"no_far_keys", Far{400, 0}}})
    cases.push_back({std::string("attention_") + name, [=, far = far](Backend& b, WeightFormat w) {
                       check_attention(b, w, ragged, 4, 2, 64, 0, true, 0, false, false, far);
                     }});
  cases.push_back({"attention_chosen", [=](Backend& b, WeightFormat w) { check_chosen(b, w, ragged, 4, 1, 9, 12, 40, 1, 0); }});
  cases.push_back({"attention_chosen_alone", [=](Backend& b, WeightFormat w) { check_chosen(b, w, ragged, 3, 1, 2, 8, 1, 1, 0); }});
  for (const int block : {8, 12})
    cases.push_back({"attention_chosen_blocks_of_" + std::to_string(block), [=](Backend& b, WeightFormat w) {
                       check_chosen(b, w, ragged, 4, 2, 2, 16, 4, block, 1);
                     }});
  for (const bool has_x : {true, false})
    cases.push_back({has_x ? "copied_heads" : "zeroed_heads",
                     [=](Backend& b, WeightFormat w) { check_copied_heads(b, w, has_x); }});
  for (const int window : {0, 15})
    cases.push_back({"branch_window_" + std::to_string(window),
                     [=](Backend& b, WeightFormat w) { check_branch(b, w, window); }});
  for (const DType kept_in : {DType::kI8, DType::kI4}) {
    const std::string kept = std::string("_kept_in_") + dtype_name(kept_in);
    for (const int head_dim : {8, 20, 128})
      cases.push_back({"attention_dim_" + std::to_string(head_dim) + kept, [=](Backend& b, WeightFormat w) {
                         check_attention(b, w, ragged, 4, 2, head_dim, 0, true, 0, false, false, {}, kept_in);
                       }});
    cases.push_back({"attention_of_all_kinds" + kept, [=](Backend& b, WeightFormat w) {
                       check_attention(b, w, ragged, 4, 2, 64, 270, true, 2, true, true, {}, kept_in);
                     }});
    cases.push_back({"far_keys" + kept, [=](Backend& b, WeightFormat w) {
                       check_attention(b, w, ragged, 4, 2, 64, 0, true, 0, false, false, Far{70, 0}, kept_in);
                     }});
    cases.push_back({"branch" + kept, [=](Backend& b, WeightFormat w) { check_branch(b, w, 15, kept_in); }});
  }
  cases.push_back({"attention_soft_cap", [=](Backend& b, WeightFormat w) {
                     check_attention(b, w, ragged, 4, 2, 64, 40, true, 0.5f);
                   }});
  cases.push_back({"attention_sinks", [=](Backend& b, WeightFormat w) {
                     check_attention(b, w, ragged, 4, 2, 64, 0, true, 0, true);
                   }});
  cases.push_back({"attention_soft_cap_and_sinks", [=](Backend& b, WeightFormat w) {
                     check_attention(b, w, ragged, 4, 2, 64, 40, true, 2, true);
                   }});
  for (const int window : {0, 40})
    cases.push_back({"attention_slopes_window_" + std::to_string(window), [=](Backend& b, WeightFormat w) {
                       check_attention(b, w, ragged, 4, 2, 64, window, false, 0, false, true);
                     }});
  cases.push_back({"attention_soft_cap_and_slopes", [=](Backend& b, WeightFormat w) {
                     check_attention(b, w, ragged, 4, 2, 64, 0, true, 0.5f, false, true);
                   }});
}

}  // namespace serval::testing
