// What a connection has to send, in order, and what it holds meanwhile.

#include "server/http/answer_output.h"

#include <gtest/gtest.h>

#include <vector>

#include "server/memory_budget.h"

namespace serval {
namespace {

class Pieces final : public BodySource {
 public:
  explicit Pieces(std::vector<std::string> pieces) : pieces_(std::move(pieces)) {}
  bool next(std::string& out) override {
    out += pieces_.at(given++);
    return given < pieces_.size();
  }
  size_t held_bytes() const override { return 1000; }
  size_t given = 0;

 private:
  std::vector<std::string> pieces_;
};

std::string take_all(AnswerOutput& output) {
  std::string all;
  for (;;) {
    const std::string_view front = output.front();
    if (front.empty()) return all;
    const size_t n = (front.size() + 1) / 2;  // sockets take some of it
    all += front.substr(0, n);
    output.written(n);
  }
}

TEST(AnswerOutput, KeepsTheOrderOfBytesAndBodies) {
  AnswerOutput output;
  output.append("head ");
  output.append_source(std::make_shared<Pieces>(std::vector<std::string>{"one", "two"}), true);
  output.append_chunk("between");
  output.append_source(std::make_shared<Pieces>(std::vector<std::string>{"three"}), false);
  output.append(" end");
  EXPECT_EQ(take_all(output), "head 3\r\none\r\n3\r\ntwo\r\n7\r\nbetween\r\nthree end");
  EXPECT_TRUE(output.empty());
}

TEST(AnswerOutput, MakesAPieceWhenTheOneBeforeItIsGone) {
  AnswerOutput output;
  const auto pieces = std::make_shared<Pieces>(std::vector<std::string>{"one", "two"});
  output.append("head");
  output.append_source(pieces, false);
  EXPECT_EQ(output.front(), "head");
  EXPECT_EQ(pieces->given, 0u);
  output.written(4);
  EXPECT_EQ(output.front(), "one");
  output.written(1);
  EXPECT_EQ(output.front(), "ne");
  EXPECT_EQ(pieces->given, 1u);
}

TEST(AnswerOutput, CountsWhatItHoldsAndWhatAReaderLeft) {
  AnswerOutput output;
  output.append("12345");
  EXPECT_EQ(output.front(), "12345");
  output.written(2);
  output.append("67");
  EXPECT_EQ(output.held_bytes(), 5u);
  EXPECT_EQ(output.unread_bytes(), 5u);
  output.append_source(std::make_shared<Pieces>(std::vector<std::string>{"abc", "d"}), false);
  output.append("behind");
  EXPECT_EQ(output.held_bytes(), 5u + 1000 + 6);
  EXPECT_EQ(output.unread_bytes(), 5u);  // nobody can have read what is not made yet, nor what is behind it
  output.written(3);
  output.front();
  output.written(2);
  EXPECT_EQ(output.front(), "abc");
  EXPECT_EQ(output.unread_bytes(), 0u);
  output.written(3);
  EXPECT_EQ(output.front(), "dbehind");
  output.append("new");
  EXPECT_EQ(output.unread_bytes(), 3u);
  EXPECT_EQ(output.held_bytes(), 10u);
}

TEST(MemoryBudget, HoldsToTheByteAndTakesBackWhatGoes) {
  MemoryBudget budget(100);
  MemoryCharge a(&budget);
  {
    MemoryCharge b(&budget, /*free_bytes=*/10);
    EXPECT_TRUE(a.fits(60));
    EXPECT_TRUE(b.fits(50));  // 10 of them cost nothing
    EXPECT_FALSE(b.fits(51));
    EXPECT_EQ(budget.used(), 100u);
    EXPECT_TRUE(b.fits(5));
    EXPECT_EQ(budget.used(), 60u);
    EXPECT_TRUE(b.fits(11));
  }
  EXPECT_EQ(budget.used(), 60u);
  EXPECT_FALSE(a.fits(101));
  EXPECT_EQ(budget.used(), 60u);
  EXPECT_TRUE(a.fits(100));
}

}  // namespace
}  // namespace serval
