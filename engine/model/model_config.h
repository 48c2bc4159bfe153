// config.json (and generation_config.json) as one normalised struct. This file and its .cc are the only place
// that knows Hugging Face's field names. A field that would change the output and is not supported is refused
// with a sentence.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace serval {

// Llama 3.1's frequency-dependent scaling of the rotary embedding (rope_type "llama3"); others: none, linear.
struct RopeScaling {
  enum class Type : uint8_t { kNone, kLinear, kLlama3 } type = Type::kNone;
  double factor = 1;
  double low_freq_factor = 1;
  double high_freq_factor = 4;
  int original_max_positions = 0;
};

struct ModelConfig {
  std::string architecture;  // "LlamaForCausalLM", ...
  std::string model_type;
  int vocab_size = 0;
  int hidden_size = 0;
  int intermediate_size = 0;
  int num_layers = 0;
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  int max_positions = 0;
  double rope_theta = 10000;
  RopeScaling rope_scaling;
  double rms_norm_eps = 1e-6;
  Activation hidden_act = Activation::kSilu;
  bool tie_word_embeddings = false;
  bool attention_bias = false;  // on q, k, v; Qwen2 has it whatever this says
  bool attention_output_bias = false;
  bool mlp_bias = false;
  int sliding_window = 0;               // 0: none
  std::vector<bool> layer_is_windowed;  // per layer
  DType dtype = DType::kBF16;  // as published; when the file is silent, that of the checkpoint's embedding
};

// Defaults a request starts from when it leaves a field out.
struct GenerationDefaults {
  std::optional<float> temperature, top_p, min_p, repetition_penalty;
  std::optional<int> top_k;
  std::vector<int32_t> eos_token_ids;  // generation_config.json, else config.json
  int32_t bos_token_id = -1;
};

// Both throw std::runtime_error with a sentence that names the file and the field.
ModelConfig read_model_config(const std::filesystem::path& model_dir);
// Numbers outside of the ranges a request is held to (sampling_ranges.h) are moved to the nearest end, ids
// from vocab_size on left out, each with a line in the log.
GenerationDefaults read_generation_defaults(const std::filesystem::path& model_dir, int vocab_size);

// MODEL: a folder, or the name ("org/name") of one in the local Hugging Face cache ($HF_HUB_CACHE,
// $HF_HOME/hub,
// ~/.cache/huggingface/hub). Throws when there is none.
std::filesystem::path resolve_model(const std::string& model);

}  // namespace serval
