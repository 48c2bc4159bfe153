// Every architecture against the reference on small random checkpoints, and a negative control for every
// feature: switched off, the same comparison must fail, or the golden would prove nothing.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>

#include "engine/model/architectures/architecture.h"
#include "engine/model/architectures/architecture_list.h"
#include "engine/model/architectures/unserved.h"
#include "engine/model/lengthen.h"
#include "engine/model/read_model.h"
#include "engine/model/safetensors.h"
#include "engine/model/slice.h"
#include "engine/model/weight_loader.h"
#include "loadtest/bench/temp_folder.h"
#include "tests/engine/model/golden_features.h"
#include "tests/engine/model/golden_file.h"
#include "tests/engine/model/test_devices.h"

namespace serval::testing {
namespace {

constexpr int kMaxLen = 160;

std::filesystem::path fixture(const std::string& model) {
  return std::filesystem::path(SERVAL_SOURCE_DIR) / "tests/fixtures/models" / model;
}

// What serves it: the folder, or the GGUF file in it.
std::filesystem::path served(const std::string& model) {
  const std::filesystem::path file = fixture(model) / "model.gguf";
  return std::filesystem::exists(file) ? file : fixture(model);
}

std::vector<ModelCase> models() {
  std::vector<ModelCase> all;
  for (const auto& kind : {dense_models(), encoder_models(), old_models(), composite_models(), expert_models(), state_models(),
                           quantised_models()})
    all.insert(all.end(), kind.begin(), kind.end());
  return all;
}

// The first parameter is a device of test_devices.h.
class Golden : public ::testing::TestWithParam<std::tuple<std::string, ModelCase>> {
 protected:
  void SetUp() override {
    try {
      backend_ = make_test_backend(std::get<0>(GetParam()));
    } catch (const std::runtime_error& absent) {
      GTEST_SKIP() << absent.what();
    }
    tolerance_ = tolerance_of(std::get<0>(GetParam()), spec(model().quantize).weight_dtype);
    // A row whose numbers differ in the last bit may have another code, as may everything that follows from it.
    if (model().quantize.ends_with("_dynamic")) tolerance_ = std::max(tolerance_, 0.03);
    cases_ = read_golden(fixture(model().name) / model().golden());
    ASSERT_FALSE(cases_.empty());
  }

  const ModelCase& model() const { return std::get<1>(GetParam()); }

  ModelSpec spec(const std::string& quantize) const {
    ModelSpec whole = sliced(read_model_spec(served(model().name)), model().ffn_widths, model().skip_layers);
    return quantised(lengthened(std::move(whole), model().long_attention), quantize);
  }

  Transformer load(const Feature* off = nullptr) {
    ModelSpec loaded = spec(off != nullptr && off->is_rounding ? "off" : model().quantize);
    if (off != nullptr && off->is_rounding) loaded.rounded_to.reset();
    const bool is_spoiled = off != nullptr && !off->spoiled.empty();
    ModelWeights weights = load_weights(is_spoiled ? spoil(off->spoiled) : served(model().name), loaded, *backend_);
    if (off != nullptr) off->switch_off(loaded, weights);
    return Transformer(std::move(loaded), std::move(weights), kMaxLen, *backend_);
  }

  // A copy of the model whose tensors of such names have their elements in reverse.
  std::filesystem::path spoil(const std::string& ending) {
    std::filesystem::remove_all(folder_.path() / "model");
    std::filesystem::copy(fixture(model().name), folder_.path() / "model");
    const Checkpoint checkpoint(folder_.path() / "model");
    std::fstream file(folder_.path() / "model/model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
    int num_spoiled = 0;
    for (const TensorInfo& tensor : checkpoint.tensors()) {
      if (!tensor.name.ends_with(ending)) continue;
      std::vector<char> bytes(tensor.bytes), reversed(tensor.bytes);
      int64_t count = 1;
      for (const int64_t dim : tensor.shape) count *= dim;
      const size_t size = tensor.bytes / static_cast<size_t>(count);
      checkpoint.read(tensor, bytes.data());
      for (size_t i = 0; i < tensor.bytes; i += size)
        std::copy_n(&bytes[i], size, &reversed[tensor.bytes - size - i]);
      file.seekp(static_cast<std::streamoff>(tensor.offset));
      file.write(reversed.data(), static_cast<std::streamsize>(reversed.size()));
      num_spoiled += bytes != reversed;
    }
    EXPECT_GT(num_spoiled, 0) << ending;
    return folder_.path() / "model";
  }

  // The worst of all prompts.
  GoldenVerdict judge(Transformer& transformer, int chunk) {
    GoldenVerdict worst;
    for (const GoldenCase& golden : cases_) {
      const std::vector<int32_t> ids = golden.all_ids();
      PagedDriver driver(transformer, *backend_, DType::kF32, 1, static_cast<int>(ids.size()), kMaxLen);
      const GoldenVerdict verdict = compare(golden, driver.run(0, ids, chunk, golden.second_text), tolerance_);
      worst.worst = std::max(worst.worst, verdict.worst);
      worst.num_steps_compared += verdict.num_steps_compared;
      if (verdict.first_wrong_step >= 0) worst.first_wrong_step = verdict.first_wrong_step;
    }
    return worst;
  }

  std::unique_ptr<Backend> backend_;
  double tolerance_ = 0;
  std::vector<GoldenCase> cases_;
  TempFolder folder_;
};

TEST_P(Golden, AgreesWithTheReference) {
  Transformer transformer = load();
  const GoldenVerdict verdict = judge(transformer, kMaxLen);
  RecordProperty("worst_difference", std::to_string(verdict.worst));
  EXPECT_LE(verdict.worst, tolerance_);
  EXPECT_EQ(verdict.first_wrong_step, -1);
  // Every greedy step of the fixtures has a margin above the float32 gate; a looser one leaves most of them.
  int all_steps = 0;
  for (const GoldenCase& golden : cases_) all_steps += static_cast<int>(golden.greedy.size());
  EXPECT_EQ(all_steps, transformer.spec().is_encoder ? 0 : 64 * static_cast<int>(cases_.size()));
  EXPECT_GE(verdict.num_steps_compared, tolerance_ == 1e-3 ? all_steps : all_steps / 2);
}

TEST_P(Golden, FailsWithAnyFeatureSwitchedOff) {
  for (const Feature& feature : model().features) {
    Transformer transformer = load(&feature);
    const GoldenVerdict verdict = judge(transformer, kMaxLen);
    EXPECT_FALSE(verdict.passes(tolerance_)) << feature.name;
    EXPECT_GT(verdict.worst, 0.01) << feature.name << " hardly matters to this golden";
  }
}

TEST_P(Golden, GivesTheSameBitsInChunksAndBesideOthers) {
  Transformer transformer = load();
  PagedDriver driver(transformer, *backend_, DType::kF32, 3, kMaxLen, 2 * kMaxLen);
  const std::vector<int32_t> ids = cases_.back().all_ids();
  const std::vector<float> whole = driver.run(0, ids, kMaxLen);
  for (const int chunk : {1, 7, 64}) {
    if (transformer.spec().is_encoder) break;  // it has a prompt whole
    driver.restart(0);
    const std::vector<float> chunked = driver.run(0, ids, chunk);
    EXPECT_EQ(std::memcmp(whole.data(), chunked.data(), whole.size() * sizeof(float)), 0)
        << "chunk " << chunk;
  }

  // In the middle of a step with two other sequences, one of them ahead.
  std::vector<int32_t> others(ids.rbegin(), ids.rend());
  driver.restart(0);
  driver.run(1, std::span(others).first(21), 64);
  const PagedDriver::Work work[] = {
      {1, std::span(others).subspan(21, 1)}, {0, ids}, {2, std::span(others).first(13)}};
  const std::vector<float> together = driver.step(work);
  const size_t vocab = transformer.spec().vocab_size;
  EXPECT_EQ(std::memcmp(whole.data(), together.data() + vocab, whole.size() * sizeof(float)), 0)
      << "beside others";
}

INSTANTIATE_TEST_SUITE_P(Models, Golden,
                         ::testing::Combine(::testing::ValuesIn(test_devices()),
                                            ::testing::ValuesIn(models())),
                         [](const auto& info) {
                           const ModelCase& model = std::get<1>(info.param);
                           std::string name = std::get<0>(info.param) + "_" + model.name;
                           if (!model.way().empty()) name += "_" + model.way();
                           for (char& c : name)
                             if (c == '-' || c == '.') c = '_';
                           return name;
                         });

// What `serval models` says is what runs here.
TEST(Architectures, NameTheirModelsAndTheGoldensThatRun) {
  std::set<std::string> unnamed, of_formats;  // a format may have an architecture of its own
  for (const ModelCase& model : models()) (model.is_of_format() ? of_formats : unnamed).insert(model.name);
  for (const Architecture* row : architectures()) {
    EXPECT_FALSE(row->models.empty()) << row->name << " does not say what models have it";
    EXPECT_FALSE(row->goldens.empty()) << row->name << " names no golden";
    std::istringstream goldens{std::string(row->goldens)};
    for (std::string golden; goldens >> golden;) {
      EXPECT_EQ(unnamed.erase(golden) + of_formats.erase(golden), 1) << row->name << ": no golden " << golden << ", or it is named twice";
      EXPECT_EQ(read_model_spec(fixture(golden)).architecture, row->name) << golden;
    }
  }
  EXPECT_TRUE(unnamed.empty()) << "no architecture names the golden " << *unnamed.begin();
}

TEST(Architectures, AreServedOrNot) {
  for (const Unserved& row : unserved_architectures()) {
    for (const Architecture* served : architectures()) EXPECT_NE(served->name, row.name);
  }
}

// Each row of the page's table of those that are not served, as a reader has it: a folder that says so is refused in those words.
TEST(Architectures, AreRefusedAsThePageSays) {
  std::ifstream page(std::string(SERVAL_SOURCE_DIR) + "/docs/models.md");
  std::string line;
  while (std::getline(page, line) && line != "Not served:") continue;
  const std::regex row(R"(\| `(\w+)` \| `([\w-]+)` \| (.+) \|)");
  size_t rows = 0;
  for (std::smatch cells; std::getline(page, line) && !line.starts_with("Layers");) {
    if (!std::regex_match(line, cells, row)) continue;
    const std::string name = cells[1], type = cells[2], why = cells[3];
    const auto refusal = [&](const std::string& config) {
      const TempFolder folder;
      std::ofstream(folder.path() / "config.json") << config;
      try {
        read_model_spec(folder.path());
      } catch (const std::runtime_error& refused) {
        return std::string(refused.what()).substr(folder.path().string().size());
      }
      return std::string("it is served");
    };
    const std::string both = R"({"architectures": [")" + name + R"("], "model_type": ")" + type + R"(", "hidden_size": 8})";
    EXPECT_EQ(refusal(both), "/config.json: the architecture '" + name + "' is not supported: " + why);
    EXPECT_EQ(refusal(R"({"model_type": ")" + type + R"(", "hidden_size": 8})"), "/config.json: the model_type '" + type + "' is not supported: " + why);
    ++rows;
  }
  EXPECT_EQ(rows, unserved_architectures().size());
  EXPECT_GT(rows, 10u);
}

TEST(Architectures, AreDocumentedAsTheyAre) {
  std::ifstream file(std::string(SERVAL_SOURCE_DIR) + "/docs/models.md");
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_EQ(text.str(), models_markdown()) << "run: serval models --markdown > docs/models.md";
}

}  // namespace
}  // namespace serval::testing
