#include "engine/model/quantise_folder.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <fstream>
#include <span>
#include <stdexcept>
#include <vector>

#include "engine/json/json_reader.h"
#include "engine/model/config_fields.h"
#include "engine/model/float_convert.h"
#include "engine/model/read_model.h"
#include "engine/model/safetensors.h"
#include "kernels/base/check.h"
#include "kernels/base/shown.h"
#include "kernels/float_bits.h"

namespace serval {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;

constexpr size_t kShardBytes = size_t{4} << 30, kCopyBytes = size_t{16} << 20;

struct Format {
  std::string_view name, stored;  // of quantize, and of compressed-tensors
  int bits;
  const char* type;
  int64_t group;  // kWholeRow: a scale a row
};
constexpr Format kFormats[] = {{"int4", "pack-quantized", 4, "int", 32},
                               {"int4_g128", "pack-quantized", 4, "int", 128},
                               {"int8", "int-quantized", 8, "int", kWholeRow},
                               {"int8_g32", "pack-quantized", 8, "int", 32},
                               {"int8_g128", "pack-quantized", 8, "int", 128},
                               {"fp8", "float-quantized", 8, "float", kWholeRow}};

const Format& format_named(const std::string& name) {
  for (const Format& format : kFormats)
    if (format.name == name) return format;
  throw std::runtime_error("the format is " + in_quotes(name) + "; it takes int4, int4_g128, int8, int8_g32, int8_g128 or fp8" +
                           (name == "fp6" ? "; compressed-tensors has no floats of 6 bits: serve the folder with quantize: fp6" : ""));
}

// A tensor of the new folder: its bytes are made when its turn comes.
struct NewTensor {
  std::string name;
  std::string_view dtype;
  std::vector<int64_t> shape;
  size_t bytes;
};

// A matrix under scales in the type that the matrix has.
struct Rounded {
  std::vector<int8_t> codes;     // [n, k]; E4M3 as they are
  std::vector<std::byte> scales;  // [n, groups]
};

float in_type(float value, DType type) {
  if (type == DType::kBF16) return bf16_to_float(float_to_bf16(value));
  return type == DType::kF16 ? half_to_float(float_to_half(value)) : value;
}

// One group's codes under a scale, and how much is lost of the answers; `powers` of its inputs.
class GroupRounder {
 public:
  explicit GroupRounder(const Format& format)
      : is_float_(std::string_view(format.type) == "float"),
        // The middle between the last codes of both signs; of E4M3 its largest number.
        most_(is_float_ ? kLargestFp8 : static_cast<float>((1 << format.bits) - 1) / 2),
        last_(static_cast<float>((1 << (format.bits - 1)) - 1)) {}

  float scale_for(float largest) const { return largest / most_; }
  int8_t code(float number, float scale) const {
    const float code = scale > 0 ? number / scale : 0;
    return is_float_ ? static_cast<int8_t>(float_to_fp8(code)) : static_cast<int8_t>(std::clamp(std::nearbyint(code), -last_ - 1, last_));
  }
  double loss(std::span<const float> numbers, std::span<const double> powers, float scale) const {
    double sum = 0;
    for (size_t i = 0; i < numbers.size(); ++i) {
      const int8_t rounded = code(numbers[i], scale);
      const double off = numbers[i] - scale * (is_float_ ? fp8_to_float(static_cast<uint8_t>(rounded)) : static_cast<float>(rounded));
      sum += powers[i] * off * off;
    }
    return sum;
  }

 private:
  bool is_float_;
  float most_, last_;
};

// powers [k], or empty.
Rounded round_matrix(const Format& format, const std::vector<float>& numbers, int64_t k, DType type, std::span<const double> powers) {
  constexpr int kTries = 20;  // down to half of what the largest asks for
  const GroupRounder rounder(format);
  Rounded rounded;
  rounded.codes.resize(numbers.size());
  const auto group = static_cast<size_t>(format.group == kWholeRow ? k : format.group);
  std::vector<float> scales;
  for (size_t begin = 0; begin < numbers.size(); begin += group) {
    const std::span<const float> part(&numbers[begin], group);
    float largest = 0;
    for (const float number : part) {
      if (!std::isfinite(number)) throw std::runtime_error("has a weight that is not finite");
      largest = std::max(largest, std::abs(number));
    }
    float scale = in_type(rounder.scale_for(largest), type);
    if (!powers.empty()) {
      const std::span<const double> own = powers.subspan(begin % static_cast<size_t>(k), group);
      double least = rounder.loss(part, own, scale);
      for (int t = 1; t <= kTries; ++t) {
        const float other = in_type(rounder.scale_for(largest * (1 - 0.5f * static_cast<float>(t) / kTries)), type);
        if (const double loss = rounder.loss(part, own, other); loss < least) {
          least = loss;
          scale = other;
        }
      }
    }
    scales.push_back(scale);
    for (size_t i = 0; i < group; ++i) rounded.codes[begin + i] = rounder.code(part[i], scale);
  }
  rounded.scales.resize(scales.size() * dtype_bytes(type));
  convert(scales.data(), DType::kF32, rounded.scales.data(), type, scales.size());
  return rounded;
}

// As many codes a word as there is room for, plus half their range.
std::vector<uint32_t> packed(const std::vector<int8_t>& codes, int bits) {
  const auto per_word = static_cast<size_t>(32 / bits);
  std::vector<uint32_t> words(codes.size() / per_word);
  for (size_t i = 0; i < codes.size(); ++i)
    words[i / per_word] |= static_cast<uint32_t>(codes[i] + (1 << (bits - 1))) << i % per_word * static_cast<size_t>(bits);
  return words;
}

std::string without_ending(const std::string& name) {
  return name.substr(0, name.size() - std::string_view(".weight").size());
}

// What the matrix of that tensor becomes.
std::vector<NewTensor> parts_of(const Format& format, const TensorInfo& tensor) {
  const int64_t n = tensor.shape[0], k = tensor.shape[1], groups = format.group == kWholeRow ? 1 : k / format.group;
  const std::string module = without_ending(tensor.name);
  const NewTensor scales{module + ".weight_scale", tensor.dtype_name, {n, groups},
                         static_cast<size_t>(n * groups) * dtype_bytes(*tensor.dtype)};
  if (format.group == kWholeRow)
    return {{tensor.name, format.type == std::string_view("int") ? "I8" : "F8_E4M3", {n, k}, static_cast<size_t>(n * k)}, scales};
  return {{module + ".weight_packed", "I32", {n, k * format.bits / 32}, static_cast<size_t>(n * k * format.bits / 8)},
          scales,
          {module + ".weight_shape", "I64", {2}, 2 * sizeof(int64_t)}};
}

class ShardWriter {
 public:
  ShardWriter(const fs::path& path, const std::vector<NewTensor>& tensors) : path_(path), file_(path, std::ios::binary) {
    json::object header = {{"__metadata__", {{"format", "pt"}}}};
    size_t end = 0;
    for (const NewTensor& tensor : tensors) {
      header[tensor.name] = {{"dtype", tensor.dtype}, {"shape", json::array(tensor.shape.begin(), tensor.shape.end())},
                             {"data_offsets", {end, end + tensor.bytes}}};
      end += tensor.bytes;
    }
    std::string text = json::serialize(header);
    text.resize((text.size() + 7) / 8 * 8, ' ');
    const uint64_t length = text.size();
    write(&length, sizeof length);
    write(text.data(), text.size());
  }
  void write(const void* bytes, size_t count) {
    file_.write(static_cast<const char*>(bytes), static_cast<std::streamsize>(count));
    if (!file_) throw std::runtime_error(path_.string() + " cannot be written");
  }
  void close() {
    file_.close();
    if (!file_) throw std::runtime_error(path_.string() + " cannot be written");
  }

 private:
  fs::path path_;
  std::ofstream file_;
};

void write_matrix(const Format& format, const Checkpoint& checkpoint, const TensorInfo& tensor, const InputPowers& powers,
                  ShardWriter& to) {
  const int64_t n = tensor.shape[0], k = tensor.shape[1];
  std::vector<std::byte> stored(tensor.bytes);
  checkpoint.read(tensor, stored.data());
  std::vector<float> numbers(static_cast<size_t>(n * k));
  convert(stored.data(), *tensor.dtype, numbers.data(), DType::kF32, numbers.size());
  try {
    const auto own = powers.find(tensor.name);
    SERVAL_CHECK(own == powers.end() || static_cast<int64_t>(own->second.size()) == k, tensor.name);
    const Rounded rounded = round_matrix(format, numbers, k, *tensor.dtype,
                                         own == powers.end() ? std::span<const double>() : std::span<const double>(own->second));
    if (format.group == kWholeRow) {
      to.write(rounded.codes.data(), rounded.codes.size());
      to.write(rounded.scales.data(), rounded.scales.size());
      return;
    }
    const std::vector<uint32_t> words = packed(rounded.codes, format.bits);
    to.write(words.data(), words.size() * sizeof words[0]);
    to.write(rounded.scales.data(), rounded.scales.size());
    const int64_t shape[2] = {n, k};
    to.write(shape, sizeof shape);
  } catch (const std::runtime_error& error) {
    throw std::runtime_error("tensor " + in_quotes(tensor.name) + " " + error.what());
  }
}

json::object quantisation(const Format& format, const json::array& ignored) {
  json::object weights = {{"num_bits", format.bits}, {"type", format.type}, {"symmetric", true}, {"dynamic", false},
                          {"strategy", format.group == kWholeRow ? "channel" : "group"}};
  if (format.group != kWholeRow) weights["group_size"] = format.group;
  return {{"quant_method", "compressed-tensors"},
          {"format", format.stored},
          {"quantization_status", "compressed"},
          {"ignore", ignored},
          {"config_groups",
           {{"group_0",
             {{"targets", {"Linear"}}, {"weights", std::move(weights)}, {"input_activations", nullptr}, {"output_activations", nullptr}}}}}};
}

// Whatever is neither weights nor the configuration.
void copy_other_files(const fs::path& from, const fs::path& to) {
  for (const fs::directory_entry& entry : fs::directory_iterator(from)) {
    const std::string name = entry.path().filename().string(), extension = entry.path().extension().string();
    const bool is_weights = extension == ".safetensors" || extension == ".bin" || extension == ".pt" || extension == ".pth" ||
                            extension == ".gguf" || name.ends_with(".index.json");
    if (is_weights || name == "config.json" || name.starts_with('.')) continue;
    fs::copy(entry.path(), to / name, fs::copy_options::recursive);
  }
}

void write_text(const fs::path& path, const json::object& object) {
  std::ofstream file(path);
  file << json::serialize(object) << "\n";
  file.close();
  if (!file) throw std::runtime_error(path.string() + " cannot be written");
}

}  // namespace

void quantise_folder(const fs::path& model, const fs::path& out, const std::string& name, const Progress& progress,
                     const std::function<InputPowers()>& observe) {
  const Format& format = format_named(name);
  if (fs::exists(out) && !(fs::is_directory(out) && fs::is_empty(out)))
    throw std::runtime_error(out.string() + " is there already, and not an empty folder");
  if (!fs::is_directory(model)) throw std::runtime_error(model.string() + " is not a folder of safetensors");
  const ModelSpec spec = read_model_spec(model);
  if (!spec.stored.empty()) throw std::runtime_error(model.string() + " is quantised already");
  const std::vector<std::string> matrices = layer_matrices(model, spec);
  const Checkpoint checkpoint(model);
  const auto is_rounded = [&](const TensorInfo& tensor) {
    return std::binary_search(matrices.begin(), matrices.end(), tensor.name) && tensor.shape.size() == 2 &&
           tensor.name.ends_with(".weight") && (format.group == kWholeRow || tensor.shape[1] % format.group == 0);
  };
  // Shards of the tensors in the order of their names.
  std::vector<std::vector<const TensorInfo*>> shards(1);
  size_t in_shard = 0, total = 0;
  json::array ignored;
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    if (in_shard + tensor.bytes > kShardBytes && !shards.back().empty()) {
      shards.emplace_back();
      in_shard = 0;
    }
    in_shard += tensor.bytes;
    shards.back().push_back(&tensor);
    if (!is_rounded(tensor) && tensor.shape.size() == 2 && tensor.name.ends_with(".weight"))
      ignored.push_back(json::value(without_ending(tensor.name)));
  }
  if (!std::any_of(checkpoint.tensors().begin(), checkpoint.tensors().end(), is_rounded))
    throw std::runtime_error(model.string() + " has no matrices that can be stored so: they are turned, of all experts in one, or of sizes that are no multiple of " +
                             std::to_string(std::max<int64_t>(1, format.group)));

  const InputPowers powers = observe ? observe() : InputPowers();
  fs::create_directories(out);
  json::object places;
  size_t done = 0;
  for (size_t s = 0; s < shards.size(); ++s) {
    char numbered[64];
    std::snprintf(numbered, sizeof numbered, "model-%05zu-of-%05zu.safetensors", s + 1, shards.size());
    const std::string file = shards.size() == 1 ? "model.safetensors" : numbered;
    std::vector<NewTensor> tensors;
    for (const TensorInfo* tensor : shards[s]) {
      if (is_rounded(*tensor)) {
        for (NewTensor& part : parts_of(format, *tensor)) tensors.push_back(std::move(part));
      } else {
        tensors.push_back({tensor->name, tensor->dtype_name, tensor->shape, tensor->bytes});
      }
    }
    for (const NewTensor& tensor : tensors) {
      places[tensor.name] = file;
      total += tensor.bytes;
    }
    ShardWriter writer(out / file, tensors);
    std::vector<std::byte> piece;
    for (const TensorInfo* tensor : shards[s]) {
      if (is_rounded(*tensor)) {
        write_matrix(format, checkpoint, *tensor, powers, writer);
      } else {
        for (size_t begin = 0; begin < tensor->bytes; begin += kCopyBytes) {
          piece.resize(std::min(kCopyBytes, tensor->bytes - begin));
          checkpoint.read(*tensor, begin, piece.size(), piece.data());
          writer.write(piece.data(), piece.size());
        }
      }
      done += tensor->bytes;
      if (progress) progress(done, checkpoint.total_bytes());
    }
    writer.close();
  }
  if (shards.size() > 1)
    write_text(out / "model.safetensors.index.json", {{"metadata", {{"total_size", total}}}, {"weight_map", std::move(places)}});
  copy_other_files(model, out);
  json::object config = read_json_file(model / "config.json", kMaxConfigBytes);
  config["quantization_config"] = quantisation(format, ignored);
  write_text(out / "config.json", config);
  check_weights(out, read_model_spec(out));
}

}  // namespace serval
