// Paged attention in emulation: both kernels against softmax attention in double, over head sizes, ragged
// batches, windows, soft caps, sinks, trees of drafts, fp8; and law 1 between them.
#include "kernels/cuda/attention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "kernels/attention_plan.h"
#include "kernels/cuda/attention_tile.h"
#include "tests/simt/device_array.h"
#include "tests/simt/emulation.h"
#include "tests/simt/runtime.h"

namespace serval::cuda {
namespace {

struct SeqShape {
  int first_pos, num_rows;
};

struct Shape {
  std::vector<SeqShape> seqs;
  int num_heads = 4, num_kv_heads = 2, head_dim = 64, block_size = 16;
  float scale = 0.125f;
  float soft_cap = 0;
  int window = 0;
  bool has_sinks = false;
  bool has_trees = false;
  bool is_fp8 = false;
  bool splits = true;  // whether the plan may split
};

// A batch with its cache in shuffled blocks; what no row may read is not-a-number.
template <class T>
class Case {
 public:
  Case(const Shape& shape, uint32_t seed) : shape_(shape), random_(seed) {
    for (const SeqShape& seq : shape.seqs) num_rows_ += seq.num_rows;
    int num_blocks = 3;
    for (const SeqShape& seq : shape.seqs) {
      stride_ = std::max(stride_, tiles_of(seq.first_pos + seq.num_rows, shape.block_size));
      num_blocks += tiles_of(seq.first_pos + seq.num_rows, shape.block_size);
    }
    ++stride_;
    const size_t block = static_cast<size_t>(shape.num_kv_heads) * shape.block_size * shape.head_dim;
    keys_.assign(num_blocks * block, from_float<T>(NAN));
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
    for (int h = 0; h < shape.num_heads; ++h) sinks_.push_back(static_cast<float>(h) * 0.7f - 1);
    for (size_t s = 0; s < shape.seqs.size(); ++s) {
      tree_start_.push_back(first_pos_[s]);
      std::vector<uint64_t> masks;
      for (int j = 0; j < shape.seqs[s].num_rows; ++j) {  // every node hangs on a random earlier one
        const int parent = j == 0 ? -1 : static_cast<int>(random_() % static_cast<unsigned>(j));
        masks.push_back((parent < 0 ? 0 : masks[parent]) | uint64_t{1} << j);
      }
      tree_masks_.insert(tree_masks_.end(), masks.begin(), masks.end());
    }
    if (shape.is_fp8) to_fp8();
  }

  std::vector<float> run(int max_items = 1 << 20) const {
    const AttentionBatch batch{.num_seqs = static_cast<int>(shape_.seqs.size()),
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
    const DeviceArray<float> sinks(sinks_);
    const DeviceArray<uint64_t> masks(tree_masks_);
    const DeviceArray<int32_t> tree_start(tree_start_);
    const DeviceArray<float> state(static_cast<size_t>(plan.num_items) * shape_.num_kv_heads * kItemRows * 2);
    const DeviceArray<float> partial(static_cast<size_t>(plan.num_items) * shape_.num_kv_heads * kItemRows *
                                     shape_.head_dim);
    const DeviceArray<T> out(static_cast<size_t>(num_rows_) * shape_.num_heads * shape_.head_dim);
    AttentionParams p;
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
    attend_split<T>(nullptr, p, 3, num_rows_, size_t{99} << 10);
    attend_tiles<T>(nullptr, p, 2);
    simt::check_guards();
    return as_floats<T>(out.span());
  }

  // The definition, in double, over what is stored.
  std::vector<float> expected() const {
    const int heads_per_kv = shape_.num_heads / shape_.num_kv_heads, dim = shape_.head_dim;
    std::vector<float> out;
    for (size_t s = 0; s < shape_.seqs.size(); ++s) {
      for (int j = 0; j < shape_.seqs[s].num_rows; ++j) {
        const int own = first_pos_[s] + j, row = row_start_[s] + j;
        for (int h = 0; h < shape_.num_heads; ++h) {
          std::vector<double> logits;
          std::vector<int> seen;
          for (int pos = first_seen(own, shape_.window); pos <= own; ++pos) {
            if (shape_.has_trees && pos >= tree_start_[s] &&
                (tree_masks_[row] >> (pos - tree_start_[s]) & 1) == 0)
              continue;
            double dot = 0;
            for (int d = 0; d < dim; ++d)
              dot += double{to_float(q_[row * q_stride() + h * dim + d])} * key(s, h / heads_per_kv, pos, d);
            dot *= shape_.scale;
            if (shape_.soft_cap > 0) dot = shape_.soft_cap * std::tanh(dot / shape_.soft_cap);
            logits.push_back(dot);
            seen.push_back(pos);
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
    return shape_.is_fp8 ? double{to_float(fp8_keys_[at])} * kKeyScale : double{to_float(keys_[at])};
  }
  double value(size_t s, int h, int pos, int d) const {
    const size_t at = place(table_[s * stride_ + pos / shape_.block_size], h, pos) + d;
    return shape_.is_fp8 ? double{to_float(fp8_values_[at])} * kValueScale : double{to_float(values_[at])};
  }
  void to_fp8() {
    for (const T k : keys_) fp8_keys_.push_back(fp8_from_float(to_float(k) / kKeyScale));
    for (const T v : values_) fp8_values_.push_back(fp8_from_float(to_float(v) / kValueScale));
  }

  Shape shape_;
  std::mt19937 random_;
  int num_rows_ = 0, stride_ = 0;
  std::vector<T> q_, keys_, values_;
  std::vector<Fp8> fp8_keys_, fp8_values_;
  std::vector<int32_t> row_start_, first_pos_, table_, tree_start_;
  std::vector<float> sinks_;
  std::vector<uint64_t> tree_masks_;
};

// FlashAttention's own criterion: weights rounded to T, then a result rounded to T.
template <class T>
void expect_close(const std::vector<float>& got, const std::vector<float>& want) {
  ASSERT_EQ(got.size(), want.size());
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_FALSE(std::isnan(got[i])) << i;
    worst = std::max(worst, std::abs(double{got[i]} - want[i]) / (1 + std::abs(want[i])));
  }
  EXPECT_LT(worst, 3 * kEpsilon<T>);
}

template <class T>
void check(const Shape& shape) {
  for (const uint64_t schedule : {0, 1}) {
    simt::set_schedule_seed(schedule);
    const Case<T> c(shape, 17);
    const std::vector<float> split = c.run();
    expect_close<T>(split, c.expected());
    Shape whole = shape;
    whole.splits = false;
    EXPECT_EQ(Case<T>(whole, 17).run(), split) << "a row's bits depend on how its sequence is cut";
  }
  simt::set_schedule_seed(0);
}

const std::vector<SeqShape> kMixed = {{0, 1},   {31, 1},  {32, 2}, {255, 1},
                                      {256, 1}, {300, 5}, {0, 33}, {520, 1}};

TEST(CudaAttention, MatchesTheDefinitionOverHeadSizes) {
  for (const int head_dim : {8, 40, 64, 80, 96, 128}) {
    SCOPED_TRACE(head_dim);
    check<Bf16>({.seqs = {{0, 3}, {70, 1}, {257, 2}}, .head_dim = head_dim});
  }
  check<Bf16>({.seqs = {{0, 3}, {257, 2}}, .num_heads = 2, .num_kv_heads = 1, .head_dim = 256});
}

TEST(CudaAttention, MatchesTheDefinitionOnMixedBatches) {
  check<Bf16>({.seqs = kMixed});
  check<Half>({.seqs = kMixed});
}

TEST(CudaAttention, MatchesTheDefinitionOverGroupSizesAndBlockSizes) {
  for (const auto& [heads, kv_heads] : {std::pair{1, 1}, {6, 2}, {7, 1}, {16, 1}, {20, 1}}) {
    SCOPED_TRACE(heads);
    check<Bf16>({.seqs = {{40, 1}, {0, 19}, {256, 3}}, .num_heads = heads, .num_kv_heads = kv_heads});
  }
  for (const int block_size : {1, 8, 64}) check<Bf16>({.seqs = {{40, 1}, {0, 70}}, .block_size = block_size});
}

TEST(CudaAttention, SeesOnlyItsWindow) {
  for (const int window : {1, 16, 33, 300}) {
    SCOPED_TRACE(window);
    check<Bf16>({.seqs = {{0, 5}, {40, 1}, {600, 1}, {290, 20}}, .window = window});
  }
}

TEST(CudaAttention, CapsLogitsAndCountsSinks) {
  check<Bf16>({.seqs = {{40, 3}, {300, 1}}, .soft_cap = 5});
  check<Bf16>({.seqs = {{40, 3}, {300, 1}}, .has_sinks = true});
  check<Half>({.seqs = {{0, 40}, {300, 1}}, .soft_cap = 20, .window = 50, .has_sinks = true});
}

TEST(CudaAttention, SeesOnlyTheAncestorsOfADraft) {
  check<Bf16>({.seqs = {{40, 8}, {250, 16}, {0, 5}}, .has_trees = true});
  check<Bf16>({.seqs = {{100, 64}}, .num_heads = 2, .has_trees = true});
}

TEST(CudaAttention, ReadsKeysAndValuesInFp8) {
  for (const int head_dim : {64, 128})
    check<Bf16>({.seqs = {{0, 3}, {70, 1}, {300, 2}}, .head_dim = head_dim, .is_fp8 = true});
  check<Half>({.seqs = {{0, 40}, {70, 1}, {300, 2}}, .head_dim = 96, .is_fp8 = true});
  check<Bf16>({.seqs = {{33, 2}}, .num_heads = 2, .num_kv_heads = 1, .head_dim = 256, .is_fp8 = true});
}

TEST(CudaAttention, KeepsARowsBitsWhenNotAllSequencesCanBeSplit) {
  const Case<Bf16> c({.seqs = kMixed}, 3);
  const std::vector<float> all = c.run();
  for (const int max_items : {0, 1, 3, 7}) EXPECT_EQ(c.run(max_items), all);
}

// Law 1: the row at a position, however its prompt is cut into steps and whoever shares the step. Queries,
// keys and values of a case depend on the position alone.
TEST(CudaAttention, GivesARowTheSameBitsInAnyChunkOfItsPromptAndAnyCompany) {
  constexpr int kLength = 290;
  for (const int window : {0, 100}) {
    const auto rows_of = [&](const std::vector<SeqShape>& seqs, int count, bool splits) {
      const Shape shape{.seqs = seqs, .num_heads = 2, .num_kv_heads = 1, .window = window, .splits = splits};
      std::vector<float> all = Case<Bf16>(shape, 5).run();
      all.resize(static_cast<size_t>(count) * shape.num_heads * shape.head_dim);  // of the first sequence
      return all;
    };
    const std::vector<float> whole = rows_of({{0, kLength}}, kLength, false);
    for (const auto& [begin, count] :
         {std::pair{0, 1}, {0, 100}, {100, 155}, {255, 2}, {289, 1}, {257, 33}}) {
      SCOPED_TRACE(begin);
      const size_t row = whole.size() / kLength;
      const std::vector<float> want(whole.begin() + begin * row, whole.begin() + (begin + count) * row);
      for (const bool splits : {false, true}) {
        EXPECT_EQ(rows_of({{begin, count}}, count, splits), want);
        EXPECT_EQ(rows_of({{begin, count}, {512, 1}, {3, 70}}, count, splits), want);
      }
    }
  }
}

TEST(AttentionPlan, CoversEveryRowOnceAndStaysWithinItsScratch) {
  std::mt19937 random(4);
  for (int trial = 0; trial < 300; ++trial) {
    const int num_seqs = 1 + static_cast<int>(random() % 9),
              heads_per_kv = 1 + static_cast<int>(random() % 20);
    const int window = random() % 3 == 0 ? 1 + static_cast<int>(random() % 900) : 0;
    const int max_items = static_cast<int>(random() % 200);
    std::vector<int32_t> row_start = {0}, first_pos;
    for (int s = 0; s < num_seqs; ++s) {
      row_start.push_back(row_start.back() + 1 + static_cast<int>(random() % (random() % 2 ? 200 : 3)));
      first_pos.push_back(static_cast<int>(random() % 3000));
    }
    const AttentionBatch batch{.num_seqs = num_seqs,
                               .num_rows = row_start.back(),
                               .row_start = row_start.data(),
                               .first_pos = first_pos.data()};
    std::vector<int32_t> items(num_seqs + 1), tiles(num_seqs + 1);
    const AttentionPlan plan = plan_attention(batch, heads_per_kv, window, max_items, items, tiles);
    EXPECT_LE(plan.num_items, max_items);
    for (int s = 0; s < num_seqs; ++s) {
      const int rows = row_start[s + 1] - row_start[s], packed = rows * heads_per_kv;
      const ChunkRange chunks = chunks_of(first_pos[s], rows, window);
      EXPECT_LE(chunks.first * kChunkKeys, first_seen(first_pos[s], window));
      EXPECT_GT((chunks.first + chunks.count) * kChunkKeys, first_pos[s] + rows - 1);
      const int num_items = items[s + 1] - items[s], num_tiles = tiles[s + 1] - tiles[s];
      EXPECT_NE(num_items == 0, num_tiles == 0);
      if (num_items > 0) {
        EXPECT_EQ(num_items, chunks.count * tiles_of(packed, kItemRows));
      } else {
        EXPECT_EQ(num_tiles, tiles_of(packed, kTileQueryRows));
      }
      for (int i = items[s]; i < items[s + 1]; ++i) EXPECT_EQ(sequence_of(items.data(), num_seqs, i), s);
      for (int i = tiles[s]; i < tiles[s + 1]; ++i) EXPECT_EQ(sequence_of(tiles.data(), num_seqs, i), s);
    }
  }
}

TEST(AttentionTile, EveryElementHasAPlaceOfItsOwnAndNoTwoLanesMeetInABank) {
  for (const int dim : {64, 96, 128, 256}) {
    std::vector<int> taken(kTileKeys * dim, 0);
    for (int key = 0; key < kTileKeys; ++key)
      for (int d = 0; d < dim; ++d) ++taken.at(tile_offset(key, d));
    EXPECT_THAT(taken, testing::Each(1));
  }
  const auto bank_group = [](int key, int dim) { return tile_offset(key, dim) * 2 / 16 % 8; };
  // A quarter warp reads a fragment: two keys, four places each. A transposed load reads eight keys at one
  // place.
  for (int key = 0; key < kTileKeys; key += 2) {
    std::vector<int> groups;
    for (int lane = 0; lane < 8; ++lane) groups.push_back(bank_group(key + lane / 4, 8 * (lane % 4)));
    EXPECT_THAT(groups, testing::UnorderedElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
  }
  for (int key = 0; key < kTileKeys; key += 8) {
    for (int dim = 0; dim < 64; dim += 8) {
      std::vector<int> groups;
      for (int row = 0; row < 8; ++row) groups.push_back(bank_group(key + row, dim));
      EXPECT_THAT(groups, testing::UnorderedElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
    }
  }
}

}  // namespace
}  // namespace serval::cuda
