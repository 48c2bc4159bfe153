// The arithmetic of KV blocks against what it is about: positions looked at one by one.
#include "engine/kv_geometry.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

namespace serval {
namespace {

// What a row at `position` reads or writes, by table index. A state's block covers `state_span` positions; a row
// reads the one of the position before it.
std::set<int> touched(const KvGroupGeometry& group, int block_size, int position) {
  const int span = group.state_span > 0 ? group.state_span : block_size;
  const int first = group.state_span > 0 ? std::max(0, position - 1)
                    : group.window > 0   ? std::max(0, position - group.window + 1)
                                         : 0;
  std::set<int> indexes;
  for (int p = first; p <= position; ++p) indexes.insert(p / span);
  for (int p = 0; p < std::min(group.sinks, position + 1); ++p) indexes.insert(p / span);
  return indexes;
}

struct Case {
  KvGroupGeometry group;
  int block_size;
};

std::vector<Case> cases() {
  std::vector<Case> cases;
  for (const int size : {1, 4, 16}) {
    cases.push_back({{}, size});
    for (const int window : {1, 2, 5, 16, 33}) {
      cases.push_back({{.window = window}, size});
      for (const int sinks : {1, 4, 9}) cases.push_back({{.window = window, .sinks = sinks}, size});
    }
    for (const int blocks : {1, 3}) cases.push_back({{.state_span = blocks * size}, size});
  }
  return cases;
}

TEST(KvRule, KeepsJustTheBlocksThatLaterRowsRead) {
  for (const auto& [group, size] : cases()) {
    const KvRule rule(group, size);
    for (int next = 0; next < 100; ++next) {
      SCOPED_TRACE(::testing::Message() << "size " << size << " window " << group.window << " span "
                                        << group.state_span << " next " << next);
      const std::set<int> read = touched(group, size, next);
      for (int b = 0; b < rule.blocks_for(next + 1); ++b) {
        const bool is_held = b < rule.num_kept() || b >= rule.first_needed(next);
        EXPECT_EQ(is_held, read.contains(b) || b < rule.num_kept()) << b;
      }
      EXPECT_LE(rule.first_needed(next), rule.first_needed(next + 1)) << "what was forgotten is wanted again";
      EXPECT_EQ(rule.blocks_for(next + 1), *touched(group, size, next).rbegin() + 1);
    }
  }
}

TEST(KvRule, CountsTheBlocksOfARowAndOfAStep) {
  for (const auto& [group, size] : cases()) {
    const KvRule rule(group, size);
    SCOPED_TRACE(::testing::Message() << "size " << size << " window " << group.window << " span "
                                      << group.state_span);
    size_t most = 0;
    for (int positions = 1; positions < 100; ++positions) {
      most = std::max(most, touched(group, size, positions - 1).size());
      EXPECT_EQ(rule.blocks_of_row(positions), static_cast<int>(most)) << positions;
    }
    if (!rule.forgets()) continue;
    for (const int rows : {1, 2, 7, 40}) {
      size_t widest = 0;
      for (int first = 0; first < 100; ++first) {
        std::set<int> indexes;
        for (int p = first; p < first + rows; ++p) indexes.merge(touched(group, size, p));
        widest = std::max(widest, indexes.size());
      }
      EXPECT_GE(rule.blocks_of_step(rows), static_cast<int>(widest)) << rows;
      EXPECT_TRUE(group.window > 0 || rule.blocks_of_step(rows) == static_cast<int>(widest)) << rows;
    }
  }
}

TEST(KvRule, AMatchHasAllThatTheNextRowReads) {
  for (const auto& [group, size] : cases()) {
    const KvRule rule(group, size);
    for (int end = rule.span(); end < 100; end += rule.span()) {
      for (int gap = 0; gap <= end; gap += rule.span()) {  // blocks that end up to there are missing
        // Those that are kept are looked for by themselves.
        int first = 0;
        for (const int b : touched({.window = group.window, .state_span = group.state_span}, size, end)) {
          first = b;
          break;
        }
        const bool has_all = first * rule.span() >= gap;
        EXPECT_EQ(rule.may_match(end, gap), has_all) << size << ' ' << group.window << ' ' << end << ' ' << gap;
      }
    }
  }
}

TEST(BlockGeometry, HasTablesForTheGroupWithMostEntries) {
  BlockGeometry geometry{.block_size = 4, .num_groups = 2, .groups = {{.state_span = 16}, {}}};
  EXPECT_EQ(geometry.table_entries(33), 9);
  geometry.num_groups = 1;
  EXPECT_EQ(geometry.table_entries(33), 3);
  EXPECT_FALSE(geometry.may_copy_part());
}

}  // namespace
}  // namespace serval
