// The op table on the devices that this test is compiled for (SERVAL_OP_DEVICES).
#include <gtest/gtest.h>

#include <stdexcept>

#include "tests/kernels/op_table.h"

namespace serval::testing {
namespace {

class OpTable : public ::testing::TestWithParam<std::tuple<const char*, WeightFormat>> {};

TEST_P(OpTable, MatchesTheDefinition) {
  const auto& [device, weights] = GetParam();
  const bool is_cuda = std::string_view(device) == "cuda";
  std::unique_ptr<Backend> backend;
  try {
    backend = is_cuda ? make_backend({.device = "cuda"}) : make_backend({.num_threads = 2, .isa = device});
  } catch (const std::runtime_error& absent) {
    GTEST_SKIP() << absent.what();
  }
  for (const OpCase& op : op_table()) {
    SCOPED_TRACE(op.name);
    const auto step = backend->make_step_context(op_table_limits());
    step->begin_step({});  // a case over a step's arrays begins one of its own
    op.run(*backend, weights);
  }
}

INSTANTIATE_TEST_SUITE_P(EveryDevice, OpTable,
                         ::testing::Combine(::testing::Values(SERVAL_OP_DEVICES),
                                            ::testing::Values(WeightFormat::kF32, WeightFormat::kF16,
                                                              WeightFormat::kBF16, WeightFormat::kInt8,
                                                              WeightFormat::kInt8Groups, WeightFormat::kInt4,
                                                              WeightFormat::kTable4, WeightFormat::kFp8,
                                                              WeightFormat::kFp6, WeightFormat::kInt8Dynamic,
                                                              WeightFormat::kInt4Dynamic)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param)) + "_" +
                                  format_row(std::get<1>(info.param)).name;
                         });

}  // namespace
}  // namespace serval::testing
