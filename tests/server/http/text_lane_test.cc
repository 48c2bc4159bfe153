// The line before the text threads: its order and its bounds.

#include "server/http/text_lane.h"

#include <gtest/gtest.h>

#include <future>

namespace serval {
namespace {

// One thread that is busy until open() is called, so that what is submitted meanwhile stands in line.
struct BusyLane {
  explicit BusyLane(size_t most = 100, size_t max_bytes = 1'000'000) : lane(1, most, max_bytes) {
    std::promise<void> begun;
    lane.submit(0, [&] {
      begun.set_value();
      gate.get_future().wait();
    });
    begun.get_future().wait();
  }
  void open() { gate.set_value(); }

  std::promise<void> gate;
  TextLane lane;
};

TEST(TextLane, TakesTheShortestFirst) {
  BusyLane busy;
  std::vector<size_t> order;
  for (const size_t bytes : {500u, 100u, 300u, 100u})
    ASSERT_TRUE(busy.lane.submit(bytes, [&order, bytes] { order.push_back(bytes); }));
  busy.open();
  busy.lane.join();
  EXPECT_EQ(order, (std::vector<size_t>{100, 100, 300, 500}));
}

TEST(TextLane, PutsALongTaskOffByItsOwnSizeAtMost) {
  BusyLane busy;
  std::vector<size_t> order;
  std::atomic<size_t> after = 0;
  // Each short task brings the next, for ever if the long one waited for all of them.
  std::function<void()> next = [&] {
    order.push_back(100);
    if (++after < 50) busy.lane.submit(100, next);
  };
  busy.lane.submit(1000, [&] { order.push_back(1000); });
  busy.lane.submit(100, next);
  busy.open();
  while (busy.lane.num_waiting() > 0 || after < 50) std::this_thread::yield();
  busy.lane.join();
  const auto longer = std::find(order.begin(), order.end(), 1000u) - order.begin();
  EXPECT_EQ(longer, 9);  // the tenth short one is due when it is, and came later
}

TEST(TextLane, TakesWhatItsLimitsAllowAndNoMore) {
  BusyLane by_number(2), by_bytes(100, 10);
  EXPECT_TRUE(by_number.lane.submit(5, [] {}));
  EXPECT_TRUE(by_number.lane.submit(5, [] {}));
  EXPECT_FALSE(by_number.lane.submit(0, [] {}));
  EXPECT_TRUE(by_bytes.lane.submit(4, [] {}));
  EXPECT_FALSE(by_bytes.lane.submit(7, [] {}));
  EXPECT_TRUE(by_bytes.lane.submit(6, [] {}));
  EXPECT_FALSE(by_bytes.lane.submit(1, [] {}));
  by_number.open();
  by_bytes.open();
}

}  // namespace
}  // namespace serval
