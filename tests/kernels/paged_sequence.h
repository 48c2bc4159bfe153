// One sequence with random queries, keys and values, its KV in shuffled blocks of a poisoned cache: every
// element nobody wrote is NaN, so that reading too far shows.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "tests/kernels/support.h"

namespace serval::testing {

struct AttentionShape {
  int heads = 4, kv_heads = 2, head_dim = 64, block_size = 16;
  DType dtype = DType::kF32;
  int window = 0;
  float soft_cap = 0;
  bool has_sinks = false;
  bool has_slopes = false;
};

class PagedSequence {
 public:
  PagedSequence(const AttentionShape& shape, int context, uint64_t seed)
      : shape_(shape), context_(context), random_(seed) {
    q_ = random_.floats(static_cast<size_t>(context) * q_row());
    k_ = random_.floats(static_cast<size_t>(context) * kv_row());
    v_ = random_.floats(static_cast<size_t>(context) * kv_row());
    for (float& x : q_) x *= 2;  // sharper than uniform, so that a lost maximum shows
    const int used = (context + shape.block_size - 1) / shape.block_size;
    kv_ = {.dtype = shape.dtype,
           .num_blocks = used + 3,
           .block_size = shape.block_size,
           .num_kv_heads = shape.kv_heads,
           .head_dim = shape.head_dim};
    keys_.resize(kv_.num_blocks * kv_.block_bytes());
    values_.resize(keys_.size());
    poison(keys_);
    poison(values_);
    kv_.keys = keys_.data();
    kv_.values = values_.data();
    free_.resize(kv_.num_blocks);
    std::iota(free_.begin(), free_.end(), 0);
    for (size_t i = free_.size() - 1; i > 0; --i)
      std::swap(free_[i], free_[random_.below(static_cast<int>(i) + 1)]);
    for (int b = 0; b < used; ++b) table_.push_back(take());
  }
  PagedSequence(const PagedSequence&) = delete;

  int q_row() const { return shape_.heads * shape_.head_dim; }
  int kv_row() const { return shape_.kv_heads * shape_.head_dim; }
  const KvLayer& kv() const { return kv_; }
  const std::vector<int32_t>& table() const { return table_; }
  const float* q(int position) const { return &q_[static_cast<size_t>(position) * q_row()]; }
  float scale() const { return 1 / std::sqrt(static_cast<float>(shape_.head_dim)); }

  void write(Backend& backend, int first, int rows) {
    std::vector<int32_t> slots(rows);
    for (int r = 0; r < rows; ++r) {
      const int p = first + r;
      slots[r] = table_[p / shape_.block_size] * shape_.block_size + p % shape_.block_size;
    }
    const auto tensor = [&](std::vector<float>& from) {
      return Tensor(&from[static_cast<size_t>(first) * kv_row()], DType::kF32,
                    {rows, shape_.kv_heads, shape_.head_dim});
    };
    backend.write_kv(
        {.k = tensor(k_), .v = tensor(v_), .row_stride = kv_row(), .slots = slots.data(), .kv = kv_});
  }

  // Drops the blocks that no row from `position` on sees.
  void forget_before_window(int position) {
    if (shape_.window == 0) return;
    for (int b = 0; (b + 1) * shape_.block_size <= position - shape_.window + 1; ++b) table_[b] = -1;
  }

  void move_block(Backend& backend, int index) {
    const int32_t to = take();
    const BlockCopy copy{.from = table_[index], .to = to, .num_tokens = shape_.block_size};
    backend.copy_kv_blocks(kv_, {&copy, 1});
    table_[index] = to;
  }

  // In order, (from, to).
  void move_positions(Backend& backend, const std::vector<std::pair<int, int>>& moves) {
    std::vector<KvMove> places;
    const auto place = [&](int p) {
      return table_[p / shape_.block_size] * shape_.block_size + p % shape_.block_size;
    };
    for (const auto& [from, to] : moves) places.push_back({place(from), place(to)});
    backend.move_kv(kv_, places);
  }

  // tree_mask: the row is a branch of a tree that begins at tree_start.
  std::vector<float> attend(Backend& backend, int first, int rows, uint64_t tree_mask = 0, int tree_start = 0) {
    const std::vector<int32_t> row_start = {0, rows}, first_pos = {first};
    const AttentionBatch batch{.num_seqs = 1,
                               .num_rows = rows,
                               .row_start = row_start.data(),
                               .first_pos = first_pos.data(),
                               .block_table = table_.data(),
                               .table_stride = static_cast<int>(table_.size()),
                               .tree_masks = &tree_mask,
                               .tree_start = &tree_start};
    std::vector<float> sinks(shape_.heads), slopes(shape_.heads);
    for (int h = 0; h < shape_.heads; ++h) {
      sinks[h] = 2 - static_cast<float>(h);
      slopes[h] = 0.3f / static_cast<float>(h + 1);
    }
    std::vector<float> out(static_cast<size_t>(rows) * q_row());
    backend.attention(
        {.q = Tensor(const_cast<float*>(q(first)), DType::kF32, {rows, shape_.heads, shape_.head_dim}),
         .kv = kv_,
         .batch = &batch,
         .scale = scale(),
         .soft_cap = shape_.soft_cap,
         .window = shape_.window,
         .sinks = shape_.has_sinks ? Tensor(sinks.data(), DType::kF32, {shape_.heads}) : Tensor(),
         .slopes = shape_.has_slopes ? Tensor(slopes.data(), DType::kF32, {shape_.heads}) : Tensor(),
         .out = Tensor(out.data(), DType::kF32, {rows, q_row()})},
        q_row());
    return out;
  }

  // The row at `position`, in double, over keys and values as stored.
  std::vector<double> reference(int position) const {
    std::vector<double> out(q_row());
    const int first = shape_.window == 0 ? 0 : std::max(0, position - shape_.window + 1);
    const std::vector<float> keys = stored(k_), values = stored(v_);
    for (int h = 0; h < shape_.heads; ++h) {
      const size_t at = static_cast<size_t>(h / (shape_.heads / shape_.kv_heads)) * shape_.head_dim;
      std::vector<double> weight;
      for (int p = first; p <= position; ++p) {
        double dot = 0;
        for (int d = 0; d < shape_.head_dim; ++d)
          dot += double{q(position)[h * shape_.head_dim + d]} *
                 keys[static_cast<size_t>(p) * kv_row() + at + d];
        weight.push_back(dot * scale());
      }
      const double maximum = *std::max_element(weight.begin(), weight.end());
      double sum = 0;
      for (double& w : weight) sum += w = std::exp(w - maximum);
      for (int p = first; p <= position; ++p) {
        for (int d = 0; d < shape_.head_dim; ++d)
          out[h * shape_.head_dim + d] +=
              weight[p - first] / sum * values[static_cast<size_t>(p) * kv_row() + at + d];
      }
    }
    return out;
  }

 private:
  // Keys or values of every position as the cache has them, head by head.
  std::vector<float> stored(const std::vector<float>& all) const {
    std::vector<float> rounded;
    for (size_t i = 0; i < all.size(); i += shape_.head_dim)
      append_stored(&all[i], shape_.head_dim, shape_.dtype, rounded);
    return rounded;
  }
  int32_t take() {
    const int32_t block = free_.back();
    free_.pop_back();
    return block;
  }
  static void poison(std::vector<std::byte>& memory) {
    std::fill(memory.begin(), memory.end(), std::byte{0xff});
  }

  AttentionShape shape_;
  int context_;
  Random random_;
  std::vector<float> q_, k_, v_;
  std::vector<std::byte> keys_, values_;
  KvLayer kv_;
  std::vector<int32_t> free_, table_;
};

}  // namespace serval::testing
