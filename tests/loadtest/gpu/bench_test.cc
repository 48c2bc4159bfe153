// The measurements of loadtest/gpu where no time can be measured: every workload really runs its kernels, the
// model decodes and takes prompts, the table is the reference's arithmetic, a run reports and ends as it
// says.
#include "loadtest/gpu/bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <sstream>

#include "kernels/emulation/runtime.h"
#include "loadtest/gpu/model_bench.h"
#include "loadtest/gpu/workloads.h"

namespace serval::gpu {
namespace {

namespace json = boost::json;

TEST(Workload, RunsEveryKernelOfTheTable) {
  const size_t before = simt::num_live_allocations();
  const Work all[] = {CopyWork{1 << 16},
                      GemmWork{3, 48, 64, false, false},
                      GemmWork{20, 32, 64, false, true},
                      NormWork{2, 128},
                      HeadsWork{3},
                      DecodeAttentionWork{2, 300, false},
                      DecodeAttentionWork{1, 40, true},
                      PrefillAttentionWork{70, 70},
                      PrefillAttentionWork{90, 20},
                      ReadWork{1 << 20, false},
                      ReadWork{1000 * 16, true},
                      RegisterProductWork{2, 3},
                      EmptyWork{},
                      SmallCopyWork{64},
                      SampleWork{1, Sampling::kGreedy},
                      SampleWork{1, Sampling::kTemperature},
                      SampleWork{1, Sampling::kTopP},
                      SampleWork{2, Sampling::kPeaked}};
  for (const Work& work : all) {
    SCOPED_TRACE(work.index());
    const cuda::OwnedStream stream;
    const Workload workload = make_workload(work, nullptr);
    EXPECT_GE(workload.num_copies, 1);
    workload.launch(stream, 0);
    for (int i = 0; i < 2; ++i) workload.launch(stream, workload.num_copies - 1);
    if (workload.is_capturable) {
      cuda::begin_capture(stream);
      workload.launch(stream, 0);
      const cuda::Graph graph = cuda::end_capture(stream);
      cuda::launch_graph(graph, stream);
      cuda::destroy_graph(graph);
    }
    simt::check_guards();
  }
  EXPECT_EQ(simt::num_live_allocations(), before);
  EXPECT_THROW(make_workload(GemmWork{1, 16, 32, true, false}, nullptr), std::runtime_error);
}

TEST(Workload, RotatesItsMemoryBeyondTheCache) {
  EXPECT_EQ(copies_beyond_cache(2e9), 1);
  EXPECT_EQ(copies_beyond_cache(30e6), 4);
  EXPECT_GT(copies_beyond_cache(1), 20);
}

TEST(Measure, LaunchesEveryCopyInAGraphAndReplaysIt) {
  const cuda::OwnedStream stream;
  for (const int copies : {1, 7, 33}) {
    for (const bool is_capturable : {true, false}) {
      std::vector<int> launched(copies);
      int captured = 0;
      const Workload workload{[&](simt::Stream on, int copy) {
                                ++launched[copy];
                                if (is_capturable)
                                  cuda::copy_on_device(on, &captured, &captured, sizeof captured);
                              },
                              copies, is_capturable};
      const Measurement measured = measure(workload, stream);
      EXPECT_EQ(measured.launches, std::max(kLaunches, copies));
      EXPECT_EQ(measured.replays, kReplays);
      EXPECT_EQ(measured.us, 0);  // the emulated device's clock stands still
      EXPECT_THAT(launched, testing::Each(testing::Ge(1)));
      const int runs = is_capturable ? 2 : 1 + kWarmUps + kReplays;  // once as it is, once into the graph
      EXPECT_EQ(std::accumulate(launched.begin(), launched.end(), 0), runs * measured.launches);
    }
  }
}

TEST(Measure, IsTheMedianWithTheSpreadOfTheMiddle) {
  std::vector<double> us = {100, 10, 10, 10, 10, 10, 10, 10, 10, 11, 1};
  const Measurement measured = summarise(us, 5);
  EXPECT_EQ(measured.us, 2);
  EXPECT_NEAR(measured.spread, 0.1, 1e-9);  // one replay on each side does not count
}

const Row& row_of(const std::vector<Row>& rows, const std::string& kernel, const std::string& shape) {
  for (const Row& row : rows)
    if (row.kernel == kernel && row.shape == shape) return row;
  throw std::runtime_error("no row " + kernel + " " + shape);
}

// Floors as the reference computes them by hand for one H200.
TEST(Rows, HaveTheFloorsOfTheModelOfTheMachine) {
  const std::vector<Row> kernels = kernel_rows(), models = model_rows();
  const auto floor = [&](const char* kernel, const char* shape) {
    return row_of(kernels, kernel, shape).floor_us;
  };
  EXPECT_NEAR(floor("decode attention, bf16", "b64, 8k"), 499, 1);
  EXPECT_NEAR(floor("decode attention, bf16", "b1, 1k"), 1.0, 0.05);
  EXPECT_NEAR(floor("decode attention, fp8 KV", "b64, 8k"), 250, 1);
  EXPECT_NEAR(floor("GEMM", "gate+up, M 1"), 54.6, 0.1);
  EXPECT_NEAR(floor("GEMM", "down, M 16"), 27.5, 0.1);  // of which 0.14 are rows in and out
  EXPECT_NEAR(floor("GEMM", "qkv, M 256"), 16.4, 0.1);
  EXPECT_NEAR(floor("GEMM", "head, M 1"), 244, 1);
  EXPECT_NEAR(floor("GEMM cuBLASLt", "gate+up, M 2048"), 610, 1);
  EXPECT_NEAR(floor("residual + RMSNorm", "8192x4096"), 62, 1);
  EXPECT_NEAR(floor("sampling, greedy", "64x128256"), 7.6, 0.1);
  const auto step = [&](const char* shape) {
    return row_of(models, "Llama-3.1-8B bf16, time per token", shape).floor_us / 1000;
  };
  EXPECT_NEAR(step("b1, 1k"), 3.52, 0.01);
  EXPECT_NEAR(step("b64, 8k"), 19.5, 0.1);
  EXPECT_NEAR(step("b256, 1k"), 12.9, 0.1);
  EXPECT_NEAR(row_of(models, "Llama-3.1-8B bf16, time to first token", "2k").floor_us / 1000, 38.1, 0.5);
  for (const std::vector<Row>* rows : {&kernels, &models}) {
    for (const Row& row : *rows) {
      EXPECT_GT(row.floor_us, 0) << row.kernel << row.shape;
      EXPECT_GE(row.predicted_us, row.floor_us) << row.kernel << row.shape;
      EXPECT_GE(row.must_us, row.good_us) << row.kernel << row.shape;
    }
  }
}

TEST(Bench, JudgesByGatesScaledToTheMachine) {
  const Row row{.kernel = "k", .limit = Limit::kMemory, .floor_us = 50, .must_us = 100, .good_us = 60};
  EXPECT_EQ(judge(row, {.us = 59}, 1), Verdict::kGood);
  EXPECT_EQ(judge(row, {.us = 90}, 1), Verdict::kMust);
  EXPECT_EQ(judge(row, {.us = 110}, 1), Verdict::kMissed);
  EXPECT_EQ(judge(row, {.us = 110}, 1.2), Verdict::kMust);
  EXPECT_EQ(judge(row, {.us = 59, .spread = 0.2}, 1), Verdict::kUnsteady);
  EXPECT_EQ(judge({.kernel = "k"}, {.us = 59}, 1), Verdict::kNoGate);

  Ceilings ceilings;
  EXPECT_EQ(scale_of(row, ceilings), 1);
  const std::vector<Row> rows = kernel_rows();
  const auto product = [&](const char* kernel) { return row_of(rows, kernel, "8192x8192x8192, M 8192"); };
  learn(rows[0], 2 * rows[0].floor_us, ceilings);  // half the memory speed of the model's machine
  EXPECT_NEAR(scale_of(row, ceilings), 2, 1e-9);
  learn(product("ceiling: product, cuBLASLt"), 4 * rows[1].floor_us, ceilings);
  EXPECT_NEAR(scale_of({.limit = Limit::kProducts}, ceilings), 4, 1e-9);
  EXPECT_EQ(scale_of({.limit = Limit::kLatency}, ceilings), 1);
  learn(product("ceiling: product, own"), 1, ceilings);  // our own product is no ceiling
  EXPECT_NEAR(scale_of({.limit = Limit::kProducts}, ceilings), 4, 1e-9);
}

TEST(Bench, ReportsEveryRowAtOnceAndPassesOverWhatCannotBeMeasured) {
  const std::string path = std::filesystem::path(testing::TempDir()) / "gpu_bench.json";
  const auto rows_in_file = [&] {
    std::ifstream file(path);
    std::stringstream text;
    text << file.rdbuf();
    return json::parse(text.str()).at("rows").as_array();
  };
  const std::vector<Row> rows = {{.kernel = "a", .floor_us = 1, .must_us = 3, .good_us = 2},
                                 {.kernel = "b"},
                                 {.kernel = "c", .must_us = 1}};
  Report report(path, {{"device", "none"}});
  std::ostringstream out;
  size_t seen = 0;
  const Measure measure = [&](const Row& row) -> Measurement {
    if (seen > 0) {
      EXPECT_EQ(rows_in_file().size(), seen);
    }
    ++seen;
    if (row.kernel == "b") throw std::runtime_error("does not fit");
    return {.us = 2};
  };
  EXPECT_EQ(run_rows(rows, measure, Deadline(0), report, out), 1);
  const json::array written = rows_in_file();
  ASSERT_EQ(written.size(), 3u);
  EXPECT_EQ(written[0].at("verdict"), "good");
  EXPECT_EQ(written[0].at("percent_of_floor").as_double(), 50);
  EXPECT_EQ(written[1].at("problem"), "does not fit");
  EXPECT_EQ(written[2].at("verdict"), "MISSED");
  std::filesystem::remove(path);
}

TEST(Bench, MeasuresAnUnsteadyRowAgainAndKeepsTheSteadierTime) {
  Report report("", {});
  std::ostringstream out;
  int calls = 0;
  const Measure measure = [&](const Row&) -> Measurement {
    return {.us = 2.0 + calls, .spread = calls++ == 0 ? 0.5 : 0.01};
  };
  run_rows({{.kernel = "a"}}, measure, Deadline(0), report, out);
  EXPECT_EQ(calls, 2);
  EXPECT_THAT(out.str(), testing::HasSubstr("measured 3.0"));
}

TEST(Bench, BeginsNoRowAfterItsDeadline) {
  Report report("", {});
  std::ostringstream out;
  int measured = 0;
  const Measure measure = [&](const Row&) -> Measurement {
    ++measured;
    return {};
  };
  run_rows(kernel_rows(), measure, Deadline(1e-9), report, out);
  EXPECT_EQ(measured, 0);
  EXPECT_THAT(out.str(), testing::HasSubstr("rows not measured"));
}

TEST(ModelBench, DecodesAndTakesPromptsThroughTheRealForwardPass) {
  const size_t before = simt::num_live_allocations();
  {
    const LlamaShape tiny{.num_layers = 2,
                          .hidden = 64,
                          .num_heads = 4,
                          .num_kv_heads = 2,
                          .head_dim = 16,
                          .intermediate = 96,
                          .vocab = 200,
                          .max_positions = 512};
    ModelBench model(tiny, {.max_rows = 24, .max_seqs = 4, .max_len = 128, .max_kv_tokens = 320});
    EXPECT_GT(model.decode(1, 40).replays, 10);
    EXPECT_GT(model.decode(4, 70).replays, 10);
    EXPECT_GT(model.decode(1, 100).replays, 10);  // the graph of one row again, over other blocks
    EXPECT_GT(model.prefill(50).replays, 2);
    EXPECT_THROW(model.decode(4, 100), std::runtime_error);  // 448 tokens in 320
  }
  EXPECT_EQ(simt::num_live_allocations(), before);
}

}  // namespace
}  // namespace serval::gpu
