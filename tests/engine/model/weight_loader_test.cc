#include "engine/model/weight_loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "engine/model/float_convert.h"
#include "engine/model/read_model.h"
#include "engine/model/safetensors.h"
#include "engine/model/weight_map.h"
#include "kernels/base/log.h"
#include "kernels/float_bits.h"
#include "tests/engine/model/plain_backend.h"
#include "tests/engine/model/test_files.h"

namespace serval::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::filesystem::path fixture(const std::string& model) {
  return std::filesystem::path(SERVAL_SOURCE_DIR) / "tests/fixtures/models" / model;
}

// A copy of a fixture whose files a test may spoil.
class WeightLoader : public ::testing::Test {
 protected:
  void copy(const std::string& model) {
    for (const auto& entry : std::filesystem::directory_iterator(fixture(model))) {
      folder_.write(entry.path().filename(), read_bytes(entry.path()));
    }
  }
  // Replaces text of a file by text of the same length: header offsets stay true.
  void edit(const std::string& file, const std::string& from, const std::string& to) {
    ASSERT_EQ(from.size(), to.size());
    std::string bytes = read_bytes(folder_.path() / file);
    const size_t at = bytes.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    folder_.write(file, bytes.replace(at, from.size(), to));
  }
  ModelSpec spec() const { return read_model_spec(folder_.path()); }
  std::string verdict() {
    return complaint([&] { load_weights(folder_.path(), spec(), *backend_); });
  }

  TemporaryFolder folder_;
  std::unique_ptr<Backend> backend_ = make_plain_backend();
};

size_t loaded_bytes(const ModelWeights& w) {
  size_t bytes = w.embedding.bytes() + w.lm_head.bytes() + w.final_norm.weight.bytes;
  for (const LayerWeights& layer : w.layers) {
    const auto& attention = std::get<GqaWeights>(layer.mixer);
    const auto& ffn = std::get<DenseFfnWeights>(layer.ffn);
    bytes += layer.mixer_norm.weight.bytes + layer.ffn_norm.weight.bytes + attention.qkv.bytes() +
             attention.output.bytes() + attention.q_norm.weight.bytes + attention.k_norm.weight.bytes +
             ffn.gate_up.bytes() + ffn.down.bytes();
  }
  return bytes;
}

TEST_F(WeightLoader, HoldsExactlyWhatThePlanSays) {
  for (const char* model : {"llama2", "llama31", "llama-bias", "qwen2", "qwen3-bf16"}) {
    const ModelSpec spec = read_model_spec(fixture(model));
    EXPECT_EQ(loaded_bytes(load_weights(fixture(model), spec, *backend_)),
              planned_weight_bytes(spec, *backend_))
        << model;
  }
}

TEST_F(WeightLoader, RefusesATableThatNamesExpertsThatAreNotThere) {
  copy("deepseek-v4");
  EXPECT_EQ(verdict(), "");
  const TensorInfo table = *Checkpoint(folder_.path()).find("layers.0.ffn.gate.tid2eid");
  std::string bytes = read_bytes(folder_.path() / "model.safetensors");
  bytes[table.offset + 8 * 5] = 4;
  folder_.write("model.safetensors", bytes);
  EXPECT_THAT(verdict(), HasSubstr("tensor 'layers.0.ffn.gate.tid2eid' holds 4; it must hold numbers from 0 to 3"));
}

TEST_F(WeightLoader, HoldsExactlyWhatThePlanSaysOfRoundedWeights) {
  const auto cpu = make_backend({.num_threads = 1});
  for (const char* model : {"llama31", "llama-bias", "llama2-f16", "qwen3-bf16"}) {
    const ModelSpec plain = read_model_spec(fixture(model)), spec = quantised(plain, "int8");
    const ModelWeights weights = load_weights(fixture(model), spec, *cpu);
    EXPECT_EQ(loaded_bytes(weights), planned_weight_bytes(spec, *cpu)) << model;
    EXPECT_EQ(weights.embedding.format, WeightFormat::kInt8);
    EXPECT_EQ(std::get<DenseFfnWeights>(weights.layers[1].ffn).down.format, WeightFormat::kInt8);
    EXPECT_LT(planned_weight_bytes(spec, *cpu), planned_weight_bytes(plain, *cpu) * 7 / 10) << model;
  }
}

// A backend without kernels for a format is given the same codes and scales, multiplied.
TEST_F(WeightLoader, DequantisesForABackendWithoutKernels) {
  const ModelSpec spec = quantised(read_model_spec(fixture("llama-bias")), "int8");
  const ModelWeights rounded = load_weights(fixture("llama-bias"), spec, *backend_);
  const auto other = make_plain_backend(WeightFormat::kInt8);
  const ModelWeights dequantised = load_weights(fixture("llama-bias"), spec, *other);
  EXPECT_EQ(dequantised.embedding.format, WeightFormat::kBF16);
  EXPECT_EQ(loaded_bytes(dequantised), planned_weight_bytes(spec, *other));
  const auto expect_equal = [](const LinearWeight& w, const LinearWeight& exact) {
    const auto* const values = w.packed.as<float>();
    const auto* const codes = exact.packed.as<float>();
    for (int64_t i = 0; i < w.n * w.k; ++i) ASSERT_EQ(values[i], bf16_to_float(float_to_bf16(codes[i]))) << i;
  };
  expect_equal(dequantised.embedding, rounded.embedding);
  for (size_t l = 0; l < rounded.layers.size(); ++l)
    expect_equal(std::get<GqaWeights>(dequantised.layers[l].mixer).qkv,
                 std::get<GqaWeights>(rounded.layers[l].mixer).qkv);
}

TEST_F(WeightLoader, ReportsProgressUpToTheWholeCheckpoint) {
  for (const char* model : {"llama2", "llama31"}) {  // one with tensors to skip, one in shards
    const ModelSpec spec = read_model_spec(fixture(model));
    const size_t total = Checkpoint(fixture(model)).total_bytes();
    size_t last = 0;
    int calls = 0;
    load_weights(fixture(model), spec, *backend_, [&](size_t done, size_t all) {
      EXPECT_GE(done, last);
      EXPECT_EQ(all, total);
      last = done;
      ++calls;
    });
    EXPECT_EQ(last, total) << model;
    EXPECT_GT(calls, 10) << model;
  }
}

TEST_F(WeightLoader, FusesRowsInTheOrderOfTheTable) {
  const ModelSpec spec = read_model_spec(fixture("qwen2"));
  const ModelWeights weights = load_weights(fixture("qwen2"), spec, *backend_);
  const Checkpoint checkpoint(fixture("qwen2"));
  const auto values = [&](const std::string& name) {
    const TensorInfo* info = checkpoint.find(name);
    std::vector<float> out(info->bytes / sizeof(float));
    checkpoint.read(*info, out.data());
    return out;
  };
  std::vector<float> rows, biases;
  for (const char* part : {"q_proj", "k_proj", "v_proj"}) {
    const std::string name = "model.layers.1.self_attn." + std::string(part);
    for (const float x : values(name + ".weight")) rows.push_back(x);
    for (const float x : values(name + ".bias")) biases.push_back(x);
  }
  const LinearWeight& qkv = std::get<GqaWeights>(weights.layers[1].mixer).qkv;
  ASSERT_EQ(qkv.packed.bytes, rows.size() * sizeof(float));
  EXPECT_TRUE(std::equal(rows.begin(), rows.end(), qkv.packed.as<float>()));
  EXPECT_TRUE(std::equal(biases.begin(), biases.end(), qkv.bias.as<float>()));
  EXPECT_EQ(weights.lm_head.n, 0);
  EXPECT_EQ(&weights.head(), &weights.embedding) << "tied";
}

TEST_F(WeightLoader, NamesATensorThatIsMissing) {
  copy("qwen3");
  // Taken out of the header together with its place in the file would be a new layout; renamed, it is missing
  // and unexpected.
  edit("model.safetensors", "model.layers.2.self_attn.k_norm.weight",
       "model.layers.2.self_attn.rotary_emb.in");
  EXPECT_THAT(verdict(),
              HasSubstr("tensor 'model.layers.2.self_attn.rotary_emb.in' has no place in this model"));

  copy("llama2");
  edit("model.safetensors", "model.layers.0.mlp.gate_proj.weight", "model.layers.00.rotary_emb.inv_freq");
  EXPECT_THAT(verdict(), HasSubstr("the checkpoint lacks the tensor 'model.layers.0.mlp.gate_proj.weight'"));
}

TEST_F(WeightLoader, NamesATensorWhoseShapeOrTypeDiffers) {
  copy("qwen3");
  edit("config.json", "\"vocab_size\": 96", "\"vocab_size\": 95");
  EXPECT_THAT(
      verdict(),
      HasSubstr(
          "tensor 'model.embed_tokens.weight' has shape [96, 32], the configuration asks for [95, 32]"));
  copy("qwen3");
  edit("model.safetensors", R"("model.norm.weight":{"dtype":"F32")", R"("model.norm.weight":{"dtype":"I32")");
  EXPECT_THAT(verdict(), HasSubstr("tensor 'model.norm.weight' has dtype I32; supported are F32, F16, BF16"));
}

TEST_F(WeightLoader, RefusesABiasTheConfigurationDoesNotKnow) {
  copy("llama-bias");
  edit("config.json", "\"mlp_bias\": true,", "\"mlp_bias\":false,");
  EXPECT_THAT(verdict(), HasSubstr("mlp.down_proj.bias' has no place in this model"));
}

TEST_F(WeightLoader, AcceptsARepeatedHeadOfATiedModelAndRefusesAnotherOne) {
  copy("mistral");
  edit("config.json", "\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true ");
  EXPECT_THAT(
      verdict(),
      HasSubstr("tensor 'lm_head.weight' differs from the embedding although the configuration ties them"));

  const TensorInfo head = *Checkpoint(folder_.path()).find("lm_head.weight");
  const TensorInfo embedding = *Checkpoint(folder_.path()).find("model.embed_tokens.weight");
  std::string bytes = read_bytes(folder_.path() / "model.safetensors");
  bytes.replace(head.offset, head.bytes, bytes.substr(embedding.offset, embedding.bytes));
  folder_.write("model.safetensors", bytes);
  EXPECT_THAT(verdict(), IsEmpty());
}

TEST_F(WeightLoader, ConvertsToThePublishedTypeOfTheConfiguration) {
  copy("qwen3");
  edit("config.json", "\"dtype\": \"float32\"", "\"dtype\": \"float16\"");
  const ModelSpec half = spec();
  EXPECT_EQ(half.weight_dtype, DType::kF16);
  const ModelWeights weights = load_weights(folder_.path(), half, *backend_);
  const Checkpoint checkpoint(folder_.path());
  const TensorInfo* info = checkpoint.find("model.embed_tokens.weight");
  std::vector<float> exact(info->bytes / sizeof(float));
  checkpoint.read(*info, exact.data());
  for (size_t i = 0; i < exact.size(); ++i) {
    ASSERT_EQ(weights.embedding.packed.as<float>()[i], static_cast<float>(static_cast<_Float16>(exact[i])));
  }
}

TEST_F(WeightLoader, WarnsOfAWeightThatIsNotFiniteAndLoadsIt) {
  copy("qwen3");
  const TensorInfo norm = *Checkpoint(folder_.path()).find("model.norm.weight");
  std::string bytes = read_bytes(folder_.path() / "model.safetensors");
  bytes.replace(norm.offset, 4, std::string("\x00\x00\xc0\x7f", 4));
  folder_.write("model.safetensors", bytes);
  ::testing::internal::CaptureStderr();
  EXPECT_THAT(verdict(), IsEmpty());
  flush_log();
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("model.norm.weight"));
}

}  // namespace
}  // namespace serval::testing
