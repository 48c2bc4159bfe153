#include "loadtest/bench/random_model.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <set>
#include <stdexcept>
#include <variant>
#include <vector>

#include "engine/model/float_convert.h"
#include "engine/model/read_model.h"
#include "engine/model/weight_map.h"
#include "kernels/gumbel.h"

namespace serval {
namespace {

constexpr const char* kTypeNames[] = {"F32", "F16", "BF16", "I32"};

std::string config_json(const RandomModel& m) {
  const auto number = [](const char* name, int64_t value) {
    return ",\n  \"" + std::string(name) + "\": " + std::to_string(value);
  };
  constexpr const char* kTorchNames[] = {"float32", "float16", "bfloat16"};
  std::string json = "{\n  \"architectures\": [\"" + m.architecture + "\"]";
  json += ",\n  \"torch_dtype\": \"" + std::string(kTorchNames[static_cast<int>(m.dtype)]) + "\"";
  json += number("vocab_size", m.vocab_size) + number("bos_token_id", 1) + number("eos_token_id", 2);
  if (m.architecture == "GPT2LMHeadModel") {
    json += number("n_embd", m.hidden_size) + number("n_layer", m.num_layers) +
            number("n_head", m.hidden_size / m.head_dim) + number("n_inner", m.intermediate_size) +
            number("n_positions", m.max_positions);
  } else if (m.architecture == "MambaForCausalLM" || m.architecture == "RwkvForCausalLM" || m.architecture == "RWKV7ForCausalLM" ||
             m.architecture == "GLAForCausalLM") {
    json += number("hidden_size", m.hidden_size) + number("num_hidden_layers", m.num_layers) +
            number("max_position_embeddings", m.max_positions);
  } else if (m.architecture == "BloomForCausalLM") {
    json += number("n_embed", m.hidden_size) + number("n_layer", m.num_layers) +
            number("n_head", m.hidden_size / m.head_dim);
  } else {
    json += ",\n  \"hidden_act\": \"silu\",\n  \"rms_norm_eps\": 1e-06,\n  \"rope_theta\": 10000.0";
    json += number("hidden_size", m.hidden_size) + number("num_hidden_layers", m.num_layers) +
            number("num_attention_heads", m.num_heads) + number("num_key_value_heads", m.num_kv_heads) +
            number("head_dim", m.head_dim) + number("intermediate_size", m.intermediate_size) +
            number("max_position_embeddings", m.max_positions);
  }
  if (m.sliding_window > 0) json += number("sliding_window", m.sliding_window);
  if (m.sliding_window > 0 && m.architecture == "Qwen2ForCausalLM") {
    json += ",\n  \"use_sliding_window\": true" + number("max_window_layers", m.first_windowed_layer);
  }
  if (m.num_experts > 0)
    json += number("num_local_experts", m.num_experts) + number("num_experts_per_tok", m.experts_per_row);
  json += m.more_config;
  json += std::string(",\n  \"tie_word_embeddings\": ") + (m.tied_embeddings ? "true" : "false") + "\n}\n";
  return json;
}

struct Planned {
  SourceTensor source;
  DType dtype;
  float center, spread;  // values are uniform in center +- spread
};

// Of the whole tensor in the file.
size_t stored_elements(const SourceTensor& source) {
  return static_cast<size_t>(source.num_elements() * std::max<int64_t>(1, source.stack));
}

// Scaled so that rows keep their size from layer to layer.
void plan(const VectorSlot& slot, const ModelSpec&, std::vector<Planned>& planned) {
  for (const SourceTensor& source : slot.sources) {
    // The logarithm of a decay: states that last for some tokens.
    const float center = source.name.ends_with(".bias")    ? 0.0f
                         : source.name.ends_with(".A_log") || source.name.ends_with(".time_decay") ? -2.0f
                                                           : 1.0f - slot.offset;
    planned.push_back({source, source.integers_below > 0 ? DType::kI32 : DType::kF32, center, 0.3f});
  }
}
void plan(const LinearSlot& slot, const ModelSpec& spec, std::vector<Planned>& planned) {
  for (const SourceTensor& part : slot.parts) {
    float spread = std::sqrt(3.0f / static_cast<float>(part.shape[1]));
    const bool is_embedding = part.name == spec.names.embedding_tensor();
    if (part.name == spec.names.head_tensor() || (is_embedding && spec.tied_embeddings)) spread *= 2.5f;
    planned.push_back({part, spec.weight_dtype, 0.0f, spread});
  }
  for (const SourceTensor& bias : slot.biases) planned.push_back({bias, spec.weight_dtype, 0.0f, 0.2f});
}

// What no checkpoint has.
void plan(const ConstantSlot&, const ModelSpec&, std::vector<Planned>&) {}
void plan(const TableSlot&, const ModelSpec&, std::vector<Planned>&) {}

// Every tensor of the model, once, though several slots may have rows of it.
std::vector<Planned> plan_tensors(const ModelSpec& spec) {
  ModelWeights weights;
  std::vector<Planned> planned;
  for (const WeightSlot& slot : map_weights(spec, weights)) {
    std::visit([&](const auto& s) { plan(s, spec, planned); }, slot);
  }
  std::set<std::string> seen;
  std::erase_if(planned, [&](const Planned& tensor) { return !seen.insert(tensor.source.name).second; });
  return planned;
}

}  // namespace

void write_random_model(const std::filesystem::path& folder, const RandomModel& model) {
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "config.json") << config_json(model);
  const std::vector<Planned> tensors = plan_tensors(read_model_spec(folder));

  std::string header = "{";
  size_t offset = 0;
  for (const auto& [source, dtype, center, spread] : tensors) {
    std::string shape;
    for (const int64_t dim : source.stored_shape()) shape += (shape.empty() ? "" : ",") + std::to_string(dim);
    const size_t end = offset + stored_elements(source) * dtype_bytes(dtype);
    header += (header.size() > 1 ? ",\"" : "\"") + source.name + "\":{\"dtype\":\"" +
              kTypeNames[static_cast<int>(dtype)] + "\",\"shape\":[" + shape + "],\"data_offsets\":[" +
              std::to_string(offset) + "," + std::to_string(end) + "]}";
    offset = end;
  }
  header += "}";
  header.append((8 - header.size() % 8) % 8, ' ');

  std::ofstream file(folder / "model.safetensors", std::ios::binary);
  const uint64_t header_bytes = header.size();
  file.write(reinterpret_cast<const char*>(&header_bytes), sizeof header_bytes);
  file << header;
  constexpr size_t kChunk = 1 << 16;
  std::vector<float> values(kChunk);
  std::vector<std::byte> converted(kChunk * sizeof(float));
  uint64_t counter = mix64(model.seed);
  for (const auto& [source, dtype, center, spread] : tensors) {
    for (size_t left = stored_elements(source); left > 0;) {
      const size_t count = std::min(left, kChunk);
      for (size_t i = 0; i < count; ++i) {
        const auto bits = static_cast<int32_t>(mix64(++counter) >> 40);  // 24 bits
        values[i] = center + spread * (static_cast<float>(bits) * 0x1p-23f - 1.0f);
        if (dtype == DType::kI32) values[i] = std::bit_cast<float>(static_cast<int32_t>(bits % source.integers_below));
      }
      if (dtype == DType::kI32) std::memcpy(converted.data(), values.data(), count * sizeof(float));
      else convert(values.data(), DType::kF32, converted.data(), dtype, count);
      file.write(reinterpret_cast<const char*>(converted.data()),
                 static_cast<std::streamsize>(count * dtype_bytes(dtype)));
      left -= count;
    }
  }
  file.close();
  if (!file) throw std::runtime_error("cannot write " + (folder / "model.safetensors").string());
}

}  // namespace serval
