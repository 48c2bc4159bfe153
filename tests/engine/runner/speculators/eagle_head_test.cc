// What is said of folders that hold an EAGLE head, and of those that hold none for this model.
#include <gtest/gtest.h>

#include "engine/model/read_model.h"
#include "engine/runner/speculators/eagle_head.h"
#include "loadtest/bench/random_model.h"
#include "loadtest/bench/temp_folder.h"
#include "tests/support/head_files.h"

namespace serval::testing {
namespace {

class EagleFolder : public ::testing::Test {
 protected:
  EagleFolder() {
    write_random_model(folder_.path() / "model", {.num_layers = 8});
    target_ = read_model_spec(folder_.path() / "model");
    shape_ = {.hidden = target_.hidden_size, .vocab = target_.vocab_size};
  }
  EagleSpec read() {
    write_eagle_head(folder_.path() / "head", shape_);
    return read_eagle_spec(folder_.path() / "head", target_);
  }
  std::string refused() {
    try {
      const EagleSpec spec = read();
      const std::unique_ptr<Backend> backend = make_backend({.device = "cpu"});
      load_eagle(folder_.path() / "head", spec, target_.vocab_size, *backend);
    } catch (const std::runtime_error& sentence) {
      return sentence.what();
    }
    return "";
  }

  TempFolder folder_;
  ModelSpec target_;
  EagleShape shape_;
};

TEST_F(EagleFolder, OfTheFirstFormHasOneRowAndTheModelsTokens) {
  const EagleSpec spec = read();
  EXPECT_FALSE(spec.reads_beside);
  EXPECT_TRUE(spec.has_fc_bias);
  EXPECT_FALSE(spec.has_own_head);
  EXPECT_TRUE(spec.read_layers.empty());
  EXPECT_EQ(spec.model.vocab_size, target_.vocab_size);
  EXPECT_FALSE(spec.model.layers[0].mixer_norm.is_there());
  EXPECT_EQ(spec.model.max_positions, target_.max_positions);
  EXPECT_EQ(refused(), "");
}

TEST_F(EagleFolder, OfTheThirdFormReadsThreeLayersAndHasItsOwnTokens) {
  shape_.draft_vocab = 90;
  const EagleSpec spec = read();
  EXPECT_TRUE(spec.reads_beside);
  EXPECT_TRUE(spec.has_own_ids);
  EXPECT_EQ(spec.read_layers, (std::vector<int>{2, 4, 5}));
}

TEST_F(EagleFolder, SaysWhichLayersItReads) {
  shape_.draft_vocab = 90;
  shape_.more_config = R"(,"eagle_config":{"eagle_aux_hidden_state_layer_ids":[0,2,4],"use_aux_hidden_state":true})";
  EXPECT_EQ(read().read_layers, (std::vector<int>{1, 3, 5})) << "this spelling counts from the layer before";
  shape_.more_config = R"(,"eagle_aux_hidden_state_layer_ids":[0,2,4])";
  const EagleSpec spec = read();
  EXPECT_EQ(spec.read_layers, (std::vector<int>{0, 2, 4}));
  const std::unique_ptr<Backend> backend = make_backend({.device = "cpu"});
  const EagleWeights weights = load_eagle(folder_.path() / "head", spec, target_.vocab_size, *backend);
  ASSERT_EQ(weights.own_ids.size(), 90u);
  for (int i = 0; i < 90; ++i) EXPECT_EQ(weights.own_ids[i], i + i / 3);
}

TEST_F(EagleFolder, IsRefusedInASentence) {
  shape_.without = "fc.weight";
  EXPECT_NE(refused().find("has no EAGLE head"), std::string::npos) << refused();
  shape_.without = "layers.0.mlp.down_proj.weight";
  EXPECT_NE(refused().find("lacks the tensor layers.0.mlp.down_proj.weight"), std::string::npos) << refused();
  shape_.without = "";
  shape_.hidden *= 2;
  EXPECT_NE(refused().find("hidden_size is not the model's"), std::string::npos) << refused();
  shape_.hidden /= 2;
  shape_.more_config = R"(,"some_switch":true)";
  EXPECT_NE(refused().find("some_switch"), std::string::npos) << refused();
  shape_.draft_vocab = 90;
  shape_.more_config = R"(,"eagle_aux_hidden_state_layer_ids":[0,2,8])";
  EXPECT_NE(refused().find("must be ascending layers of the model, which has 8"), std::string::npos) << refused();
  shape_.more_config = R"(,"eagle_aux_hidden_state_layer_ids":[0,2,4])";
  shape_.without = "d2t";
  EXPECT_NE(refused().find("needs a tensor d2t of 90 numbers"), std::string::npos) << refused();
}

}  // namespace
}  // namespace serval::testing
