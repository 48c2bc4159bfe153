// One batch for the attention kernels with its paged cache, and what softmax attention gives by definition.
// Queries, keys and values depend on the position alone, so that a row can be compared between batches.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "loadtest/gpu/device_array.h"

namespace serval::gpu {

struct SeqShape {
  int first_pos, num_rows;
};

struct AttentionShape {
  std::vector<SeqShape> seqs;
  int num_heads = 4, num_kv_heads = 2, head_dim = 64, block_size = 16;
  float scale = 0.125f;
  float soft_cap = 0;
  int window = 0;
  bool has_sinks = false;
  bool has_slopes = false;
  bool has_trees = false;
  bool is_fp8 = false;
  bool splits = true;  // whether the plan may split
};

// A batch with its cache in shuffled blocks; what no row may read is not-a-number. T: Bf16 or Half.
template <class T>
class AttentionCase {
 public:
  AttentionCase(const AttentionShape& shape, uint32_t seed);

  // Both kernels over the plan for at most max_items items: [rows, heads, head_dim].
  std::vector<float> run(int max_items = 1 << 20) const;
  // The definition, in double, over what is stored.
  std::vector<float> expected() const;

 private:
  static constexpr float kKeyScale = 0.5f, kValueScale = 0.25f;

  int64_t q_stride() const {
    return (shape_.num_heads + 1) * shape_.head_dim;
  }  // q is a slice of something wider
  size_t place(int block, int h, int pos) const {
    return ((static_cast<size_t>(block) * shape_.num_kv_heads + h) * shape_.block_size +
            pos % shape_.block_size) *
           shape_.head_dim;
  }
  double key(size_t s, int h, int pos, int d) const {
    const size_t at = place(table_[s * stride_ + pos / shape_.block_size], h, pos) + d;
    return shape_.is_fp8 ? double{value_of(fp8_keys_[at])} * kKeyScale : double{value_of(keys_[at])};
  }
  double value(size_t s, int h, int pos, int d) const {
    const size_t at = place(table_[s * stride_ + pos / shape_.block_size], h, pos) + d;
    return shape_.is_fp8 ? double{value_of(fp8_values_[at])} * kValueScale : double{value_of(values_[at])};
  }
  void branch_out();
  void to_fp8() {
    for (const T k : keys_) fp8_keys_.push_back(rounded<Fp8>(value_of(k) / kKeyScale));
    for (const T v : values_) fp8_values_.push_back(rounded<Fp8>(value_of(v) / kValueScale));
  }

  AttentionShape shape_;
  std::mt19937 random_;
  int num_rows_ = 0, stride_ = 0;
  std::vector<T> q_, keys_, values_;
  std::vector<Fp8> fp8_keys_, fp8_values_;
  std::vector<int32_t> row_start_, first_pos_, table_, tree_start_;
  std::vector<float> sinks_, slopes_;
  std::vector<uint64_t> tree_masks_;
};

}  // namespace serval::gpu
