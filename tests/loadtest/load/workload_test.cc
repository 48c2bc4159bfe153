// Workloads: the same seed gives the same one, traces are read as published, arrivals have the moments they
// should.

#include "loadtest/load/workload.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <set>

namespace serval::load {
namespace {

std::string shared(const std::string& path) {
  return std::string(SERVAL_SOURCE_DIR) + "/../shared/data/" + path;
}

#define NEEDS_SHARED(path) \
  if (!std::filesystem::exists(shared(path))) GTEST_SKIP() << "../shared/data/" << path << " is absent"

std::vector<PlannedRequest> from_text(const std::string& name, const std::string& text,
                                      const WorkloadOptions& options) {
  const std::string path = testing::TempDir() + "/" + std::to_string(getpid()) + "-" + name;
  std::ofstream(path) << text;
  auto requests = trace_workload(path, options);
  std::remove(path.c_str());
  return requests;
}

TEST(Workload, TheSameSeedIsTheSameWorkload) {
  WorkloadOptions options;
  options.rate = 10;
  options.length_jitter = 0.5;
  const auto a = synthetic_workload(options), b = synthetic_workload(options);
  options.seed = 1;
  const auto c = synthetic_workload(options);
  ASSERT_EQ(a.size(), 100u);
  bool differs = false;
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].prompt, b[i].prompt);
    EXPECT_EQ(a[i].at_s, b[i].at_s);
    differs = differs || a[i].prompt != c[i].prompt;
  }
  EXPECT_TRUE(differs);
}

TEST(Workload, ArrivalsHaveTheRateAndSpreadAskedFor) {
  for (const auto& [arrival, cv] :
       {std::pair{Arrival::kConstant, 0.0}, {Arrival::kPoisson, 1.0}, {Arrival::kGamma, 3.0}}) {
    WorkloadOptions options;
    options.num_requests = 40'000;
    options.input_tokens = 1;
    options.rate = 20;
    options.arrival = arrival;
    options.cv = 3;
    const auto requests = synthetic_workload(options);
    double sum = 0, squares = 0;
    for (size_t i = 1; i < requests.size(); ++i) {
      const double gap = requests[i].at_s - requests[i - 1].at_s;
      sum += gap;
      squares += gap * gap;
    }
    const double n = static_cast<double>(requests.size() - 1), mean = sum / n;
    EXPECT_NEAR(mean, 0.05, 0.003);
    EXPECT_NEAR(std::sqrt(std::max(0.0, squares / n - mean * mean)) / mean, cv, 0.12);
  }
}

TEST(Workload, ARampEndsAtItsRate) {
  WorkloadOptions options;
  options.num_requests = 1001;
  options.rate = 1;
  options.ramp_to = 100;
  options.arrival = Arrival::kConstant;
  const auto requests = synthetic_workload(options);
  EXPECT_NEAR(requests[1].at_s - requests[0].at_s, 1, 0.01);
  EXPECT_NEAR(requests[1000].at_s - requests[999].at_s, 0.01, 0.001);
}

TEST(Workload, SharedPrefixesAreShared) {
  WorkloadOptions options;
  options.send_token_ids = true;
  options.shared_prefix_tokens = 50;
  options.input_tokens = 10;
  const auto requests = synthetic_workload(options);
  for (const auto& request : requests) {
    ASSERT_EQ(request.token_ids.size(), 60u);
    EXPECT_TRUE(
        std::equal(request.token_ids.begin(), request.token_ids.begin() + 50, requests[0].token_ids.begin()));
  }
  EXPECT_NE(requests[0].token_ids, requests[1].token_ids);
}

TEST(Workload, MooncakeHashesBecomeSharedPrefixes) {
  WorkloadOptions options;
  options.block_tokens = 4;
  const auto requests = from_text(
      "m.jsonl",
      "{\"timestamp\": 0, \"input_length\": 10, \"output_length\": 3, \"hash_ids\": [1, 2, 3]}\n"
      "{\"timestamp\": 1500, \"input_length\": 12, \"output_length\": 5, \"hash_ids\": [1, 2, 9]}\n",
      options);
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_EQ(requests[0].token_ids.size(), 10u);
  EXPECT_EQ(requests[1].at_s, 1.5);
  EXPECT_TRUE(std::equal(requests[0].token_ids.begin(), requests[0].token_ids.begin() + 8,
                         requests[1].token_ids.begin()));
  EXPECT_NE(requests[0].token_ids[8], requests[1].token_ids[8]);
}

TEST(Workload, ConversationsBecomeTurnsThatWait) {
  WorkloadOptions options;
  options.think_s = 2;
  const auto requests = from_text(
      "s.json",
      R"([{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}, {"from": "human", "value": "c"}]}])",
      options);
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_EQ(requests[1].after, 0);
  EXPECT_EQ(requests[1].think_s, 2);
  EXPECT_EQ(requests[1].prompt, "a\nc");
}

TEST(Workload, ARecordedRunReplays) {
  const auto requests = from_text("r.jsonl",
                                  "{\"at_s\": 0.5, \"output_tokens\": 9, \"token_ids\": [1, 2]}\n{\"at_s\": "
                                  "0.25, \"output_tokens\": 8, \"prompt\": \"p\"}\n",
                                  {});
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_EQ(requests[0].prompt, "p");
  EXPECT_EQ(requests[0].output_tokens, 8);
  EXPECT_EQ(requests[1].token_ids, (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(requests[1].at_s, 0.5);
}

TEST(Workload, ABadTraceNamesItsLine) {
  for (const char* text : {"{\"a\": 1}\n", "{\"hash_ids\": [1]}\n", "{oops\n",
                           "TIMESTAMP,ContextTokens,GeneratedTokens\nnonsense\n"}) {
    try {
      from_text("bad.jsonl", text, {});
      ADD_FAILURE() << text;
    } catch (const std::runtime_error& error) {
      EXPECT_NE(std::string(error.what()).find("line"), std::string::npos) << error.what();
    }
  }
  EXPECT_THROW(trace_workload("/no/such/trace", {}), std::runtime_error);
}

TEST(Workload, ReadsTheAzureTraceWhole) {
  const std::string path = "trace-azure-conv-2023/AzureLLMInferenceTrace_conv.csv";
  NEEDS_SHARED(path);
  WorkloadOptions options;
  options.num_requests = 1'000'000;
  options.scale_lengths = 0.01;
  const auto requests = trace_workload(shared(path), options);
  EXPECT_EQ(requests.size(), 19'366u);
  EXPECT_NEAR(requests.back().at_s, 58 * 60, 180);
  EXPECT_TRUE(std::is_sorted(requests.begin(), requests.end(),
                             [](const auto& a, const auto& b) { return a.at_s < b.at_s; }));
}

TEST(Workload, ReadsTheMooncakeTraceWhole) {
  const std::string path = "trace-mooncake-synthetic/synthetic_trace.jsonl";
  NEEDS_SHARED(path);
  WorkloadOptions options;
  options.num_requests = 1'000'000;
  options.scale_lengths = 1.0 / 16;
  const auto requests = trace_workload(shared(path), options);
  EXPECT_EQ(requests.size(), 3'993u);
}

TEST(Workload, ReadsAServeGenWindowWithItsPackedLengths) {
  const std::string trace = "trace-servegen-m-small/chunk-12-trace.csv";
  NEEDS_SHARED(trace);
  WorkloadOptions options;
  options.num_requests = 5000;
  const auto requests = trace_workload(shared(trace), options);
  ASSERT_EQ(requests.size(), 5000u);
  EXPECT_NEAR(5000 / requests.back().at_s, 62.8, 6);  // the first window's rate
}

TEST(Workload, AFolderOfServeGenClientsIsTheirSum) {
  const std::string folder = "trace-servegen-m-small";
  NEEDS_SHARED(folder);
  WorkloadOptions options;
  options.num_requests = 4000;
  options.scale_lengths = 0.01;
  const auto all = trace_workload(shared(folder), options);
  const auto one = trace_workload(shared(folder + "/chunk-12-trace.csv"), options);
  ASSERT_EQ(all.size(), 4000u);
  EXPECT_LT(all.back().at_s, one.back().at_s);  // eight clients send the same number sooner
  EXPECT_TRUE(
      std::is_sorted(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.at_s < b.at_s; }));
}

// Every set of prompts and texts is a trace as it lies there.
TEST(Workload, ReadsEverySharedSetOfPrompts) {
  for (const auto& [path, count] : {std::pair{"prompts-humaneval/HumanEval.jsonl.gz", 164},
                                    {"prompts-mt-bench/question.jsonl", 160},
                                    {"corpus-gsm8k-train/train.jsonl", 7473},
                                    {"tools-bfcl/BFCL_v4_simple_python.json", 400},
                                    {"tok-pool/texts.jsonl", 0},
                                    {"corpus-english/alice.txt", 0}}) {
    NEEDS_SHARED(path);
    WorkloadOptions options;
    options.num_requests = 10'000;
    const auto requests = trace_workload(shared(path), options);
    if (count > 0)
      EXPECT_EQ(requests.size(), static_cast<size_t>(count)) << path;
    else
      EXPECT_GT(requests.size(), 100u) << path;
    for (const auto& request : requests) EXPECT_FALSE(request.prompt.empty()) << path;
  }
}

TEST(Workload, MessagesAreTheTurnsOfTheirUser) {
  const auto requests = from_text(
      "m.jsonl",
      R"({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}, {"role": "user", "content": "b"}]})",
      {});
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_EQ(requests[0].prompt, "a");
  EXPECT_EQ(requests[1].after, 0);
}

}  // namespace
}  // namespace serval::load
