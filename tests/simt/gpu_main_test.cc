// The command line of serval-gpu on the emulated device, and the ledger in the documentation.
#include "loadtest/gpu/gpu_main.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "loadtest/gpu/rows.h"

namespace serval::gpu {
namespace {

using testing::HasSubstr;

struct Ran {
  int code;
  std::string out, error;
};
Ran run(const std::vector<std::string>& arguments) {
  std::ostringstream out, error;
  const int code = gpu_main(arguments, out, error);
  return {code, out.str(), error.str()};
}

std::string read(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::string temporary(const char* name) {
  return std::filesystem::path(testing::TempDir()) / name;
}

TEST(GpuMain, RefusesACommandLineThatItDoesNotUnderstand) {
  for (const std::vector<std::string>& wrong : std::vector<std::vector<std::string>>{
           {}, {"fly"}, {"check", "--fast"}, {"check", "--json"}, {"check", "--deadline", "soon"}}) {
    const Ran ran = run(wrong);
    EXPECT_EQ(ran.code, 2);
    EXPECT_THAT(ran.error, testing::StartsWith("serval-gpu: "));
  }
  EXPECT_EQ(run({"--help"}).code, 0);
}

TEST(GpuMain, RefusesToTimeAnEmulatedDevice) {
  for (const char* mode : {"bench", "model"}) {
    const Ran ran = run({mode});
    EXPECT_EQ(ran.code, 3);
    EXPECT_EQ(ran.error, "serval-gpu: the device is emulated, and times on it mean nothing\n");
  }
}

TEST(GpuMain, RunsChecksUntilItsDeadlineAndReportsThem) {
  const std::string path = temporary("gpu_check.json");
  const Ran ran = run({"check", "--small", "--deadline", "0.2", "--json", path, "--commit", "abc"});
  EXPECT_EQ(ran.code, 0) << ran.out;
  EXPECT_THAT(ran.out, HasSubstr(", 0 wrong"));
  const boost::json::value report = boost::json::parse(read(path));
  EXPECT_EQ(report.at("commit"), "abc");
  EXPECT_EQ(report.at("device"), "emulated");
  EXPECT_FALSE(report.at("rows").as_array().empty());
  EXPECT_EQ(report.at("rows").at(0).at("problem"), "");
  std::filesystem::remove(path);
}

TEST(GpuMain, DumpsFragmentsAndComparesThem) {
  const std::string path = temporary("gpu_fragments.json");
  EXPECT_EQ(run({"fragments", "--json", path}).code, 0);
  EXPECT_EQ(run({"fragments", "--compare", path}).out, "the dumps agree\n");
  std::string changed = read(path);
  changed.replace(changed.find("\"ldmatrix.x4\":[") + 15, 1, "7");
  std::ofstream(path) << changed;
  const Ran differs = run({"fragments", "--compare", path});
  EXPECT_EQ(differs.code, 1);
  EXPECT_THAT(differs.out, HasSubstr("ldmatrix.x4 differs from entry 0 on"));
  std::ofstream(path) << "no dump";
  EXPECT_EQ(run({"fragments", "--compare", path}).code, 3);
  std::filesystem::remove(path);
  EXPECT_EQ(run({"fragments", "--compare", path}).code, 3);
}

TEST(GpuLedger, InTheDocumentationIsWhatTheProgramPrints) {
  const std::string text = run({"ledger"}).out;
  EXPECT_EQ(text, ledger());
  const std::string document = read(std::filesystem::path(SERVAL_SOURCE_DIR) / "docs/gpu-ledger.md");
  EXPECT_TRUE(document.ends_with(text)) << "write the output of `serval-gpu ledger` below the introduction";
}

}  // namespace
}  // namespace serval::gpu
