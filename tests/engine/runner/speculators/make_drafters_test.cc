// What is said of settings and folders before anything is loaded.
#include "engine/runner/speculators/make_drafters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "loadtest/bench/temp_folder.h"
#include "tests/support/head_files.h"

namespace serval::testing {
namespace {

ModelSpec model_of_width(int hidden) {
  ModelSpec model;
  model.hidden_size = hidden;
  return model;
}
uint32_t drafters_in(const TempFolder& folder, const char* speculation, const ModelSpec& model = model_of_width(32)) {
  EngineConfig config;
  config.speculation = speculation;
  config.speculation_model = folder.path();
  return drafters_of(config, model);
}
std::string sentence(const TempFolder& folder, const char* speculation) {
  try {
    drafters_in(folder, speculation);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

TEST(Drafters, AreThoseOfTheFolderWhereTheSettingIsAuto) {
  const uint32_t always = drafter_bit(DrafterKind::kPrediction) | drafter_bit(DrafterKind::kGrammar) | drafter_bit(DrafterKind::kNgram);
  const TempFolder medusa, hydra, eagle, dflash, model;
  write_medusa_heads(medusa.path(), 1, 32, 70);
  write_hydra_heads(hydra.path(), 1, 1, 32, 70);
  write_eagle_head(eagle.path(), {.hidden = 32, .vocab = 70});
  EXPECT_EQ(drafters_in(medusa, "auto"), always | drafter_bit(DrafterKind::kMedusa));
  EXPECT_EQ(drafters_in(hydra, "auto"), always | drafter_bit(DrafterKind::kHydra));
  EXPECT_EQ(drafters_in(eagle, "auto"), always | drafter_bit(DrafterKind::kEagle));
  write_dflash(dflash.path(), 32, 70, "[0,1]");
  EXPECT_EQ(drafters_in(dflash, "auto"), always | drafter_bit(DrafterKind::kDflash));
  EXPECT_EQ(drafters_in(model, "auto"), always | drafter_bit(DrafterKind::kDraft));
  EXPECT_THAT(sentence(model, "none"), ::testing::HasSubstr("speculation is 'none'; it takes one of off, ngram, "));
}

// A smaller model of the same family has such layers of its own: it is a draft.
TEST(Drafters, AreTheLayersForFurtherTokensThatAreAsWideAsTheModel) {
  const uint32_t always = drafter_bit(DrafterKind::kPrediction) | drafter_bit(DrafterKind::kGrammar) | drafter_bit(DrafterKind::kNgram);
  const auto folder_with = [](const TempFolder& folder, const char* tensor) {
    HeadFile file;
    file.add(tensor, {32, 64});
    file.write(folder.path() / "model.safetensors");
  };
  const TempFolder apart, behind;
  folder_with(apart, "mtp.fc.weight");
  folder_with(behind, "model.layers.3.eh_proj.weight");
  EXPECT_EQ(drafters_in(apart, "auto"), always | drafter_bit(DrafterKind::kEagle));
  EXPECT_EQ(drafters_in(apart, "auto", model_of_width(48)), always | drafter_bit(DrafterKind::kDraft));
  EXPECT_EQ(drafters_in(behind, "auto"), always | drafter_bit(DrafterKind::kDraft)) << "a layer that is the model's own for all it says";
  ModelSpec model = model_of_width(32);
  model.layers_unused = {3};
  EXPECT_EQ(drafters_in(behind, "auto", model), always | drafter_bit(DrafterKind::kEagle));
}

TEST(Drafters, AreJoinedByPlus) {
  const auto told = [](const std::string& speculation, const std::string& datastore, uint32_t& drafters) -> std::string {
    EngineConfig config;
    config.speculation = speculation;
    config.speculation_datastore = datastore;
    try {
      drafters = drafters_of(config, {});
    } catch (const std::runtime_error& error) {
      return error.what();
    }
    return "";
  };
  const auto bits = [](auto... kinds) { return ((drafter_bit(DrafterKind::kPrediction) | drafter_bit(DrafterKind::kGrammar)) | ... | drafter_bit(kinds)); };
  uint32_t drafters = 0;
  EXPECT_EQ(told("ngram+datastore", "file", drafters), "");
  EXPECT_EQ(drafters, bits(DrafterKind::kNgram, DrafterKind::kDatastore));
  EXPECT_EQ(told("self+ngram", "", drafters), "");
  EXPECT_EQ(drafters, bits(DrafterKind::kNgram, DrafterKind::kSelf));
  EXPECT_EQ(told("auto", "file", drafters), "");
  EXPECT_EQ(drafters, bits(DrafterKind::kNgram, DrafterKind::kDatastore));
  EXPECT_THAT(told("ngram+auto", "", drafters), ::testing::HasSubstr("auto stands alone"));
  EXPECT_THAT(told("lookahead+ngram", "", drafters), ::testing::HasSubstr("lookahead stands alone"));
  EXPECT_THAT(told("self+draft", "", drafters), ::testing::HasSubstr("one guesses at a time"));
  EXPECT_THAT(told("ngram+trees", "", drafters), ::testing::HasSubstr("it takes one of off, ngram, "));
  EXPECT_THAT(told("datastore", "", drafters), ::testing::HasSubstr("speculation_datastore is not set"));
  EXPECT_THAT(told("ngram", "file", drafters), ::testing::HasSubstr("speculation_datastore is set"));
}

TEST(Drafters, AreGuessedAheadOfWhereTheyAreAModelOrItsFirstLayers) {
  const TempFolder folder;
  EngineConfig config;
  config.draft_speculation = "ngram";
  for (const char* speculation : {"off", "ngram", "auto"}) {
    config.speculation = speculation;
    EXPECT_THROW(drafters_of(config, {}), std::runtime_error) << speculation;
  }
  config.speculation = "self+ngram";
  EXPECT_EQ(drafters_of(config, {}) & drafter_bit(DrafterKind::kSelf), drafter_bit(DrafterKind::kSelf));
  config.speculation = "auto";
  config.speculation_model = folder.path();
  EXPECT_EQ(drafters_of(config, {}) & drafter_bit(DrafterKind::kDraft), drafter_bit(DrafterKind::kDraft));
}

TEST(Drafters, OfAPyTorchFileAreRefusedWithTheWayToMakeTensorsOfIt) {
  for (const auto& [name, made] : {std::pair{"pytorch_model.bin", "'model.safetensors'"}, {"hydra_lm_head.pt", "'hydra_lm_head.safetensors'"}}) {
    const TempFolder folder;
    std::ofstream(folder.path() / name) << "PK";
    for (const char* setting : {"auto", "eagle", "hydra", "draft"}) {
      EXPECT_THAT(sentence(folder, setting), ::testing::HasSubstr(std::string(name) + " is a PyTorch file, which is not read"));
      EXPECT_THAT(sentence(folder, setting), ::testing::HasSubstr(made));
    }
    std::ofstream(folder.path() / "model.safetensors") << "";
    EXPECT_EQ(sentence(folder, "draft"), "");
  }
}

}  // namespace
}  // namespace serval::testing
