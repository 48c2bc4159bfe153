#include "tests/kernels/checks/attention_case.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <utility>

#include "kernels/attention_plan.h"
#include "kernels/cuda/attention.h"

namespace serval::gpu {

template <class T>
AttentionCase<T>::AttentionCase(const AttentionShape& shape, uint32_t seed) : shape_(shape), random_(seed) {
  for (const SeqShape& seq : shape.seqs) num_rows_ += seq.num_rows;
  int num_blocks = 3;
  for (const SeqShape& seq : shape.seqs) {
    stride_ = std::max(stride_, tiles_of(seq.first_pos + seq.num_rows, shape.block_size));
    num_blocks += tiles_of(seq.first_pos + seq.num_rows, shape.block_size);
  }
  ++stride_;
  const size_t block = static_cast<size_t>(shape.num_kv_heads) * shape.block_size * shape.head_dim;
  keys_.assign(num_blocks * block, rounded<T>(NAN));
  values_ = keys_;
  std::vector<int32_t> free(num_blocks);
  std::iota(free.begin(), free.end(), 0);
  std::shuffle(free.begin(), free.end(), random_);
  table_.assign(shape.seqs.size() * stride_, -1);
  row_start_.push_back(0);
  for (size_t s = 0; s < shape.seqs.size(); ++s) {
    const SeqShape& seq = shape.seqs[s];
    row_start_.push_back(row_start_.back() + seq.num_rows);
    first_pos_.push_back(seq.first_pos);
    for (int j = 0; j < seq.num_rows; ++j) {
      std::mt19937 row_random(seed + 7919 * static_cast<uint32_t>(seq.first_pos + j));  // by position alone
      const std::vector<T> row = random_numbers<T>(q_stride(), row_random);
      q_.insert(q_.end(), row.begin(), row.end());
    }
    const int first = first_seen(seq.first_pos, shape.window);
    for (int pos = first; pos < seq.first_pos + seq.num_rows; ++pos) {
      int32_t& entry = table_[s * stride_ + pos / shape.block_size];
      if (entry < 0) {
        entry = free.back();
        free.pop_back();
      }
      for (int h = 0; h < shape.num_kv_heads; ++h) {
        std::mt19937 key_random(seed + 104729 * static_cast<uint32_t>(pos) + 31 * h);
        const std::vector<T> k = random_numbers<T>(shape.head_dim, key_random),
                             v = random_numbers<T>(shape.head_dim, key_random);
        std::copy(k.begin(), k.end(), keys_.begin() + place(entry, h, pos));
        std::copy(v.begin(), v.end(), values_.begin() + place(entry, h, pos));
      }
    }
  }
  for (int h = 0; h < shape.num_heads; ++h) {
    sinks_.push_back(static_cast<float>(h) * 0.7f - 1);
    slopes_.push_back(std::exp2(-1.5f - static_cast<float>(h)));
  }
  if (shape.has_trees) branch_out();
  if (shape.is_fp8) to_fp8();
}

// Every row of a sequence is a branch by itself, whose last node hangs on a random earlier row.
template <class T>
void AttentionCase<T>::branch_out() {
  std::vector<int32_t> table;
  row_start_ = {0};
  first_pos_.clear();
  for (size_t s = 0; s < shape_.seqs.size(); ++s) {
    std::vector<uint64_t> masks;
    for (int j = 0; j < shape_.seqs[s].num_rows; ++j) {
      const int parent = j == 0 ? -1 : static_cast<int>(random_() % static_cast<unsigned>(j));
      masks.push_back((parent < 0 ? 0 : masks[parent]) | uint64_t{1} << j);
      row_start_.push_back(row_start_.back() + 1);
      first_pos_.push_back(shape_.seqs[s].first_pos + std::popcount(masks[j]) - 1);
      tree_start_.push_back(shape_.seqs[s].first_pos);
      table.insert(table.end(), table_.begin() + s * stride_, table_.begin() + (s + 1) * stride_);
    }
    tree_masks_.insert(tree_masks_.end(), masks.begin(), masks.end());
  }
  table_ = std::move(table);
}

template <class T>
std::vector<float> AttentionCase<T>::run(int max_items) const {
  const AttentionBatch batch{.num_seqs = static_cast<int>(first_pos_.size()),
                             .num_rows = num_rows_,
                             .row_start = row_start_.data(),
                             .first_pos = first_pos_.data()};
  std::vector<int32_t> items(batch.num_seqs + 1), tiles(batch.num_seqs + 1);
  const int heads_per_kv = shape_.num_heads / shape_.num_kv_heads;
  const AttentionPlan plan =
      plan_attention(batch, heads_per_kv, shape_.window, shape_.splits ? max_items : 0, items, tiles);
  const DeviceArray<T> q(q_);
  const DeviceArray<T> keys(keys_), values(values_);
  const DeviceArray<Fp8> small_keys(fp8_keys_), small_values(fp8_values_);
  const DeviceArray<int32_t> row_start(row_start_), first_pos(first_pos_), table(table_), item_start(items),
      tile_start(tiles);
  const DeviceArray<int32_t> counts(std::vector<int32_t>{batch.num_seqs, stride_});
  const DeviceArray<float> sinks(sinks_), slopes(slopes_);
  const DeviceArray<uint64_t> masks(tree_masks_);
  const DeviceArray<int32_t> tree_start(tree_start_);
  const DeviceArray<float> state(static_cast<size_t>(plan.num_items) * shape_.num_kv_heads * kItemRows * 2);
  const DeviceArray<float> partial(static_cast<size_t>(plan.num_items) * shape_.num_kv_heads * kItemRows *
                                   shape_.head_dim);
  const DeviceArray<T> out(static_cast<size_t>(num_rows_) * shape_.num_heads * shape_.head_dim);
  cuda::AttentionParams p;
  p.q = q.data();
  p.q_stride = q_stride();
  p.out = out.data();
  p.keys = shape_.is_fp8 ? static_cast<const void*>(small_keys.data()) : keys.data();
  p.values = shape_.is_fp8 ? static_cast<const void*>(small_values.data()) : values.data();
  p.is_fp8 = shape_.is_fp8;
  if (shape_.is_fp8) {
    p.key_scale = kKeyScale;
    p.value_scale = kValueScale;
  }
  p.num_heads = shape_.num_heads;
  p.num_kv_heads = shape_.num_kv_heads;
  p.head_dim = shape_.head_dim;
  p.block_shift = __builtin_ctz(shape_.block_size);
  p.scale = shape_.scale;
  p.soft_cap = shape_.soft_cap;
  p.window = shape_.window;
  p.sinks = shape_.has_sinks ? sinks.data() : nullptr;
  p.slopes = shape_.has_slopes ? slopes.data() : nullptr;
  p.counts = counts.data();
  p.row_start = row_start.data();
  p.first_pos = first_pos.data();
  p.block_table = table.data();
  p.item_start = item_start.data();
  p.tile_start = tile_start.data();
  p.tree_masks = shape_.has_trees ? masks.data() : nullptr;
  p.tree_start = tree_start.data();
  p.item_state = state.data();
  p.item_out = partial.data();
  const cuda::DeviceProperties device = cuda::device_properties();
  cuda::attend_split<T>(nullptr, p, 2 * device.num_sms, num_rows_, device.shared_bytes_per_block);
  cuda::attend_tiles<T>(nullptr, p, 2 * device.num_sms);
  return out.download_values();
}

template <class T>
std::vector<float> AttentionCase<T>::expected() const {
  const int heads_per_kv = shape_.num_heads / shape_.num_kv_heads, dim = shape_.head_dim;
  std::vector<float> out;
  for (size_t s = 0; s < first_pos_.size(); ++s) {
    for (int j = 0; j < row_start_[s + 1] - row_start_[s]; ++j) {
      const int own = first_pos_[s] + j, row = row_start_[s] + j;
      for (int h = 0; h < shape_.num_heads; ++h) {
        std::vector<double> logits;
        std::vector<int> seen;
        for (int pos = first_seen(own, shape_.window); pos <= own; ++pos) {
          const int at = shape_.has_trees ? branch_place(tree_masks_[s], tree_start_[s], pos) : pos;
          double dot = 0;
          for (int d = 0; d < dim; ++d)
            dot += double{value_of(q_[row * q_stride() + h * dim + d])} * key(s, h / heads_per_kv, at, d);
          dot *= shape_.scale;
          if (shape_.soft_cap > 0) dot = shape_.soft_cap * std::tanh(dot / shape_.soft_cap);
          logits.push_back(shape_.has_slopes ? dot - double{slopes_[h]} * (own - pos) : dot);
          seen.push_back(at);
        }
        double most = *std::max_element(logits.begin(), logits.end());
        if (shape_.has_sinks) most = std::max(most, double{sinks_[h]});
        double sum = shape_.has_sinks ? std::exp(sinks_[h] - most) : 0;
        std::vector<double> result(dim);
        for (size_t i = 0; i < seen.size(); ++i) {
          const double weight = std::exp(logits[i] - most);
          sum += weight;
          for (int d = 0; d < dim; ++d) result[d] += weight * value(s, h / heads_per_kv, seen[i], d);
        }
        for (const double x : result) out.push_back(static_cast<float>(x / sum));
      }
    }
  }
  return out;
}

template class AttentionCase<Bf16>;
template class AttentionCase<Half>;

}  // namespace serval::gpu
