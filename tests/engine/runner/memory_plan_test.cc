// The memory plan: arithmetic that the runner keeps, blocks that suffice, and sentences where it cannot be.
#include "engine/runner/memory_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>
#include <unistd.h>

#include <fstream>

#include "engine/model/read_model.h"
#include "engine/runner/kv_cache.h"
#include "engine/runner/speculators/make_drafters.h"
#include "kernels/cpu/system_memory.h"
#include "loadtest/bench/random_model.h"
#include "loadtest/bench/temp_folder.h"
#include "tests/engine/model/plain_backend.h"
#include "tests/engine/runner/loaded_runner.h"

namespace serval::testing {
namespace {

constexpr size_t kPlenty = size_t{64} << 30;

ModelSpec spec_of(const std::string& architecture, int window, int first_windowed) {
  RandomModel model;
  model.architecture = architecture;
  model.sliding_window = window;
  model.first_windowed_layer = first_windowed;
  const TempFolder folder;
  write_random_model(folder.path(), model);
  return read_model_spec(folder.path());
}

EngineConfig config_of(int max_seqs, int max_len) {
  EngineConfig config;
  config.device.num_threads = 1;
  config.scheduler.max_num_seqs = max_seqs;
  config.scheduler.max_model_len = max_len;
  config.scheduler.max_prefill_chunk = 64;
  return config;
}

template <class Call>
std::string sentence(const Call& call) {
  try {
    call();
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

TEST(MemoryPlan, GivesEverySequenceItsLargestLengthWhenMemoryAllows) {
  const auto backend = make_backend({.num_threads = 1});
  const EngineConfig config = config_of(5, 1000);
  const MemoryPlan full = plan_memory(spec_of("LlamaForCausalLM", 0, 0), config, *backend, kPlenty);
  EXPECT_EQ(full.geometry.num_groups, 1);
  EXPECT_EQ(full.geometry.groups[0].num_blocks, 5 * 63);
  EXPECT_EQ(full.geometry.groups[0].window, 0);

  // A window of 100 and chunks of 64 reach over 164 positions: 11 blocks, and one for each end.
  const MemoryPlan windowed = plan_memory(spec_of("MistralForCausalLM", 100, 0), config, *backend, kPlenty);
  EXPECT_EQ(windowed.geometry.num_groups, 1);
  EXPECT_EQ(windowed.geometry.groups[0].num_blocks, 5 * 13);
  EXPECT_EQ(windowed.geometry.groups[0].window, 100);
  // Where a step has all of a prompt, as much as any of it takes.
  EngineConfig whole = config;
  whole.scheduler.whole_prompts = true;
  whole.scheduler.max_num_batched_tokens = 1005;
  const MemoryPlan encoder = plan_memory(spec_of("MistralForCausalLM", 100, 0), whole, *backend, kPlenty);
  EXPECT_EQ(encoder.geometry.groups[0].window, 0);
  EXPECT_TRUE(encoder.geometry.fits(1000));
  EXPECT_GE(encoder.geometry.groups[0].num_blocks, 63);

  const MemoryPlan mixed = plan_memory(spec_of("Qwen2ForCausalLM", 100, 1), config, *backend, kPlenty);
  EXPECT_EQ(mixed.geometry.num_groups, 2);
  EXPECT_EQ(mixed.geometry.groups[0].num_blocks, 5 * 63);
  EXPECT_EQ(mixed.geometry.groups[1].num_blocks, 5 * 13);
}

// A block of a state holds its layers' inputs of the convolution and states, whatever the length it stands for.
TEST(MemoryPlan, GivesASequenceOfAnyLengthAFewBlocksOfItsState) {
  const auto backend = make_backend({.num_threads = 1});
  EngineConfig config = config_of(5, 1000);
  const ModelSpec spec = spec_of("MambaForCausalLM", 0, 0);
  const MemoryPlan brief = plan_memory(spec, config, *backend, kPlenty);
  EXPECT_EQ(brief.geometry.groups[0].state_span, 16 * config.block_size);
  config.scheduler.max_model_len = 400;
  const MemoryPlan briefer = plan_memory(spec, config, *backend, kPlenty);
  EXPECT_EQ(brief.geometry.groups[0].num_blocks, 5 * 3) << "of a chunk of 64: one begins, one ends, one to spare";
  EXPECT_EQ(briefer.geometry.groups[0].num_blocks, 5 * 2) << "no more than it can fill";
  const size_t of_layer = sizeof(float) * 2 * spec.hidden_size * (3 + 16);
  EXPECT_EQ(brief.kv_cache_bytes, of_layer * spec.layers.size() * 15);
  config.scheduler.num_draft_tokens = 4;
  config.speculation = "ngram";
  EXPECT_NO_THROW(plan_memory(spec, config, *backend, kPlenty));
  for (const char* setting : {"self", "lookahead", "ngram+datastore", "ngram"}) {
    config.speculation = setting;
    config.speculation_datastore = setting == std::string("ngram+datastore") ? "texts" : "";
    config.draft_width = setting == std::string("ngram") ? 2 : 1;
    EXPECT_THAT(sentence([&] { plan_memory(spec, config, *backend, kPlenty); }),
                ::testing::HasSubstr("speculation of a model with states takes guesses"))
        << setting;
  }
  EngineConfig with_draft = config_of(5, 1000);
  with_draft.speculation = "draft";
  with_draft.speculation_model = "folder";
  with_draft.scheduler.num_draft_tokens = 4;
  EXPECT_THAT(sentence([&] { plan_memory(spec_of("Qwen3ForCausalLM", 0, 0), with_draft, *backend, kPlenty, {.model = spec}); }),
              ::testing::HasSubstr("of that folder keeps states"));
}

TEST(MemoryPlan, RefusesAModelThatNeedsAnOpWithoutAKernel) {
  const auto backend = make_plain_backend({}, RareOp::kLinearScan);
  const ModelSpec spec = read_model_spec(std::filesystem::path(SERVAL_SOURCE_DIR) / "tests/fixtures/models/mamba2");
  EXPECT_THAT(sentence([&] { plan_memory(spec, config_of(5, 1000), *backend, kPlenty); }),
              ::testing::AllOf(::testing::HasSubstr("Mamba2ForCausalLM runs on the CPU only"),
                               ::testing::HasSubstr("linear_scan"), ::testing::HasSubstr("no kernel on plain")));
  EXPECT_NO_THROW(plan_memory(spec_of("MambaForCausalLM", 0, 0), config_of(5, 1000), *backend, kPlenty));
}

TEST(MemoryPlan, GivesCompressedKeysNoGuessesBesideEachOther) {
  const auto backend = make_backend({.num_threads = 1});
  const ModelSpec spec = read_model_spec(std::filesystem::path(SERVAL_SOURCE_DIR) / "tests/fixtures/models/deepseek-v4");
  EngineConfig config = config_of(5, 500);
  config.scheduler.num_draft_tokens = 4;
  EXPECT_NO_THROW(plan_memory(spec, config, *backend, kPlenty));
  config.draft_width = 2;
  EXPECT_THAT(sentence([&] { plan_memory(spec, config, *backend, kPlenty); }), ::testing::HasSubstr("speculation of a model with compressed keys"));
  config.draft_width = 1;
  config.speculation = "self";
  EXPECT_THAT(sentence([&] { plan_memory(spec, config, *backend, kPlenty); }), ::testing::HasSubstr("speculation of a model with compressed keys"));
}

TEST(MemoryPlan, KeepsWithinAGivenCacheSizeAndAShareOfWhatIsFree) {
  const auto backend = make_backend({.num_threads = 1});
  const ModelSpec spec = spec_of("Qwen2ForCausalLM", 100, 1);
  EngineConfig config = config_of(50, 1000);
  const MemoryPlan unbounded = plan_memory(spec, config, *backend, kPlenty);
  config.kv_cache_bytes = unbounded.kv_cache_bytes / 3;
  const MemoryPlan given = plan_memory(spec, config, *backend, kPlenty);
  EXPECT_LE(given.kv_cache_bytes, config.kv_cache_bytes + 4096);
  EXPECT_GT(given.kv_cache_bytes, config.kv_cache_bytes * 9 / 10);
  EXPECT_NEAR(given.geometry.groups[0].num_blocks, unbounded.geometry.groups[0].num_blocks / 3, 1);
  EXPECT_NEAR(given.geometry.groups[1].num_blocks, unbounded.geometry.groups[1].num_blocks / 3, 1);

  config.kv_cache_bytes = 0;
  const size_t fixed = unbounded.total_bytes() - unbounded.kv_cache_bytes;
  const MemoryPlan tight = plan_memory(spec, config, *backend, fixed + unbounded.kv_cache_bytes / 2);
  EXPECT_LE(tight.kv_cache_bytes, unbounded.kv_cache_bytes / 2);
}

TEST(MemoryPlan, RefusesWithASentenceWhatCannotFit) {
  const auto backend = make_backend({.num_threads = 1});
  const ModelSpec spec = spec_of("LlamaForCausalLM", 0, 0);
  EngineConfig config = config_of(4, 1024);
  const auto plan = [&](size_t available) {
    return sentence([&] { plan_memory(spec, config, *backend, available); });
  };
  EXPECT_EQ(plan(kPlenty), "");
  EXPECT_THAT(plan(1000), ::testing::HasSubstr("before its KV cache"));
  config.kv_cache_bytes = kPlenty;
  EXPECT_THAT(plan(kPlenty), ::testing::HasSubstr("kv_cache_mib asks for 64.00 GiB"));
  config.kv_cache_bytes = 10000;
  EXPECT_THAT(plan(kPlenty), ::testing::HasSubstr("lower max_model_len or raise kv_cache_mib"));
  config.kv_cache_bytes = 0;
  config.scheduler.max_model_len = 1025;
  EXPECT_THAT(plan(kPlenty), ::testing::HasSubstr("knows only 1024 positions"));
  config.scheduler.max_model_len = 0;
  EXPECT_THAT(plan(kPlenty), ::testing::HasSubstr("max_model_len is 0"));
  config.scheduler.max_model_len = 100;
  config.scheduler.max_num_batched_tokens = 3;
  EXPECT_THAT(plan(kPlenty), ::testing::HasSubstr("at least max_num_seqs, 4"));
  config.scheduler.max_num_batched_tokens = 512;
  config.kv_dtype = "int5";
  EXPECT_THAT(plan(kPlenty), ::testing::HasSubstr("kv_dtype is 'int5'"));
}

// Of the same memory: half the bytes are twice the sequences, but for the scales, 4 bytes beside each head's 64 numbers.
TEST(MemoryPlan, GivesMoreSequencesToKeysAndValuesOfFewerBits) {
  const auto backend = make_backend({.num_threads = 1});
  RandomModel model;
  model.head_dim = 64;
  const TempFolder folder;
  write_random_model(folder.path(), model);
  const ModelSpec spec = read_model_spec(folder.path());
  EngineConfig config = config_of(200, 1000);
  config.kv_dtype = "bf16";
  config.kv_cache_bytes = 20 * plan_memory(spec, config_of(1, 1000), *backend, kPlenty).kv_cache_bytes;
  const auto plan = [&](const char* kv_dtype) {
    config.kv_dtype = kv_dtype;
    return plan_memory(spec, config, *backend, kPlenty);
  };
  const MemoryPlan wide = plan("bf16"), fp8 = plan("fp8"), int8 = plan("int8"), int4 = plan("int4");
  const auto more = [&](const MemoryPlan& than) {
    return static_cast<double>(than.geometry.groups[0].num_blocks) / wide.geometry.groups[0].num_blocks;
  };
  EXPECT_NEAR(more(fp8), 2, 0.01);
  EXPECT_NEAR(more(int8), 128.0 / 68, 0.01);
  EXPECT_NEAR(more(int4), 128.0 / 36, 0.01);
  EXPECT_GE(int8.full_sequences, wide.full_sequences * 18 / 10);
  EXPECT_GE(int4.full_sequences, wide.full_sequences * 34 / 10);
  for (const MemoryPlan* const each : {&fp8, &int8, &int4}) EXPECT_LE(each->kv_cache_bytes, config.kv_cache_bytes + 4096);
}

TEST(MemoryPlan, RefusesOneScaleForKeysThatAreSeveralVectors) {
  const auto backend = make_backend({.num_threads = 1});
  EngineConfig config = config_of(4, 64);
  for (const char* const model : {"deepseek-v3", "minimax-m3"}) {
    const ModelSpec spec = read_model_spec(std::filesystem::path(SERVAL_SOURCE_DIR) / "tests/fixtures/models" / model);
    for (const char* const kv_dtype : {"int8", "int4"}) {
      config.kv_dtype = kv_dtype;
      EXPECT_THAT(sentence([&] { plan_memory(spec, config, *backend, kPlenty); }),
                  ::testing::AllOf(::testing::HasSubstr(std::string("kv_dtype is '") + kv_dtype + "', which " + spec.architecture),
                                   ::testing::HasSubstr("several vectors side by side")));
    }
    config.kv_dtype = "auto";
    EXPECT_NO_THROW(plan_memory(spec, config, *backend, kPlenty)) << model;
  }
}

TEST(MemoryPlan, RefusesFewerBitsForKeysThatAreKeptInF32) {
  const auto backend = make_backend({.num_threads = 1});
  EngineConfig config = config_of(4, 64);
  const ModelSpec spec = read_model_spec(std::filesystem::path(SERVAL_SOURCE_DIR) / "tests/fixtures/models/deepseek-v4");
  for (const char* const kv_dtype : {"f16", "bf16", "fp8", "int8", "int4"}) {
    config.kv_dtype = kv_dtype;
    EXPECT_THAT(sentence([&] { plan_memory(spec, config, *backend, kPlenty); }),
                ::testing::AllOf(::testing::HasSubstr(std::string("kv_dtype is '") + kv_dtype + "', which DeepseekV4ForCausalLM does not take"),
                                 ::testing::HasSubstr("in f32 alone")));
  }
  for (const char* const kv_dtype : {"auto", "f32"}) {
    config.kv_dtype = kv_dtype;
    EXPECT_NO_THROW(plan_memory(spec, config, *backend, kPlenty)) << kv_dtype;
  }
}

TEST(MemoryPlan, CountsWeightsOfOneByteAndTheirScales) {
  const auto backend = make_backend({.num_threads = 1});
  const EngineConfig config = config_of(4, 100);
  const ModelSpec plain = spec_of("LlamaForCausalLM", 0, 0);
  EXPECT_LT(plan_memory(quantised(plain, "int8"), config, *backend, kPlenty).weight_bytes,
            plan_memory(plain, config, *backend, kPlenty).weight_bytes * 7 / 10);
  EXPECT_EQ(quantised(plain, "off").weight_format(), plain.weight_format());
  EXPECT_EQ(sentence([&] { quantised(plain, "int5"); }), "quantize is 'int5'; it takes off, int8, int8_dynamic, int8_g32, int8_g128, int4, int4_g128, int4_dynamic, "
                                                       "int4_dynamic_g128, fp8 or fp6");
}

TEST(MemoryPlan, GivesEverySlotBlocksToGuessInBehindAllOthers) {
  const auto backend = make_backend({.num_threads = 1});
  const ModelSpec spec = spec_of("Qwen2ForCausalLM", 100, 1), full = spec_of("LlamaForCausalLM", 0, 0);
  EngineConfig config = config_of(5, 1000);
  config.scheduler.num_draft_tokens = 20;
  const MemoryPlan plain = plan_memory(spec, config, *backend, kPlenty);
  config.speculation = "draft";
  const MemoryPlan drafted = plan_memory(spec, config, *backend, kPlenty, {.model = full});
  for (int g = 0; g < 2; ++g) EXPECT_EQ(drafted.geometry.groups[g].num_blocks, plain.geometry.groups[g].num_blocks);
  EXPECT_EQ(drafted.kv_cache_bytes, plain.kv_cache_bytes);
  EXPECT_EQ(drafted.draft->geometry.groups[0].num_blocks, plain.geometry.groups[0].num_blocks + 5 * 2);
  EXPECT_EQ(drafted.draft->kv_cache_bytes, KvCache::planned_bytes(full, drafted.draft->geometry, drafted.draft->kv_dtype));
  config.speculation = "self";
  const MemoryPlan self = plan_memory(spec, config, *backend, kPlenty);
  for (int g = 0; g < 2; ++g) EXPECT_EQ(self.kv_geometry.groups[g].num_blocks, plain.geometry.groups[g].num_blocks + 5 * 2);
  EXPECT_EQ(self.draft->num_layers, 1);
  EXPECT_EQ(self.draft->weight_bytes, 0u);
}

TEST(MemoryPlan, GivesAModelThatGuessesRowsForWhatIsGuessedAheadOfIt) {
  const auto backend = make_backend({.num_threads = 1});
  const ModelSpec spec = spec_of("LlamaForCausalLM", 0, 0);
  for (const char* speculation : {"draft", "self"}) {
    SCOPED_TRACE(speculation);
    EngineConfig config = config_of(5, 1000);
    config.scheduler.num_draft_tokens = 4;
    config.speculation = speculation;
    const auto plan = [&] {
      return *plan_memory(spec, config, *backend, kPlenty, {.model = speculation == std::string("draft") ? std::optional(spec) : std::nullopt}).draft;
    };
    const DraftPlan plain = plan();
    config.draft_speculation = "ngram";
    const DraftPlan staged = plan();
    EXPECT_EQ(plain.rows_ahead, 0);
    EXPECT_EQ(staged.rows_ahead, max_drafts_of_step(config.scheduler));
    EXPECT_EQ(staged.steps.max_rows, plain.steps.max_rows + staged.rows_ahead);
    EXPECT_EQ(staged.steps.max_logit_rows, plain.steps.max_logit_rows) << "logits take more calls";
    EXPECT_GT(staged.table_bytes, plain.table_bytes + 5 * 2 * 1000 * sizeof(int32_t)) << "n-grams of every slot";
  }
}

TEST(MemoryPlan, CountsAsManyLayersForFurtherTokensAsThereAreGuesses) {
  const auto backend = make_backend({.num_threads = 1});
  EngineConfig config = config_of(5, 200);
  config.speculation = "eagle";
  config.speculation_model = std::string(SERVAL_SOURCE_DIR) + "/tests/fixtures/heads/mtp";
  const ModelSpec spec = read_model_spec(config.speculation_model);
  const auto plan = [&](int num_draft_tokens) {
    config.scheduler.num_draft_tokens = num_draft_tokens;
    return *plan_memory(spec, config, *backend, kPlenty, read_draft_models(config, spec)).draft;
  };
  const DraftPlan one = plan(1);
  EXPECT_GT(one.weight_bytes, 0u);
  EXPECT_GT(one.kv_cache_bytes, 0u);
  for (const int guesses : {2, 3, 8}) {
    const size_t layers = std::min(guesses, 3);
    EXPECT_EQ(plan(guesses).weight_bytes, layers * one.weight_bytes);
    EXPECT_EQ(plan(guesses).kv_cache_bytes, layers * one.kv_cache_bytes);
    EXPECT_GT(plan(guesses).table_bytes, one.table_bytes);
  }
}

TEST(MemoryPlan, RefusesADraftThatDoesNotSuit) {
  const auto backend = make_backend({.num_threads = 1});
  const ModelSpec full = spec_of("LlamaForCausalLM", 0, 0), windowed = spec_of("MistralForCausalLM", 100, 0);
  EngineConfig config = config_of(5, 1000);
  config.scheduler.num_draft_tokens = 4;
  config.speculation = "draft";
  const auto plan = [&](const ModelSpec& target, const ModelSpec& draft) {
    return sentence([&] { plan_memory(target, config, *backend, kPlenty, {.model = draft}); });
  };
  EXPECT_EQ(plan(full, windowed), "");
  EXPECT_THAT(plan(windowed, full), ::testing::HasSubstr("reads positions that this model's cache lets go of"));
  EXPECT_THAT(plan(full, spec_of("MambaForCausalLM", 0, 0)), ::testing::HasSubstr("speculation_model"));
  ModelSpec shorter = full;
  shorter.max_positions = 500;
  EXPECT_THAT(plan(full, shorter), ::testing::HasSubstr("knows only 500 positions"));
  EXPECT_THAT(sentence([&] { read_draft_models(config, full); }), ::testing::HasSubstr("speculation_model is not set"));
  config.speculation = "ngram";
  config.speculation_model = "somewhere";
  EXPECT_THAT(sentence([&] { read_draft_models(config, full); }), ::testing::HasSubstr("asks no model"));
  config.speculation = "self";
  config.speculation_model = "";
  config.num_draft_layers = 3;
  EXPECT_THAT(sentence([&] { plan_memory(full, config, *backend, kPlenty); }), ::testing::HasSubstr("fewer must guess"));
}

TEST(MemoryPlan, SaysHowManyFullSequencesFitAndHowLongTheyMayBe) {
  const auto backend = make_backend({.num_threads = 1});
  for (const ModelSpec& spec : {spec_of("LlamaForCausalLM", 0, 0), spec_of("Qwen2ForCausalLM", 100, 1)}) {
    EngineConfig config = config_of(10, 1000);
    const MemoryPlan full = plan_memory(spec, config, *backend, kPlenty);
    EXPECT_EQ(full.full_sequences, 10);
    EXPECT_EQ(full.available_bytes, kPlenty);
    EXPECT_EQ(largest_model_len(spec, config, *backend, kPlenty), spec.max_positions);
    config.kv_cache_bytes = full.kv_cache_bytes * 35 / 100;
    EXPECT_EQ(plan_memory(spec, config, *backend, kPlenty).full_sequences, 3);

    // With a cache of half a sequence: what is named fits, and one more does not.
    config.kv_cache_bytes = full.kv_cache_bytes / 20;
    const int longest = largest_model_len(spec, config, *backend, kPlenty);
    EXPECT_GT(longest, 200);
    EXPECT_LT(longest, 1000);
    EXPECT_THAT(sentence([&] { plan_memory(spec, config, *backend, kPlenty); }),
                ::testing::HasSubstr("; max_model_len " + std::to_string(longest) + " would fit"));
    config.scheduler.max_model_len = longest;
    EXPECT_EQ(plan_memory(spec, config, *backend, kPlenty).full_sequences, 1);
    config.scheduler.max_model_len = longest + 1;
    EXPECT_NE(sentence([&] { plan_memory(spec, config, *backend, kPlenty); }), "");
    EXPECT_EQ(largest_model_len(spec, config, *backend, 1000), 0);
  }
}

TEST(MemoryPlan, KnowsHowMuchMemoryThereIs) {
  const auto pages = static_cast<size_t>(sysconf(_SC_PHYS_PAGES));
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  EXPECT_GT(available_memory_bytes(), size_t{1} << 26);
  EXPECT_LE(available_memory_bytes(), pages * page);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
size_t resident_bytes() {
  size_t total = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> total >> resident;
  return resident * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

class MemoryPlanOf : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Speculation, MemoryPlanOf, ::testing::Values("off", "ngram", "draft", "self"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(MemoryPlanOf, IsWhatALoadedRunnerHoldsWithinFivePercent) {
  RandomModel model;
  model.vocab_size = 8000;
  model.hidden_size = 512;
  model.num_layers = 4;
  model.num_heads = 8;
  model.num_kv_heads = 4;
  model.head_dim = 64;
  model.intermediate_size = 1024;
  model.dtype = DType::kBF16;
  const TempFolder folder;
  write_random_model(folder.path(), model);
  EngineConfig config = config_of(64, 512);
  config.scheduler.max_num_batched_tokens = 512;
  config.scheduler.num_draft_tokens = 4;
  config.speculation = GetParam();
  if (config.speculation == "draft") config.speculation_model = folder.path();
  malloc_trim(0);  // what is free in the process would be taken without growth
  const size_t before = resident_bytes();
  const LoadedRunner runner(folder.path(), config);
  const auto grown = static_cast<double>(resident_bytes() - before);
  const auto planned = static_cast<double>(runner->plan().total_bytes());
  EXPECT_GT(planned, config.speculation == "draft" ? 200e6 : 100e6);
  EXPECT_NEAR(grown / planned, 1, 0.05) << "grown " << grown << " planned " << planned;
}
#endif

}  // namespace
}  // namespace serval::testing
