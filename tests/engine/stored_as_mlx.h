// Stores the layers' matrices of a folder of plain numbers again, as MLX's tools do, each kind of matrix in another of the
// formats that matrices with groups are held in, so that one model runs the loops of them all.
#pragma once

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/float_convert.h"
#include "engine/model/safetensors.h"
#include "kernels/float_bits.h"
#include "tests/engine/model/test_files.h"

namespace serval::testing {

struct MlxMatrix {
  std::string_view module;
  int bits;
  std::string_view mode;
};
// Held as int4 with offsets, as table4, as int8_groups with offsets and as fp8 with groups.
inline constexpr MlxMatrix kMlxMatrices[] = {
    {"self_attn.q_proj", 4, "affine"}, {"self_attn.k_proj", 4, "affine"}, {"self_attn.v_proj", 4, "affine"}, {"self_attn.o_proj", 4, "nvfp4"},
    {"mlp.gate_proj", 8, "affine"},    {"mlp.up_proj", 8, "affine"},      {"mlp.down_proj", 8, "mxfp8"}};
inline constexpr int kMlxGroup = 8;

// What config.json says of such a model: a member to add.
inline std::string mlx_config(int num_layers) {
  const std::string group = R"("group_size": )" + std::to_string(kMlxGroup);
  std::string json = R"(, "quantization": {)" + group + R"(, "bits": 4)";
  for (int layer = 0; layer < num_layers; ++layer) {
    for (const MlxMatrix& matrix : kMlxMatrices)
      json += ", \"model.layers." + std::to_string(layer) + "." + std::string(matrix.module) + "\": {" + group +
              ", \"bits\": " + std::to_string(matrix.bits) + ", \"mode\": \"" + std::string(matrix.mode) + "\"}";
  }
  return json + "}";
}

// One group in words from `word` on; what it has beside them: scale and bias, or a scale of a byte.
inline std::string store_group(const float* x, const MlxMatrix& how, uint32_t* word) {
  const auto [least, most] = std::minmax_element(x, x + kMlxGroup);
  const float largest = std::max(std::abs(*least), std::abs(*most));
  const bool is_affine = how.mode == "affine", has_powers = how.mode == "mxfp8";
  std::string beside;
  float scale = (*most - *least) / static_cast<float>((1 << how.bits) - 1);
  if (is_affine) {
    const uint16_t bits[] = {float_to_bf16(scale), float_to_bf16(*least)};
    beside.assign(reinterpret_cast<const char*>(bits), sizeof bits);
    scale = bf16_to_float(bits[0]);
  } else if (has_powers) {
    const int power = static_cast<int>(std::ceil(std::log2(largest / kLargestFp8)));
    beside = static_cast<char>(power + 127);
    scale = std::ldexp(1.0f, power);
  } else {
    const uint8_t bits = float_to_fp8(largest / 6);
    beside = static_cast<char>(bits);
    scale = fp8_to_float(bits);
  }
  for (int i = 0; i < kMlxGroup; ++i) {
    uint32_t code = 0;
    if (is_affine) {
      const auto last = static_cast<float>((1 << how.bits) - 1);
      code = static_cast<uint32_t>(std::clamp(std::nearbyint((x[i] - *least) / scale), 0.0f, last));
    } else if (has_powers) {
      code = float_to_fp8(x[i] / scale);
    } else {
      constexpr float kMagnitudes[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};  // of E2M1
      const auto distance = [&](float level) { return std::abs(level * scale - std::abs(x[i])); };
      const auto nearest = std::ranges::min_element(kMagnitudes, {}, distance) - std::begin(kMagnitudes);
      code = static_cast<uint32_t>(nearest) | (std::signbit(x[i]) ? 8u : 0u);
    }
    word[i * how.bits / 32] |= code << i * how.bits % 32;
  }
  return beside;
}

// Of a folder that has config.json and plain numbers; groups divide all rows.
inline void store_as_mlx(const std::filesystem::path& folder, int num_layers) {
  std::string header = "{", data;
  {
    const Checkpoint plain(folder);
    const auto add = [&](const std::string& name, std::string_view type, const std::vector<int64_t>& shape, std::string_view bytes) {
      std::string dims;
      for (const int64_t dim : shape) dims += (dims.empty() ? "" : ",") + std::to_string(dim);
      header += (header.size() > 1 ? ",\"" : "\"") + name + "\":{\"dtype\":\"" + std::string(type) + "\",\"shape\":[" + dims +
                "],\"data_offsets\":[" + std::to_string(data.size()) + "," + std::to_string(data.size() + bytes.size()) + "]}";
      data += bytes;
    };
    for (const TensorInfo& tensor : plain.tensors()) {
      std::string bytes(tensor.bytes, 0);
      plain.read(tensor, bytes.data());
      const auto* const how = std::ranges::find_if(kMlxMatrices, [&](const MlxMatrix& matrix) {
        return tensor.name.ends_with("." + std::string(matrix.module) + ".weight");
      });
      if (how == std::end(kMlxMatrices)) {
        add(tensor.name, tensor.dtype_name, tensor.shape, bytes);
        continue;
      }
      const int64_t n = tensor.shape[0], k = tensor.shape[1], groups = k / kMlxGroup, group_words = kMlxGroup * how->bits / 32;
      std::vector<float> numbers(static_cast<size_t>(n * k));
      convert(bytes.data(), *tensor.dtype, numbers.data(), DType::kF32, numbers.size());
      std::vector<uint32_t> words(static_cast<size_t>(n * groups * group_words));
      std::string scales, biases;
      for (int64_t g = 0; g < n * groups; ++g) {
        const std::string beside = store_group(numbers.data() + g * kMlxGroup, *how, words.data() + g * group_words);
        scales += beside.substr(0, beside.size() == 1 ? 1 : 2);
        if (beside.size() > 1) biases += beside.substr(2);
      }
      const std::string module = tensor.name.substr(0, tensor.name.size() - std::string_view(".weight").size());
      add(tensor.name, "U32", {n, groups * group_words}, {reinterpret_cast<const char*>(words.data()), words.size() * sizeof(uint32_t)});
      add(module + ".scales", biases.empty() ? "U8" : "BF16", {n, groups}, scales);
      if (!biases.empty()) add(module + ".biases", "BF16", {n, groups}, biases);
    }
  }
  const std::string file = safetensors(header + "}", data);
  std::ofstream(folder / "model.safetensors", std::ios::binary).write(file.data(), static_cast<std::streamsize>(file.size()));
  std::string config = read_bytes(folder / "config.json");
  config.insert(config.rfind('}'), mlx_config(num_layers));
  std::ofstream(folder / "config.json") << config;
}

}  // namespace serval::testing
