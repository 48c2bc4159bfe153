#include "engine/model/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "tests/engine/model/test_files.h"

namespace serval::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

// What the reader says about a file with this header and data.
std::string verdict_on(std::string_view header, std::string_view data) {
  const TemporaryFolder folder;
  const auto path = folder.write("model.safetensors", safetensors(header, data));
  return complaint([&] { read_safetensors_header(MappedFile(path)); });
}

TEST(Safetensors, ReadsTensorsOfEveryRankAndEmptyOnes) {
  const TemporaryFolder folder;
  const std::string header = R"({"__metadata__":{"format":"pt"},)"
                             R"("b":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]},)"
                             R"("scalar":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
                             R"("none":{"dtype":"F16","shape":[7,0,9],"data_offsets":[16,16]},)"
                             R"("deep":{"dtype":"I64","shape":[1,1,1,1,1],"data_offsets":[16,24]}}   )";
  folder.write("model.safetensors",
               safetensors(header, std::string("\x00\x00\x80\x3f", 4) + std::string(20, 'x')));

  const Checkpoint checkpoint(folder.path());
  ASSERT_EQ(checkpoint.tensors().size(), 4u);
  EXPECT_EQ(checkpoint.total_bytes(), 24u);
  EXPECT_EQ(checkpoint.find("b")->shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(checkpoint.find("b")->dtype, DType::kBF16);
  EXPECT_EQ(checkpoint.find("none")->bytes, 0u);
  EXPECT_EQ(checkpoint.find("deep")->dtype, std::nullopt);
  EXPECT_EQ(checkpoint.find("absent"), nullptr);
  float scalar = 0;
  checkpoint.read(*checkpoint.find("scalar"), &scalar);
  EXPECT_EQ(scalar, 1.0f);
}

TEST(Safetensors, RefusesBadFramingWithASentence) {
  const TemporaryFolder folder;
  const auto verdict = [&](std::string_view bytes) {
    const auto path = folder.write("model.safetensors", bytes);
    return complaint([&] { read_safetensors_header(MappedFile(path)); });
  };
  EXPECT_THAT(verdict(""), HasSubstr("too short"));
  EXPECT_THAT(verdict("1234567"), HasSubstr("too short"));
  EXPECT_THAT(verdict(length_prefix(uint64_t{1} << 63) + "{}"),
              HasSubstr("header of 9223372036854775808 bytes"));
  EXPECT_THAT(verdict(length_prefix(~uint64_t{0}) + "{}"), HasSubstr("more than the 16777216 allowed"));
  EXPECT_THAT(verdict(length_prefix(3) + "{}"), HasSubstr("ends inside its header"));
  EXPECT_THAT(verdict(length_prefix(0)), HasSubstr("not a JSON object"));
  EXPECT_THAT(verdict(length_prefix(2) + "[]"), HasSubstr("not a JSON object"));
  EXPECT_THAT(verdict(length_prefix(3) + " {}"), HasSubstr("not a JSON object"));
  EXPECT_THAT(verdict(length_prefix(1) + "{"), HasSubstr("not valid JSON"));
  EXPECT_THAT(verdict(length_prefix(5) + "{} {}"), HasSubstr("bytes after the JSON of its header"));
  EXPECT_THAT(verdict(length_prefix(7) + "{\"\xff\":1}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(verdict(length_prefix(2) + "{}"), IsEmpty());
}

TEST(Safetensors, RefusesShapesThatLieAboutTheBytes) {
  const auto with_shape = [](const std::string& shape, const std::string& offsets = "[0,4]") {
    return verdict_on(R"({"w":{"dtype":"F32","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}",
                      "1234");
  };
  EXPECT_THAT(with_shape("[1]"), IsEmpty());
  EXPECT_THAT(with_shape("[2]"), HasSubstr("'w' has a shape of 8 bytes but offsets of 4"));
  EXPECT_THAT(with_shape("[4294967296,4294967296]"), HasSubstr("'w' has a shape whose size overflows"));
  EXPECT_THAT(with_shape("[0,9223372036854775807]"), HasSubstr("overflows"));
  EXPECT_THAT(with_shape("[9223372036854775807,0]"), HasSubstr("overflows"));
  EXPECT_THAT(with_shape("[0,9223372036854775808]"),
              HasSubstr("may not hold the number 9223372036854775808"));
  EXPECT_THAT(with_shape("[-1]"), HasSubstr("field 'shape', may not hold the number -1"));
  EXPECT_THAT(with_shape("[1.0]"), HasSubstr("may not hold a fractional number"));
  EXPECT_THAT(with_shape("[[1]]"), HasSubstr("may not hold an array"));
  EXPECT_THAT(with_shape("[\"1\"]"), HasSubstr("may not hold a string"));
  EXPECT_THAT(with_shape("4"), HasSubstr("may not hold the number 4"));
  EXPECT_THAT(with_shape("null"), HasSubstr("may not hold null"));
  EXPECT_THAT(with_shape("[1]", "[4,0]"), HasSubstr("two ascending integers"));
  EXPECT_THAT(with_shape("[1]", "[0]"), HasSubstr("two ascending integers"));
  EXPECT_THAT(with_shape("[1]", "[0,4,4]"), HasSubstr("may not hold the number 4"));
  EXPECT_THAT(with_shape("[1]", "[0,18446744073709551615]"), HasSubstr("may not hold the number"));
}

TEST(Safetensors, RefusesLayoutsThatDoNotTileTheFile) {
  const auto two = [](const std::string& first, const std::string& second) {
    return verdict_on(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":)" + first +
                          R"(},"b":{"dtype":"F32","shape":[1],"data_offsets":)" + second + "}}",
                      "12345678");
  };
  EXPECT_THAT(two("[0,4]", "[4,8]"), IsEmpty());
  EXPECT_THAT(two("[4,8]", "[0,4]"), IsEmpty()) << "the order of names is free";
  EXPECT_THAT(two("[0,4]", "[0,4]"), HasSubstr("'b' overlaps"));
  EXPECT_THAT(two("[0,4]", "[2,6]"), HasSubstr("'b' overlaps"));
  EXPECT_THAT(two("[1,5]", "[5,9]"), HasSubstr("'a' leaves a hole before it"));
  EXPECT_THAT(two("[0,4]", "[5,9]"), HasSubstr("'b' ends beyond the end of the file"));
  EXPECT_THAT(two("[0,4]", "[9223372036854775803,9223372036854775807]"),
              HasSubstr("'b' ends beyond the end"));
  EXPECT_THAT(verdict_on(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "12345"),
              HasSubstr("1 bytes after the last tensor belong to none"));
  EXPECT_THAT(verdict_on("{}", "1"), HasSubstr("1 bytes after the last tensor"));
}

TEST(Safetensors, RefusesWhatTheHeaderMayNotHold) {
  const std::string good = R"({"dtype":"F32","shape":[],"data_offsets":[0,4]})";
  const auto verdict = [](const std::string& header) { return verdict_on(header, "1234"); };
  EXPECT_THAT(verdict(R"({"w":)" + good + R"(,"w":)" + good + "}"), HasSubstr("tensor 'w' appears twice"));
  EXPECT_THAT(verdict(R"({"__metadata__":{},"__metadata__":{}})"), HasSubstr("__metadata__ appears twice"));
  EXPECT_THAT(verdict(R"({"__metadata__":{"a":1},"w":)" + good + "}"),
              HasSubstr("__metadata__ 'a' may not hold"));
  EXPECT_THAT(verdict(R"({"__metadata__":{"a":{}},"w":)" + good + "}"), HasSubstr("may not hold an object"));
  EXPECT_THAT(verdict(R"({"w":{"dtype":"F12","shape":[],"data_offsets":[0,4]}})"),
              HasSubstr("tensor 'w' has the unsupported dtype 'F12'"));
  EXPECT_THAT(verdict(R"({"w":{"dtype":"F4","shape":[8],"data_offsets":[0,4]}})"),
              HasSubstr("unsupported dtype 'F4'"));
  EXPECT_THAT(verdict(R"({"w":{"dtype":"F32","shape":[]}})"),
              HasSubstr("'w' lacks dtype, shape or data_offsets"));
  EXPECT_THAT(verdict(R"({"w":{"dtype":"F32","dtype":"F32","shape":[],"data_offsets":[0,4]}})"),
              HasSubstr("field 'dtype', may not hold a string"));
  EXPECT_THAT(verdict(R"({"w":{"shape":[],"shape":[],"dtype":"F32","data_offsets":[0,4]}})"),
              HasSubstr("an array"));
  EXPECT_THAT(verdict(R"({"w":{"extra":true}})"), HasSubstr("field 'extra', may not hold a boolean"));
  EXPECT_THAT(verdict(R"({"w":[]})"), HasSubstr("entry 'w' may not hold an array"));
  EXPECT_THAT(verdict(R"({"w\u0000\n":7})"), HasSubstr(R"(entry 'w\x00\x0a')"))
      << "control bytes do not reach the log";
}

TEST(Safetensors, RefusesDeepAndLongHeadersInBoundedMemory) {
  const TemporaryFolder folder;
  const auto verdict = [&](const std::string& header) {
    const auto path = folder.write("model.safetensors", safetensors(header, ""));
    return complaint([&] { read_safetensors_header(MappedFile(path)); });
  };
  EXPECT_THAT(verdict(std::string(100'000'000, '[')), HasSubstr("header of 100000000 bytes"));
  EXPECT_THAT(verdict(std::string(1'000'000, '[')), HasSubstr("not a JSON object"));
  EXPECT_THAT(verdict("{\"w\":" + std::string(1'000'000, '[')), HasSubstr("may not hold an array"));

  // A long legal-looking shape of a tensor whose offsets never come.
  std::string shape = R"({"w":{"dtype":"F32","shape":[1)";
  while (shape.size() < (size_t{8} << 20)) shape += ",1";
  rusage before{}, after{};
  getrusage(RUSAGE_SELF, &before);
  EXPECT_THAT(verdict(shape + "]}}"), HasSubstr("lacks dtype, shape or data_offsets"));
  getrusage(RUSAGE_SELF, &after);
  const auto grown = static_cast<size_t>(after.ru_maxrss - before.ru_maxrss) * 1024;
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_LE(grown, 4 * shape.size() + (size_t{64} << 20));
#else
  (void)grown;
#endif
}

TEST(Safetensors, HonoursTheHeaderCapItIsGiven) {
  const TemporaryFolder folder;
  const auto path = folder.write("model.safetensors", safetensors("{}" + std::string(30, ' '), ""));
  EXPECT_THAT(complaint([&] { read_safetensors_header(MappedFile(path), 31); }),
              HasSubstr("more than the 31 allowed"));
  EXPECT_THAT(complaint([&] { read_safetensors_header(MappedFile(path), 32); }), IsEmpty());
}

TEST(Safetensors, RefusesARealFileCutAnywhere) {
  const std::string whole = read_bytes(std::filesystem::path(SERVAL_SOURCE_DIR) /
                                       "tests/fixtures/models/qwen3-bf16/model.safetensors");
  const TemporaryFolder folder;
  for (size_t size = 0; size < whole.size(); size += 4096) {
    folder.write("model.safetensors", std::string_view(whole).substr(0, size));
    EXPECT_THAT(complaint([&] { const Checkpoint checkpoint(folder.path()); }),
                HasSubstr("model.safetensors"));
  }
  folder.write("model.safetensors", std::string_view(whole).substr(0, whole.size() - 1));
  EXPECT_THAT(complaint([&] { const Checkpoint checkpoint(folder.path()); }),
              HasSubstr("ends beyond the end of the file"));
}

TEST(Safetensors, TurnsATruncationUnderTheMappingIntoAnError) {
  const TemporaryFolder folder;
  const std::string data(3 * 65536, 'x');
  const auto path = folder.write(
      "model.safetensors", safetensors(R"({"w":{"dtype":"U8","shape":[)" + std::to_string(data.size()) +
                                           R"(],"data_offsets":[0,)" + std::to_string(data.size()) + "]}}",
                                       data));
  const Checkpoint checkpoint(folder.path());
  std::string out(data.size(), ' ');
  checkpoint.read(checkpoint.tensors()[0], out.data());
  EXPECT_EQ(out, data);
  std::filesystem::resize_file(path, 65536);
  EXPECT_THAT(complaint([&] { checkpoint.read(checkpoint.tensors()[0], out.data()); }),
              HasSubstr("was truncated while it was being read"));
  EXPECT_THAT(complaint([&] { checkpoint.read(checkpoint.tensors()[0], out.data()); }),
              HasSubstr("truncated"))
      << "and again: the guard is not spent";
}

TEST(Safetensors, RefusesWhatIsNotARegularFile) {
  const TemporaryFolder folder;
  EXPECT_THAT(complaint([&] { MappedFile file(folder.path() / "absent"); }), HasSubstr("cannot open"));
  EXPECT_THAT(complaint([&] { MappedFile file(folder.path()); }), HasSubstr("is not a regular file"));
  EXPECT_THAT(complaint([&] { const Checkpoint checkpoint(folder.path()); }),
              HasSubstr("holds neither model.safetensors"));
}

// Two shards, "a" in one and "b" in two, under an index that may say anything.
class Shards : public ::testing::Test {
 protected:
  Shards() {
    folder_.write("one.safetensors",
                  safetensors(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "1234"));
    folder_.write("two.safetensors",
                  safetensors(R"({"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", "56"));
  }
  std::string verdict_on(const std::string& weight_map) {
    folder_.write("model.safetensors.index.json",
                  R"({"metadata":{"total_size":6},"weight_map":)" + weight_map + "}");
    return complaint([&] { const Checkpoint checkpoint(folder_.path()); });
  }
  TemporaryFolder folder_;
};

TEST_F(Shards, AreReadAsOneCheckpoint) {
  ASSERT_THAT(verdict_on(R"({"b":"two.safetensors","a":"one.safetensors"})"), IsEmpty());
  const Checkpoint checkpoint(folder_.path());
  EXPECT_EQ(checkpoint.total_bytes(), 6u);
  std::string b(2, ' ');
  checkpoint.read(*checkpoint.find("b"), b.data());
  EXPECT_EQ(b, "56");
  EXPECT_EQ(checkpoint.file_of(*checkpoint.find("a")).filename(), "one.safetensors");
}

TEST_F(Shards, MustHoldExactlyWhatTheIndexSays) {
  EXPECT_THAT(verdict_on(R"({"a":"one.safetensors","b":"two.safetensors","c":"two.safetensors"})"),
              HasSubstr("tensor 'c' is missing from 'two.safetensors'"));
  EXPECT_THAT(verdict_on(R"({"a":"one.safetensors","x":"two.safetensors"})"),
              HasSubstr("tensor 'b' is not where model.safetensors.index.json says"));
  EXPECT_THAT(verdict_on(R"({"a":"two.safetensors","b":"one.safetensors"})"), HasSubstr("is not where"));
  EXPECT_THAT(verdict_on(R"({"a":"one.safetensors","b":"three.safetensors"})"), HasSubstr("cannot open"));
}

TEST_F(Shards, MustBePlainFilesOfTheFolder) {
  for (const char* name :
       {"../one.safetensors", "/etc/passwd", "sub/one.safetensors", "..", "", "a\\\\b", "one\\u0000x"}) {
    EXPECT_THAT(verdict_on(R"({"a":")" + std::string(name) + R"("})"),
                HasSubstr("must name a file of the same folder"))
        << name;
  }
  EXPECT_THAT(verdict_on(R"({"a":7})"), HasSubstr("tensor 'a' must name a file"));
  EXPECT_THAT(verdict_on("[]"), HasSubstr("no weight_map object"));
}

TEST_F(Shards, AreBoundedInNumberAndTheIndexInMemory) {
  std::string map = "{";
  for (int i = 0; i < 1025; ++i) {
    const std::string n = std::to_string(i);
    map += (i ? "," : "") + ("\"t" + n) + "\":\"f" + n + "\"";
  }
  EXPECT_THAT(verdict_on(map + "}"), HasSubstr("more than 1024 files"));
  std::string wide = "{\"a\":[";
  while (wide.size() < 15'000'000) wide += "[],[],[],[],";
  EXPECT_THAT(verdict_on(wide + "[]]}"), HasSubstr("out of proportion"));
}

}  // namespace
}  // namespace serval::testing
