// Smaller models cut out of Gemma 3n: what the settings may say, and what is left. What such a model answers is a golden.
#include "engine/model/slice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

#include "engine/model/read_model.h"

namespace serval::testing {
namespace {

using ::testing::ElementsAre;

ModelSpec fixture(const std::string& name) {
  return read_model_spec(std::string(SERVAL_SOURCE_DIR) + "/tests/fixtures/models/" + name);
}

// Of four layers, 24, 32, 24 and 24 neurons wide, of which the last two read the keys of the first two.
std::string refusal(const std::string& widths, const std::string& skipped, const std::string& name = "gemma3n") {
  try {
    sliced(fixture(name), widths, skipped);
  } catch (const std::runtime_error& refused) {
    return refused.what();
  }
  return "";
}

TEST(Slice, LeavesOutLayersAndNeurons) {
  const ModelSpec whole = fixture("gemma3n"), spec = sliced(whole, "16,20, 24", "2");
  std::vector<int> stored, widths, of_checkpoint;
  for (const LayerSpec& layer : spec.layers) {
    const auto& ffn = std::get<DenseFfnSpec>(layer.ffn);
    stored.push_back(layer.stored_index.value_or(-1));
    widths.push_back(ffn.intermediate_size);
    of_checkpoint.push_back(ffn.stored_size);
  }
  EXPECT_THAT(stored, ElementsAre(0, 1, 3));
  EXPECT_THAT(widths, ElementsAre(16, 20, 24));
  EXPECT_THAT(of_checkpoint, ElementsAre(24, 32, 24));
  EXPECT_THAT(spec.layers_unused, ElementsAre(2));
  EXPECT_EQ(spec.layers[2].kv_source, 1);
  for (const KvGroupSpec& group : spec.kv_groups)
    for (const int layer : group.layers) EXPECT_LT(layer, 2);

  const ModelSpec narrow = sliced(whole, "8", "2-3");
  EXPECT_EQ(narrow.num_layers(), 2);
  for (const LayerSpec& layer : narrow.layers) EXPECT_EQ(std::get<DenseFfnSpec>(layer.ffn).intermediate_size, 8);
  EXPECT_EQ(sliced(whole, "", "").num_layers(), 4);
  EXPECT_EQ(sliced(fixture("llama31"), "", "").num_layers(), fixture("llama31").num_layers());
}

TEST(Slice, IsRefusedByTheSetting) {
  EXPECT_EQ(refusal("16", "", "llama31"), "ffn_widths is set, but no smaller model lies within this one, as within Gemma 3n");
  EXPECT_EQ(refusal("", "1", "llama31"), "skip_layers is set, but no smaller model lies within this one, as within Gemma 3n");
  EXPECT_EQ(refusal("16,16", ""), "ffn_widths has 2 numbers; 4 layers stay");
  EXPECT_EQ(refusal("16,16,16,16", "3"), "ffn_widths has 4 numbers; 3 layers stay");
  EXPECT_EQ(refusal("25", ""), "ffn_widths has 25 for layer 0, which has 24 neurons");
  EXPECT_EQ(refusal("16,16,25", "2"), "ffn_widths has 25 for layer 3, which has 24 neurons");
  for (const char* width : {"0", "-4", "wide", "16,,16", "4.5", "99999999999"})
    EXPECT_THAT(refusal(width, ""), ::testing::AllOf(::testing::StartsWith("ffn_widths has '"), ::testing::EndsWith("', which is no number of neurons")));
  for (const char* layers : {"two", "3-2", "-1", "1-", "0,,1", "99999999999"})
    EXPECT_THAT(refusal("", layers), ::testing::AllOf(::testing::StartsWith("skip_layers has '"),
                                                      ::testing::EndsWith("', which is neither a layer's number nor a range of them, 20-24")));
  EXPECT_EQ(refusal("", "4"), "skip_layers has layer 4; the model has 4, counted from 0");
  EXPECT_EQ(refusal("", "2-4"), "skip_layers has layer 4; the model has 4, counted from 0");
  EXPECT_EQ(refusal("", "1"), "skip_layers has layer 1, whose keys and values layer 3 reads");
  EXPECT_EQ(refusal("", "1-3"), "skip_layers leaves no layer that keeps the same of a sequence as those it names");
}

}  // namespace
}  // namespace serval::testing
