// Mutated checkpoints: the reader accepts a file or throws its sentence; whatever it accepts tiles the file
// and can be read.
#include <gtest/gtest.h>

#include <random>

#include "engine/model/safetensors.h"
#include "tests/engine/model/test_files.h"

namespace serval::testing {
namespace {

const std::string kHeader =
    R"({"__metadata__":{"format":"pt"},"model.a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
    R"("model.b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]},"c":{"dtype":"F16","shape":[],"data_offsets":[32,34]}})";
constexpr size_t kDataBytes = 34;

// What a hostile or broken writer likes to put where a number, a name or a bracket stood.
const std::vector<std::string> kSplices = {"-1",
                                           "0",
                                           "1",
                                           "4294967296",
                                           "9223372036854775807",
                                           "9223372036854775808",
                                           "18446744073709551616",
                                           "1e308",
                                           "null",
                                           "true",
                                           "[",
                                           "]",
                                           "{",
                                           "}",
                                           "\"",
                                           ",",
                                           ":",
                                           "[]",
                                           "{}",
                                           "\"F64\"",
                                           "\"shape\"",
                                           "\"data_offsets\"",
                                           "\"dtype\"",
                                           "\\u0000",
                                           "\\ud800",
                                           "\xff",
                                           " ",
                                           "[[[[",
                                           "24",
                                           "34",
                                           "\"model.a\":"};

std::string mutate(std::string text, std::mt19937& random) {
  const int times = 1 + static_cast<int>(random() % 4);
  for (int i = 0; i < times && !text.empty(); ++i) {
    const size_t at = random() % text.size();
    const size_t length = std::min<size_t>(random() % 12, text.size() - at);
    switch (random() % 5) {
      case 0:
        text[at] = static_cast<char>(random());
        break;
      case 1:
        text.erase(at, length);
        break;
      case 2:
        text.insert(at, text.substr(random() % text.size(), length));
        break;
      case 3:
        text.replace(at, length, kSplices[random() % kSplices.size()]);
        break;
      case 4: {  // another digit: a small lie that parses
        const size_t digit = text.find_first_of("0123456789", at);
        if (digit != std::string::npos) text[digit] = static_cast<char>('0' + random() % 10);
        break;
      }
    }
  }
  return text;
}

TEST(SafetensorsFuzz, AcceptsOnlyFilesWhoseTensorsTileThem) {
  FolderInMemory folder("model.safetensors");
  std::mt19937 random(fuzz_seed(20260101));
  int accepted = 0;
  for (int round = 0; round < 20000; ++round) {
    const std::string header = mutate(kHeader, random);
    std::string bytes = safetensors(header, std::string(kDataBytes, 'x'));
    if (round % 8 == 0) bytes = mutate(bytes, random);
    folder.write(bytes);
    try {
      const Checkpoint checkpoint(folder.path());
      ++accepted;
      size_t covered = 0;
      std::string out(bytes.size(), ' ');
      for (const TensorInfo& tensor : checkpoint.tensors()) {
        ASSERT_LE(tensor.offset + tensor.bytes, bytes.size()) << header;
        checkpoint.read(tensor, out.data());
        covered += tensor.bytes;
      }
      uint64_t length = 0;
      for (int i = 8; i-- > 0;) length = length << 8 | static_cast<unsigned char>(bytes[i]);
      ASSERT_EQ(8 + length + covered, bytes.size()) << header;
    } catch (const std::runtime_error& error) {
      ASSERT_NE(std::string_view(error.what()).find("model.safetensors"), std::string_view::npos)
          << error.what();
    }
  }
  EXPECT_GT(accepted, 100) << "the mutations are too wild to reach the checks behind the parser";
  EXPECT_LT(accepted, 15000);
}

}  // namespace
}  // namespace serval::testing
