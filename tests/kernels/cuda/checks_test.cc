// The tables of loadtest/gpu on the emulated device, each check under two orders of the threads: every kernel
// against its definition, and law 1. A GPU runs the same tables and larger shapes (`serval-gpu check`).
#include <gtest/gtest.h>

#include <cctype>

#include "kernels/emulation/emulation.h"
#include "kernels/emulation/runtime.h"
#include "tests/kernels/checks/check.h"

namespace serval::gpu {
namespace {

class EmulatedCheck : public testing::TestWithParam<Check> {
 protected:
  void TearDown() override { simt::set_schedule_seed(0); }
};

TEST_P(EmulatedCheck, FindsNothing) {
  for (const uint64_t schedule : {0, 1}) {
    simt::set_schedule_seed(schedule);
    const size_t before = simt::num_live_allocations();
    EXPECT_EQ(run_check(GetParam()).problem(), "") << GetParam().shape << ", schedule " << schedule;
    EXPECT_EQ(simt::num_live_allocations(), before);
    simt::check_guards();
  }
}

std::string name_of(const testing::TestParamInfo<Check>& info) {
  std::string name = info.param.kernel + "_" + info.param.shape + "_" + std::to_string(info.index);
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
}

INSTANTIATE_TEST_SUITE_P(Rows, EmulatedCheck, testing::ValuesIn(row_checks(Sizes::kSmall)), name_of);
INSTANTIATE_TEST_SUITE_P(Gemm, EmulatedCheck, testing::ValuesIn(gemm_checks(Sizes::kSmall)), name_of);
INSTANTIATE_TEST_SUITE_P(Experts, EmulatedCheck, testing::ValuesIn(expert_checks(Sizes::kSmall)), name_of);
INSTANTIATE_TEST_SUITE_P(Attention, EmulatedCheck, testing::ValuesIn(attention_checks(Sizes::kSmall)),
                         name_of);
INSTANTIATE_TEST_SUITE_P(Sampler, EmulatedCheck, testing::ValuesIn(sampler_checks(Sizes::kSmall)), name_of);
INSTANTIATE_TEST_SUITE_P(Invariance, EmulatedCheck, testing::ValuesIn(invariance_checks(Sizes::kSmall)),
                         name_of);

TEST(Checks, SayWhatIsWrong) {
  const auto found = [](auto run) { return run_check({"kernel", "shape", run}).problem(); };
  EXPECT_EQ(found([](Finding& f) { f.expect_near(1, 1.01, 0.1, "x"); }), "");
  EXPECT_NE(found([](Finding& f) { f.expect_near(1, 2, 0.1, "x"); }), "");
  EXPECT_NE(found([](Finding& f) { f.expect_near(NAN, 1, 0.1, "x"); }), "");
  EXPECT_EQ(found([](Finding&) { throw std::runtime_error("broken"); }), "broken");
  EXPECT_EQ(found([](Finding& f) { f.expect_same(1, 2, "bits differ"); }), "bits differ");
}

}  // namespace
}  // namespace serval::gpu
