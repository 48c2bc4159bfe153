// Real trained weights against what the reference answered on them: the model that ships with the project,
// and a Llama trained by others when ../shared/data is there.
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <cmath>
#include <fstream>

#include "engine/model/read_model.h"
#include "engine/model/weight_loader.h"
#include "tests/engine/model/golden_file.h"
#include "tests/engine/model/test_devices.h"

namespace serval::testing {
namespace {

namespace json = boost::json;

// One line of a golden file: a prompt, its greedy continuation with margins, and the best five of its first
// steps.
struct TrainedCase {
  std::vector<int32_t> prompt, greedy;
  std::vector<double> margins;
  std::vector<std::vector<std::pair<int, double>>> top;
};

std::vector<TrainedCase> read_cases(const std::filesystem::path& path, std::string_view top_field) {
  std::ifstream file(path);
  std::vector<TrainedCase> cases;
  for (std::string line; std::getline(file, line);) {
    const json::value entry = json::parse(line);
    TrainedCase& one = cases.emplace_back();
    one.prompt = json::value_to<std::vector<int32_t>>(entry.at("prompt_ids"));
    one.greedy = json::value_to<std::vector<int32_t>>(entry.at("greedy_ids"));
    one.margins = json::value_to<std::vector<double>>(entry.at("margins"));
    for (const json::value& step : entry.at(top_field).as_array()) {
      one.top.push_back(json::value_to<std::vector<std::pair<int, double>>>(step));
    }
  }
  return cases;
}

struct Outcome {
  double worst = 0, mean = 0;  // |log-probability difference| over the reported best five
  int steps_compared = 0;
};

// Runs every case as one sequence and checks its greedy ids at every step whose margin is at least twice
// the tolerance.
Outcome judge(Transformer& transformer, Backend& backend, DType kv_dtype,
              const std::vector<TrainedCase>& cases, double tolerance) {
  Outcome outcome;
  int compared = 0;
  const size_t vocab = transformer.spec().vocab_size;
  for (size_t c = 0; c < cases.size(); ++c) {
    const TrainedCase& one = cases[c];
    std::vector<int32_t> ids = one.prompt;
    ids.insert(ids.end(), one.greedy.begin(), one.greedy.end());
    const int length = static_cast<int>(ids.size());
    PagedDriver driver(transformer, backend, kv_dtype, 1, length, length);
    const std::vector<float> logits = driver.run(0, ids, length);
    for (size_t step = 0; step < one.greedy.size(); ++step) {
      const auto row = std::span(logits).subspan((one.prompt.size() - 1 + step) * vocab, vocab);
      if (step < one.top.size()) {
        const std::vector<double> ours = log_softmax(row);
        for (const auto& [id, value] : one.top[step]) {
          const double difference = std::abs(ours[id] - value);
          outcome.worst = std::max(outcome.worst, difference);
          outcome.mean += (difference - outcome.mean) / ++compared;
        }
      }
      if (one.margins[step] < 2 * tolerance) continue;
      EXPECT_EQ(std::max_element(row.begin(), row.end()) - row.begin(), one.greedy[step])
          << "case " << c << " step " << step;
      ++outcome.steps_compared;
    }
  }
  return outcome;
}

class TrainedModel : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    try {
      backend_ = make_test_backend(GetParam());
    } catch (const std::runtime_error& absent) {
      GTEST_SKIP() << absent.what();
    }
  }
  Transformer load(const std::filesystem::path& folder, const std::string& quantize = "off") {
    ModelSpec spec = quantised(read_model_spec(folder), quantize);
    ModelWeights weights = load_weights(folder, spec, *backend_);
    const int max_positions = std::min(512, spec.max_positions);
    return Transformer(std::move(spec), std::move(weights), max_positions, *backend_);
  }
  std::unique_ptr<Backend> backend_;
};

TEST_P(TrainedModel, Stories260KGivesItsGoldenTokens) {
  const auto folder = std::filesystem::path(SERVAL_SOURCE_DIR) / "../shared/data/model-stories260K";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "../shared/data/model-stories260K is absent";
  const std::vector<TrainedCase> cases = read_cases(folder / "golden_greedy.jsonl", "top5_first8");
  ASSERT_GT(cases.size(), 20u);
  for (const char* model : {"hf", "stories260K-f32.gguf"}) {
    Transformer transformer = load(folder / model);
    const double tolerance = tolerance_of(GetParam(), transformer.spec().weight_dtype);
    const Outcome outcome = judge(transformer, *backend_, DType::kF32, cases, tolerance);
    EXPECT_LE(outcome.worst, tolerance) << model;
    EXPECT_GT(outcome.steps_compared, 2000) << model;
    RecordProperty("worst_difference", std::to_string(outcome.worst));
  }
}

TEST_P(TrainedModel, ServalNanoGivesItsGoldenTokens) {
  const auto root = std::filesystem::path(SERVAL_SOURCE_DIR);
  Transformer transformer = load(root / "deploy/models/serval-nano");
  const double tolerance = tolerance_of(GetParam(), transformer.spec().weight_dtype);
  std::vector<TrainedCase> cases = read_cases(root / "tests/fixtures/serval-nano/golden.jsonl", "top5");
  ASSERT_GT(cases.size(), 10u);
  if (GetParam() == "plain")
    cases.resize(3);  // double-precision loops over millions of weights take seconds a prompt
  const Outcome outcome = judge(transformer, *backend_, DType::kF32, cases, tolerance);
  EXPECT_LE(outcome.worst, tolerance);
  EXPECT_GT(outcome.steps_compared, static_cast<int>(cases.size()) * 32);
  RecordProperty("worst_difference", std::to_string(outcome.worst));
}

// What rounding costs a model that was trained: the log-probabilities of the best five move by some
// hundredths, a third at most, and every token whose margin is twice that is still drawn.
TEST_P(TrainedModel, ServalNanoRoundedToInt8StaysNearItself) {
  constexpr double kNear = 0.33, kMean = 0.04, kPlain = 1e-3;
  const auto root = std::filesystem::path(SERVAL_SOURCE_DIR);
  Transformer transformer = load(root / "deploy/models/serval-nano", "int8");
  std::vector<TrainedCase> cases = read_cases(root / "tests/fixtures/serval-nano/golden.jsonl", "top5");
  if (GetParam() == "plain") cases.resize(3);
  const Outcome outcome = judge(transformer, *backend_, DType::kF32, cases, kNear);
  EXPECT_LE(outcome.worst, kNear);
  EXPECT_LE(outcome.mean, kMean);
  EXPECT_GT(outcome.worst, kPlain) << "nothing was rounded";
  EXPECT_GT(outcome.steps_compared, static_cast<int>(cases.size()) * 16);
  RecordProperty("worst_difference", std::to_string(outcome.worst));
  RecordProperty("mean_difference", std::to_string(outcome.mean));
}

// The same of keys and values in E4M3, and of weights of 4 bits and in E4M3.
TEST_P(TrainedModel, ServalNanoStaysNearItselfInFewerBits) {
  const auto root = std::filesystem::path(SERVAL_SOURCE_DIR);
  std::vector<TrainedCase> cases = read_cases(root / "tests/fixtures/serval-nano/golden.jsonl", "top5");
  if (GetParam() == "plain") GTEST_SKIP() << "has neither";
  struct Rounding {
    const char* quantize;
    DType kv;
    double near, mean;
  };
  for (const Rounding& rounding :
       {Rounding{"off", DType::kF8, 1.5, 0.1}, Rounding{"off", DType::kI8, 0.2, 0.02}, Rounding{"off", DType::kI4, 2, 0.2},
        Rounding{"fp8", DType::kF32, 1.7, 0.15}, Rounding{"int8_dynamic", DType::kF32, 1, 0.15}, Rounding{"fp6", DType::kF32, 2, 0.3},
        Rounding{"int4", DType::kF32, 3, 0.5}, Rounding{"int4_dynamic", DType::kF32, 3, 0.5}}) {
    Transformer transformer = load(root / "deploy/models/serval-nano", rounding.quantize);
    const Outcome outcome = judge(transformer, *backend_, rounding.kv, cases, rounding.near);
    const std::string what = std::string(rounding.quantize) + "_kv_" + dtype_name(rounding.kv);
    EXPECT_LE(outcome.worst, rounding.near) << what;
    EXPECT_LE(outcome.mean, rounding.mean) << what;
    EXPECT_GT(outcome.worst, 1e-3) << "nothing was rounded";
    RecordProperty("worst_difference_" + what, std::to_string(outcome.worst));
    RecordProperty("mean_difference_" + what, std::to_string(outcome.mean));
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, TrainedModel, ::testing::ValuesIn(test_devices()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace serval::testing
