#include <gtest/gtest.h>

#include "tests/engine/text/template/fuzz.h"

namespace serval {
namespace {

TEST(ChatTemplateLongFuzz, SurvivesAMillionMutatedTemplates) {
  for (uint64_t seed = 100; seed < 110; ++seed) {
    const FuzzCounts counts = fuzz_templates(seed, 100'000);
    EXPECT_GT(counts.rendered, 10'000) << "seed " << seed;
  }
}

}  // namespace
}  // namespace serval
