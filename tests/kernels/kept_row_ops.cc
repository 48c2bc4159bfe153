// Op cases of rows that are keys and values at once.
#include <algorithm>
#include <limits>
#include <numeric>

#include "tests/kernels/op_bench.h"

namespace serval::testing {
namespace {

struct KeptCase {
  int heads, dim, span, window;
  bool overlaps;
  int index_heads = 0, index_dim = 0, top_k = 0;
  int rotary_dim = 6;
};

// Sequences whose past is kept by one step and whose rows by the next, which attends; positions lie one sequence after another.
class KeptRun {
 public:
  KeptRun(Backend& backend, WeightFormat weights, const KeptCase& test, std::vector<Seq> seqs)
      : backend_(backend), test_(test), seqs_(std::move(seqs)), bench_(backend, weights, static_cast<uint32_t>(test.dim * 7 + test.span)) {
    for (const Seq& s : seqs_) begin_.push_back(begin_.back() + s.past + s.rows);
    StepLimits limits = op_table_limits();
    limits.num_kv_groups = 2;
    limits.key_choices = 1;
    limits.choice_block = test.span;
    context_ = backend.make_step_context(limits);
    near_.row_floats = test.dim + size_of(test.dim) + size_of(test.index_dim);
    far_.row_floats = test.dim + test.index_dim;
    far_.row_span = test.span;
    for (KvLayer* kv : {&near_, &far_}) {
      kv->block_size = kBlockSize;
      kv->num_blocks = 1;
      for (const Seq& s : seqs_) kv->num_blocks += (s.past + s.rows + kBlockSize - 1) / kBlockSize;
      kv->keys = bench_.poison({static_cast<int64_t>(kv->key_bytes() / sizeof(float)) * kv->num_blocks}, DType::kF32).data;
    }
    for (std::vector<int32_t>* table : {&near_table_, &far_table_}) {
      std::vector<int32_t> free(near_.num_blocks);
      std::iota(free.begin(), free.end(), 0);
      std::shuffle(free.begin(), free.end(), bench_.random());
      table->assign(seqs_.size() * kStride, -1);
      for (size_t s = 0; s < seqs_.size(); ++s) {
        for (int b = 0; b * kBlockSize < seqs_[s].past + seqs_[s].rows; ++b) {
          (*table)[s * kStride + b] = free.back();
          free.pop_back();
        }
      }
    }
  }

  void check() {
    const int64_t total = begin_.back();
    kept_ = bench_.numbers({total, near_.row_floats});
    key_bias_ = bench_.numbers({test_.span, size_of(test_.dim) / 2}, DType::kF32);
    key_norm_ = bench_.numbers({test_.dim}, DType::kF32);
    if (test_.index_heads > 0) {
      index_bias_ = bench_.numbers({test_.span, size_of(test_.index_dim) / 2}, DType::kF32);
      index_norm_ = bench_.numbers({test_.index_dim}, DType::kF32);
    }
    cos_sin_ = bench_.numbers({kMaxLen, test_.rotary_dim}, DType::kF32);
    const Values q = bench_.numbers({total, int64_t{test_.heads} * test_.dim}),
                 index_q = bench_.numbers({total, std::max(1, test_.index_heads * test_.index_dim)}),
                 index_w = bench_.numbers({total, std::max(1, test_.index_heads)}), sinks = bench_.numbers({test_.heads}, DType::kF32);
    step([](const Seq&) { return 0; }, [](const Seq& s) { return s.past; }, [](const auto&, const auto&, const auto&) {});
    Tensor out;
    std::vector<int64_t> all_rows;
    step([](const Seq& s) { return s.past; }, [](const Seq& s) { return s.rows; },
         [&](const std::vector<int64_t>& rows, const AttentionBatch& near, const AttentionBatch& far) {
           const auto n = static_cast<int64_t>(rows.size());
           const auto as_heads = [&](const Tensor& x, int64_t heads, int64_t dim) { return Tensor(x.data, x.dtype, {n, heads, dim}); };
           if (test_.index_heads > 0)
             backend_.choose_rows({.q = as_heads(bench_.rows_of(index_q, rows), test_.index_heads, test_.index_dim),
                                   .weights = bench_.rows_of(index_w, rows),
                                   .first = test_.dim,
                                   .top_k = test_.top_k,
                                   .kv = far_,
                                   .batch = &far});
           out = bench_.poison({n, int64_t{test_.heads} * test_.dim}, bench_.type());
           backend_.attend_rows({.q = as_heads(bench_.rows_of(q, rows), test_.heads, test_.dim),
                                 .near = near_,
                                 .near_batch = &near,
                                 .window = test_.window,
                                 .far = far_,
                                 .far_batch = &far,
                                 .is_chosen = test_.index_heads > 0,
                                 .scale = 0.3f,
                                 .sinks = sinks.tensor,
                                 .out = out});
           all_rows = rows;
         });
    const std::vector<double> far =
        bench_.read(Tensor(far_.keys, DType::kF32, {static_cast<int64_t>(far_.key_bytes() / sizeof(float)) * far_.num_blocks}));
    // The compressed row of a sequence's window.
    const auto far_row = [&](size_t s, int window) {
      const int last = (window + 1) * test_.span - 1;
      const int64_t block = far_table_[s * kStride + last / kBlockSize];
      return &far[(block * far_.rows_of_block() + last % kBlockSize / test_.span) * far_.row_floats];
    };
    for (size_t s = 0; s < seqs_.size(); ++s) {
      for (int w = 0; (w + 1) * test_.span <= seqs_[s].past + seqs_[s].rows; ++w) {
        expect_compressed(s, w, test_.dim, test_.dim, key_bias_, key_norm_, far_row(s, w));
        if (test_.index_heads > 0)
          expect_compressed(s, w, test_.dim + size_of(test_.dim), test_.index_dim, index_bias_, index_norm_, far_row(s, w) + test_.dim);
      }
    }
    std::vector<double> want;
    for (size_t s = 0; s < seqs_.size(); ++s) {
      for (int p = seqs_[s].past; p < seqs_[s].past + seqs_[s].rows; ++p) {
        const int64_t row = begin_[s] + p;
        std::vector<std::pair<float, int>> windows;  // by score, falling, then by place
        for (int w = 0; w < (p + 1) / test_.span; ++w) {
          double score = 0;
          for (int h = 0; h < test_.index_heads; ++h) {
            double dot = 0;
            for (int d = 0; d < test_.index_dim; ++d)
              dot += index_q.exact[(row * test_.index_heads + h) * test_.index_dim + d] * far_row(s, w)[test_.dim + d];
            score += index_w.exact[row * test_.index_heads + h] * std::max(0.0, dot);
          }
          windows.push_back({static_cast<float>(-score), w});
        }
        std::sort(windows.begin(), windows.end());
        if (test_.index_heads > 0 && static_cast<int>(windows.size()) > test_.top_k) windows.resize(test_.top_k);
        std::vector<const double*> keys;
        for (int near = std::max(0, p - test_.window + 1); near <= p; ++near)
          keys.push_back(&kept_.exact[(begin_[s] + near) * near_.row_floats]);
        for (const auto& [score, w] : windows) keys.push_back(far_row(s, w));
        for (int h = 0; h < test_.heads; ++h) {
          double most = sinks.exact[h];
          std::vector<double> scores, sum(test_.dim);
          for (const double* key : keys) {
            double dot = 0;
            for (int d = 0; d < test_.dim; ++d) dot += q.exact[(row * test_.heads + h) * test_.dim + d] * key[d];
            scores.push_back(0.3f * dot);
            most = std::max(most, scores.back());
          }
          double total_weight = std::exp(sinks.exact[h] - most);
          for (size_t i = 0; i < keys.size(); ++i) {
            const double weight = std::exp(scores[i] - most);
            total_weight += weight;
            for (int d = 0; d < test_.dim; ++d) sum[d] += weight * keys[i][d];
          }
          for (const double x : sum) want.push_back(x / total_weight);
        }
      }
    }
    expect_near(bench_.read(out), want, std::vector<double>(want.size(), 1.0), std::max(bench_.tolerance(), 1e-4), "attend_rows");
  }

 private:
  static constexpr int kStride = kMaxLen / kBlockSize;

  int64_t size_of(int dim) const { return int64_t{dim} * (test_.overlaps ? 4 : 2); }

  // Keeps positions from `first` on of each sequence, `count` of them, and compresses; then then(rows, near, far).
  template <class First, class Count, class Then>
  void step(const First& first, const Count& count, const Then& then) {
    std::vector<int32_t> ids, positions, slots, row_start = {0}, first_pos, near_tables, far_tables;
    std::vector<int64_t> rows;
    for (size_t s = 0; s < seqs_.size(); ++s) {
      if (count(seqs_[s]) == 0) continue;
      first_pos.push_back(first(seqs_[s]));
      near_tables.insert(near_tables.end(), &near_table_[s * kStride], &near_table_[s * kStride] + kStride);
      far_tables.insert(far_tables.end(), &far_table_[s * kStride], &far_table_[s * kStride] + kStride);
      for (int p = first(seqs_[s]); p < first(seqs_[s]) + count(seqs_[s]); ++p) {
        ids.push_back(0);
        positions.push_back(p);
        slots.push_back(near_table_[s * kStride + p / kBlockSize] * kBlockSize + p % kBlockSize);
        rows.push_back(begin_[s] + p);
      }
      row_start.push_back(static_cast<int32_t>(ids.size()));
    }
    AttentionBatch near{.num_seqs = static_cast<int>(first_pos.size()), .num_rows = static_cast<int>(ids.size()), .row_start = row_start.data(),
                        .first_pos = first_pos.data(), .block_table = near_tables.data(), .table_stride = kStride};
    AttentionBatch far = near;
    far.block_table = far_tables.data();
    ForwardInput input{.token_ids = ids, .positions = positions, .groups = {}};
    input.groups[0] = {.slots = slots.data(), .attention = near};
    input.groups[1] = {.slots = slots.data(), .attention = far};
    context_->begin_step(input);
    // In two pieces, as a layer has them.
    const Tensor x = bench_.rows_of(kept_, rows);
    const int64_t rest = near_.row_floats - test_.dim, n = static_cast<int64_t>(rows.size());
    const Tensor keys = bench_.poison({n, test_.dim}, bench_.type()), others = bench_.poison({n, rest}, bench_.type());
    for (const auto& [from, width, to] : {std::tuple{int64_t{0}, int64_t{test_.dim}, keys}, {test_.dim, rest, others}})
      backend_.copy_heads({.x = Tensor(x.at(from), x.dtype, {n, 1, width}), .x_row_stride = near_.row_floats,
                           .out = Tensor(to.data, to.dtype, {n, 1, width}), .out_row_stride = width});
    backend_.write_rows({.x = keys, .first = 0, .slots = slots.data(), .kv = near_});
    backend_.write_rows({.x = others, .first = test_.dim, .slots = slots.data(), .kv = near_});
    CompressRowsArgs args{.from = near_, .first = test_.dim, .batch = &near, .overlaps = test_.overlaps, .bias = key_bias_.tensor,
                          .norm = key_norm_.tensor, .eps = 1e-5f, .positions = positions.data(), .cos_sin = cos_sin_.tensor,
                          .to = far_, .to_first = 0, .to_batch = &far};
    backend_.compress_rows(args);
    if (test_.index_heads > 0) {
      args.first += size_of(test_.dim);
      args.bias = index_bias_.tensor;
      args.norm = index_norm_.tensor;
      args.to_first = test_.dim;
      backend_.compress_rows(args);
    }
    then(rows, near, far);
  }

  void expect_compressed(size_t s, int window, int64_t at, int dim, const Values& bias, const Values& norm, const double* got) {
    const int own = window * test_.span, first = test_.overlaps ? std::max(0, own - test_.span) : own;
    const int64_t width = size_of(dim) / 2;
    std::vector<double> want;
    double squares = 0;
    for (int d = 0; d < dim; ++d) {
      double total = 0, sum = 0;
      for (int p = first; p < own + test_.span; ++p) {
        const int64_t half = test_.overlaps && p >= own ? dim : 0;
        const double* const row = &kept_.exact[(begin_[s] + p) * near_.row_floats + at + half + d];
        const double weight = std::exp(row[width] + bias.exact[p % test_.span * width + half + d]);
        total += weight;
        sum += weight * row[0];
      }
      want.push_back(sum / total);
      squares += want.back() * want.back() / dim;
    }
    for (int d = 0; d < dim; ++d) want[d] *= norm.exact[d] / std::sqrt(squares + 1e-5);
    for (int i = 0; i < test_.rotary_dim / 2; ++i) {
      double* const pair = &want[dim - test_.rotary_dim + 2 * i];
      const double a = pair[0], b = pair[1], cos = cos_sin_.exact[own * test_.rotary_dim + i],
                   sin = cos_sin_.exact[own * test_.rotary_dim + test_.rotary_dim / 2 + i];
      pair[0] = a * cos - b * sin;
      pair[1] = b * cos + a * sin;
    }
    expect_near(std::vector<double>(got, got + dim), want, std::vector<double>(dim, 10.0), 1e-5, "compress_rows");
  }

  Backend& backend_;
  KeptCase test_;
  std::vector<Seq> seqs_;
  Bench bench_;
  std::vector<int64_t> begin_ = {0};
  std::unique_ptr<StepContext> context_;
  KvLayer near_, far_;
  std::vector<int32_t> near_table_, far_table_;
  Values kept_, key_bias_, key_norm_, index_bias_, index_norm_, cos_sin_;
};

}  // namespace

void add_kept_row_cases(std::vector<OpCase>& cases) {
  for (const KeptCase& test : {KeptCase{5, 17, 4, 20, true, 3, 9, 6}, {9, 40, 24, 21, false}, {20, 64, 3, 130, true, 11, 32, 40}}) {
    cases.push_back({"kept_rows_" + std::to_string(test.dim), [=](Backend& b, WeightFormat w) {
                       if (!b.has(RareOp::kKeptRows)) return;
                       KeptRun(b, w, test, {{3, 1}, {0, 37}, {24, 1}, {70, 30}, {300, 2}}).check();
                     }});
  }
}

}  // namespace serval::testing
