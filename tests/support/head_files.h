// Writes random heads that guess, as the published checkpoints have them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace serval::testing {

// A safetensors file of random numbers, F32, and of given ones.
class HeadFile {
 public:
  void add(const std::string& name, const std::vector<int>& shape, float spread = 0.3f) {
    size_t count = 1;
    for (const int dim : shape) count *= static_cast<size_t>(dim);
    std::vector<float> values(count);
    std::normal_distribution<float> normal(0, spread);
    for (float& value : values) value = normal(random_);
    add(name, "F32", shape, values.data(), count * sizeof(float));
  }
  void add(const std::string& name, const char* type, const std::vector<int>& shape, const void* data, size_t bytes) {
    if (name == without) return;
    std::string dims;
    for (const int dim : shape) dims += (dims.empty() ? "" : ",") + std::to_string(dim);
    header_ += (header_.empty() ? "{\"" : ",\"") + name + R"(":{"dtype":")" + type + R"(","shape":[)" + dims + R"(],"data_offsets":[)" +
               std::to_string(bytes_.size()) + "," + std::to_string(bytes_.size() + bytes) + "]}";
    const size_t at = bytes_.size();
    bytes_.resize(at + bytes);
    std::memcpy(bytes_.data() + at, data, bytes);
  }
  void write(const std::filesystem::path& path) const {
    std::string header = header_ + "}";
    while (header.size() % 8 != 0) header += ' ';
    std::ofstream file(path, std::ios::binary);
    const uint64_t size = header.size();
    file.write(reinterpret_cast<const char*>(&size), sizeof size);
    file << header;
    file.write(bytes_.data(), static_cast<std::streamsize>(bytes_.size()));
  }

  std::string without;  // a tensor that is left out

 private:
  std::mt19937 random_{1};
  std::string header_;
  std::vector<char> bytes_;
};

// FasterDecoding's.
inline void write_medusa_heads(const std::filesystem::path& folder, int num_heads, int hidden, int vocab,
                               const std::string& without = "") {
  HeadFile file;
  file.without = without;
  for (int h = 0; h < num_heads; ++h) {
    const std::string head = std::to_string(h);
    file.add(head + ".0.linear.bias", {hidden});
    file.add(head + ".0.linear.weight", {hidden, hidden});
    file.add(head + ".1.weight", {vocab, hidden});
  }
  file.write(folder / "medusa_lm_head.safetensors");
}

// Ankner's, of plain layers: the first of a head reads the row and the tokens behind it.
inline void write_hydra_heads(const std::filesystem::path& folder, int num_heads, int num_layers, int hidden, int vocab,
                              const std::string& without = "") {
  std::filesystem::create_directories(folder);
  HeadFile file;
  file.without = without;
  for (int h = 0; h < num_heads; ++h) {
    const std::string head = std::to_string(h);
    for (int l = 0; l < num_layers; ++l) {
      const std::string layer = "hydra_mlp." + head + "." + std::to_string(l) + ".";
      for (const char* matrix : {"linear", "res_connection"}) {
        if (l > 0 && matrix == std::string("res_connection")) continue;
        file.add(layer + matrix + ".bias", {hidden});
        file.add(layer + matrix + ".weight", {hidden, l == 0 ? (h + 2) * hidden : hidden}, 0.1f);
      }
    }
    file.add("hydra_lm_head." + head + ".bias", {vocab});
    file.add("hydra_lm_head." + head + ".weight", {vocab, hidden});
  }
  file.write(folder / "hydra_lm_head.safetensors");
}

struct EagleShape {
  int hidden = 0, vocab = 0, num_heads = 6, num_kv_heads = 2, head_dim = 16, intermediate = 64;
  int draft_vocab = 0;  // of the third form; 0: the first
  int num_read = 3;     // layers that the third form reads
  std::string more_config = {}, without = {};
};

// SafeAILab's: the first form, or the third.
inline void write_eagle_head(const std::filesystem::path& folder, const EagleShape& shape) {
  std::filesystem::create_directories(folder);
  const auto number = [](const char* name, int value) { return ",\"" + std::string(name) + "\":" + std::to_string(value); };
  const bool is_third = shape.draft_vocab > 0;
  std::ofstream config(folder / "config.json");
  config << R"({"architectures":["LlamaForCausalLM")" << R"(],"model_type":"llama","hidden_act":"silu","rms_norm_eps":1e-05)"
         << number("hidden_size", shape.hidden) << number("num_attention_heads", shape.num_heads)
         << number("num_key_value_heads", shape.num_kv_heads) << number("head_dim", shape.head_dim)
         << number("intermediate_size", shape.intermediate) << number("num_hidden_layers", 1)
         << number("vocab_size", shape.vocab) << number("max_position_embeddings", 2048)
         << (is_third ? number("draft_vocab_size", shape.draft_vocab) : "") << shape.more_config
         << R"(,"tie_word_embeddings":false,"torch_dtype":"float16","use_cache":true})";
  const std::string layer = is_third ? "midlayer." : "layers.0.";
  const int hidden = shape.hidden, read = is_third ? 2 * hidden : hidden;
  HeadFile file;
  file.without = shape.without;
  const float matrix = 0.1f, norm = 1;
  if (is_third) {
    std::vector<int64_t> d2t(static_cast<size_t>(shape.draft_vocab));
    for (size_t i = 0; i < d2t.size(); ++i) d2t[i] = static_cast<int64_t>(i) / 3;
    file.add("d2t", "I64", {shape.draft_vocab}, d2t.data(), d2t.size() * sizeof(int64_t));
    const std::vector<char> t2d(static_cast<size_t>(shape.vocab));
    file.add("t2d", "BOOL", {shape.vocab}, t2d.data(), t2d.size());
    file.add(layer + "input_layernorm.weight", {hidden}, norm);
    file.add(layer + "hidden_norm.weight", {hidden}, norm);
    file.add("norm.weight", {hidden}, norm);
    file.add("lm_head.weight", {shape.draft_vocab, hidden}, matrix);
  } else {
    file.add("embed_tokens.weight", {shape.vocab, hidden}, matrix);
    file.add("fc.bias", {hidden}, matrix);
  }
  file.add("fc.weight", {hidden, (is_third ? shape.num_read : 2) * hidden}, matrix);
  file.add(layer + "self_attn.q_proj.weight", {shape.num_heads * shape.head_dim, read}, matrix);
  file.add(layer + "self_attn.k_proj.weight", {shape.num_kv_heads * shape.head_dim, read}, matrix);
  file.add(layer + "self_attn.v_proj.weight", {shape.num_kv_heads * shape.head_dim, read}, matrix);
  file.add(layer + "self_attn.o_proj.weight", {hidden, shape.num_heads * shape.head_dim}, matrix);
  file.add(layer + "post_attention_layernorm.weight", {hidden}, norm);
  file.add(layer + "mlp.gate_proj.weight", {shape.intermediate, hidden}, matrix);
  file.add(layer + "mlp.up_proj.weight", {shape.intermediate, hidden}, matrix);
  file.add(layer + "mlp.down_proj.weight", {hidden, shape.intermediate}, matrix);
  file.write(folder / "model.safetensors");
}

// z-lab's: two layers as Qwen3's, a block of six.
inline void write_dflash(const std::filesystem::path& folder, int hidden, int vocab, const std::string& layers, const std::string& more_config = "",
                         const std::string& without = "") {
  std::filesystem::create_directories(folder);
  constexpr int kHeads = 4, kKvHeads = 2, kHeadDim = 16, kIntermediate = 48;
  const auto number = [](const char* name, int value) { return ",\"" + std::string(name) + "\":" + std::to_string(value); };
  std::ofstream(folder / "config.json")
      << R"({"architectures":["DFlashDraftModel"],"model_type":"qwen3","hidden_act":"silu","rms_norm_eps":1e-06,"rope_theta":10000,)"
      << R"("attention_bias":false,"block_size":6,"num_target_layers":3,"dflash_config":{"mask_token_id":5,"target_layer_ids":)" << layers
      << "}" << number("hidden_size", hidden) << number("num_attention_heads", kHeads) << number("num_key_value_heads", kKvHeads)
      << number("head_dim", kHeadDim) << number("intermediate_size", kIntermediate) << number("num_hidden_layers", 2)
      << number("vocab_size", vocab) << number("max_position_embeddings", 512) << more_config << R"(,"tie_word_embeddings":true})";
  HeadFile file;
  file.without = without;
  const float matrix = 0.2f, norm = 1;
  file.add("fc.weight", {hidden, static_cast<int>(std::count(layers.begin(), layers.end(), ',') + 1) * hidden}, matrix);
  file.add("hidden_norm.weight", {hidden}, norm);
  file.add("norm.weight", {hidden}, norm);
  for (const std::string layer : {"layers.0.", "layers.1."}) {
    for (const auto& [name, heads] : {std::pair{"q", kHeads}, {"k", kKvHeads}, {"v", kKvHeads}})
      file.add(layer + "self_attn." + name + "_proj.weight", {heads * kHeadDim, hidden}, matrix);
    file.add(layer + "self_attn.o_proj.weight", {hidden, kHeads * kHeadDim}, matrix);
    for (const char* name : {"self_attn.q_norm", "self_attn.k_norm"}) file.add(layer + name + ".weight", {kHeadDim}, norm);
    for (const char* name : {"input_layernorm", "post_attention_layernorm"}) file.add(layer + name + ".weight", {hidden}, norm);
    for (const char* name : {"mlp.gate_proj", "mlp.up_proj"}) file.add(layer + name + ".weight", {kIntermediate, hidden}, matrix);
    file.add(layer + "mlp.down_proj.weight", {hidden, kIntermediate}, matrix);
  }
  file.write(folder / "model.safetensors");
}

}  // namespace serval::testing
