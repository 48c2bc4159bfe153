#include "engine/runner/speculators/datastore_speculator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <random>

#include "loadtest/bench/temp_folder.h"
#include "tests/support/allocation_counter.h"

namespace serval::testing {
namespace {

using Tokens = std::vector<TokenId>;
using Tree = std::vector<std::pair<TokenId, int>>;

class Datastore : public ::testing::Test {
 protected:
  TokenStore store(const std::vector<Tokens>& texts) {
    TokenStore::write(folder_.path() / "store", texts);
    return TokenStore(folder_.path() / "store");
  }
  Tree guesses(const std::vector<Tokens>& texts, const Tokens& known, int most, int width, int depth = kMaxDrafts) {
    DatastoreSpeculator speculator(store(texts), 50);
    std::array<DraftTask, 1> tasks;
    tasks[0].known = known;
    tasks[0].most = most;
    tasks[0].depth = depth;
    tasks[0].width = width;
    speculator.propose(tasks);
    Tree tree;
    for (int i = 0; i < tasks[0].num_drafts; ++i) tree.emplace_back(tasks[0].drafts[i].token, tasks[0].drafts[i].parent);
    return tree;
  }
  TempFolder folder_;
};

TEST_F(Datastore, FindsEveryPlaceOfAText) {
  std::mt19937_64 random(3);
  std::vector<Tokens> texts(5);
  for (Tokens& text : texts)
    for (int i = 0; i < 400; ++i) text.push_back(static_cast<TokenId>(random() % 4));
  const TokenStore found = store(texts);
  for (int c = 0; c < 200; ++c) {
    const Tokens& text = texts[random() % texts.size()];
    const auto at = static_cast<int64_t>(random() % 390);
    const Tokens part(text.begin() + at, text.begin() + at + 1 + static_cast<int64_t>(random() % 8));
    size_t expected = 0;
    for (const Tokens& in : texts)
      for (auto place = in.begin(); (place = std::search(place, in.end(), part.begin(), part.end())) != in.end(); ++place) ++expected;
    const TokenStore::Range range = found.find(part);
    EXPECT_EQ(range.size(), expected);
    for (uint32_t i = range.begin; i < range.end; ++i)
      for (size_t d = 0; d < part.size(); ++d) ASSERT_EQ(found.token(i, static_cast<int>(d)), part[d]);
    const TokenStore::Range all = found.alike(range, range.begin, static_cast<int>(part.size()));
    EXPECT_TRUE(all.begin == range.begin && all.end <= range.end && all.size() > 0);
  }
  EXPECT_EQ(found.find(Tokens{1, 2, 7}).size(), 0u);
}

TEST_F(Datastore, GuessesWhatFollowsMostOftenBehindTheLongestMatch) {
  const std::vector<Tokens> texts = {{1, 2, 3, 4, 5, 6}, {9, 2, 3, 7, 8}, {1, 2, 3, 4, 9}, {1, 2, 3, 8, 8}, {3, 6}, {3, 6}, {3, 6}};
  EXPECT_EQ(guesses(texts, {1, 2, 3}, 8, 1), (Tree{{4, -1}, {5, 0}, {6, 1}})) << "as deep as tokens match";
  EXPECT_EQ(guesses(texts, {7, 1, 2, 3}, 3, 4), (Tree{{4, -1}, {8, -1}, {5, 0}})) << "two of three go on with 4";
  EXPECT_EQ(guesses(texts, {5, 2, 3}, 8, 4, 1), (Tree{{4, -1}, {7, -1}, {8, -1}}));
  EXPECT_EQ(guesses(texts, {5, 3}, 8, 4), Tree{}) << "one token is no match";
  EXPECT_EQ(guesses(texts, {8, 8}, 8, 4), Tree{}) << "what follows is another text";
  EXPECT_EQ(guesses({{1, 2, 60}, {1, 2, 3}}, {1, 2}, 8, 4), (Tree{{3, -1}})) << "a token that the model has";
}

TEST_F(Datastore, OfManyPlacesSomeAreAsked) {
  std::vector<Tokens> texts;
  for (int i = 0; i < 3000; ++i) texts.push_back({1, 2, i % 3 == 0 ? 5 : i % 7 == 0 ? 6 : 10 + i % 30, 4});
  EXPECT_EQ(guesses(texts, {1, 2}, 3, 2), (Tree{{5, -1}, {4, 0}, {6, -1}}));
}

TEST_F(Datastore, AllocatesNothing) {
  std::mt19937_64 random(3);
  Tokens text;
  for (int i = 0; i < 5000; ++i) text.push_back(static_cast<TokenId>(random() % 6));
  DatastoreSpeculator speculator(store({text}), 50);
  std::array<DraftTask, 1> tasks;
  const AllocationCounter counter;
  for (int end = 0; end < 500; ++end) {
    tasks[0] = {.known = std::span(text).first(end), .most = 64, .depth = 64, .width = 8};
    speculator.propose(tasks);
  }
  EXPECT_EQ(counter.count_on_this_thread(), 0);
  EXPECT_EQ(tasks[0].num_drafts, 16) << "the text itself, as deep as tokens match";
}

TEST_F(Datastore, RefusesWhatIsNoStore) {
  EXPECT_THROW(TokenStore(folder_.path() / "absent"), std::runtime_error);
  EXPECT_THROW(TokenStore::planned_bytes(folder_.path() / "absent"), std::runtime_error);
  store({{1, 2, 3}});
  std::filesystem::resize_file(folder_.path() / "store", 20);
  EXPECT_THROW(TokenStore(folder_.path() / "store"), std::runtime_error);
  std::ofstream(folder_.path() / "other") << "some text that is long enough for a head";
  EXPECT_THROW(TokenStore(folder_.path() / "other"), std::runtime_error);
  // Places that lie nowhere are the ends of texts.
  store({{1, 2, 3}});
  std::fstream file(folder_.path() / "store", std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(16 + 4 * 4);
  const uint32_t far = 0xffffffffu;
  for (int i = 0; i < 4; ++i) file.write(reinterpret_cast<const char*>(&far), 4);
  file.close();
  const TokenStore spoiled(folder_.path() / "store");
  EXPECT_EQ(spoiled.find(Tokens{1, 2}).size(), 0u);
}

}  // namespace
}  // namespace serval::testing
