// GGUF files: what blocks of every type mean, and files that are not what they say, of which each is refused with one
// sentence, whatever was done to it.
#include "engine/model/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "engine/model/float_convert.h"
#include "engine/model/gguf_model.h"
#include "engine/model/quantised_checkpoint.h"
#include "engine/model/read_model.h"
#include "engine/model/weight_loader.h"
#include "loadtest/bench/temp_folder.h"
#include "tests/engine/model/plain_backend.h"
#include "tests/engine/model/test_files.h"

namespace serval {
namespace {

using ::testing::HasSubstr;

const std::filesystem::path kFixtures = std::filesystem::path(SERVAL_SOURCE_DIR) / "tests/fixtures";

std::string bytes_of(const std::filesystem::path& file) {
  std::ostringstream text;
  text << std::ifstream(file, std::ios::binary).rdbuf();
  return text.str();
}

std::vector<uint8_t> bytes_of(const GgufFile& gguf, const GgufTensor& tensor) {
  std::vector<uint8_t> bytes(tensor.bytes);
  gguf.file().copy(tensor.offset, tensor.bytes, bytes.data());
  return bytes;
}

// The numbers beside the blocks are what the format's own tools say.
TEST(GgufTypes, MeanWhatTheToolsOfTheFormatSay) {
  const GgufFile gguf(kFixtures / "gguf/types.gguf");
  int num_types = 0;
  for (const GgufTensor& blocks : gguf.tensors()) {
    if (!blocks.name.ends_with(".blocks")) continue;
    ++num_types;
    const std::string type(blocks.type->name);
    EXPECT_EQ(blocks.name, type + ".blocks");
    const GgufTensor* const numbers = gguf.find(type + ".numbers");
    ASSERT_NE(numbers, nullptr) << type;
    const auto expected = bytes_of(gguf, *numbers);
    const int64_t n = blocks.shape[0], k = blocks.shape[1];
    MatrixParts parts;
    blocks.type->read(bytes_of(gguf, blocks).data(), n, k, parts);
    const MatrixFormat& format = blocks.type->format;
    ASSERT_EQ(parts.scales.size(), static_cast<size_t>(n * num_groups(format, k))) << type;
    const LinearSource source{.format = format.id,
                              .n = n,
                              .k = k,
                              .data = parts.codes.data(),
                              .scales = parts.scales.data(),
                              .group = format.group,
                              .offsets = format.has_offsets ? parts.offsets.data() : nullptr,
                              .table = parts.table.data()};
    std::vector<float> row(k), wanted(n * k);
    convert(expected.data(), format_row(numbers->type->format.id).number, wanted.data(), DType::kF32, wanted.size());
    for (int64_t r = 0; r < n; ++r) {
      dequantise_row(source, r, row.data());
      for (int64_t i = 0; i < k; ++i) {
        const float want = wanted[r * k + i];
        ASSERT_NEAR(row[i], want, 1e-6 * (1 + std::abs(want))) << type << " " << r << " " << i;
      }
    }
  }
  EXPECT_EQ(num_types, 22);
}

// Whatever the bytes are, so that nothing that holds codes of 4 bits is spoiled by one.
TEST(GgufTypes, HaveCodesOfTheirFormatInAnyBlock) {
  std::mt19937 random(testing::fuzz_seed(3));
  int num_types = 0;
  for (uint32_t id = 0; id < 64; ++id) {
    const GgufType* const type = find_gguf_type(id);
    if (type == nullptr || type->read == nullptr) continue;
    ++num_types;
    std::vector<uint8_t> blocks(64 * type->block_bytes);
    for (uint8_t& byte : blocks) byte = static_cast<uint8_t>(random());
    MatrixParts parts;
    type->read(blocks.data(), 4, 16 * type->block, parts);
    ASSERT_EQ(parts.codes.size(), static_cast<size_t>(64 * type->block));
    for (const uint8_t code : parts.codes) {
      const int number = type->format.id == WeightFormat::kTable4 ? code : static_cast<int8_t>(code) + 8;
      ASSERT_TRUE(format_row(type->format.id).bits == 8 || (number >= 0 && number < 16)) << type->name << " " << number;
    }
    if (type->format.levels == nullptr) continue;
    EXPECT_EQ(parts.table, *type->format.levels) << type->name;
    for (const float level : parts.table) EXPECT_TRUE(level == std::trunc(level) && std::abs(level) < 128) << type->name << " " << level;
  }
  EXPECT_EQ(num_types, 22);
}

// Parts of one matrix whose types have different numbers are held as whole numbers, those of one family as they are.
TEST(GgufTypes, AreHeldTogetherWhereOneFormatCan) {
  const auto path = kFixtures / "models/gguf-llama-iq/model.gguf";
  const auto backend = testing::make_plain_backend();
  const ModelWeights weights = load_weights(path, read_model_spec(path), *backend);
  for (const LayerWeights& layer : weights.layers) {
    const LinearWeight& qkv = std::get<GqaWeights>(layer.mixer).qkv;
    EXPECT_EQ(qkv.format, WeightFormat::kInt8Groups);
    EXPECT_EQ(std::get<DenseFfnWeights>(layer.ffn).gate_up.format, WeightFormat::kTable4);
  }
  EXPECT_EQ(weights.embedding.format, WeightFormat::kTable4);
}

// The header of the second file is that of the first with another count of tensors, and the same bytes behind it.
TEST(GgufFiles, AreReadFromSeveral) {
  const TempFolder folder;
  const GgufFile whole(kFixtures / "models/gguf-granite/model.gguf");
  const auto number = [](auto value) { return std::string(reinterpret_cast<const char*>(&value), sizeof value); };
  const auto text = [&](const std::string& bytes) { return number(uint64_t{bytes.size()}) + bytes; };
  const std::string good = bytes_of(whole.file().path());
  // The metadata of the first, with what says that there are two.
  const size_t first_tensor = good.find(text(whole.tensors()[0].name));
  size_t infos = first_tensor;
  for (const GgufTensor& tensor : whole.tensors()) infos = std::min(infos, good.find(text(tensor.name)));
  const std::string metadata = good.substr(24, infos - 24) + text("split.count") + number(uint32_t{2}) + number(uint16_t{2});
  uint64_t num_keys;
  std::memcpy(&num_keys, good.data() + 16, sizeof num_keys);
  for (const int part : {0, 1}) {
    std::string head, data;
    uint64_t count = 0;
    for (size_t i = static_cast<size_t>(part); i < whole.tensors().size(); i += 2, ++count) {
      const GgufTensor& tensor = whole.tensors()[i];
      head += text(tensor.name) + number(static_cast<uint32_t>(tensor.shape.size()));
      for (auto dim = tensor.shape.rbegin(); dim != tensor.shape.rend(); ++dim) head += number(static_cast<uint64_t>(*dim));
      head += number(tensor.type->id) + number(uint64_t{data.size()});
      data += good.substr(tensor.offset, tensor.bytes);
      data.resize((data.size() + 31) / 32 * 32);
    }
    std::string file = "GGUF" + number(uint32_t{3}) + number(count) + number(num_keys + 1) + metadata + head;
    file.resize((file.size() + 31) / 32 * 32);
    std::ofstream(folder.path() / ("m-0000" + std::to_string(part + 1) + "-of-00002.gguf"), std::ios::binary) << file << data;
  }
  const GgufFile parts(folder.path() / "m-00001-of-00002.gguf");
  ASSERT_EQ(parts.tensors().size(), whole.tensors().size());
  for (const GgufTensor& tensor : whole.tensors()) {
    const GgufTensor* const part = parts.find(tensor.name);
    ASSERT_NE(part, nullptr);
    std::vector<uint8_t> bytes(part->bytes);
    parts.file(part->file).copy(part->offset, part->bytes, bytes.data());
    EXPECT_EQ(bytes, bytes_of(whole, tensor)) << tensor.name;
  }
  EXPECT_EQ(read_model_spec(folder.path() / "m-00001-of-00002.gguf").stored.size(), read_model_spec(whole.file().path()).stored.size());
  std::string complaint;
  try {
    GgufFile(folder.path() / "m-00002-of-00002.gguf");
  } catch (const std::runtime_error& error) {
    complaint = error.what();
  }
  EXPECT_THAT(complaint, HasSubstr("serve the first"));
}

class Hostile : public ::testing::Test {
 protected:
  // What reading all of a file with these bytes says; empty when nothing is wrong.
  std::string complaint(const std::string& bytes) {
    const auto path = folder_.path() / "model.gguf";
    std::ofstream(path, std::ios::binary) << bytes;
    try {
      const ModelSpec spec = read_model_spec(path);
      tokenizer_of_gguf(GgufFile(path));
      return "";
    } catch (const std::runtime_error& error) {
      return error.what();
    }
  }
  const std::string good_ = bytes_of(kFixtures / "models/gguf-llama/model.gguf");
  TempFolder folder_;
};

TEST_F(Hostile, FilesAreRefusedByWhatIsWrong) {
  EXPECT_EQ(complaint(good_), "");
  EXPECT_THAT(complaint("GGUF"), HasSubstr("too short"));
  EXPECT_THAT(complaint("GGML" + good_.substr(4)), HasSubstr("is not a GGUF file"));
  std::string version = good_;
  version[4] = 1;
  EXPECT_THAT(complaint(version), HasSubstr("of version 1"));
  EXPECT_THAT(complaint(good_.substr(0, good_.size() - 64)), HasSubstr("ends beyond the end of the file"));
  std::string many = good_;
  many.replace(8, 8, std::string(8, '\x7f'));
  EXPECT_THAT(complaint(many), HasSubstr("more tensors or keys"));
  std::string strange = good_;
  strange.replace(good_.find("llama", 24), 5, "lyama");
  EXPECT_THAT(complaint(strange), HasSubstr("the architecture 'lyama' is not supported"));
  std::string asked = good_;
  const std::string key = "llama.rope.freq_base";
  asked.replace(asked.find(key), key.size(), "llama.rope.freq_bass");
  EXPECT_THAT(complaint(asked), HasSubstr("'llama.rope.freq_bass' is not known"));
}

TEST_F(Hostile, HeadersThatWereCutOrDamagedNeverDoHarm) {
  std::mt19937 random(testing::fuzz_seed(11));
  for (const std::string& good : {good_, bytes_of(kFixtures / "models/gguf-llama-iq/model.gguf")}) {
    const size_t header = good.find("output_norm.weight") + 400;
    for (size_t size = 0; size < header; size += 197) EXPECT_NE(complaint(good.substr(0, size)), "") << size;
    for (int round = 0; round < 1500; ++round) {
      std::string bad = good;
      for (int edits = 1 + static_cast<int>(random() % 4); edits > 0; --edits) {
        const size_t at = random() % header;
        const char values[] = {0, 1, -1, 127, static_cast<char>(random()), static_cast<char>(bad[at] ^ 1 << random() % 8)};
        const size_t count = random() % 3 == 0 ? 8 : 1;
        for (size_t i = at; i < std::min(at + count, bad.size()); ++i) bad[i] = values[random() % std::size(values)];
      }
      complaint(bad);
    }
  }
}

}  // namespace
}  // namespace serval
