#include "engine/runner/speculators/draft_heads.h"

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

std::string sentence(const TempFolder& folder, const ModelSpec& spec, DrafterKind kind = DrafterKind::kMedusa) {
  try {
    read_heads_spec(kind, folder.path(), spec);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

TEST(DraftHeads, AreAsManyAsTheFileHasAndAsLargeAsPlanned) {
  const TempFolder folder;
  write_medusa_heads(folder.path(), 3, 32, 70);
  EXPECT_EQ(find_heads(folder.path()), DrafterKind::kMedusa);
  const HeadsSpec medusa = read_heads_spec(DrafterKind::kMedusa, folder.path(), target(32, 70));
  EXPECT_EQ(medusa.num_heads, 3);
  EXPECT_EQ(medusa.num_layers, 1);
  EXPECT_FALSE(medusa.reads_tokens);
  write_hydra_heads(folder.path() / "hydra", 3, 2, 32, 70);
  EXPECT_EQ(find_heads(folder.path() / "hydra"), DrafterKind::kHydra);
  const HeadsSpec hydra = read_heads_spec(DrafterKind::kHydra, folder.path() / "hydra", target(32, 70));
  EXPECT_EQ(hydra.num_layers, 2);
  EXPECT_TRUE(hydra.reads_tokens && hydra.has_logits_bias);
  EXPECT_EQ(hydra.num_read(2), 4);
  const auto backend = make_backend({.num_threads = 1});
  for (const HeadsSpec& spec : {medusa, hydra}) {
    const auto folder_of = spec.kind == DrafterKind::kHydra ? folder.path() / "hydra" : folder.path();
    size_t bytes = 0;
    for (const DraftHead& head : load_heads(folder_of, spec, target(32, 70), *backend)) {
      for (const DraftHead::Layer& layer : head.layers) bytes += layer.linear.bytes() + layer.around.bytes();
      bytes += head.logits.bytes();
    }
    EXPECT_EQ(bytes, planned_heads_bytes(spec, target(32, 70), *backend));
  }
}

TEST(DraftHeads, AreRefusedWithASentenceWhereTheyDoNotSuit) {
  const TempFolder folder;
  EXPECT_THAT(sentence(folder, target(32, 70)), ::testing::HasSubstr("medusa_lm_head.safetensors"));
  write_medusa_heads(folder.path(), 2, 32, 70);
  EXPECT_EQ(sentence(folder, target(32, 70)), "");
  EXPECT_THAT(sentence(folder, target(48, 70)), ::testing::HasSubstr("tensor 0.0.linear.weight has another shape"));
  EXPECT_THAT(sentence(folder, target(32, 71)), ::testing::HasSubstr("tensor 0.1.weight has another shape"));
  write_medusa_heads(folder.path(), 2, 32, 70, "1.1.weight");
  EXPECT_THAT(sentence(folder, target(32, 70)), ::testing::HasSubstr("tensor 1.1.weight is missing"));
  const auto hydra = [&](const std::string& without) {
    write_hydra_heads(folder.path(), 2, 2, 32, 70, without);
    return sentence(folder, target(32, 70), DrafterKind::kHydra);
  };
  EXPECT_EQ(hydra(""), "");
  EXPECT_THAT(hydra("hydra_mlp.1.0.res_connection.weight"), ::testing::HasSubstr("tensor hydra_mlp.1.0.res_connection.weight is missing"));
  EXPECT_THAT(hydra("hydra_mlp.1.1.linear.bias"), ::testing::HasSubstr("tensor hydra_mlp.1.1.linear.bias is missing"));
  EXPECT_THAT(hydra("hydra_mlp.0.0.linear.weight"), ::testing::HasSubstr("tensor hydra_mlp.0.0.linear.weight is missing"));
}

}  // namespace
}  // namespace serval::testing
