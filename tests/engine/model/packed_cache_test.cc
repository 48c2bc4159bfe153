// Weights from a packed cache are those of the checkpoint, and a file that is damaged or of something else is never used.
#include "engine/model/packed_cache.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "engine/model/read_model.h"
#include "engine/model/weight_loader.h"
#include "engine/model/weight_map.h"
#include "tests/engine/model/test_files.h"

namespace serval::testing {
namespace {

namespace fs = std::filesystem;

const fs::path kModels = fs::path(SERVAL_SOURCE_DIR) / "tests/fixtures/models";

// Everything that is held, one after the other.
std::string bytes_of(const ModelSpec& spec, ModelWeights& weights) {
  std::string all;
  const auto add = [&](const Buffer& buffer) { all.append(buffer.as<char>(), buffer.bytes); };
  const auto add_target = [&](const auto* target) {
    if constexpr (std::is_same_v<decltype(target), const Buffer*>) {
      add(*target);
    } else {
      all += std::to_string(target->n) + " " + std::to_string(target->k) + " " + format_row(target->format).name +
             std::to_string(target->group) + (target->has_offsets ? "o" : "");
      add(target->packed);
      add(target->scales);
      add(target->bias);
    }
  };
  for (const WeightSlot& slot : map_weights(spec, weights))
    std::visit([&](const auto& s) { add_target(static_cast<const std::remove_pointer_t<decltype(s.target)>*>(s.target)); }, slot);
  return all;
}

class PackedCacheTest : public ::testing::Test {
 protected:
  struct Loaded {
    std::string bytes;
    bool is_mapped;
  };
  Loaded load_fixture(const std::string& model, const std::string& quantize = "off") { return load(kModels / model, quantize); }
  Loaded load(const fs::path& model, const std::string& quantize = "off") {
    const ModelSpec spec = quantised(read_model_spec(model), quantize);
    ModelWeights weights = load_weights(model, spec, *backend_, {}, folder());
    const bool is_mapped = weights.mapping != nullptr;
    return {bytes_of(spec, weights), is_mapped};
  }
  std::string without_cache(const fs::path& model, const std::string& quantize = "off") {
    const ModelSpec spec = quantised(read_model_spec(model), quantize);
    ModelWeights weights = load_weights(model, spec, *backend_);
    return bytes_of(spec, weights);
  }
  fs::path folder() const { return files_.path() / "cache"; }
  std::vector<fs::path> cached() const {
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(folder())) files.push_back(entry.path());
    return files;
  }
  fs::path copy(const std::string& model) {
    fs::copy(kModels / model, files_.path() / model);
    return files_.path() / model;
  }
  static void flip(const fs::path& file, std::streamoff at) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(at);
    const char byte = static_cast<char>(stream.get() ^ 1);
    stream.seekp(at);
    stream.put(byte);
  }

  TemporaryFolder files_;
  const std::unique_ptr<Backend> backend_ = make_backend({.num_threads = 2});
};

TEST_F(PackedCacheTest, TheSecondStartMapsTheBytesOfTheFirst) {
  for (const auto& [model, quantize] : std::vector<std::pair<std::string, std::string>>{
           {"qwen2", "off"}, {"llama-bias", "int8"}, {"llama-bias", "int8_dynamic"}, {"llama-bias", "int4"},
           {"llama-bias", "int4_dynamic"}, {"quant-gptq4", "off"}}) {
    SCOPED_TRACE(model + " " + quantize);
    const std::string want = without_cache(kModels / model, quantize);
    const Loaded first = load_fixture(model, quantize), second = load_fixture(model, quantize);
    EXPECT_FALSE(first.is_mapped);
    EXPECT_TRUE(second.is_mapped);
    EXPECT_EQ(first.bytes, want);
    EXPECT_EQ(second.bytes, want);
  }
  EXPECT_EQ(cached().size(), 6u) << "one file for each way that a model is held";
}

TEST_F(PackedCacheTest, AFileWithAWrongBitAnywhereIsWrittenAnew) {
  const std::string want = load_fixture("qwen2").bytes;
  ASSERT_EQ(cached().size(), 1u);
  const fs::path file = cached()[0];
  const auto size = static_cast<std::streamoff>(fs::file_size(file));
  for (std::streamoff at = 0; at < size; at += size / 61 + 1) {
    flip(file, at);
    const Loaded after = load_fixture("qwen2");
    ASSERT_EQ(after.bytes, want) << at;
    ASSERT_TRUE(load_fixture("qwen2").is_mapped) << at;
  }
  for (const std::streamoff left : {std::streamoff{0}, std::streamoff{10}, size / 2, size - 1}) {
    fs::resize_file(file, left);
    ASSERT_FALSE(load_fixture("qwen2").is_mapped) << left;
    ASSERT_TRUE(load_fixture("qwen2").is_mapped) << left;
  }
  EXPECT_EQ(cached().size(), 1u);
}

TEST_F(PackedCacheTest, AChangedCheckpointIsNotTakenForTheOldOne) {
  const fs::path model = copy("qwen2");
  load(model);
  EXPECT_TRUE(load(model).is_mapped);
  const fs::path weights = model / "model.safetensors";
  const auto written = fs::last_write_time(weights);
  flip(weights, static_cast<std::streamoff>(fs::file_size(weights)) - 20);
  fs::last_write_time(weights, written);  // who compares times is deceived
  const Loaded after = load(model);
  EXPECT_FALSE(after.is_mapped);
  EXPECT_EQ(after.bytes, without_cache(model));
  EXPECT_TRUE(load(model).is_mapped);
  EXPECT_EQ(cached().size(), 1u) << "the old file is written over";
}

TEST_F(PackedCacheTest, AFolderThatCannotBeWrittenCostsNothingButTheCache) {
  files_.write("cache", "a file where the folder should be");
  EXPECT_EQ(load_fixture("qwen2").bytes, without_cache(kModels / "qwen2"));
}

}  // namespace
}  // namespace serval::testing
