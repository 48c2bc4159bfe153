// What is said of folders that hold a block drafter, and of those that hold none for this model.
#include "engine/runner/speculators/dflash_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/model/read_model.h"
#include "loadtest/bench/random_model.h"
#include "loadtest/bench/temp_folder.h"
#include "tests/support/head_files.h"

namespace serval::testing {
namespace {

class DflashFolder : public ::testing::Test {
 protected:
  DflashFolder() {
    write_random_model(folder_.path() / "model", {.num_layers = 5});
    target_ = read_model_spec(folder_.path() / "model");
  }
  DflashSpec read(const std::string& layers, const std::string& more_config = "", const std::string& without = "") {
    write_dflash(folder_.path() / "drafter", target_.hidden_size, target_.vocab_size, layers, more_config, without);
    return read_dflash_spec(folder_.path() / "drafter", target_);
  }
  std::string refused(const std::string& layers, const std::string& more_config = "", const std::string& without = "") {
    try {
      const DflashSpec spec = read(layers, more_config, without);
      load_dflash(folder_.path() / "drafter", spec, *make_backend({.device = "cpu"}));
    } catch (const std::runtime_error& sentence) {
      return sentence.what();
    }
    return "";
  }

  TempFolder folder_;
  ModelSpec target_;
};

TEST_F(DflashFolder, ReadsWhatTheNextLayersReadAndHasTheModelsTokens) {
  const DflashSpec spec = read("[0,2,3]");
  EXPECT_TRUE(has_dflash(folder_.path() / "drafter"));
  EXPECT_FALSE(has_dflash(folder_.path() / "model"));
  EXPECT_EQ(spec.read_layers, (std::vector<int>{1, 3, 4}));
  EXPECT_EQ(spec.block_size, 6);
  EXPECT_EQ(spec.mask, 5);
  EXPECT_EQ(spec.model.num_layers(), 2);
  EXPECT_EQ(spec.model.vocab_size, target_.vocab_size);
  EXPECT_EQ(spec.model.max_positions, target_.max_positions);
  EXPECT_EQ(refused("[0,2,3]"), "");
  EXPECT_GT(planned_dflash_bytes(spec, *make_backend({.device = "cpu"})), 0u);
}

TEST_F(DflashFolder, IsRefusedInASentence) {
  EXPECT_THAT(refused("[0,4]"), ::testing::HasSubstr("must be ascending layers before the model's last, which is 4"));
  EXPECT_THAT(refused("[2,1]"), ::testing::HasSubstr("dflash_config.target_layer_ids"));
  EXPECT_THAT(refused("[0,1]", R"(,"some_switch":true)"), ::testing::HasSubstr("some_switch"));
  EXPECT_THAT(refused("[0,1]", R"(,"use_sliding_window":true,"sliding_window":64,"max_window_layers":0)"),
              ::testing::HasSubstr("sliding_window is not supported in a block drafter"));
  EXPECT_THAT(refused("[0,1]", "", "layers.1.mlp.down_proj.weight"), ::testing::HasSubstr("layers.1.mlp.down_proj.weight"));
  target_.hidden_size *= 2;
  write_dflash(folder_.path() / "other", target_.hidden_size / 2, target_.vocab_size, "[0,1]");
  EXPECT_THROW(read_dflash_spec(folder_.path() / "other", target_), std::runtime_error);
}

}  // namespace
}  // namespace serval::testing
