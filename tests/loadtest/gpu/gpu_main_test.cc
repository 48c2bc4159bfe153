// The command line of serval-gpu on the emulated device, and the ledger in the documentation.
#include "loadtest/gpu/gpu_main.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json/parse.hpp>
#include <filesystem>
#include <fstream>
#include <sstream>

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
  return std::filesystem::path(testing::TempDir()) / (std::to_string(getpid()) + "-" + name);
}

TEST(GpuMain, RefusesACommandLineThatItDoesNotUnderstand) {
  for (const std::vector<std::string>& wrong : std::vector<std::vector<std::string>>{
           {}, {"fly"}, {"check", "--fast"}, {"check", "--json"}, {"check", "--deadline", "soon"}}) {
    const Ran ran = run(wrong);
    EXPECT_EQ(ran.code, 2);
    EXPECT_THAT(ran.error, testing::StartsWith("serval-gpu: "));
  }
  EXPECT_THAT(run({"chekc"}).error, HasSubstr("unknown mode 'chekc' (did you mean check?)"));
  EXPECT_THAT(run({"check", "--smal"}).error, HasSubstr("unknown option --smal (did you mean --small?)"));
  EXPECT_THAT(run({"bench", "--small"}).error, HasSubstr("--small does not go with serval-gpu bench"));
  for (const std::vector<std::string>& asks : std::vector<std::vector<std::string>>{{"--help"}, {"-h"}, {"check", "-h"}}) {
    const Ran ran = run(asks);
    EXPECT_EQ(ran.code, 0);
    EXPECT_THAT(ran.out, HasSubstr("--deadline SECONDS"));
  }
}

TEST(GpuMain, RefusesToTimeAnEmulatedDevice) {
  for (const char* mode : {"bench", "model", "probe"}) {
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

TEST(GpuMain, RunsOnlyWhatHoldsTheTextThatWasAskedFor) {
  const Ran ran = run({"check", "--small", "--only", "gemm, bf16, 1 x 16"});
  EXPECT_EQ(ran.code, 0) << ran.out;
  EXPECT_THAT(ran.out, HasSubstr("1 of 1 checks run"));
  EXPECT_THAT(run({"check", "--small", "--only", "gemm, bf16, 1 x 16", "--only", "with bias, 17 x"}).out, HasSubstr("2 of 2 checks run"));
  const Ran none = run({"invariance", "--small", "--only", "no such kernel"});
  EXPECT_EQ(none.code, 2);
  EXPECT_THAT(none.error, HasSubstr("'no such kernel'"));
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

// Reports that belong to the repository lie in docs/gpu-results, oldest first by name.
TEST(GpuLedger, InTheDocumentationIsWhatTheProgramPrints) {
  const std::filesystem::path docs = std::filesystem::path(SERVAL_SOURCE_DIR) / "docs";
  std::vector<std::string> arguments = {"ledger"};
  if (std::filesystem::exists(docs / "gpu-results")) {
    std::vector<std::string> reports;
    for (const auto& entry : std::filesystem::directory_iterator(docs / "gpu-results"))
      reports.push_back(entry.path());
    std::sort(reports.begin(), reports.end());
    for (const std::string& report : reports) arguments.insert(arguments.end(), {"--results", report});
  }
  const Ran ran = run(arguments);
  EXPECT_EQ(ran.code, 0) << ran.error;
  EXPECT_TRUE(read(docs / "gpu-ledger.md").ends_with(ran.out))
      << "write the output of `serval-gpu ledger` below the introduction";
}

TEST(GpuLedger, TakesTimesFromReports) {
  const std::string path = temporary("gpu_results.json");
  std::ofstream(path) << R"({"date": "2030-01-02", "commit": "abc", "device": "H", "rows": [
      {"kernel": "RoPE + KV write", "shape": "64 rows", "measured_us": 3.25},
      {"kernel": "GEMM", "shape": "o, M 1", "problem": "does not fit"}]})";
  const std::string out = run({"ledger", "--results", path}).out;
  EXPECT_THAT(
      out, HasSubstr("| RoPE + KV write | 64 rows | 0.4 | 2.5 | 4.0 | 2.5 | 3.2 | 2030-01-02 | abc | H |"));
  EXPECT_THAT(out, HasSubstr("| GEMM | o, M 1 | 7.8 | 10.6 | 13.0 | 10.5 | not measured | | | |"));
  std::ofstream(path) << R"({"rows": [{"kernel": "a", "measured_us": 1}]})";
  EXPECT_EQ(run({"ledger", "--results", path}).code, 3);
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace serval::gpu
