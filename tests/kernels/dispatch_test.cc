// The choice of an instruction set: by the machine, by force, and refused with a sentence.
#include "kernels/cpu/dispatch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <stdexcept>

#include "kernels/backend.h"

namespace serval {
namespace {

using ::testing::HasSubstr;

std::string message_of(const DeviceConfig& config) {
  try {
    make_backend(config);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

TEST(Dispatch, RunsTheInstructionSetItIsForcedTo) {
  for (const std::string& isa : cpu::runnable_isas()) {
    EXPECT_EQ(make_backend({.num_threads = 1, .isa = isa})->name(), "cpu-" + isa);
    EXPECT_EQ(cpu::choose_kernels(isa).name, isa);
  }
}

TEST(Dispatch, AlwaysRunsTheGenericOne) {
  EXPECT_EQ(cpu::runnable_isas().front(), "generic");
}

TEST(Dispatch, ChoosesByItselfAmongThoseThatRun) {
  EXPECT_THAT(cpu::runnable_isas(), ::testing::Contains(cpu::choose_kernels("auto").name));
}

TEST(Dispatch, AgreesWithTheKernelsViewOfTheProcessor) {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line) && line.rfind("flags", 0) != 0) {
  }
  if (line.empty()) GTEST_SKIP() << "/proc/cpuinfo has no line of flags";
  std::istringstream words(line);
  const std::vector<std::string> flags(std::istream_iterator<std::string>(words), {});
  const auto has = [&](const char* flag) {
    return std::find(flags.begin(), flags.end(), flag) != flags.end();
  };
  const std::vector<std::string> runnable = cpu::runnable_isas();
  const auto runs = [&](const char* isa) {
    return std::find(runnable.begin(), runnable.end(), isa) != runnable.end();
  };
  const bool avx2 = has("avx2") && has("fma") && has("f16c");
  const bool avx512 = avx2 && has("avx512f") && has("avx512bw") && has("avx512dq") && has("avx512vl");
  EXPECT_EQ(runs("avx2"), avx2);
  EXPECT_EQ(runs("avx512"), avx512);
  EXPECT_LE(runs("avx512amx"), avx512 && has("amx_tile") && has("amx_bf16") && has("amx_int8")) << "the system may refuse";
  EXPECT_EQ(runs("avx512bf16"), avx512 && has("avx512_bf16") && has("avx512vbmi"));
}

TEST(Dispatch, RefusesWhatIsUnknownOrMissingWithASentence) {
  EXPECT_THAT(message_of({.isa = "sse9"}), HasSubstr("auto, generic"));
  EXPECT_THAT(message_of({.device = "abacus"}), HasSubstr("'abacus'"));
  for (const std::string isa : {"avx2", "avx512", "avx512bf16", "avx512amx"}) {
    const std::vector<std::string> runnable = cpu::runnable_isas();
    if (std::find(runnable.begin(), runnable.end(), isa) != runnable.end()) continue;
    EXPECT_THAT(message_of({.isa = isa}), HasSubstr(isa));
  }
}

}  // namespace
}  // namespace serval
