// How attention is cut into work, and where a tile's elements lie. The kernels themselves: checks_test.cc.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "kernels/attention_plan.h"
#include "kernels/cuda/attention_tile.cuh"

namespace serval::cuda {
namespace {

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
