// The laws, on the real engine, runner and kernels with random models: what one request is told does not
// depend, in one bit of one log-probability, on its neighbours, on chunk sizes, on the prefix cache, on
// preemption, on the number of threads or on being one of n. Which devices and models are tried is said where
// this file is compiled (SERVAL_LAW_DEVICES, and SERVAL_LAW_KINDS where not all).
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <iterator>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <tuple>

#include "engine/model/read_model.h"
#include "engine/model/weight_loader.h"
#include "engine/runner/speculators/ngram_speculator.h"
#include "kernels/backend.h"
#include "loadtest/bench/random_model.h"
#include "loadtest/bench/temp_folder.h"
#include "tests/engine/count_allocations.h"
#include "tests/engine/stored_as_mlx.h"
#include "tests/support/oracle_speculator.h"

namespace serval::testing {
namespace {

constexpr int kVocab = 500;
constexpr int kNeighbours = SERVAL_LAW_EMULATED ? 12 : 32;

struct ModelKind {
  const char* name;
  const char* architecture;
  DType dtype;
  int window;                // 0: none
  int first_windowed_layer;  // where only some layers have it
  int num_experts = 0;
  const char* more_config = "";
  const char* quantize = "off";
  const char* kv_dtype = "auto";
  LongAttention long_attention = {};
  bool is_stored_as_mlx = false;
};
constexpr ModelKind kKinds[] = {
    {"full_f32", "LlamaForCausalLM", DType::kF32, 0, 0},
    {"full_bf16", "Qwen3ForCausalLM", DType::kBF16, 0, 0},
    {"windowed_f32", "MistralForCausalLM", DType::kF32, 37, 0},
    {"windowed_bf16", "MistralForCausalLM", DType::kBF16, 37, 0},
    {"mixed_bf16", "Qwen2ForCausalLM", DType::kBF16, 37, 1},
    {"experts_bf16", "MixtralForCausalLM", DType::kBF16, 0, 0, 5},
    {"gpt2_f32", "GPT2LMHeadModel", DType::kF32, 0, 0},
    {"slopes_bf16", "BloomForCausalLM", DType::kBF16, 0, 0},
    {"sandwich_bf16", "Gemma3ForCausalLM", DType::kBF16, 37, 0, 0,
     R"(, "query_pre_attn_scalar": 24, "sliding_window_pattern": 2, "rope_local_base_freq": 500)"},
    {"fused_bf16", "Phi3ForCausalLM", DType::kBF16, 0, 0, 0,
     R"(, "partial_rotary_factor": 0.5, "original_max_position_embeddings": 70, "rope_scaling": {"type": "longrope",
        "short_factor": [1, 1.5, 2, 3], "long_factor": [2, 3, 4, 6]})"},
    {"state_bf16", "MambaForCausalLM", DType::kBF16, 0, 0},
    {"capped_bf16", "Gemma2ForCausalLM", DType::kBF16, 37, 0, 0,
     R"(, "query_pre_attn_scalar": 4, "attn_logit_softcapping": 2, "final_logit_softcapping": 8)"},
    {"mixed_int8", "Qwen2ForCausalLM", DType::kBF16, 37, 1, 0, "", "int8"},
    {"mixed_int4", "Qwen2ForCausalLM", DType::kBF16, 37, 1, 0, "", "int4"},
    {"mixed_fp8_kv", "Qwen2ForCausalLM", DType::kBF16, 37, 1, 0, "", "off", "fp8"},
    {"mixed_fp8", "Qwen2ForCausalLM", DType::kBF16, 37, 1, 0, "", "fp8"},
    {"experts_int8", "MixtralForCausalLM", DType::kBF16, 0, 0, 5, "", "int8"},
    {"post_norm_bf16", "Olmo3ForCausalLM", DType::kBF16, 37, 0, 0,
     R"(, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"])"},
    {"hybrid_bf16", "Qwen3_5ForCausalLM", DType::kBF16, 0, 0, 0,
     R"(, "full_attention_interval": 2, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
        "linear_key_head_dim": 16, "linear_value_head_dim": 24, "partial_rotary_factor": 0.5)"},
    {"shared_keys_bf16", "Gemma4ForCausalLM", DType::kBF16, 37, 0, 0,
     R"(, "layer_types": ["sliding_attention", "full_attention", "full_attention"], "global_head_dim": 32,
        "num_kv_shared_layers": 1, "hidden_size_per_layer_input": 8, "rope_parameters": {"full_attention": {"rope_type":
        "proportional", "partial_rotary_factor": 0.25, "rope_theta": 5000}, "sliding_attention": {"rope_theta": 500}})"},
    {"sinks_bf16", "GptOssForCausalLM", DType::kBF16, 37, 0, 5},
    {"latent_bf16", "DeepseekV3ForCausalLM", DType::kBF16, 0, 0, 5,
     R"(, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 40, "n_shared_experts": 1, "first_k_dense_replace": 1,
        "q_lora_rank": 48, "kv_lora_rank": 48, "qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 24)"},
    {"chosen_keys_bf16", "GlmMoeDsaForCausalLM", DType::kBF16, 0, 0, 5,
     R"(, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 40, "n_shared_experts": 1, "first_k_dense_replace": 1,
        "q_lora_rank": 48, "kv_lora_rank": 48, "qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 24, "index_topk": 29,
        "index_head_dim": 24, "index_n_heads": 3, "indexer_types": ["full", "shared", "full"])"},
    {"chosen_blocks_bf16", "MiniMaxM3SparseForConditionalGeneration", DType::kBF16, 0, 0, 5,
     R"(, "dense_intermediate_size": 96, "shared_intermediate_size": 40, "rotary_dim": 8, "mlp_layer_types": ["dense", "sparse", "sparse"],
        "index_n_heads": 2, "index_head_dim": 16, "index_block_size": 12, "index_topk_blocks": 4,
        "layer_types": ["full_attention", "minimax_m3_sparse", "minimax_m3_sparse"])"},
    {"means_bf16", "RwkvForCausalLM", DType::kBF16, 0, 0, 0, R"(, "intermediate_size": 96, "rescale_every": 2)"},
    {"replaced_bf16", "RWKV7ForCausalLM", DType::kBF16, 0, 0, 0, R"(, "intermediate_size": 96, "head_dim": 20, "decay_low_rank_dim": 16, "gate_low_rank_dim": 24)"},
    {"shared_block_bf16", "Zamba2ForCausalLM", DType::kBF16, 0, 0, 0,
     R"(, "layers_block_type": ["hybrid", "mamba", "hybrid"], "num_attention_heads": 5, "num_key_value_heads": 5, "mamba_expand": 1,
        "n_mamba_heads": 5, "mamba_d_state": 16, "adapter_rank": 8, "use_shared_attention_adapter": true, "use_mem_rope": true)"},
    {"delta_by_key_bf16", "KimiLinearForCausalLM", DType::kBF16, 0, 0, 0,
     R"(, "linear_attn_config": {"full_attn_layers": [2], "kda_layers": [1, 3], "num_heads": 3, "head_dim": 16},
        "num_experts": 5, "num_experts_per_token": 2, "moe_intermediate_size": 40, "kv_lora_rank": 48, "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 16, "v_head_dim": 24)"},
    {"lightning_bf16", "MiniMaxForCausalLM", DType::kBF16, 0, 0, 5,
     R"(, "layer_types": ["linear_attention", "full_attention", "linear_attention"], "mlp_alpha_factor": 1.5)"},
    {"fading_bf16", "GLAForCausalLM", DType::kBF16, 0, 0, 0, R"(, "num_heads": 4, "intermediate_size": 96)"},
    {"chunks_bf16", "Llama4ForCausalLM", DType::kBF16, 0, 0, 5,
     R"(, "no_rope_layers": [1, 0, 1], "moe_layers": [1], "attention_chunk_size": 37, "floor_scale": 30, "intermediate_size_mlp": 96)"},
    {"streams_bf16", "Gemma3nForCausalLM", DType::kBF16, 37, 0, 0,
     R"(, "layer_types": ["sliding_attention", "full_attention", "full_attention"], "num_kv_shared_layers": 1, "laurel_rank": 16,
        "hidden_size_per_layer_input": 8, "activation_sparsity_pattern": [0.8, 0, 0])"},
    {"gated_scan_bf16", "RecurrentGemmaForCausalLM", DType::kBF16, 0, 0, 0,
     R"(, "block_types": ["recurrent", "attention"], "attention_window_size": 37, "lru_width": 96)"},
    {"narrow_bf16", "MiMoV2FlashForCausalLM", DType::kBF16, 37, 0, 5, R"(, "num_key_value_heads": 1, "moe_intermediate_size": 40, "v_head_dim": 8, "partial_rotary_factor": 0.5)"},
    {"streaming_bf16", "Qwen3ForCausalLM", DType::kBF16, 0, 0, 0, "", "off", "auto", {LongAttention::Kind::kStreaming, 5, 37}},
    {"self_extend_bf16", "Qwen3ForCausalLM", DType::kBF16, 0, 0, 0, "", "off", "auto", {LongAttention::Kind::kSelfExtend, 0, 37, 4}},
    {"mixed_int8_dynamic", "Qwen2ForCausalLM", DType::kBF16, 37, 1, 0, "", "int8_dynamic"},
    {"experts_int8_dynamic", "MixtralForCausalLM", DType::kBF16, 0, 0, 5, "", "int8_dynamic"},
    {"mixed_int4_dynamic", "Qwen2ForCausalLM", DType::kBF16, 37, 1, 0, "", "int4_dynamic"},
    {"experts_int4_dynamic", "MixtralForCausalLM", DType::kBF16, 0, 0, 5, "", "int4_dynamic_g128"},
    {"mixed_int8_kv", "Qwen2ForCausalLM", DType::kBF16, 37, 1, 0, "", "off", "int8"},
    {"mixed_int4_kv", "Qwen2ForCausalLM", DType::kBF16, 37, 1, 0, "", "off", "int4"},
    {"three_groups_bf16", "Lfm3ForCausalLM", DType::kBF16, 37, 0, 0,
     R"(, "layer_types": ["sliding_attention", "conv", "full_attention"], "rope_parameters": {"full_attention": {"rope_type":
        "proportional", "partial_rotary_factor": 0.5, "rope_theta": 5000}, "sliding_attention": {"rope_theta": 500}})"},
    {"headed_scan_bf16", "ZambaForCausalLM", DType::kBF16, 0, 0, 0,
     R"(, "layers_block_type": ["hybrid", "mamba", "hybrid"], "num_attention_heads": 5, "num_key_value_heads": 5, "mamba_expand": 1,
        "n_mamba_heads": 5, "attention_head_dim": 32)"},
    {"compressed_keys_bf16", "DeepseekV4ForCausalLM", DType::kBF16, 37, 0, 5,
     R"(, "num_key_value_heads": 1, "q_lora_rank": 24, "qk_rope_head_dim": 8, "o_groups": 2, "o_lora_rank": 24, "moe_intermediate_size": 40,
        "hc_mult": 3, "num_hash_layers": 1, "index_n_heads": 3, "index_head_dim": 16, "index_topk": 13, "compress_rate_hca": 42,
        "layer_types": ["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"])"},
    {"full_f16", "LlamaForCausalLM", DType::kF16, 0, 0},
    {"mixed_int8_g32", "Qwen2ForCausalLM", DType::kBF16, 37, 1, 0, "", "int8_g32"},
    {"experts_int8_g128", "MixtralForCausalLM", DType::kBF16, 0, 0, 5, "", "int8_g128"},
    {"mixed_int4_g128", "Qwen2ForCausalLM", DType::kBF16, 37, 1, 0, "", "int4_g128"},
    {"mixed_fp6", "Qwen2ForCausalLM", DType::kBF16, 37, 1, 0, "", "fp6"},
    {"stored_as_mlx", "Qwen2ForCausalLM", DType::kBF16, 37, 1, 0, "", "off", "auto", {}, true},
};

// Models that rotate sequences that may become longer than 100 another way.
constexpr ModelKind kKindsByLength[] = {
    {"longrope_bf16", "Phi3ForCausalLM", DType::kBF16, 0, 0, 0,
     R"(, "original_max_position_embeddings": 100, "rope_scaling": {"type": "longrope", "short_factor": [1, 1.5, 2, 3, 4, 5, 6, 7],
        "long_factor": [2, 3, 4, 6, 8, 10, 12, 14]})"},
    {"dynamic_bf16", "LlamaForCausalLM", DType::kBF16, 0, 0, 0,
     R"(, "max_position_embeddings": 100, "rope_scaling": {"type": "dynamic", "factor": 8})"},
};

// A model of each kind, written once a process.
const std::filesystem::path& model_folder(const ModelKind& kind) {
  static std::map<std::string, std::unique_ptr<TempFolder>> folders;
  auto& folder = folders[kind.name];
  if (folder == nullptr) {
    folder = std::make_unique<TempFolder>();
    RandomModel model;
    model.architecture = kind.architecture;
    model.dtype = kind.dtype;
    model.vocab_size = kVocab;
    model.sliding_window = kind.window;
    model.first_windowed_layer = kind.first_windowed_layer;
    model.num_experts = kind.num_experts;
    model.more_config = kind.more_config;
    write_random_model(folder->path(), model);
    if (kind.is_stored_as_mlx) store_as_mlx(folder->path(), model.num_layers);
  }
  return folder->path();
}

// "cuda", or an instruction set of the CPU.
DeviceConfig device_of(const std::string& name) {
  if (name == "cuda") return {.device = name};
  return {.num_threads = 2, .isa = name, .pin_threads = false};
}

bool has_device(const std::string& name) {
  try {
    make_backend(device_of(name));
    return true;
  } catch (const std::runtime_error&) {
    return false;
  }
}

EngineConfig config_for(const std::string& device) {
  EngineConfig config;
  config.device = device_of(device);
  config.scheduler.max_num_seqs = 40;
  config.scheduler.max_num_batched_tokens = 512;
  config.scheduler.max_prefill_chunk = 512;
  config.scheduler.max_model_len = 700;
  config.scheduler.enable_prefix_cache = true;
  return config;
}

Request make_request(uint64_t seed, int prompt_tokens, int output_tokens, float temperature) {
  std::mt19937_64 rng(seed);
  Request request;
  for (int i = 0; i < prompt_tokens; ++i) request.prompt.push_back(static_cast<TokenId>(rng() % kVocab));
  request.sampling.seed = rng();
  request.sampling.temperature = temperature;
  request.sampling.max_tokens = output_tokens;
  request.sampling.ignore_eos = true;
  request.sampling.num_logprobs = 20;
  return request;
}

// The request the laws are tried on: longer than a window and than a chunk of 64, with penalties and filters.
Request the_request(float temperature) {
  Request request = make_request(11, 131, 48, temperature);
  request.sampling.top_p = 0.95f;
  request.sampling.min_p = 0.01f;
  request.sampling.repetition_penalty = 1.1f;
  request.sampling.frequency_penalty = 0.1f;
  return request;
}

class Laws : public ::testing::TestWithParam<std::tuple<const char*, int>> {
 protected:
  void SetUp() override {
    if (!has_device(device())) GTEST_SKIP() << "this machine lacks " << device();
  }
  std::string device() const { return std::get<0>(GetParam()); }
  const ModelKind& kind() const { return kKinds[std::get<1>(GetParam())]; }
  const std::filesystem::path& model() const { return model_folder(kind()); }
  // A state instead of keys and values, in all layers or in some.
  bool keeps_state() const {
    constexpr std::string_view kHybrids[] = {"Qwen3_5ForCausalLM", "KimiLinearForCausalLM", "MiniMaxForCausalLM",
                                               "RecurrentGemmaForCausalLM", "ZambaForCausalLM", "Zamba2ForCausalLM", "Lfm3ForCausalLM"};
    return is_of_states() || std::find(std::begin(kHybrids), std::end(kHybrids), kind().architecture) != std::end(kHybrids);
  }
  // What a guess leaves has one place: none stand beside each other.
  bool takes_branches() const { return !keeps_state() && kind().architecture != std::string("DeepseekV4ForCausalLM"); }
  bool is_of_states() const {
    constexpr std::string_view kOfStates[] = {"MambaForCausalLM", "RwkvForCausalLM", "RWKV7ForCausalLM", "GLAForCausalLM"};
    return std::find(std::begin(kOfStates), std::end(kOfStates), kind().architecture) != std::end(kOfStates);
  }
  // The cache has it every so many positions; blocks of keys and values have a least size.
  int snapshot() const { return is_of_states() ? 64 : 128; }
  EngineConfig law_config() const {
    EngineConfig config = config_for(device());
    config.quantize = kind().quantize;
    config.kv_dtype = kind().kv_dtype;
    config.long_attention = kind().long_attention;
    if (keeps_state()) config.block_size = snapshot() / 16;
    return config;
  }

  Told alone(const Request& request) const {
    EngineDriver driver(model(), law_config(), EngineDriver::Order::kInTurn);
    return driver.wait(driver.submit(request))[0];
  }
};

#ifdef SERVAL_LAW_KINDS
const auto kLawKinds = ::testing::Values(SERVAL_LAW_KINDS);
#else
const auto kLawKinds = ::testing::Range(0, static_cast<int>(std::size(kKinds)));
#endif

INSTANTIATE_TEST_SUITE_P(EveryDeviceAndModel, Laws, ::testing::Combine(::testing::Values(SERVAL_LAW_DEVICES), kLawKinds),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param)) + "_" +
                                  kKinds[std::get<1>(info.param)].name;
                         });

TEST_P(Laws, NeighboursChangeNoBitEvenWhenTheyAreAborted) {
  for (const float temperature : {0.0f, 0.8f}) {
    const Told expected = alone(the_request(temperature));
    ASSERT_EQ(expected.tokens.size(), 48u);
    ASSERT_EQ(expected.top.size(), 48u * 20);
    EngineDriver driver(model(), law_config());
    std::vector<RequestId> neighbours;
    for (int i = 0; i < kNeighbours / 2; ++i) {
      neighbours.push_back(
          driver.submit(make_request(100 + i, 1 + i * 13, 20 + i * 3, static_cast<float>(i % 4) * 0.4f)));
    }
    driver.wait_for_tokens(neighbours[3], 2);
    const RequestId id = driver.submit(the_request(temperature));
    for (int i = kNeighbours / 2; i < kNeighbours; ++i) {
      neighbours.push_back(
          driver.submit(make_request(100 + i, 1 + i * 7, 20 + i * 3, static_cast<float>(i % 4) * 0.4f)));
    }
    driver.wait_for_tokens(id, 5);
    for (const int i : {0, 5, kNeighbours / 2 + 1, kNeighbours - 2}) driver.abort(neighbours[i]);
    EXPECT_TRUE(driver.wait(id)[0].same_bits(expected)) << "temperature " << temperature;
    EXPECT_GT(driver.stats().max_step_seqs, kNeighbours / 2)
        << "the neighbours ran at other times: nothing was tried";
  }
}

TEST_P(Laws, ChunkSizesChangeNoBit) {
  const Told expected = alone(the_request(0.8f));
  for (const int chunk : {1, 7, 64, 512}) {
    EngineConfig config = law_config();
    config.scheduler.max_prefill_chunk = chunk;
    EngineDriver driver(model(), config);
    const RequestId other = driver.submit(make_request(5, 60, 30, 1));
    const RequestId id = driver.submit(the_request(0.8f));
    EXPECT_TRUE(driver.wait(id)[0].same_bits(expected)) << "chunk " << chunk;
    driver.wait(other);
  }
}

TEST_P(Laws, AWarmPrefixCacheChangesNoBit) {
  const Told expected = alone(the_request(0.8f));
  EngineDriver driver(model(), law_config());
  const Told cold = driver.wait(driver.submit(the_request(0.8f)))[0];
  EXPECT_TRUE(cold.same_bits(expected));
  EXPECT_EQ(cold.cached_tokens, 0);
  const Told warm = driver.wait(driver.submit(the_request(0.8f)))[0];
  EXPECT_TRUE(warm.same_bits(expected));
  EXPECT_EQ(warm.cached_tokens, keeps_state() ? 128 : 130) << "all but the last token of the prompt";
  // Another request that shares a part of the prompt which ends inside a block.
  Request half = the_request(0.8f);
  half.prompt.resize(75);
  half.prompt.push_back(3);
  half.prompt.push_back(4);
  const Told half_alone = alone(half);
  const Told half_warm = driver.wait(driver.submit(half))[0];
  EXPECT_TRUE(half_warm.same_bits(half_alone));
  EXPECT_GE(half_warm.cached_tokens, keeps_state() ? 75 / snapshot() * snapshot() : 64);
}

// The prompt and what was told of it.
std::vector<TokenId> whole(const Request& request, const Told& told) {
  std::vector<TokenId> tokens = request.prompt;
  tokens.insert(tokens.end(), told.tokens.begin(), told.tokens.end());
  return tokens;
}

// Requests that take each other's memory: histories with penalties, beginnings in common, several choices.
std::vector<Request> a_crowd() {
  std::vector<Request> crowd = {the_request(0.8f), make_request(301, 9, 140, 0.7f), the_request(0.9f),
                                make_request(303, 12, 120, 0)};
  crowd[1].sampling.frequency_penalty = 0.3f;
  crowd[2].prompt.resize(100);
  crowd[2].prompt.push_back(3);
  crowd[2].n = 3;
  crowd[3].sampling.repetition_penalty = 1.3f;
  // Any token might end them, for all the scheduler knows.
  for (Request& request : crowd) request.sampling.ignore_eos = false;
  return crowd;
}

TEST_P(Laws, PreemptionChangesNoBitOfAnybody) {
  std::vector<std::vector<Told>> expected;
  {
    EngineConfig config = law_config();
    config.scheduler.enable_prefix_cache = false;
    EngineDriver driver(model(), config, EngineDriver::Order::kInTurn);
    for (const Request& request : a_crowd()) {
      std::vector<Told>& choices = expected.emplace_back();
      for (int i = 0; i < request.n; ++i) {
        Request single = request;
        single.n = 1;
        single.sampling.seed = seed_of_choice(request.sampling.seed, i);
        choices.push_back(driver.wait(driver.submit(single))[0]);
      }
    }
  }
  std::vector<std::vector<TokenId>> coming;
  for (size_t r = 0; r < expected.size(); ++r) {
    for (const Told& told : expected[r]) coming.push_back(whole(a_crowd()[r], told));
  }
  for (const auto& [cache, speculates] : {std::pair{false, false}, {true, false}, {true, true}}) {
    if (cache != speculates && SERVAL_LAW_EMULATED) continue;  // it takes its time
    EngineConfig config = law_config();
    config.scheduler.enable_prefix_cache = cache;
    config.scheduler.max_model_len = 256;
    config.scheduler.max_prefill_chunk = 16;  // a window's worst case stays below the whole length
    const size_t whole = LoadedRunner(model(), config)->plan().kv_cache_bytes;
    config.kv_cache_bytes = whole / config.scheduler.max_num_seqs * 11 / 8;  // of one of the largest length, and some more
    config.scheduler.num_draft_tokens = speculates ? 5 : 0;
    config.draft_width = speculates && takes_branches() ? 2 : 1;
    std::atomic<bool> all_are_there = true;
    EngineDriver driver(model(), config, EngineDriver::Order::kAsTheDeviceLikes,
                        std::make_unique<OracleSpeculator>(coming, takes_branches()));
    // However fast the engine is, the crowd comes at once.
    driver.on_step([&] { all_are_there.wait(false); });
    // Those that end at once make it expect short answers, and keep no memory for long ones.
    for (int i = 0; i < 4; ++i) {
      Request brief = make_request(400 + i, 4, 1, 0.7f);
      brief.sampling.ignore_eos = false;
      driver.wait(driver.submit(brief));
    }
    std::vector<RequestId> ids;
    all_are_there = false;
    for (const Request& request : a_crowd()) ids.push_back(driver.submit(request));
    all_are_there = true;
    all_are_there.notify_all();
    for (size_t r = 0; r < ids.size(); ++r) {
      const std::vector<Told> told = driver.wait(ids[r]);
      for (size_t i = 0; i < told.size(); ++i)
        EXPECT_TRUE(told[i].same_bits(expected[r][i]))
            << "cache " << cache << ", speculates " << speculates << ", request " << r << ", choice " << i;
    }
    EXPECT_EQ(driver.stats().scheduler.num_accepted_tokens > 50, speculates);
    EXPECT_GT(driver.stats().max_step_seqs, 1) << "they ran one by one: nothing was tried";
    const SchedulerStats stats = driver.stats().scheduler;
    EXPECT_GT(stats.num_preemptions, 0u) << "the pool was large enough: nothing was tried";
    EXPECT_EQ(stats.num_evicted_blocks > 0, cache);
  }
}

TEST_P(Laws, TheVectorOfAPromptIsItsOwn) {
  for (const Pooling pooling : {Pooling::kLast, Pooling::kFirst, Pooling::kMean, Pooling::kWeightedMean, Pooling::kMax}) {
    Request request = make_request(21, 90, 1, 0);
    request.pooling = pooling;
    const Told expected = alone(request);
    ASSERT_FALSE(expected.pooled.empty());
    EngineConfig config = law_config();
    config.scheduler.max_prefill_chunk = 7;
    EngineDriver driver(model(), config);
    const RequestId other = driver.submit(make_request(22, 40, 30, 0.8f));
    std::vector<RequestId> ids;
    for (int i = 0; i < 3; ++i) ids.push_back(driver.submit(request));
    for (const RequestId id : ids) EXPECT_TRUE(driver.wait(id)[0].same_bits(expected)) << static_cast<int>(pooling);
    driver.wait(other);
    const Told warm = driver.wait(driver.submit(request))[0];
    EXPECT_TRUE(warm.same_bits(expected)) << static_cast<int>(pooling);
    if (pooling != Pooling::kLast) {
      EXPECT_EQ(warm.cached_tokens, 0) << "what is pooled must be computed";
    } else if (!keeps_state()) {
      EXPECT_GT(warm.cached_tokens, 0);
    }
  }
}

TEST_P(Laws, EachOfNSequencesIsTheOneItsSeedGivesAlone) {
  Request request = the_request(0.9f);
  request.n = 4;
  EngineDriver driver(model(), law_config());
  const std::vector<Told> choices = driver.wait(driver.submit(request));
  for (int i = 0; i < 4; ++i) {
    Request single = the_request(0.9f);
    single.sampling.seed = seed_of_choice(request.sampling.seed, i);
    EXPECT_TRUE(choices[i].same_bits(alone(single))) << "choice " << i;
  }
  EXPECT_FALSE(choices[0].same_bits(choices[1]));
}

TEST_P(Laws, PlanningOneStepAheadChangesNoBit) {
  for (const float temperature : {0.0f, 0.8f}) {
    const Told expected = alone(the_request(temperature));
    for (const auto order : {EngineDriver::Order::kInTurn, EngineDriver::Order::kOneAhead}) {
      EngineDriver driver(model(), law_config(), order);
      std::vector<RequestId> others;
      for (int i = 0; i < 4; ++i)
        others.push_back(driver.submit(make_request(700 + i, 9 + 20 * i, 12 + 9 * i, 0.8f)));
      EXPECT_TRUE(driver.wait(driver.submit(the_request(temperature)))[0].same_bits(expected));
      for (const RequestId id : others) driver.wait(id);
    }
  }
}

TEST_P(Laws, SpeculationChangesNoBit) {
  for (const float temperature : {0.8f, 0.0f}) {
    if (SERVAL_LAW_EMULATED && temperature == 0) continue;  // it takes its time
    Request request = the_request(temperature);
    request.sampling.min_tokens = 20;
    request.sampling.stop_token_ids = {1, 2, 3, 4, 5};
    Request second = request;
    second.sampling.seed = seed_of_choice(request.sampling.seed, 1);
    const std::vector<Told> expected = {alone(request), alone(second)};
    request.n = 2;
    for (const auto& [order, branches] : {std::pair{EngineDriver::Order::kInTurn, false},
                                          {EngineDriver::Order::kInTurn, true},
                                          {EngineDriver::Order::kOneAhead, false},
                                          {EngineDriver::Order::kOneAhead, true}}) {
      if (SERVAL_LAW_EMULATED && order == EngineDriver::Order::kInTurn) continue;
      if (branches && !takes_branches()) continue;
      EngineConfig config = law_config();
      config.scheduler.num_draft_tokens = 6;
      config.draft_width = branches ? 2 : 1;
      EngineDriver driver(model(), config, order,
                          std::make_unique<OracleSpeculator>(
                              std::vector{whole(request, expected[0]), whole(request, expected[1])}, branches));
      std::vector<RequestId> others;
      for (int i = 0; i < 4; ++i)
        others.push_back(driver.submit(make_request(700 + i, 9 + 20 * i, 12 + 9 * i, 0.8f)));
      const std::vector<Told> told = driver.wait(driver.submit(request));
      for (int i = 0; i < 2; ++i)
        EXPECT_TRUE(told[i].same_bits(expected[i]) && told[i].finish == expected[i].finish)
            << "temperature " << temperature << ", branches " << branches << ", choice " << i;
      for (const RequestId id : others) driver.wait(id);
      const SchedulerStats stats = driver.stats().scheduler;
      EXPECT_GT(stats.num_accepted_tokens, 15u);
      EXPECT_GT(stats.num_draft_tokens, stats.num_accepted_tokens + 10);
    }
  }
}

// A request's rotation follows from the longest it may become, and from nothing else.
TEST(LawsOfLengths, WhatLongSequencesHaveCachedIsNotTakenUpByShortOnes) {
  const std::string device = std::array{SERVAL_LAW_DEVICES}[0];
  if (!has_device(device)) GTEST_SKIP() << "this machine lacks " << device;
  for (const ModelKind& kind : kKindsByLength) {
    const EngineConfig config = config_for(device);
    const auto request = [](int max_tokens) { return make_request(11, 75, max_tokens, 0.8f); };
    const auto alone = [&](int max_tokens) {
      EngineDriver driver(model_folder(kind), config, EngineDriver::Order::kInTurn);
      return driver.wait(driver.submit(request(max_tokens)))[0];
    };
    const Told longest = alone(26), shortest = alone(25);
    EXPECT_NE(longest.top[0].second, shortest.top[0].second) << kind.name << ": nothing was tried";
    EngineDriver driver(model_folder(kind), config);
    EXPECT_TRUE(driver.wait(driver.submit(request(26)))[0].same_bits(longest)) << kind.name;
    for (const int cached : {0, 74}) {
      const Told told = driver.wait(driver.submit(request(25)))[0];
      EXPECT_TRUE(told.same_bits(shortest)) << kind.name;
      EXPECT_EQ(told.cached_tokens, cached) << kind.name;
    }
    const Told again = driver.wait(driver.submit(request(26)))[0];
    EXPECT_TRUE(again.same_bits(longest)) << kind.name;
    EXPECT_EQ(again.cached_tokens, 74) << kind.name;
  }
}

TEST_P(Laws, ThreadsChangeNoBit) {
  if (device() == "cuda") GTEST_SKIP() << "a GPU has no number of threads to choose";
  const Told expected = alone(the_request(0.8f));
  for (const int threads : {1, 3}) {
    EngineConfig config = law_config();
    config.device.num_threads = threads;
    EngineDriver driver(model(), config);
    EXPECT_TRUE(driver.wait(driver.submit(the_request(0.8f)))[0].same_bits(expected))
        << threads << " threads";
  }
}

TEST_P(Laws, NothingIsAllocatedWhileStreamsDecode) {
  if (SERVAL_LAW_EMULATED) GTEST_SKIP() << "the emulation of the device allocates by itself";
  std::optional<AllocationCounter> counter;
  std::atomic<int64_t> allocations = -1;
  std::mutex submitting;  // no step ends before all streams are there
  int steps = 0;
  EngineDriver driver(model(), law_config());
  driver.on_step([&] {
    const std::lock_guard wait(submitting);
    if (++steps == 60) counter.emplace();
    if (steps == 160) allocations = counter->count();
    if (steps == 160) counter.reset();
  });
  std::vector<RequestId> ids;
  {
    const std::lock_guard lock(submitting);
    for (int i = 0; i < 32; ++i) {
      ids.push_back(driver.submit(make_request(400 + i, 20 + i, 250, static_cast<float>(i % 2))));
    }
  }
  for (const RequestId id : ids) driver.wait(id);
  EXPECT_GE(driver.stats().max_step_seqs, 32);
  EXPECT_EQ(allocations, 0);
}

TEST_P(Laws, NothingIsAllocatedWhileGuessesAreVerified) {
  if (SERVAL_LAW_EMULATED) GTEST_SKIP() << "the emulation of the device allocates by itself";
  EngineConfig config = law_config();
  config.scheduler.num_draft_tokens = 8;
  std::vector<Request> requests;
  for (int i = 0; i < 20; ++i) {
    requests.push_back(make_request(500 + i, 40, 150, 0));  // a random model soon goes in circles
    requests.back().sampling.num_logprobs = -1;
  }
  const Counted counted = count_allocations(model(), config, std::move(requests), std::make_unique<NgramSpeculator>());
  // Scores that nothing scales make attention too sharp for that, and compressed keys keep growing in number.
  const unsigned least = kind().name == std::string("shared_keys_bf16") ? 0 : takes_branches() ? 20 : 1;
  EXPECT_GE(counted.stats.num_accepted_tokens, least);
  EXPECT_EQ(counted.allocations, 0);
}

TEST_P(Laws, NothingIsAllocatedWhileChoicesForkAndTheCacheIsFound) {
  if (SERVAL_LAW_EMULATED) GTEST_SKIP() << "the emulation of the device allocates by itself";
  std::optional<AllocationCounter> counter;
  std::atomic<int64_t> allocations = 0;
  std::mutex submitting;
  EngineDriver driver(model(), law_config());
  driver.on_step([&] {  // on the engine's thread, which also runs the kernels of small steps
    const std::lock_guard wait(submitting);
    if (!counter) counter.emplace();
    allocations = counter->count_on_this_thread();
  });
  const auto request = [](int tokens, int n) {
    Request r = make_request(500, 150, 30, 0.9f);
    r.prompt.resize(tokens);  // they begin alike
    r.sampling.num_logprobs = -1;
    r.n = n;
    return r;
  };
  driver.wait(driver.submit(request(std::max(100, snapshot() + 8), 1)));
  std::vector<RequestId> ids;
  {
    const std::lock_guard lock(submitting);
    for (int i = 0; i < 13; ++i) ids.push_back(driver.submit(request(50 + 7 * i, 3)));
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    const bool has_snapshot = !keeps_state() || 50 + 7 * static_cast<int>(i) > snapshot();
    EXPECT_EQ(driver.wait(ids[i])[0].cached_tokens > 0, has_snapshot) << i;
  }
  EXPECT_GE(driver.stats().max_step_seqs, 32);
  EXPECT_EQ(allocations, 0);
}

// Else the model stored as MLX has it would show nothing of those.
TEST(LawsOfFormats, AreTriedOnTablesAndOnGroupsWithOffsets) {
  const auto* const kind = std::ranges::find_if(kKinds, &ModelKind::is_stored_as_mlx);
  const std::string device = std::array{SERVAL_LAW_DEVICES}[0];
  if (!has_device(device)) GTEST_SKIP() << "this machine lacks " << device;
  const auto backend = make_backend(device_of(device));
  const ModelWeights weights = load_weights(model_folder(*kind), read_model_spec(model_folder(*kind)), *backend);
  const auto& attention = std::get<GqaWeights>(weights.layers[0].mixer);
  const auto& ffn = std::get<DenseFfnWeights>(weights.layers[0].ffn);
  const std::tuple<const LinearWeight&, WeightFormat, bool> held[] = {{attention.qkv, WeightFormat::kInt4, true},
                                                                      {attention.output, WeightFormat::kTable4, false},
                                                                      {ffn.gate_up, WeightFormat::kInt8Groups, true},
                                                                      {ffn.down, WeightFormat::kFp8, false}};
  for (const auto& [weight, format, has_offsets] : held) {
    if (!backend->supports(format)) continue;
    EXPECT_EQ(weight.matrix_format(), MatrixFormat(format, kMlxGroup, has_offsets)) << format_row(format).name;
  }
}

}  // namespace
}  // namespace serval::testing
