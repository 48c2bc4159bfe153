// Who may hold a connection, and who makes way.

#include "server/http/connection_table.h"

#include <gtest/gtest.h>

namespace serval {
namespace {

// Stands for connections by the addresses of these.
const char kConnections[64] = {};
ConnectionTable::Id connection(int i) {
  return &kConnections[i];
}

TEST(ConnectionTable, AsManyAsThereMayBeHaveRightsAndOneMoreHasNot) {
  ConnectionTable table({.most = 3, .reserve = 2});
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(table.add(connection(i), "a").id, nullptr);
    EXPECT_EQ(table.claim_rights(connection(i)), i < 3);
    table.set_idle(connection(i), false);
  }
  table.remove(connection(0));
  EXPECT_TRUE(table.claim_rights(connection(3)));
}

TEST(ConnectionTable, TheLongestIdleMakesWayAndIsCountedNoMore) {
  ConnectionTable table({.most = 3, .reserve = 2});
  for (int i = 0; i < 3; ++i) table.add(connection(i), "a");
  table.set_idle(connection(0), false);
  table.set_idle(connection(1), false);
  table.set_idle(connection(1), true);  // the order is now 2, 1
  const ConnectionTable::Leaver leaver = table.add(connection(3), "b");
  EXPECT_EQ(leaver.id, connection(2));
  EXPECT_FALSE(leaver.at_once);
  EXPECT_TRUE(table.claim_rights(connection(3)));
  table.set_idle(connection(2), false);  // it found something to do first
  EXPECT_EQ(table.add(connection(4), "b").id, connection(1));
  table.remove(connection(2));
  EXPECT_EQ(table.size(), 4u);
}

TEST(ConnectionTable, TheReserveTurnsOverFromItsOldest) {
  ConnectionTable table({.most = 1, .reserve = 2});
  table.add(connection(0), "a");
  table.set_idle(connection(0), false);
  EXPECT_EQ(table.add(connection(1), "b").id, nullptr);
  EXPECT_EQ(table.add(connection(2), "b").id, nullptr);
  const ConnectionTable::Leaver leaver = table.add(connection(3), "b");
  EXPECT_EQ(leaver.id, connection(1));
  EXPECT_TRUE(leaver.at_once);
}

TEST(ConnectionTable, AnAddressBeyondItsShareReplacesItsOwn) {
  ConnectionTable table({.most = 10, .max_per_address = 2, .reserve = 4});
  table.add(connection(0), "other");
  table.add(connection(1), "a");
  table.add(connection(2), "a");
  EXPECT_EQ(table.add(connection(3), "a").id, connection(1));
  table.set_idle(connection(2), false);
  table.set_idle(connection(3), false);
  EXPECT_EQ(table.add(connection(4), "a").id, nullptr);
  EXPECT_FALSE(table.claim_rights(connection(4)));
  EXPECT_EQ(table.add(connection(5), "other").id, nullptr);
  EXPECT_TRUE(table.claim_rights(connection(5)));
  table.remove(connection(2));
  EXPECT_TRUE(table.claim_rights(connection(4)));
  for (int i = 0; i < 6; ++i) table.remove(connection(i));
  EXPECT_EQ(table.size(), 0u);
}

}  // namespace
}  // namespace serval
