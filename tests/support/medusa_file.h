// Writes random Medusa heads as FasterDecoding's checkpoints have them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace serval::testing {

inline void write_medusa_heads(const std::filesystem::path& folder, int num_heads, int hidden, int vocab,
                               const std::string& without = "") {
  std::vector<std::pair<std::string, std::vector<int>>> tensors;
  for (int h = 0; h < num_heads; ++h) {
    const std::string head = std::to_string(h);
    tensors.push_back({head + ".0.linear.bias", {hidden}});
    tensors.push_back({head + ".0.linear.weight", {hidden, hidden}});
    tensors.push_back({head + ".1.weight", {vocab, hidden}});
  }
  std::erase_if(tensors, [&](const auto& tensor) { return tensor.first == without; });
  std::string header = "{";
  size_t end = 0;
  for (const auto& [name, shape] : tensors) {
    size_t count = 1;
    std::string dims;
    for (const int dim : shape) {
      dims += (dims.empty() ? "" : ",") + std::to_string(dim);
      count *= static_cast<size_t>(dim);
    }
    header += (header.size() > 1 ? ",\"" : "\"") + name + R"(":{"dtype":"F32","shape":[)" + dims + R"(],"data_offsets":[)" +
              std::to_string(end) + "," + std::to_string(end + 4 * count) + "]}";
    end += 4 * count;
  }
  header += "}";
  while (header.size() % 8 != 0) header += ' ';
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 0.3f);
  std::vector<float> values(end / 4);
  for (float& value : values) value = normal(random);
  std::ofstream file(folder / "medusa_lm_head.safetensors", std::ios::binary);
  const uint64_t size = header.size();
  file.write(reinterpret_cast<const char*>(&size), sizeof size);
  file << header;
  file.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(end));
}

}  // namespace serval::testing
