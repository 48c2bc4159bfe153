// Writes a seeded random checkpoint in Hugging Face's format: a real model in everything but sense, of any
// shape, for tests of laws and for measuring speed where only shapes matter. Knows no tensor names: it asks
// the weight map of the model it describes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "kernels/tensor.h"

namespace serval {

struct RandomModel {
  // Qwen2ForCausalLM, Qwen3ForCausalLM, MistralForCausalLM, MixtralForCausalLM, GPT2LMHeadModel and
  // BloomForCausalLM (which have as many heads as make up the hidden size), MambaForCausalLM (which has neither heads
  // nor windows), or any that asks for Llama's fields and those of more_config
  std::string architecture = "LlamaForCausalLM";
  DType dtype = DType::kF32;
  int vocab_size = 500;
  int hidden_size = 80;
  int num_layers = 3;
  int num_heads = 6;
  int num_kv_heads = 2;
  int head_dim = 16;
  int intermediate_size = 152;
  int max_positions = 1024;
  int sliding_window = 0;  // of MistralForCausalLM: every layer; of Qwen2ForCausalLM: layers from...
  int first_windowed_layer = 0;
  int num_experts = 0;  // of MixtralForCausalLM
  int experts_per_row = 2;
  bool tied_embeddings = false;
  std::string more_config;  // members that the architecture asks for beside these: ', "name": value'
  uint64_t seed = 1;
};

// Writes config.json and model.safetensors into `folder`, which is made when it is not there. Logits spread
// over a few units, so that draws vary. Throws when the disk refuses.
void write_random_model(const std::filesystem::path& folder, const RandomModel& model);

}  // namespace serval
