#include "engine/model/read_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <random>

#include "engine/model/architectures/architecture.h"
#include "tests/engine/model/test_files.h"

namespace serval::testing {
namespace {

namespace json = boost::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

// A published Llama 3.1 8B configuration's facts.
json::object llama() {
  return json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256, "hidden_size": 4096,
    "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "hidden_act": "silu", "max_position_embeddings": 131072, "rms_norm_eps": 1e-05, "rope_theta": 500000.0,
    "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                     "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    "attention_bias": false, "mlp_bias": false, "tie_word_embeddings": false, "torch_dtype": "bfloat16",
    "pretraining_tp": 1, "use_cache": true, "eos_token_id": [128001, 128009], "bos_token_id": 128000})")
      .as_object();
}
json::object qwen2() {
  return json::parse(R"({
    "architectures": ["Qwen2ForCausalLM"], "vocab_size": 1000, "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
    "rope_theta": 1000000.0, "use_sliding_window": false, "sliding_window": 1024, "max_window_layers": 2,
    "torch_dtype": "bfloat16"})")
      .as_object();
}
json::object mistral() {
  json::object config = qwen2();
  for (const char* field : {"use_sliding_window", "max_window_layers"}) config.erase(field);
  config["architectures"] = {"MistralForCausalLM"};
  return config;
}

// As published, with what its converter left behind.
json::object mamba() {
  return json::parse(R"({
    "architectures": ["MambaForCausalLM"], "bos_token_id": 0, "conv_kernel": 4, "d_inner": 1536, "d_model": 768,
    "eos_token_id": 0, "expand": 2, "fused_add_norm": true, "hidden_act": "silu", "hidden_size": 768,
    "initializer_range": 0.1, "intermediate_size": 1536, "layer_norm_epsilon": 1e-05, "model_type": "mamba",
    "n_layer": 24, "num_hidden_layers": 24, "pad_token_id": 0, "pad_vocab_size_multiple": 8,
    "rescale_prenorm_residual": false, "residual_in_fp32": true, "rms_norm": true, "ssm_cfg": {}, "state_size": 16,
    "time_step_floor": 0.0001, "time_step_init_scheme": "random", "time_step_max": 0.1, "time_step_min": 0.001,
    "time_step_rank": 48, "time_step_scale": 1.0, "torch_dtype": "float32", "use_bias": false, "use_cache": true,
    "use_conv_bias": true, "vocab_size": 50280})")
      .as_object();
}

json::object with(json::object config, std::string_view field, json::value value) {
  config[field] = std::move(value);
  return config;
}
json::object without(json::object config, std::string_view field) {
  config.erase(field);
  return config;
}

ModelSpec read(const json::object& config) {
  const TemporaryFolder folder;
  folder.write("config.json", json::serialize(config));
  return read_model_spec(folder.path());
}
std::string verdict(const json::object& config) {
  return complaint([&] { read(config); });
}

const GqaSpec& attention(const ModelSpec& spec, int layer = 0) {
  return std::get<GqaSpec>(spec.layers[layer].mixer);
}
const RopeScaling& scaling_of(const ModelSpec& spec) {
  return spec.ropes.at(0).scaling;
}
// A published Mixtral 8x7B configuration's facts.
json::object mixtral() {
  return json::parse(R"({
    "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "vocab_size": 32000, "hidden_size": 4096,
    "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "num_local_experts": 8, "num_experts_per_tok": 2, "output_router_logits": false, "router_aux_loss_coef": 0.02,
    "hidden_act": "silu", "max_position_embeddings": 32768, "rms_norm_eps": 1e-05, "rope_theta": 1000000.0,
    "sliding_window": null, "attention_dropout": 0.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16"})")
      .as_object();
}
// A published GPT-2 configuration's facts.
json::object gpt2() {
  return json::parse(R"({
    "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1, "bos_token_id": 50256,
    "embd_pdrop": 0.1, "eos_token_id": 50256, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024,
    "resid_pdrop": 0.1, "summary_activation": null, "summary_first_dropout": 0.1, "summary_proj_to_labels": true,
    "summary_type": "cls_index", "summary_use_proj": true, "torch_dtype": "float32", "vocab_size": 50257,
    "task_specific_params": {"text-generation": {"do_sample": true, "max_length": 50}}})")
      .as_object();
}
// The window of each layer; 0: none.
std::vector<int> windows(const ModelSpec& spec) {
  std::vector<int> windows;
  for (const LayerSpec& layer : spec.layers) windows.push_back(spec.kv_groups[layer.kv_group].window);
  return windows;
}

TEST(ReadModel, ReadsLlama31AsPublished) {
  const ModelSpec spec = read(llama());
  EXPECT_EQ(spec.architecture, "LlamaForCausalLM");
  EXPECT_EQ(spec.vocab_size, 128256);
  EXPECT_EQ(attention(spec).num_kv_heads, 8);
  EXPECT_EQ(attention(spec).head_dim, 128);
  EXPECT_EQ(spec.ropes.at(0).theta, 500000);
  EXPECT_EQ(scaling_of(spec).type, RopeScaling::Type::kLlama3);
  EXPECT_EQ(scaling_of(spec).original_max_positions, 8192);
  EXPECT_EQ(spec.weight_dtype, DType::kBF16);
  EXPECT_EQ(windows(spec), std::vector<int>(32, 0));
}

TEST(ReadModel, ReadsBothSpellingsOfTheRotationAlike) {
  const json::object scaling = llama()["rope_scaling"].as_object();
  const auto expect_same = [](const json::object& spelling) {
    const RopeScaling a = scaling_of(read(llama())), b = scaling_of(read(spelling));
    EXPECT_EQ(a.type, b.type);
    EXPECT_EQ(a.factor, b.factor);
    EXPECT_EQ(a.low_freq_factor, b.low_freq_factor);
    EXPECT_EQ(a.high_freq_factor, b.high_freq_factor);
    EXPECT_EQ(a.original_max_positions, b.original_max_positions);
    EXPECT_EQ(read(spelling).ropes.at(0).theta, 500000);
  };
  json::object parameters = with(scaling, "rope_theta", 500000.0);
  expect_same(with(without(without(llama(), "rope_scaling"), "rope_theta"), "rope_parameters", parameters));
  expect_same(with(llama(), "rope_scaling", with(without(scaling, "rope_type"), "type", "llama3")));
  expect_same(with(with(llama(), "rope_scaling", without(scaling, "original_max_position_embeddings")),
                   "original_max_position_embeddings", 8192));
  EXPECT_EQ(scaling_of(read(with(llama(), "rope_scaling", nullptr))).type, RopeScaling::Type::kNone);
  EXPECT_EQ(scaling_of(read(with(llama(), "rope_scaling", {{"rope_type", "default"}}))).type,
            RopeScaling::Type::kNone);
}

TEST(ReadModel, PrefersTheOlderSpellingOfTheRotationWhereThereAreBoth) {
  const json::object both = with(llama(), "rope_parameters", {{"rope_type", "yarn"}, {"rope_theta", 7.0}});
  EXPECT_EQ(scaling_of(read(both)).type, RopeScaling::Type::kLlama3);
  EXPECT_EQ(read(both).ropes.at(0).theta, 500000);
}

// Below max_position_embeddings, and of text, they turn as the plain one does.
TEST(ReadModel, TakesRotationsThatDifferElsewhere) {
  for (const json::object& scaling :
       {json::object{{"type", "dynamic"}, {"factor", 2.0}},
        json::object{{"type", "mrope"}, {"mrope_section", {16, 24, 24}}},
        json::object{{"rope_type", "default"}, {"mrope_interleaved", true}, {"mrope_section", {24, 20, 20}}}}) {
    EXPECT_EQ(scaling_of(read(with(llama(), "rope_scaling", scaling))).type, RopeScaling::Type::kNone);
  }
}

TEST(ReadModel, ReadsYarnInItsWords) {
  const json::object yarn = {{"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 32768}};
  const RopeSpec plain = read(with(llama(), "rope_scaling", yarn)).ropes.at(0);
  EXPECT_NEAR(plain.amplitude, 0.1 * std::log(4.0) + 1, 1e-12);
  EXPECT_EQ(plain.scaling.factors.front(), 1);
  EXPECT_EQ(plain.scaling.factors.back(), 4);
  const auto amplitude_with = [&](const json::object& more) {
    json::object all = yarn;
    for (const auto& [name, value] : more) all[name] = value;
    return read(with(llama(), "rope_scaling", all)).ropes.at(0).amplitude;
  };
  EXPECT_EQ(amplitude_with({{"attention_factor", 1.5}}), 1.5);
  EXPECT_EQ(amplitude_with({{"mscale", 1.0}, {"mscale_all_dim", 1.0}}), 1);
  EXPECT_NEAR(amplitude_with({{"mscale", 0.707}, {"mscale_all_dim", 1.0}}),
              (0.0707 * std::log(4.0) + 1) / (0.1 * std::log(4.0) + 1), 1e-12);
  EXPECT_NE(read(with(llama(), "rope_scaling", with(yarn, "truncate", false))).ropes.at(0).scaling.factors,
            plain.scaling.factors);
}

TEST(ReadModel, RefusesRotationsItCannotCompute) {
  EXPECT_THAT(verdict(with(llama(), "rope_scaling", {{"type", "xpos"}, {"factor", 2.0}})),
              HasSubstr("rope_scaling.type 'xpos' is not supported; supported are default, linear, dynamic"));
  EXPECT_THAT(verdict(with(llama(), "rope_scaling", {{"type", "longrope"}, {"factor", 2.0}})),
              HasSubstr("rope_scaling.short_factor is missing"));
  const json::object scaling = llama()["rope_scaling"].as_object();
  EXPECT_THAT(verdict(with(llama(), "rope_scaling", without(scaling, "factor"))),
              HasSubstr("rope_scaling.factor is missing"));
  EXPECT_THAT(verdict(with(llama(), "rope_scaling", with(scaling, "factor", 0))),
              HasSubstr("must be above 0"));
  EXPECT_THAT(verdict(with(llama(), "rope_scaling", with(scaling, "high_freq_factor", 1.0))),
              HasSubstr("the first above"));
  EXPECT_THAT(verdict(with(llama(), "rope_scaling", with(scaling, "partial_rotary_factor", 0.5))),
              HasSubstr("rope_scaling.partial_rotary_factor would change the output"));
  EXPECT_THAT(verdict(with(without(llama(), "rope_scaling"), "rope_parameters",
                           {{"full_attention", json::object{}}, {"sliding_attention", json::object{}}})),
              HasSubstr("one rotation for all layers"));
}

TEST(ReadModel, RefusesFieldsThatWouldChangeTheOutput) {
  const std::pair<const char*, json::value> kFields[] = {
      {"attn_logit_softcapping", 50.0}, {"final_logit_softcapping", 30.0},
      {"query_pre_attn_scalar", 256},   {"attention_multiplier", 0.5},
      {"embedding_multiplier", 12.0},   {"residual_multiplier", 0.22},
      {"logits_scaling", 8.0},          {"logit_scale", 0.0625},
      {"partial_rotary_factor", 0.75},  {"clip_qkv", 8.0},
      {"num_local_experts", 8},         {"use_qk_norm", true},
      {"is_encoder_decoder", true},     {"attention_chunk_size", 8192},
  };
  for (const auto& [field, value] : kFields) {
    EXPECT_THAT(verdict(with(llama(), field, value)),
                HasSubstr(std::string(field) + " would change the output"))
        << field;
    EXPECT_THAT(verdict(with(llama(), field, nullptr)), IsEmpty()) << field;
  }
  EXPECT_THAT(verdict(with(llama(), "partial_rotary_factor", 1.0)), IsEmpty());
  EXPECT_THAT(verdict(with(llama(), "num_local_experts", 0)), IsEmpty());
  EXPECT_THAT(verdict(with(llama(), "hidden_act", "mish")), HasSubstr("hidden_act 'mish' is not supported"));
  EXPECT_THAT(verdict(with(mistral(), "mlp_bias", true)), HasSubstr("mlp_bias would change the output"));
  EXPECT_THAT(verdict(with(mistral(), "attention_bias", true)),
              HasSubstr("attention_bias would change the output"));
  EXPECT_THAT(verdict(with(llama(), "sliding_window", 4096)),
              HasSubstr("sliding_window would change the output"));
  EXPECT_THAT(verdict(with(llama(), "dtype", "float8_e4m3fn")),
              HasSubstr("dtype 'float8_e4m3fn' is not supported"));
}

TEST(ReadModel, RefusesByNameWhatNobodyAskedFor) {
  for (const char* field : {"mixture_of_depths", "rms_norm_epsilon", "layer_norm_type"}) {
    for (const json::value& value :
         {json::value(2), json::value("x"), json::value(true), json::value{1, 2}}) {
      EXPECT_THAT(verdict(with(llama(), field, value)),
                  AllOf(HasSubstr("config.json: " + std::string(field) + " would change the output"),
                        HasSubstr("this architecture")))
          << value;
    }
    for (const json::value& off : {json::value(nullptr), json::value(false), json::value(""),
                                   json::value(json::array()), json::value(json::object())}) {
      EXPECT_THAT(verdict(with(llama(), field, off)), IsEmpty()) << off;
    }
  }
  const json::object scaling = llama()["rope_scaling"].as_object();
  EXPECT_THAT(verdict(with(llama(), "rope_scaling", with(scaling, "attention_factor", 1.5))),
              HasSubstr("rope_scaling.attention_factor would change the output"));
  EXPECT_THAT(verdict(with(llama(), "text_config", {{"hidden_size", 64}})),
              HasSubstr("text_config would change the output"));
  EXPECT_THAT(verdict(with(with(llama(), "transformers_version", "5.0"), "initializer_range", 0.02)),
              IsEmpty());
  EXPECT_THAT(verdict(with(llama(), "pretraining_tp", 2)),
              HasSubstr("pretraining_tp would change the output"));
}

TEST(ReadModel, SaysWhyAnArchitectureIsNotServed) {
  EXPECT_THAT(
      verdict(with(llama(), "architectures", {"T5ForConditionalGeneration"})),
      HasSubstr(
          "the architecture 'T5ForConditionalGeneration' is not supported: it is an encoder with a decoder"));
  EXPECT_THAT(verdict(with(llama(), "architectures", {"LamaForCausalLM"})),
              HasSubstr("the architecture 'LamaForCausalLM' is not supported (did you mean LlamaForCausalLM?); serval models "
                        "lists what is"));
  EXPECT_THAT(verdict(with(llama(), "architectures", "LlamaForCausalLM")),
              HasSubstr("architectures must be an array"));
  EXPECT_THAT(verdict(with(llama(), "architectures", {"LlamaForCausalLM", "X"})),
              HasSubstr("architectures must be"));
}

TEST(ReadModel, BoundsEveryInteger) {
  for (const char* field : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                            "num_attention_heads", "num_key_value_heads", "max_position_embeddings"}) {
    for (const json::value& bad :
         {json::value(0), json::value(-1), json::value(int64_t{1} << 40), json::value(~uint64_t{0}),
          json::value(1.5), json::value("7"), json::value(true), json::value(json::array{})}) {
      EXPECT_THAT(verdict(with(llama(), field, bad)), HasSubstr(std::string(field) + " must be an integer"))
          << bad;
    }
  }
  EXPECT_THAT(verdict(without(llama(), "vocab_size")), HasSubstr("vocab_size is missing"));
  EXPECT_THAT(verdict(without(qwen2(), "num_key_value_heads")), HasSubstr("num_key_value_heads is missing"));
  EXPECT_EQ(attention(read(without(llama(), "num_key_value_heads"))).num_kv_heads, 32);
  EXPECT_THAT(verdict(with(llama(), "num_key_value_heads", 5)),
              HasSubstr("must be a multiple of num_key_value_heads"));
  EXPECT_THAT(verdict(with(llama(), "hidden_size", 4097)),
              HasSubstr("must be a multiple of num_attention_heads"));
  EXPECT_THAT(verdict(with(llama(), "head_dim", 13)), HasSubstr("head_dim must be even"));
  EXPECT_THAT(verdict(with(llama(), "head_dim", 520)),
              HasSubstr("head_dim must be an integer from 2 to 512"));
  EXPECT_THAT(verdict(with(llama(), "rms_norm_eps", 0)), HasSubstr("rms_norm_eps must be above 0"));
  EXPECT_THAT(verdict(with(llama(), "rms_norm_eps", "x")), HasSubstr("rms_norm_eps must be a number"));
  EXPECT_THAT(verdict(with(llama(), "tie_word_embeddings", 1)),
              HasSubstr("tie_word_embeddings must be true or false"));
}

TEST(ReadModel, GivesMambaOneGroupOfStatesAndNoFeedForward) {
  const ModelSpec spec = read(mamba());
  ASSERT_THAT(spec.kv_groups, SizeIs(1));
  EXPECT_TRUE(spec.kv_groups[0].keeps_state);
  EXPECT_THAT(spec.kv_groups[0].layers, SizeIs(24));
  EXPECT_TRUE(spec.tied_embeddings);
  const auto& mixer = std::get<MambaSpec>(spec.layers[23].mixer);
  EXPECT_EQ(mixer.channels, 1536);
  EXPECT_EQ(mixer.step_rank, 48);
  EXPECT_EQ(std::get<MambaSpec>(read(with(mamba(), "time_step_rank", "auto")).layers[0].mixer).step_rank, 48);
  EXPECT_THAT(verdict(with(mamba(), "state_size", 33)), HasSubstr("state_size must be an integer from 1 to 32"));
  EXPECT_THAT(verdict(with(mamba(), "conv_kernel", 9)), HasSubstr("conv_kernel must be an integer from 2 to 8"));
  EXPECT_THAT(verdict(with(mamba(), "intermediate_size", 1024)),
              HasSubstr("intermediate_size must be expand times hidden_size"));
  EXPECT_THAT(verdict(with(mamba(), "hidden_act", "relu")), HasSubstr("hidden_act 'relu' is not supported"));
  EXPECT_THAT(verdict(with(mamba(), "num_attention_heads", 12)),
              HasSubstr("num_attention_heads would change the output"));
}

// A published DeepSeek-V4-Flash configuration's facts.
json::object deepseek_v4() {
  json::object config = json::parse(R"({
    "architectures": ["DeepseekV4ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 0, "eos_token_id": 1,
    "expert_dtype": "fp4", "hc_eps": 1e-06, "hc_mult": 4, "hc_sinkhorn_iters": 20, "head_dim": 512, "hidden_act": "silu",
    "hidden_size": 4096, "index_head_dim": 128, "index_n_heads": 64, "index_topk": 512, "initializer_range": 0.02,
    "max_position_embeddings": 1048576, "model_type": "deepseek_v4", "moe_intermediate_size": 2048, "n_routed_experts": 256,
    "n_shared_experts": 1, "norm_topk_prob": true, "num_attention_heads": 64, "num_experts_per_tok": 6, "num_hidden_layers": 43,
    "num_hash_layers": 3, "num_key_value_heads": 1, "num_nextn_predict_layers": 1, "o_groups": 8, "o_lora_rank": 1024,
    "q_lora_rank": 1024, "qk_rope_head_dim": 64, "rms_norm_eps": 1e-06, "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 16,
    "original_max_position_embeddings": 65536, "type": "yarn"}, "rope_theta": 10000, "routed_scaling_factor": 1.5,
    "scoring_func": "sqrtsoftplus", "sliding_window": 128, "swiglu_limit": 10.0, "tie_word_embeddings": false, "topk_method": "noaux_tc",
    "torch_dtype": "bfloat16", "transformers_version": "4.57.1", "use_cache": true, "vocab_size": 129280, "compress_rope_theta": 160000})")
                            .as_object();
  json::array spans = {0, 0};
  for (int l = 2; l < 43; ++l) spans.push_back(l % 2 == 0 ? 4 : 128);
  spans.push_back(0);
  config["compress_ratios"] = spans;
  return config;
}

TEST(ReadModel, GivesDeepSeekV4PlacesForWhatItCompresses) {
  const ModelSpec spec = read(deepseek_v4());
  EXPECT_EQ(spec.num_layers(), 43 + 41);
  ASSERT_THAT(spec.kv_groups, SizeIs(2));
  EXPECT_THAT(spec.kv_groups[0].layers, SizeIs(41));
  EXPECT_EQ(spec.kv_groups[1].window, 128);
  const auto& sparse = std::get<CompressedAttentionSpec>(spec.layers[2].mixer);
  EXPECT_THAT(std::tuple(sparse.span, sparse.overlaps, sparse.top_k), std::tuple(4, true, 512));
  EXPECT_EQ(spec.layers[2].far_layer, 3);
  EXPECT_EQ(std::get<CompressedKeysSpec>(spec.layers[3].mixer).row_size, 512 + 128);
  const auto& heavy = std::get<CompressedAttentionSpec>(spec.layers[4].mixer);
  EXPECT_THAT(std::tuple(heavy.span, heavy.overlaps, heavy.has_index()), std::tuple(128, false, false));
  EXPECT_EQ(std::get<MoeFfnSpec>(spec.layers[4].ffn).named_tokens, 0) << "the fourth layer's rows choose";
  EXPECT_EQ(std::get<MoeFfnSpec>(spec.layers[2].ffn).named_tokens, 129280);
  EXPECT_EQ(spec.layers[0].rope, 0);
  EXPECT_EQ(spec.ropes[1].theta, 160000);
  EXPECT_EQ(spec.ropes[1].amplitude, 1);
  EXPECT_EQ(spec.ropes[1].rotary_dim, 64);

  // As the reference writes it.
  json::object written = deepseek_v4();
  for (const char* field : {"compress_ratios", "num_hash_layers", "rope_scaling", "rope_theta", "compress_rope_theta", "qk_rope_head_dim"})
    written.erase(field);
  json::array kinds = {"sliding_attention", "sliding_attention"}, experts;
  for (int l = 2; l < 43; ++l) kinds.push_back(l % 2 == 0 ? "compressed_sparse_attention" : "heavily_compressed_attention");
  for (int l = 0; l < 43; ++l) experts.push_back(l < 3 ? "hash_moe" : "moe");
  written["layer_types"] = kinds;
  written["mlp_layer_types"] = experts;
  written["compress_rates"] = json::parse(R"({"compressed_sparse_attention": 4, "heavily_compressed_attention": 128})");
  written["partial_rotary_factor"] = 0.125;
  written["rope_parameters"] = json::parse(R"({
    "main": {"rope_type": "default", "rope_theta": 10000, "partial_rotary_factor": 0.125},
    "compress": {"rope_type": "yarn", "rope_theta": 160000, "partial_rotary_factor": 0.125, "attention_factor": 1.0, "factor": 16,
                 "beta_fast": 32, "beta_slow": 1, "original_max_position_embeddings": 65536}})");
  const ModelSpec again = read(written);
  EXPECT_EQ(again.num_layers(), spec.num_layers());
  for (int r = 0; r < 2; ++r) {
    EXPECT_EQ(again.ropes[r].scaling.factors, spec.ropes[r].scaling.factors);
    EXPECT_EQ(again.ropes[r].theta, spec.ropes[r].theta);
    EXPECT_EQ(again.ropes[r].rotary_dim, spec.ropes[r].rotary_dim);
    EXPECT_EQ(again.ropes[r].amplitude, spec.ropes[r].amplitude);
  }

  EXPECT_THAT(verdict(with(deepseek_v4(), "compress_ratios", json::array(43, 8))), HasSubstr("compress_ratios holds 8; supported are 0, 4, 128"));
  EXPECT_THAT(verdict(with(deepseek_v4(), "compress_ratios", {4})), HasSubstr("must have a number for each"));
  EXPECT_THAT(verdict(with(deepseek_v4(), "num_key_value_heads", 2)), HasSubstr("num_key_value_heads must be 1"));
  EXPECT_THAT(verdict(with(deepseek_v4(), "o_groups", 7)), HasSubstr("o_groups must divide"));
  EXPECT_THAT(verdict(with(deepseek_v4(), "n_shared_experts", 2)), HasSubstr("n_shared_experts must be 1"));
  EXPECT_THAT(verdict(with(deepseek_v4(), "scoring_func", "tanh")), HasSubstr("scoring_func 'tanh' is not supported"));
  EXPECT_THAT(verdict(with(deepseek_v4(), "sliding_window", 0)), HasSubstr("sliding_window must be positive"));
}

TEST(ReadModel, GivesMistralOneWindowForAllLayersOrNone) {
  EXPECT_EQ(windows(read(mistral())), std::vector<int>(4, 1024));
  EXPECT_EQ(windows(read(with(mistral(), "sliding_window", nullptr))), std::vector<int>(4, 0));
  EXPECT_EQ(windows(read(with(mistral(), "sliding_window", 4096))), std::vector<int>(4, 0))
      << "hides nothing in a context of 4096";
  EXPECT_THAT(verdict(with(mistral(), "sliding_window", 0)),
              HasSubstr("sliding_window must be null or positive"));
  EXPECT_THAT(verdict(with(mistral(), "layer_types",
                           {"full_attention", "sliding_attention", "full_attention", "full_attention"})),
              HasSubstr("layer_types differs between layers"));
}

TEST(ReadModel, GivesMixtralItsExperts) {
  const ModelSpec spec = read(mixtral());
  const auto& ffn = std::get<MoeFfnSpec>(spec.layers[31].ffn);
  EXPECT_EQ(ffn.hidden_size, 4096);
  EXPECT_EQ(ffn.intermediate_size, 14336);
  EXPECT_EQ(ffn.num_experts, 8);
  EXPECT_EQ(ffn.top_k, 2);
  EXPECT_TRUE(ffn.rule.renormalise);
  EXPECT_EQ(windows(spec), std::vector<int>(32, 0));
  EXPECT_EQ(windows(read(with(mixtral(), "sliding_window", 4096))), std::vector<int>(32, 4096));
  EXPECT_THAT(verdict(with(mixtral(), "num_experts_per_tok", 9)), HasSubstr("num_experts_per_tok"));
  EXPECT_THAT(verdict(with(mixtral(), "num_local_experts", 513)), HasSubstr("num_local_experts"));
  EXPECT_THAT(verdict(without(mixtral(), "num_local_experts")), HasSubstr("num_local_experts"));
}

TEST(ReadModel, ReadsGpt2AsPublished) {
  const ModelSpec spec = read(gpt2());
  EXPECT_EQ(spec.positions, PositionTable::kLearned);
  EXPECT_TRUE(spec.tied_embeddings);
  EXPECT_EQ(spec.max_positions, 1024);
  EXPECT_EQ(spec.final_norm.kind, NormSpec::Kind::kLayer);
  EXPECT_TRUE(spec.ropes.empty());
  EXPECT_EQ(attention(spec).num_kv_heads, 12);
  EXPECT_EQ(attention(spec).head_dim, 64);
  EXPECT_EQ(attention(spec).scale, 0.125f);
  EXPECT_EQ(attention(read(with(gpt2(), "scale_attn_weights", false))).scale, 1.0f);
  const auto ffn_of = [](const ModelSpec& model) { return std::get<MlpFfnSpec>(model.layers[11].ffn); };
  EXPECT_EQ(ffn_of(spec).intermediate_size, 3072);
  EXPECT_EQ(ffn_of(spec).activation, Activation::kGeluTanh);
  EXPECT_EQ(ffn_of(read(with(gpt2(), "activation_function", "gelu"))).activation, Activation::kGelu);
  EXPECT_EQ(ffn_of(read(with(gpt2(), "n_inner", 100))).intermediate_size, 100);
  EXPECT_FALSE(read(with(gpt2(), "tie_word_embeddings", false)).tied_embeddings);
  const ModelSpec by_layer = read(with(gpt2(), "scale_attn_by_inverse_layer_idx", true));
  EXPECT_EQ(std::get<GqaSpec>(by_layer.layers[3].mixer).scale, 0.125f / 4);
  EXPECT_THAT(verdict(with(gpt2(), "add_cross_attention", true)), HasSubstr("add_cross_attention"));
  EXPECT_THAT(verdict(with(gpt2(), "activation_function", "tanh")), HasSubstr("activation_function"));
  EXPECT_THAT(verdict(with(gpt2(), "n_head", 13)), HasSubstr("n_embd"));
}

TEST(ReadModel, GivesQwenWindowsByLayer) {
  EXPECT_EQ(windows(read(qwen2())), std::vector<int>(4, 0)) << "use_sliding_window is false";
  const json::object on = with(qwen2(), "use_sliding_window", true);
  EXPECT_THAT(windows(read(on)), ElementsAre(0, 0, 1024, 1024));
  const json::object typed =
      with(on, "layer_types", {"sliding_attention", "full_attention", "full_attention", "sliding_attention"});
  EXPECT_THAT(windows(read(typed)), ElementsAre(1024, 0, 0, 1024)) << "layer_types decides when present";
  EXPECT_THAT(verdict(with(typed, "use_sliding_window", false)),
              HasSubstr("layer_types names sliding_attention although"));
  EXPECT_THAT(verdict(with(on, "layer_types", {"full_attention"})),
              HasSubstr("array of num_hidden_layers names"));
  EXPECT_THAT(verdict(with(on, "layer_types",
                           {"chunked_attention", "full_attention", "full_attention", "full_attention"})),
              HasSubstr("layer_types holds \"chunked_attention\""));
}

// The published facts of Gemma 3 1B, fewer layers.
json::object gemma3() {
  return json::parse(R"({
    "architectures": ["Gemma3ForCausalLM"], "attention_bias": false, "attn_logit_softcapping": null,
    "cache_implementation": "hybrid", "final_logit_softcapping": null, "head_dim": 256, "hidden_size": 1152,
    "hidden_activation": "gelu_pytorch_tanh", "intermediate_size": 6912, "max_position_embeddings": 32768,
    "model_type": "gemma3_text", "num_attention_heads": 4, "num_hidden_layers": 7, "num_key_value_heads": 1,
    "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000, "rope_scaling": null,
    "rope_theta": 1000000, "sliding_window": 512, "sliding_window_pattern": 6, "torch_dtype": "bfloat16",
    "vocab_size": 262144})")
      .as_object();
}

TEST(ReadModel, ReadsBothGenerationsOfGemma3Alike) {
  const ModelSpec spec = read(gemma3());
  EXPECT_THAT(windows(spec), ElementsAre(512, 512, 512, 512, 512, 0, 512));
  EXPECT_EQ(spec.layers[5].rope, 0);
  EXPECT_EQ(spec.layers[6].rope, 1);
  EXPECT_EQ(spec.ropes.at(0).theta, 1e6);
  EXPECT_EQ(spec.ropes.at(1).theta, 1e4);
  EXPECT_TRUE(spec.tied_embeddings) << "as the reference has it where the file is silent";
  EXPECT_EQ(spec.embedding_scale, std::sqrt(1152.0f));
  EXPECT_EQ(attention(spec).scale, 1.0f / 16);
  EXPECT_EQ(attention(spec).head_norm.offset, 1.0f);

  json::object newer = gemma3();
  for (const char* field : {"rope_local_base_freq", "rope_scaling", "rope_theta", "sliding_window_pattern"})
    newer.erase(field);
  newer["layer_types"] = {"sliding_attention", "sliding_attention", "full_attention"};
  newer["num_hidden_layers"] = 3;
  newer["rope_parameters"] = {
      {"full_attention", {{"rope_type", "linear"}, {"factor", 8.0}, {"rope_theta", 2e6}}},
      {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 5e3}}}};
  const ModelSpec other = read(newer);
  EXPECT_THAT(windows(other), ElementsAre(512, 512, 0));
  EXPECT_EQ(other.ropes.at(0).theta, 2e6);
  EXPECT_EQ(other.ropes.at(0).scaling.factor, 8);
  EXPECT_EQ(other.ropes.at(1).theta, 5e3);
  EXPECT_EQ(other.ropes.at(1).scaling.type, RopeScaling::Type::kNone);

  EXPECT_THAT(verdict(with(gemma3(), "attn_logit_softcapping", 50.0)),
              HasSubstr("attn_logit_softcapping would change the output"));
  EXPECT_THAT(verdict(with(gemma3(), "use_bidirectional_attention", true)),
              HasSubstr("use_bidirectional_attention would change the output"));
  EXPECT_THAT(verdict(without(gemma3(), "query_pre_attn_scalar")),
              HasSubstr("query_pre_attn_scalar is missing"));
}

TEST(ReadModel, TakesWhatAGemma3CompositeLeavesOutFromTheReference) {
  const json::object composite = json::parse(R"({
    "architectures": ["Gemma3ForConditionalGeneration"], "boi_token_index": 255999, "eoi_token_index": 256000,
    "eos_token_id": [1, 106], "image_token_index": 262144, "initializer_range": 0.02, "mm_tokens_per_image": 256,
    "model_type": "gemma3", "text_config": {"hidden_size": 2560, "intermediate_size": 10240,
      "model_type": "gemma3_text", "num_hidden_layers": 34,
      "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024},
    "torch_dtype": "bfloat16", "vision_config": {"hidden_size": 1152, "model_type": "siglip_vision_model"}})")
                                     .as_object();
  const ModelSpec spec = read(composite);
  EXPECT_EQ(spec.vocab_size, 262208);
  EXPECT_EQ(spec.max_positions, 131072);
  EXPECT_EQ(attention(spec).num_heads, 8);
  EXPECT_EQ(attention(spec).head_dim, 256);
  EXPECT_EQ(spec.ropes.at(0).theta, 1e6);
  EXPECT_EQ(scaling_of(spec).factor, 8);
  EXPECT_EQ(windows(spec)[4], 1024);
  EXPECT_EQ(windows(spec)[5], 0);
  EXPECT_TRUE(spec.tied_embeddings);
  json::object odd = composite;
  odd["text_config"].as_object()["experts"] = 8;
  EXPECT_THAT(verdict(odd), HasSubstr("text_config.experts would change the output"));
}

TEST(ReadModel, RotatesPhi3sLongSequencesByFactorsOfTheirOwn) {
  json::object phi =
      with(with(llama(), "architectures", {"Phi3ForCausalLM"}), "partial_rotary_factor", 0.0625);
  for (const char* field : {"attention_bias", "mlp_bias", "rope_scaling"}) phi.erase(field);
  EXPECT_EQ(read(phi).max_positions, 131072);
  EXPECT_EQ(read(phi).ropes.at(0).rotary_dim, 8);

  phi["original_max_position_embeddings"] = 4096;
  const json::object factors = {
      {"type", "longrope"}, {"short_factor", {1, 1.1, 1.2, 1.3}}, {"long_factor", {1, 2, 3, 4}}};
  const ModelSpec spec = read(with(phi, "rope_scaling", factors));
  EXPECT_EQ(spec.max_positions, 131072);
  const RopeSpec& rope = spec.ropes.at(0);
  EXPECT_THAT(rope.for_length(4096).scaling.factors, ElementsAre(1, 1.1, 1.2, 1.3));
  EXPECT_THAT(rope.for_length(4097).scaling.factors, ElementsAre(1, 2, 3, 4));
  EXPECT_NEAR(rope.amplitude, std::sqrt(1 + std::log(32.0) / std::log(4096.0)), 1e-12);
  EXPECT_EQ(rope.for_length(131072).amplitude, rope.amplitude);
  EXPECT_EQ(spec.length_classes().class_of(4096), 0);
  EXPECT_EQ(spec.length_classes().class_of(4097), 1);
  EXPECT_EQ(spec.length_classes().num_rows(4096), 4096) << "no table that nobody can need";
  EXPECT_EQ(spec.length_classes().num_rows(131072), 4096 + 131072);

  const ModelSpec whole = read(with(with(phi, "rope_scaling", factors), "max_position_embeddings", 4096));
  EXPECT_EQ(whole.length_classes().num_bounds, 0);
  EXPECT_EQ(whole.ropes.at(0).amplitude, 1);

  EXPECT_THAT(verdict(with(phi, "rope_scaling", with(factors, "short_factor", {1, 1}))),
              HasSubstr("short_factor must have a factor for each of the 4 pairs"));
  EXPECT_THAT(verdict(with(phi, "rope_scaling", with(factors, "short_factor", {1, 0, 1, 1}))),
              HasSubstr("short_factor must be an array of numbers above 0"));
  EXPECT_THAT(verdict(with(phi, "rope_scaling", with(factors, "type", "yarn"))),
              HasSubstr("rope_scaling.short_factor would change the output"));
  EXPECT_THAT(verdict(with(phi, "partial_rotary_factor", 0.055)), HasSubstr("rotates 7 dimensions"));
}

TEST(ReadModel, StretchesTheContextByDynamicScalingInStepsOfTwo) {
  const ModelSpec spec =
      read(with(with(llama(), "rope_scaling", {{"type", "dynamic"}, {"factor", 5.0}}), "max_position_embeddings", 1000));
  EXPECT_EQ(spec.max_positions, 5000);
  const LengthClasses classes = spec.length_classes();
  EXPECT_THAT(std::vector(classes.bounds, classes.bounds + classes.num_bounds), ElementsAre(1000, 2000, 4000));
  const RopeSpec& rope = spec.ropes.at(0);
  const auto base_of = [&](double length) {
    return rope.theta * std::pow(5 * length / 1000 - 4, rope.rotary_dim / (rope.rotary_dim - 2.0));
  };
  EXPECT_EQ(&rope.for_length(1000), &rope);
  EXPECT_DOUBLE_EQ(rope.for_length(1001).theta, base_of(2000));
  EXPECT_DOUBLE_EQ(rope.for_length(4000).theta, base_of(4000));
  EXPECT_DOUBLE_EQ(rope.for_length(4001).theta, base_of(5000));
}

TEST(ReadModel, ReadsThePhi4MinisConfiguration) {
  const json::object phi = json::parse(R"({"architectures": ["Phi3ForCausalLM"], "attention_bias": false,
    "attention_dropout": 0.0, "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"}, "bos_token_id": 199999,
    "embd_pdrop": 0.0, "eos_token_id": 199999, "full_attn_mod": 1, "hidden_act": "silu", "hidden_size": 3072,
    "initializer_range": 0.02, "intermediate_size": 8192, "interpolate_factor": 1, "lm_head_bias": false,
    "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "phi3", "num_attention_heads": 24,
    "num_hidden_layers": 32, "num_key_value_heads": 8, "original_max_position_embeddings": 4096, "pad_token_id": 199999,
    "partial_rotary_factor": 0.75, "resid_pdrop": 0.0, "rms_norm_eps": 1e-05,
    "rope_scaling": {"long_factor": [1], "short_factor": [1], "type": "longrope"}, "rope_theta": 10000.0,
    "sliding_window": 262144, "tie_word_embeddings": true, "torch_dtype": "bfloat16", "transformers_version": "4.45.0",
    "use_cache": true, "vocab_size": 200064})").as_object();
  json::object scaling = phi.at("rope_scaling").as_object();
  scaling["short_factor"] = scaling["long_factor"] = json::array(48, 1.0);
  const ModelSpec spec = read(with(phi, "rope_scaling", scaling));
  EXPECT_EQ(spec.ropes.at(0).rotary_dim, 96);
  EXPECT_EQ(spec.max_positions, 131072);
  EXPECT_TRUE(spec.tied_embeddings);
}

// What text_config leaves out has the value of the decoder that it names; its tie may stand in either.
TEST(ReadModel, ReadsTheTextOfAModelWithPictures) {
  const json::object llava = json::parse(R"({"architectures": ["LlavaForConditionalGeneration"], "ignore_index": -100,
    "image_token_index": 32000, "model_type": "llava", "pad_token_id": 32001, "projector_hidden_act": "gelu",
    "text_config": {"_name_or_path": "lmsys/vicuna-7b-v1.5", "architectures": ["LlamaForCausalLM"],
      "max_position_embeddings": 4096, "model_type": "llama", "rms_norm_eps": 1e-05, "torch_dtype": "float16",
      "vocab_size": 32064},
    "tie_word_embeddings": false, "torch_dtype": "float16", "transformers_version": "4.36.0.dev0",
    "vision_config": {"hidden_size": 1024, "model_type": "clip_vision_model"}, "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default", "vocab_size": 32064})").as_object();
  const ModelSpec spec = read(llava);
  EXPECT_EQ(spec.hidden_size, 4096);
  EXPECT_EQ(spec.vocab_size, 32064);
  EXPECT_EQ(spec.num_layers(), 32);
  EXPECT_FALSE(spec.tied_embeddings);
  const json::object text = llava.at("text_config").as_object();
  EXPECT_TRUE(read(with(llava, "text_config", with(text, "tie_word_embeddings", true))).tied_embeddings);
  EXPECT_TRUE(read(with(llava, "tie_word_embeddings", true)).tied_embeddings);
  EXPECT_THAT(verdict(with(llava, "text_config", with(text, "model_type", "opt"))),
              HasSubstr("text_config.model_type 'opt' is not supported beside pictures or sound"));
  EXPECT_THAT(verdict(with(llava, "text_config", with(text, "experts", 8))),
              HasSubstr("text_config.experts would change the output"));
}

TEST(ReadModel, BecomesGroupsOfLayersThatForgetAlike) {
  const ModelSpec full = read(qwen2());
  ASSERT_EQ(full.kv_groups.size(), 1u);
  EXPECT_EQ(full.kv_groups[0].window, 0);

  const ModelSpec windowed = read(mistral());
  ASSERT_EQ(windowed.kv_groups.size(), 1u);
  EXPECT_EQ(windowed.kv_groups[0].window, 1024);

  const ModelSpec mixed = read(with(qwen2(), "use_sliding_window", true));
  ASSERT_EQ(mixed.kv_groups.size(), 2u);
  EXPECT_THAT(mixed.kv_groups[0].layers, ElementsAre(0, 1));
  EXPECT_THAT(mixed.kv_groups[1].layers, ElementsAre(2, 3));
  EXPECT_EQ(mixed.kv_groups[0].window, 0);
  EXPECT_EQ(mixed.kv_groups[1].window, 1024);
  EXPECT_EQ(mixed.layers[3].kv_group, 1);
  EXPECT_TRUE(attention(mixed).qkv_bias) << "Qwen2 has them by architecture";
}

TEST(ReadModel, TakesASilentDtypeFromTheCheckpoint) {
  const TemporaryFolder folder;
  folder.write("config.json", json::serialize(without(llama(), "torch_dtype")));
  EXPECT_THAT(complaint([&] { read_model_spec(folder.path()); }),
              HasSubstr("holds neither model.safetensors"));
  folder.write(
      "model.safetensors",
      safetensors(R"({"model.embed_tokens.weight":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}})", "ab"));
  EXPECT_EQ(read_model_spec(folder.path()).weight_dtype, DType::kF16);
}

TEST(ReadModel, RefusesFilesThatAreNotConfigurations) {
  const TemporaryFolder folder;
  const auto verdict_on = [&](std::string_view text) {
    folder.write("config.json", text);
    return complaint([&] { read_model_spec(folder.path()); });
  };
  EXPECT_THAT(complaint([&] { read_model_spec(folder.path()); }), HasSubstr("cannot open"));
  EXPECT_THAT(verdict_on(""), HasSubstr("not valid JSON"));
  EXPECT_THAT(verdict_on("[]"), HasSubstr("must hold a JSON object"));
  EXPECT_THAT(verdict_on(std::string(1'000'000, '[')), HasSubstr("not valid JSON"));
  EXPECT_THAT(verdict_on(std::string(5'000'000, ' ')), HasSubstr("at most 4194304 are supported"));
}

TEST(ReadModel, NeverCrashesOnMutatedFiles) {
  FolderInMemory folder("config.json");
  const std::string good = json::serialize(llama());
  std::mt19937 random(fuzz_seed(7));
  for (int round = 0; round < 20000; ++round) {
    std::string text = good;
    for (int i = 0; i < 3; ++i) {
      const size_t at = random() % text.size();
      switch (random() % 4) {
        case 0:
          text[at] = static_cast<char>(random());
          break;
        case 1:
          text.erase(at, random() % 9);
          break;
        case 2:
          text.insert(at, text.substr(random() % text.size(), 9));
          break;
        case 3:
          text[at] = "0123456789-e.[]{}\"n,"[random() % 20];
          break;
      }
    }
    folder.write(text);
    try {
      const ModelSpec spec = read_model_spec(folder.path());
      ASSERT_GT(spec.num_layers(), 0);
    } catch (const std::runtime_error& error) {
      ASSERT_THAT(error.what(), HasSubstr(folder.path().string()));
    }
  }
}

TEST(ReadModel, IsKnownByItsModelTypeWhenItNamesNoArchitecture) {
  for (const Architecture* row : architectures()) {
    EXPECT_EQ(&find_architecture(row->name), row);
    if (row->name == "Int8OPTForCausalLM") continue;  // whose files say that they are of OPT's type
    EXPECT_EQ(&find_architecture_of_type(row->model_type), row);
  }
  const json::object typed = with(qwen2(), "model_type", "qwen2");
  for (const json::value& nothing : {json::value(nullptr), json::value(json::array())}) {
    EXPECT_EQ(read(with(typed, "architectures", nothing)).architecture, "Qwen2ForCausalLM");
  }
  EXPECT_EQ(read(without(typed, "architectures")).architecture, "Qwen2ForCausalLM");
  EXPECT_THAT(
      verdict(with(without(qwen2(), "architectures"), "model_type", "nobody")),
      HasSubstr("config.json: the model_type 'nobody' is not supported; serval models lists what is"));
  EXPECT_THAT(verdict(without(qwen2(), "architectures")), HasSubstr("there is no model_type"));
}

TEST(ReadModel, RefusesQuantisedWeightsByTheirMethodAndBits) {
  const std::pair<const char*, const char*> kCases[] = {
      {R"({"quant_method": "vptq", "bits": 2})", "vptq, 2 bit weights"},
      {R"({"quant_algo": "FP8"})", "FP8 weights"},
      {R"({"quantization_config": {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 3}}}})",
       "HQQ, 3 bit weights"},
      {R"({"quant_method": "evil\n\u001b[31m"})", "evil\\x0a\\x1b[31m weights"},
      {R"({"something": "else"})", "quantised weights"},
      {R"(true)", "quantised weights"},
  };
  for (const auto& [config, words] : kCases) {
    for (const char* field : {"quantization_config", "compression_config"}) {
      EXPECT_THAT(verdict(with(llama(), field, json::parse(config))),
                  AllOf(HasSubstr(field), HasSubstr(std::string(words) + " are not supported")))
          << config;
    }
  }
  EXPECT_THAT(verdict(with(llama(), "quantization_config", nullptr)), IsEmpty());
}

TEST(ReadModel, ShowsNamesOfTheFileOnOneLineAndCut) {
  const json::string name("evil\n\x1b[2J" + std::string(5000, 'x'));
  for (const char* field : {"hidden_act", "model_type", "torch_dtype"}) {
    const json::object config =
        with(std::string(field) == "model_type" ? without(qwen2(), "architectures") : qwen2(), field, name);
    EXPECT_THAT(verdict(config),
                AllOf(HasSubstr("'evil\\x0a\\x1b[2Jxxx"), Not(HasSubstr("\n")), SizeIs(::testing::Lt(600u))))
        << field;
  }
  EXPECT_THAT(verdict(with(qwen2(), "architectures", {name})), HasSubstr("'evil\\x0a\\x1b[2J"));
  EXPECT_THAT(verdict(with(qwen2(), "vocab_size", name)), SizeIs(::testing::Lt(600u)));
}

}  // namespace
}  // namespace serval::testing
