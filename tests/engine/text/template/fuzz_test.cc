#include "tests/engine/text/template/fuzz.h"

#include <gtest/gtest.h>

namespace serval {
namespace {

TEST(ChatTemplateFuzz, SurvivesMutatedTemplates) {
  const FuzzCounts counts = fuzz_templates(1, 10'000);
  // Mutants must get past the parser often enough to try the rest.
  EXPECT_GT(counts.rendered, 1'000);
  EXPECT_GT(counts.refused, 1'000);
}

}  // namespace
}  // namespace serval
