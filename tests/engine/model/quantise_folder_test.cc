// A folder that `serval quantize` writes: its matrices are near the first one's, everything else is the same.
#include "engine/model/quantise_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "engine/model/read_model.h"
#include "engine/model/safetensors.h"
#include "loadtest/bench/temp_folder.h"
#include "tests/engine/model/plain_backend.h"

namespace serval::testing {
namespace {

using ::testing::HasSubstr;

const std::filesystem::path kModels = std::filesystem::path(SERVAL_SOURCE_DIR) / "tests/fixtures/models";

std::string complaint(const std::filesystem::path& model, const std::filesystem::path& out, const std::string& format) {
  try {
    quantise_folder(model, out, format);
    return "";
  } catch (const std::runtime_error& error) {
    return error.what();
  }
}

TEST(QuantiseFolder, IsNearWhatItWasMadeFrom) {
  const auto backend = make_plain_backend();
  for (const char* model : {"llama-bias", "qwen3-bf16", "llama2-f16"}) {
    const ModelSpec spec = read_model_spec(kModels / model);
    const ModelWeights exact = load_weights(kModels / model, spec, *backend);
    double error_of_int8 = 0;
    for (const std::string format : {"int8", "int8_g32", "fp8", "int4"}) {
      const TempFolder temp;
      const auto out = temp.path() / "out";
      quantise_folder(kModels / model, out, format);
      const ModelSpec rounded_spec = read_model_spec(out);
      EXPECT_FALSE(rounded_spec.stored.empty());
      const ModelWeights rounded = load_weights(out, rounded_spec, *backend);
      EXPECT_TRUE(std::filesystem::exists(out / "golden.json")) << "what else is in the folder";
      double error = 0, size = 0;
      const auto compare = [&](const LinearWeight& a, const LinearWeight& b) {
        ASSERT_EQ(a.packed.bytes, b.packed.bytes);
        for (size_t i = 0; i < a.packed.bytes / sizeof(float); ++i) {
          error += std::pow(a.packed.as<float>()[i] - b.packed.as<float>()[i], 2);
          size += std::pow(a.packed.as<float>()[i], 2);
        }
      };
      compare(exact.embedding, rounded.embedding);
      EXPECT_EQ(error, 0) << "the embedding stays";
      for (size_t l = 0; l < exact.layers.size(); ++l)
        compare(std::get<DenseFfnWeights>(exact.layers[l].ffn).gate_up, std::get<DenseFfnWeights>(rounded.layers[l].ffn).gate_up);
      const double relative = std::sqrt(error / size);
      EXPECT_GT(relative, 1e-4) << model << " " << format;
      EXPECT_LT(relative, format.starts_with("int8") ? 0.01 : format == "fp8" ? 0.04 : 0.12) << model << " " << format;
      if (format == "int8") error_of_int8 = relative;
      if (format == "int8_g32") {
        EXPECT_LE(relative, error_of_int8) << "more scales";
      }
      if (format == "int4") {
        EXPECT_GT(relative, error_of_int8);
      }
    }
  }
}

// With inputs of which some are far larger than the others, less is lost of the answers.
TEST(QuantiseFolder, LosesLittleOfWhatTheInputsMakeCount) {
  const auto model = kModels / "qwen3-bf16";
  const ModelSpec spec = read_model_spec(model);
  InputPowers powers;
  for (const std::string& tensor : layer_matrices(model, spec)) {
    std::vector<double>& own = powers[tensor];
    own.assign(static_cast<size_t>(Checkpoint(model).find(tensor)->shape[1]), 1);
    for (size_t i = 0; i < own.size(); i += 5) own[i] = 400;
  }
  const auto backend = make_plain_backend();
  const auto lost = [&](const std::filesystem::path& folder) {
    const ModelWeights a = load_weights(model, spec, *backend), b = load_weights(folder, read_model_spec(folder), *backend);
    double sum = 0;
    for (size_t l = 0; l < a.layers.size(); ++l) {
      const LinearWeight &from = std::get<GqaWeights>(a.layers[l].mixer).qkv, &to = std::get<GqaWeights>(b.layers[l].mixer).qkv;
      for (int64_t i = 0; i < from.n * from.k; ++i) {
        sum += std::pow(from.packed.as<float>()[i] - to.packed.as<float>()[i], 2) * (i % from.k % 5 == 0 ? 400 : 1);
      }
    }
    return sum;
  };
  for (const char* format : {"int4", "int8", "fp8"}) {
    const TempFolder temp;
    quantise_folder(model, temp.path() / "plain", format);
    quantise_folder(model, temp.path() / "weighed", format, {}, [&] { return powers; });
    const double plain = lost(temp.path() / "plain"), weighed = lost(temp.path() / "weighed");
    EXPECT_LT(weighed, plain) << format;
    if (std::string(format) == "int4") {
      EXPECT_LT(weighed, 0.9 * plain);
    }
  }
}

TEST(QuantiseFolder, RefusesWhatItCannotDo) {
  const TempFolder temp;
  EXPECT_THAT(complaint(kModels / "llama2", temp.path() / "out", "int5"), HasSubstr("'int5'; it takes int4, int4_g128, int8"));
  EXPECT_THAT(complaint(kModels / "llama2", temp.path() / "out", "fp6"), HasSubstr("compressed-tensors has no floats of 6 bits"));
  EXPECT_THAT(complaint(kModels / "quant-awq", temp.path() / "out", "int4"), HasSubstr("is quantised already"));
  EXPECT_THAT(complaint(kModels / "gpt2", temp.path() / "out", "int4"), HasSubstr("has no matrices that can be stored so"));
  EXPECT_EQ(complaint(kModels / "llama2", temp.path() / "out", "int8"), "");
  EXPECT_THAT(complaint(kModels / "llama2", temp.path() / "out", "int8"), HasSubstr("is there already"));
}

}  // namespace
}  // namespace serval::testing
