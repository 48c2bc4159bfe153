// The CUDA backend on the emulated device under the real forward pass and runner: against the references that
// the CPU is held to, with graphs, with fp8 keys and values.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <numeric>
#include <sstream>
#include <string>

#include "engine/model/architectures/architecture.h"
#include "engine/model/architectures/architecture_list.h"
#include "engine/model/read_model.h"
#include "engine/model/transformer.h"
#include "engine/model/weight_loader.h"
#include "engine/model/weight_map.h"
#include "engine/runner/load_model.h"
#include "kernels/backend.h"
#include "kernels/emulation/emulation.h"
#include "kernels/emulation/runtime.h"
#include "kernels/float_bits.h"
#include "tests/engine/model/golden_file.h"
#include "tests/engine/model/paged_driver.h"
#include "tests/engine/runner/runner_driver.h"

namespace serval::testing {
namespace {

constexpr int kMaxLen = 160;

std::filesystem::path fixture(const std::string& name) {
  return std::filesystem::path(SERVAL_SOURCE_DIR) / "tests/fixtures/models" / name;
}

std::unique_ptr<Backend> emulated() {
  return make_backend({.device = "cuda"});
}

Transformer load(const std::filesystem::path& folder, Backend& backend, const std::string& quantize = "off") {
  ModelSpec spec = quantised(read_model_spec(folder), quantize);
  ModelWeights weights = load_weights(folder, spec, backend);
  EXPECT_EQ(held_bytes(map_weights(spec, weights)), planned_weight_bytes(spec, backend));
  return Transformer(std::move(spec), std::move(weights), kMaxLen, backend);
}

// The float32 reference's log-probabilities, within what rounding activations to 8 bits (bf16) or 11 bits
// (f16) between all ops costs on these small models. The greedy steps that are safe by that margin must
// agree.
struct GoldenModel {
  const char* name;
  double tolerance;
  const char* quantize = "off";
};

class EmulatedGolden : public ::testing::TestWithParam<GoldenModel> {};

TEST_P(EmulatedGolden, AgreesWithTheReferenceInItsPrecision) {
  const auto folder = fixture(GetParam().name);
  const std::string quantize = GetParam().quantize;
  const std::string file = quantize == "off" ? "golden.json" : "golden-" + quantize + ".json";
  for (const GoldenCase& golden : read_golden(folder / file)) {
    const std::unique_ptr<Backend> backend = emulated();
    Transformer transformer = load(folder, *backend, quantize);
    PagedDriver driver(transformer, *backend, backend->preferred_kv_dtype(transformer.spec().weight_dtype), 1,
                       static_cast<int>(golden.all_ids().size()), kMaxLen);
    const GoldenVerdict verdict =
        compare(golden, driver.run(0, golden.all_ids(), kMaxLen), GetParam().tolerance);
    RecordProperty("worst_difference", std::to_string(verdict.worst));
    EXPECT_LE(verdict.worst, GetParam().tolerance);
    EXPECT_EQ(verdict.first_wrong_step, -1);
    simt::check_guards();
    // One prompt a model: what else differs between prompts is not the device's.
    if (transformer.spec().length_classes().num_bounds == 0) break;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, EmulatedGolden,
                         ::testing::Values(GoldenModel{"qwen3-bf16", 0.15}, GoldenModel{"llama2-f16", 0.02},
                                           GoldenModel{"llama-bias", 0.2}, GoldenModel{"qwen2-windows", 0.2},
                                           GoldenModel{"mixtral-bf16", 0.2}, GoldenModel{"gpt2", 0.2},
                                           GoldenModel{"gemma3-bf16", 0.2}, GoldenModel{"phi3-bf16", 0.2},
                                           GoldenModel{"gemma2-bf16", 0.2}, GoldenModel{"mamba-f16", 0.05},
                                           GoldenModel{"mamba2-bf16", 0.3}, GoldenModel{"qwen35-composite", 0.3},
                                           GoldenModel{"lfm2-bf16", 0.3}, GoldenModel{"internlm2-bf16", 0.2},
                                           GoldenModel{"llama2-f16", 0.2, "int8"},
                                           GoldenModel{"qwen3-bf16", 0.3, "int8"}),
                         [](const auto& info) {
                           std::string name = std::string(info.param.name) + "_" + info.param.quantize;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

// What `serval models` says runs on the CPU only is what a part of every golden has no kernel here for.
TEST(Architectures, RunOnCudaWhereAllTheirPartsHaveKernels) {
  const std::unique_ptr<Backend> backend = emulated();
  for (const Architecture* row : architectures()) {
    bool runs = false;
    std::istringstream goldens{std::string(row->goldens)};
    for (std::string golden; goldens >> golden;) {
      const RareOps needed = Transformer::step_limits(read_model_spec(fixture(golden)), {}).rare_ops;
      bool has_all = true;
      for (size_t op = 0; op < needed.size(); ++op)
        has_all = has_all && (!needed.test(op) || backend->has(static_cast<RareOp>(op)));
      runs = runs || has_all;
    }
    EXPECT_EQ(runs_on_cpu_only(*row), !runs) << row->name;
  }
}

// There are no kernels for int8: the device holds the products of codes and scales, rounded to bf16.
TEST(EmulatedDevice, HoldsRoundedWeightsDequantised) {
  const std::unique_ptr<Backend> backend = emulated(), cpu = make_backend({.num_threads = 1});
  for (const char* model : {"llama-bias", "llama2-f16", "qwen3-bf16"}) {
    const ModelSpec spec = quantised(read_model_spec(fixture(model)), "int8");
    const ModelWeights weights = load_weights(fixture(model), spec, *backend),
                       exact = load_weights(fixture(model), spec, *cpu);
    const LinearWeight& table = weights.embedding;
    ASSERT_EQ(table.format, WeightFormat::kBF16);
    ASSERT_EQ(exact.embedding.format, WeightFormat::kInt8);
    std::vector<uint16_t> held(table.n * table.k);
    backend->download(held.data(), table.packed.data(), held.size() * sizeof(uint16_t));
    std::vector<int32_t> ids(table.n);
    std::iota(ids.begin(), ids.end(), 0);
    std::vector<float> rows(held.size());
    cpu->embed(exact.embedding, ids, 1.0f, Tensor(rows.data(), DType::kF32, {table.n, table.k}));
    for (size_t i = 0; i < rows.size(); ++i) ASSERT_EQ(held[i], float_to_bf16(rows[i])) << model << ", " << i;
  }
}

TEST(EmulatedDevice, GivesTheSameBitsInChunksAndBesideOthersUnderAnySchedule) {
  for (const char* model : {"qwen3-bf16", "qwen2-windows", "mamba-f16", "mamba2-bf16", "qwen35-composite", "lfm2-bf16"}) {
    const std::unique_ptr<Backend> backend = emulated();
    Transformer transformer = load(fixture(model), *backend);
    PagedDriver driver(transformer, *backend, backend->preferred_kv_dtype(transformer.spec().weight_dtype), 3,
                       kMaxLen, 2 * kMaxLen);
    std::vector<int32_t> ids = read_golden(fixture(model) / "golden.json")[0].all_ids();
    ids.resize(70);
    const std::vector<float> whole = driver.run(0, ids, kMaxLen);
    for (const int chunk : {1, 7, 64}) {
      simt::set_schedule_seed(chunk);
      driver.restart(0);
      EXPECT_EQ(driver.run(0, ids, chunk), whole) << model << ", chunk " << chunk;
    }
    std::vector<int32_t> others(ids.rbegin(), ids.rend());
    driver.restart(0);
    driver.run(1, std::span(others).first(21), 64);
    const PagedDriver::Work work[] = {
        {1, std::span(others).subspan(21, 1)}, {0, ids}, {2, std::span(others).first(13)}};
    const std::vector<float> together = driver.step(work);
    const size_t vocab = transformer.spec().vocab_size;
    EXPECT_EQ(std::memcmp(whole.data(), together.data() + vocab, whole.size() * sizeof(float)), 0) << model;
    simt::set_schedule_seed(0);
  }
}

TEST(EmulatedDevice, KeepsKeysAndValuesInFp8) {
  const auto folder = fixture("qwen3-bf16");
  const GoldenCase golden = read_golden(folder / "golden.json")[0];
  const std::unique_ptr<Backend> backend = emulated();
  Transformer transformer = load(folder, *backend);
  PagedDriver driver(transformer, *backend, DType::kF8, 1, kMaxLen, kMaxLen);
  const GoldenVerdict verdict = compare(golden, driver.run(0, golden.all_ids(), kMaxLen), 1.0);
  EXPECT_LE(verdict.worst, 1.0);
  EXPECT_GT(verdict.worst, 0.01) << "three bits of mantissa that nobody notices were not used";
}

// The model that ships with the project, on text: the CPU's log-probabilities, within the rounding of
// activations.
TEST(EmulatedDevice, RunsTheModelThatShipsAsTheCpuDoes) {
  const auto folder = std::filesystem::path(SERVAL_SOURCE_DIR) / "deploy/models/serval-nano";
  std::vector<int32_t> ids;
  for (int i = 0; i < 40; ++i) ids.push_back(100 + 37 * i % 900);
  const auto logits_on = [&](std::unique_ptr<Backend> backend) {
    Transformer transformer = load(folder, *backend);
    PagedDriver driver(transformer, *backend, backend->preferred_kv_dtype(transformer.spec().weight_dtype), 1,
                       kMaxLen, kMaxLen);
    return driver.run(0, ids, 24);
  };
  const std::vector<float> cpu = logits_on(make_backend({.num_threads = 1, .isa = "generic"}));
  const std::vector<float> cuda = logits_on(emulated());
  ASSERT_EQ(cpu.size(), cuda.size());
  const size_t vocab = cpu.size() / ids.size();
  double worst = 0;
  for (size_t row = 0; row < ids.size(); ++row) {
    const std::vector<double> want = log_softmax(std::span(cpu).subspan(row * vocab, vocab)),
                              got = log_softmax(std::span(cuda).subspan(row * vocab, vocab));
    for (size_t t = 0; t < vocab; ++t)
      if (want[t] > -8) worst = std::max(worst, std::abs(want[t] - got[t]));
  }
  RecordProperty("worst_difference", std::to_string(worst));
  EXPECT_LT(worst, 0.2);
  EXPECT_GT(worst, 0.0) << "two different arithmetics never agree to the bit: was it the same device?";
}

// Each call for logits sends a list of rows; the step has room for as many lists as rows.
TEST(EmulatedDevice, TellsAPromptsLogProbabilitiesARowAtATime) {
  const std::unique_ptr<Backend> backend = emulated();
  EngineConfig config;
  config.scheduler.max_num_seqs = 1;
  config.scheduler.max_num_batched_tokens = 240;
  config.scheduler.max_model_len = 250;
  const auto runner = load_model(fixture("llama2"), config, *backend);
  RunnerDriver driver(*runner);
  SamplingParams sampling;
  sampling.num_prompt_logprobs = 1;
  std::vector<TokenId> prompt(240);
  for (size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<TokenId>(i % 90);
  const SeqId id = driver.add(prompt, sampling);
  driver.run(id, 1);
  EXPECT_EQ(driver.seq(id).prompt.size(), prompt.size() - 1);
}

TEST(EmulatedDevice, GivesBackAllItsMemory) {
  const size_t before = simt::num_live_allocations();
  {
    const std::unique_ptr<Backend> backend = emulated();
    Transformer transformer = load(fixture("qwen3-bf16"), *backend);
    EXPECT_GT(simt::num_live_allocations(), before);
  }
  EXPECT_EQ(simt::num_live_allocations(), before);
}

}  // namespace
}  // namespace serval::testing
