// Quantised checkpoints that are not what their method says: what is not supported is refused by the method's name and
// width, and what does not fit by the tensor, whatever was done to it.
#include "engine/model/quantised_checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <cstring>
#include <random>

#include "engine/model/read_model.h"
#include "engine/model/weight_loader.h"
#include "kernels/float_bits.h"
#include "tests/engine/model/plain_backend.h"
#include "tests/engine/model/test_files.h"

namespace serval::testing {
namespace {

namespace json = boost::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

const std::filesystem::path kModels = std::filesystem::path(SERVAL_SOURCE_DIR) / "tests/fixtures/models";
constexpr const char* kFixtures[] = {"quant-gptq4-zeros", "quant-gptq4-order", "quant-gptq3",      "quant-gptq8",
                                     "quant-awq",         "quant-awq-gemv",    "quant-awq-gemv-fast", "quant-ct4-zeros",   "quant-ct8",        "quant-ct-int8",
                                     "quant-ct-fp8",      "quant-ct-nvfp4",    "quant-fp8-blocks", "quant-fp8",
                                     "quant-ct-sparse",   "quant-ct-sparse-fp8",
                                     "quant-hqq3",        "quant-hqq4-axis0",
                                     "quant-nf4-nested",  "quant-bnb-int8",    "quant-modelopt-nvfp4", "quant-mxfp4",
                                     "quant-mlx",         "quant-mlx-mxfp8",   "quant-mlx-experts", "quant-auto-round", "quant-aqlm-1x9",
                                     "quant-squeezellm3", "quant-any-precision", "quant-qserve",      "quant-qserve-groups", "opt-smoothquant",
                                     "quant-quip-sharp",  "quant-quip-sharp3", "quant-quip-sharp4"};

struct Tensor1 {
  std::string name, dtype;
  std::vector<int64_t> shape;
  std::string bytes;
};

// A checkpoint as its tensors, which may be changed before it is written.
struct Changed {
  json::object config;
  std::vector<Tensor1> tensors;

  explicit Changed(const std::string& model) {
    config = json::parse(read_bytes(kModels / model / "config.json")).as_object();
    const Checkpoint checkpoint(kModels / model);
    for (const TensorInfo& info : checkpoint.tensors()) {
      Tensor1& tensor = tensors.emplace_back(Tensor1{info.name, std::string(info.dtype_name), info.shape, std::string(info.bytes, 0)});
      checkpoint.read(info, tensor.bytes.data());
    }
  }
  Tensor1& of(const std::string& ending) {
    for (Tensor1& tensor : tensors)
      if (tensor.name.ends_with(ending)) return tensor;
    throw std::logic_error(ending);
  }
  json::object& quantisation() {
    for (const std::string_view field : kQuantisationFields)
      if (config.contains(field)) return config[field].as_object();
    throw std::logic_error("quantised");
  }

  // What reading it says; empty when nothing is wrong.
  std::string verdict(FolderInMemory& folder, Backend& backend) const {
    json::object header;
    std::string data;
    for (const Tensor1& tensor : tensors) {
      header[tensor.name] = {{"dtype", tensor.dtype}, {"shape", json::array(tensor.shape.begin(), tensor.shape.end())},
                             {"data_offsets", {data.size(), data.size() + tensor.bytes.size()}}};
      data += tensor.bytes;
    }
    folder.write(safetensors(json::serialize(header), data));
    std::ofstream(folder.path() / "config.json") << json::serialize(config);
    return complaint([&] {
      const ModelSpec spec = read_model_spec(folder.path());
      load_weights(folder.path(), spec, backend);
    });
  }
};

class QuantisedCheckpoints : public ::testing::Test {
 protected:
  std::string verdict(const Changed& changed) { return changed.verdict(folder_, *backend_); }
  FolderInMemory folder_{"model.safetensors"};
  std::unique_ptr<Backend> backend_ = make_plain_backend();
};

TEST_F(QuantisedCheckpoints, AreRefusedByMethodAndWidth) {
  for (const char* model : kFixtures) EXPECT_EQ(verdict(Changed(model)), "") << model;
  Changed awq("quant-awq");
  awq.quantisation()["bits"] = 3;
  EXPECT_THAT(verdict(awq), HasSubstr("quantised: AWQ, 3 bit (3 bit) weights are not supported"));
  awq = Changed("quant-awq");
  awq.quantisation()["version"] = "marlin";
  EXPECT_THAT(verdict(awq), HasSubstr("AWQ, 4 bit (version marlin)"));
  Changed gptq("quant-gptq8");
  gptq.quantisation()["bits"] = 5;
  EXPECT_THAT(verdict(gptq), HasSubstr("GPTQ, 5 bit"));
  gptq = Changed("quant-gptq8");
  gptq.quantisation()["checkpoint_format"] = "marlin";
  EXPECT_THAT(verdict(gptq), HasSubstr("checkpoint_format marlin"));
  Changed sparse("quant-ct4-zeros");
  sparse.quantisation()["sparsity_config"] = {{"format", "sparse-bitmask"}};
  EXPECT_THAT(verdict(sparse), AllOf(HasSubstr("compressed-tensors"), HasSubstr("sparse-bitmask")));
  Changed other("quant-modelopt-nvfp4");
  other.quantisation()["quant_algo"] = "W4A8_AWQ";
  EXPECT_THAT(verdict(other), HasSubstr("W4A8_AWQ"));
  Changed mlx("quant-mlx");
  mlx.quantisation()["mode"] = "mxfp6";
  EXPECT_THAT(verdict(mlx), HasSubstr("MLX, 4 bit (mode mxfp6)"));
  Changed round("quant-auto-round");
  round.quantisation()["packing_format"] = "auto_round:llm_compressor";
  EXPECT_THAT(verdict(round), HasSubstr("packing_format auto_round:llm_compressor"));
  Changed sharp("quant-quip-sharp");
  sharp.quantisation()["codebook"] = "D4";
  EXPECT_THAT(verdict(sharp), HasSubstr("quip_params says that the weights are quantised: QuIP# (codebook D4) weights are not supported"));
  Changed torchao("quant-gptq8");
  torchao.quantisation() = {{"quant_method", "torchao"}, {"quant_type", "fpx_weight_only"}};
  EXPECT_THAT(verdict(torchao), HasSubstr("quantised: torchao weights are not supported"));
  Changed narrow("quant-any-precision");
  narrow.quantisation()["precision"] = 5;
  EXPECT_THAT(verdict(narrow), HasSubstr("Any-Precision (precision 5 of 4 bit)"));
  narrow.quantisation()["precision"] = 2;
  EXPECT_THAT(verdict(narrow), HasSubstr("lacks the tensor 'model.layers.0.mlp.down_proj.lut2'"));
  Changed squeezed("quant-squeezellm3");
  squeezed.quantisation()["wbits"] = 2;
  EXPECT_THAT(verdict(squeezed), HasSubstr("SqueezeLLM (2 bit)"));
}

TEST_F(QuantisedCheckpoints, OfAwqsFastVersionNameWhatZeroMeansInOneOfTwoWays) {
  Changed other("quant-awq-gemv-fast");
  for (Tensor1& tensor : other.tensors)
    if (tensor.name.ends_with(".qzeros")) tensor.name.replace(tensor.name.rfind("qzeros"), 6, "scaled_zeros");
  EXPECT_EQ(verdict(other), "");
}

TEST_F(QuantisedCheckpoints, AreRefusedByTheTensorThatDoesNotFit) {
  Changed gptq("quant-gptq4-zeros");
  std::swap(gptq.of(".scales").shape[0], gptq.of(".scales").shape[1]);
  EXPECT_THAT(verdict(gptq), AllOf(HasSubstr(".scales'"), HasSubstr("does not fit")));
  gptq = Changed("quant-gptq4-order");
  gptq.of("g_idx").bytes.assign(gptq.of("g_idx").bytes.size(), '\x7f');
  EXPECT_THAT(verdict(gptq), HasSubstr("names a group that there is not"));
  gptq = Changed("quant-gptq8");
  gptq.of("qzeros").bytes[0] ^= 1;
  EXPECT_THAT(verdict(gptq), HasSubstr("although the configuration says sym"));
  Changed awq("quant-awq-gemv");
  awq.quantisation()["group_size"] = 24;
  EXPECT_THAT(verdict(awq), AllOf(HasSubstr(".scales'"), HasSubstr("does not fit")));
  awq = Changed("quant-awq");
  awq.quantisation()["version"] = "GEMV";
  EXPECT_THAT(verdict(awq), AllOf(HasSubstr(".scales'"), HasSubstr("does not fit")));
  Changed mlx("quant-mlx");
  mlx.quantisation()["group_size"] = 64;
  EXPECT_THAT(verdict(mlx), AllOf(HasSubstr(".scales'"), HasSubstr("groups of 64")));
  Changed sharp("quant-quip-sharp4");
  sharp.quantisation()["codebook"] = "E8P12";  // whose rows would have twice as many inputs
  EXPECT_THAT(verdict(sharp), AllOf(HasSubstr(".SU'"), HasSubstr("does not fit")));
  Changed squeezed("quant-squeezellm3");
  squeezed.of(".cols").bytes.assign(squeezed.of(".cols").bytes.size(), '\x7f');
  EXPECT_THAT(verdict(squeezed), HasSubstr(".cols' names a place that there is not"));
  Changed fp8("quant-fp8-blocks");
  fp8.quantisation()["weight_block_size"] = {16, 24};
  EXPECT_THAT(verdict(fp8), HasSubstr("weight_scale_inv' has a shape that does not fit its matrix"));
  Changed none("quant-fp8");
  std::erase_if(none.tensors, [](const Tensor1& tensor) { return tensor.name.ends_with("q_proj.weight_scale"); });
  EXPECT_THAT(verdict(none), HasSubstr("lacks the tensor"));
}

// A device without kernels for the format has the numbers that the codes mean, in the model's own type.
TEST_F(QuantisedCheckpoints, AreDequantisedForABackendWithoutKernels) {
  const std::pair<const char*, WeightFormat> kLacking[] = {{"quant-gptq4-zeros", WeightFormat::kInt4},
                                                           {"quant-nf4", WeightFormat::kTable4},
                                                           {"quant-fp8-blocks", WeightFormat::kFp8},
                                                           {"quant-ct8", WeightFormat::kInt8Groups}};
  for (const auto& [model, format] : kLacking) {
    const ModelSpec spec = read_model_spec(kModels / model);
    const auto lacking = make_plain_backend(format);
    const ModelWeights exact = load_weights(kModels / model, spec, *backend_), numbers = load_weights(kModels / model, spec, *lacking);
    const LinearWeight &a = std::get<GqaWeights>(exact.layers[1].mixer).qkv, &b = std::get<GqaWeights>(numbers.layers[1].mixer).qkv;
    EXPECT_EQ(a.format, format);
    EXPECT_EQ(b.format, format_of(spec.weight_dtype)) << model;
    EXPECT_EQ(planned_weight_bytes(spec, *lacking), planned_weight_bytes(spec, *backend_)) << "the plain backend has floats";
    for (int64_t i = 0; i < a.n * a.k; ++i) {
      const float number = a.packed.as<float>()[i];
      const float rounded = spec.weight_dtype == DType::kF16 ? half_to_float(float_to_half(number)) : bf16_to_float(float_to_bf16(number));
      ASSERT_EQ(b.packed.as<float>()[i], rounded) << model << " " << i;
    }
  }
}

// The files have plain numbers.
TEST_F(QuantisedCheckpoints, OfDeepSpeedsFloatsAreRoundedWhileTheyAreLoaded) {
  Changed plain("llama2");
  const auto said = [&](int bits, int group) -> json::object { return {{"quant_method", "deepspeedfp"}, {"bits", bits}, {"group_size", group}}; };
  for (const auto& [bits, format] : {std::pair{6, WeightFormat::kFp6}, std::pair{8, WeightFormat::kFp8}}) {
    plain.config["quantization_config"] = said(bits, 512);
    EXPECT_EQ(verdict(plain), "");
    const ModelSpec spec = read_model_spec(folder_.path());
    EXPECT_EQ(spec.weight_format(), MatrixFormat(format, 512));
    EXPECT_EQ(spec.frame_format(), format_of(spec.weight_dtype)) << "the embedding and the head stay as they are";
    EXPECT_EQ(quantised(spec, "off").weight_format(), spec.weight_format());
    EXPECT_EQ(quantised(spec, "int4").weight_format(), MatrixFormat(WeightFormat::kInt4, 32)) << "who asks for another has that";
    const ModelWeights weights = load_weights(folder_.path(), spec, *backend_);
    EXPECT_EQ(std::get<GqaWeights>(weights.layers[1].mixer).qkv.format, format);
  }
  plain.config["quantization_config"] = said(12, 512);
  EXPECT_THAT(verdict(plain), HasSubstr("quantised: deepspeedfp, 12 bit (12 bit) weights are not supported"));
  plain.config["quantization_config"] = said(6, 40);
  EXPECT_THAT(verdict(plain), HasSubstr("deepspeedfp, 6 bit (group_size 40)"));
}

// Codes under a scale a row, with rows rounded where the settings ask for it.
TEST_F(QuantisedCheckpoints, OfInt8RowsAreW8A8WhereThatIsAskedFor) {
  const std::filesystem::path folder = kModels / "quant-ct-int8";
  const ModelSpec plain = read_model_spec(folder), rounding = quantised(plain, "int8_dynamic");
  const ModelWeights a = load_weights(folder, plain, *backend_), b = load_weights(folder, rounding, *backend_);
  const LinearWeight &codes = std::get<GqaWeights>(a.layers[1].mixer).qkv, &same = std::get<GqaWeights>(b.layers[1].mixer).qkv;
  EXPECT_EQ(codes.format, WeightFormat::kInt8Groups);
  EXPECT_EQ(same.format, WeightFormat::kInt8Dynamic);
  ASSERT_EQ(codes.packed.bytes, same.packed.bytes);
  EXPECT_EQ(std::memcmp(codes.packed.data(), same.packed.data(), codes.packed.bytes), 0);
}

TEST_F(QuantisedCheckpoints, Of4BitsAreW4A8WhereThatIsAskedFor) {
  for (const char* const name : {"quant-ct4", "quant-ct4-zeros", "quant-awq", "quant-gptq4", "quant-qserve-groups"}) {
    SCOPED_TRACE(name);
    const std::filesystem::path folder = kModels / name;
    const ModelSpec plain = read_model_spec(folder);
    const ModelWeights a = load_weights(folder, plain, *backend_), b = load_weights(folder, quantised(plain, "int4_dynamic"), *backend_),
                       c = load_weights(folder, quantised(plain, "int8_dynamic"), *backend_);
    const LinearWeight &codes = std::get<GqaWeights>(a.layers[1].mixer).qkv, &same = std::get<GqaWeights>(b.layers[1].mixer).qkv;
    EXPECT_EQ(codes.format, WeightFormat::kInt4);
    EXPECT_EQ(same.matrix_format(), MatrixFormat(WeightFormat::kInt4Dynamic, codes.group, codes.has_offsets));
    EXPECT_EQ(std::get<GqaWeights>(c.layers[1].mixer).qkv.matrix_format(), codes.matrix_format()) << "weights of 8 bits were asked for";
    ASSERT_EQ(codes.packed.bytes, same.packed.bytes);
    ASSERT_EQ(codes.scales.bytes, same.scales.bytes);
    EXPECT_EQ(std::memcmp(codes.scales.data(), same.scales.data(), codes.scales.bytes), 0);
  }
}

// Shapes of the same size, types of the same size, bytes, names and the configuration's numbers, at random.
TEST_F(QuantisedCheckpoints, ThatWereDamagedNeverDoHarm) {
  std::mt19937 random(fuzz_seed(3));
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  int num_refused = 0;
  for (const char* model : kFixtures) {
    const Changed good(model);
    for (int round = 0; round < 60; ++round) {
      Changed bad = good;
      for (int edits = 1 + static_cast<int>(below(2)); edits > 0; --edits) {
        Tensor1& tensor = bad.tensors[below(bad.tensors.size())];
        switch (below(6)) {
          case 0:  // another shape
            if (tensor.shape.size() > 1) {
              const size_t from = below(tensor.shape.size()), to = below(tensor.shape.size());
              const int64_t factor = from != to && tensor.shape[from] % 2 == 0 ? 2 : 1;
              tensor.shape[from] /= factor;
              tensor.shape[to] *= factor;
            } else {
              tensor.shape.push_back(1);
            }
            break;
          case 1:  // half as much of it
            if (!tensor.shape.empty() && tensor.shape[0] % 2 == 0) {
              tensor.shape[0] /= 2;
              tensor.bytes.resize(tensor.bytes.size() / 2);
            }
            break;
          case 2:
            for (char& byte : tensor.bytes) byte = static_cast<char>(random());
            break;
          case 3:
            tensor.dtype = tensor.dtype == "I32" ? "F32" : tensor.dtype == "F16" ? "BF16" : tensor.dtype == "U8" ? "I8" : "U8";
            if (tensor.dtype == "U8" && !tensor.shape.empty()) {
              int64_t rest = 1;
              for (size_t i = 1; i < tensor.shape.size(); ++i) rest *= tensor.shape[i];
              tensor.shape[0] = rest == 0 ? 0 : static_cast<int64_t>(tensor.bytes.size()) / rest;
            }
            break;
          case 4:
            bad.tensors.erase(bad.tensors.begin() + static_cast<std::ptrdiff_t>(below(bad.tensors.size())));
            break;
          default: {
            constexpr int64_t kNumbers[] = {0, 1, 2, 3, 4, 8, 16, 32, 64, -1, 1 << 30, INT64_MAX};
            for (auto& [key, value] : bad.quantisation())
              if (value.is_int64() && below(2) == 0) value = kNumbers[below(std::size(kNumbers))];
          }
        }
      }
      num_refused += !verdict(bad).empty();
    }
  }
  EXPECT_GT(num_refused, 300);
}

}  // namespace
}  // namespace serval::testing
