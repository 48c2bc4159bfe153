#include "engine/text/tokenizer/normalizer.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <random>

#include "kernels/base/utf8.h"

namespace serval::test {
namespace {

Normalizer of_type(const char* type) {
  const boost::json::value json = {{"type", type}};
  return Normalizer::from_json(&json);
}

TEST(Normalizer, WithoutAnyIsTheIdentity) {
  const Normalizer none = Normalizer::from_json(nullptr);
  EXPECT_TRUE(none.is_identity());
  EXPECT_EQ(none.apply(" e\u0301 "), " e\u0301 ");
}

// Long runs of combining marks take a way of their own; a short run repeated must give the same as the marks
// in one run, sorted.
TEST(Normalizer, OrdersLongRunsOfMarksLikeShortOnes) {
  std::mt19937 random(1);
  const std::vector<std::string> above = {"\u0301", "\u0300", "\u0307"}, below = {"\u0323", "\u0331"};
  for (const char* form : {"NFC", "NFD", "NFKC", "NFKD"}) {
    const Normalizer normalizer = of_type(form);
    for (int round = 0; round < 200; ++round) {
      std::string mixed = "x", lower, upper;
      for (int n = static_cast<int>(random() % 100); n > 0; --n) {
        const bool is_below = random() % 2 == 0;
        const std::string& mark = is_below ? below[random() % below.size()] : above[random() % above.size()];
        mixed += mark;
        (is_below ? lower : upper) += mark;
      }
      // Class 220 comes before class 230, equal classes keep their order; in composed forms x takes up one
      // mark it has a letter with.
      EXPECT_EQ(normalizer.apply(mixed), normalizer.apply("x" + lower + upper)) << form;
      EXPECT_EQ(normalizer.apply(normalizer.apply(mixed)), normalizer.apply(mixed)) << form;
    }
  }
  EXPECT_EQ(of_type("NFD").apply("\u1e69"), "s\u0323\u0307");
  EXPECT_EQ(of_type("NFC").apply("s\u0307\u0323"), "\u1e69");
}

// ICU alone would move every other mark of these past half a million others.
TEST(Normalizer, IsLinearInARunOfMarks) {
  std::string text = "a";
  for (int i = 0; i < 500'000; ++i) text += "\u0301\u0323";
  const std::string out = of_type("NFC").apply(text);
  EXPECT_TRUE(is_valid_utf8(out));
  EXPECT_TRUE(out.starts_with("\u1ea1\u0323"));  // a with dot below, the next dot
  EXPECT_TRUE(out.ends_with("\u0301\u0301"));
}

}  // namespace
}  // namespace serval::test
