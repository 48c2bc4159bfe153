#include "engine/runner/speculators/medusa_heads.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "loadtest/bench/temp_folder.h"
#include "tests/support/head_files.h"

namespace serval::testing {
namespace {

ModelSpec target(int hidden, int vocab) {
  ModelSpec spec;
  spec.hidden_size = hidden;
  spec.vocab_size = vocab;
  return spec;
}

std::string sentence(const TempFolder& folder, const ModelSpec& spec) {
  try {
    read_medusa_spec(folder.path(), spec);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

TEST(MedusaHeads, AreAsManyAsTheFileHasAndAsLargeAsPlanned) {
  const TempFolder folder;
  write_medusa_heads(folder.path(), 3, 32, 70);
  const ModelSpec spec = target(32, 70);
  const MedusaSpec medusa = read_medusa_spec(folder.path(), spec);
  EXPECT_EQ(medusa.num_heads, 3);
  const auto backend = make_backend({.num_threads = 1});
  size_t bytes = 0;
  for (const MedusaHead& head : load_medusa(folder.path(), medusa, spec, *backend))
    bytes += head.layer.bytes() + head.logits.bytes();
  EXPECT_EQ(bytes, planned_medusa_bytes(medusa, spec, *backend));
}

TEST(MedusaHeads, AreRefusedWithASentenceWhereTheyDoNotSuit) {
  const TempFolder folder;
  EXPECT_THAT(sentence(folder, target(32, 70)), ::testing::HasSubstr("medusa_lm_head.safetensors"));
  write_medusa_heads(folder.path(), 2, 32, 70);
  EXPECT_EQ(sentence(folder, target(32, 70)), "");
  EXPECT_THAT(sentence(folder, target(48, 70)), ::testing::HasSubstr("tensor 0.0.linear.weight has another shape"));
  EXPECT_THAT(sentence(folder, target(32, 71)), ::testing::HasSubstr("tensor 0.1.weight has another shape"));
  write_medusa_heads(folder.path(), 2, 32, 70, "1.1.weight");
  EXPECT_THAT(sentence(folder, target(32, 70)), ::testing::HasSubstr("tensor 1.1.weight is missing"));
}

}  // namespace
}  // namespace serval::testing
