// bitsandbytes: NF4 and FP4 (Dettmers et al. 2023), two codes a byte, the first in the high bits, in blocks over the
// flattened matrix, whose scales may be codes of 8 bits themselves; and LLM.int8() with a scale a row.
#include <boost/json.hpp>

#include "engine/json/json_reader.h"
#include "engine/model/quantised/method.h"

namespace serval {
namespace {

namespace json = boost::json;

struct Blocks4 {
  int64_t n, k, block;
  // Of the blocks' scales, where they are codes.
  int64_t outer_block = 0;
  float outer_offset = 0;
  std::string name;

  void read(const Checkpoint& from, MatrixParts& parts) const {
    const auto bytes = values_in<uint8_t>(from, name);
    parts.codes.resize(static_cast<size_t>(n * k));
    for (size_t i = 0; i < bytes.size(); ++i) {
      parts.codes[2 * i] = bytes[i] >> 4;
      parts.codes[2 * i + 1] = bytes[i] & 15;
    }
    const std::vector<float> table = numbers_in(from, name + ".quant_map");
    std::copy(table.begin(), table.end(), parts.table.begin());
    if (outer_block == 0) {
      parts.scales = numbers_in(from, name + ".absmax");
      return;
    }
    const auto codes = values_in<uint8_t>(from, name + ".absmax");
    const std::vector<float> outer = numbers_in(from, name + ".nested_absmax"), meant = numbers_in(from, name + ".nested_quant_map");
    for (size_t i = 0; i < codes.size(); ++i)
      parts.scales.push_back(meant[codes[i]] * outer[i / static_cast<size_t>(outer_block)] + outer_offset);
  }
};

StoredMatrix blocks4(const Checkpoint& checkpoint, const TensorInfo& state, const std::string& name) {
  const TensorInfo& codes = tensor_of(checkpoint, name, "U8");
  if (state.dtype_name != "U8" || state.bytes > 4096) refuse_tensor(checkpoint, state, "is no state of bitsandbytes");
  const auto text = values_in<char>(checkpoint, state.name);
  const json::object said = parse_json_file({text.data(), text.size()}, state.name);
  Blocks4 blocks{.n = 0, .k = 0, .block = integer_in(said, "blocksize", 0), .name = name};
  const json::value* shape = said.if_contains("shape");
  if (shape != nullptr && shape->is_array() && shape->get_array().size() == 2 && shape->get_array()[0].is_int64() &&
      shape->get_array()[1].is_int64()) {
    blocks.n = shape->get_array()[0].get_int64();
    blocks.k = shape->get_array()[1].get_int64();
  }
  constexpr int64_t kMost = int64_t{1} << 31;
  if (blocks.n <= 0 || blocks.k <= 0 || blocks.n > kMost || blocks.k > kMost ||
      static_cast<int64_t>(codes.bytes) * 2 != blocks.n * blocks.k)
    refuse_tensor(checkpoint, codes, "does not fit the shape that " + state.name + " says");
  if (blocks.block < 8 || blocks.block % 8 != 0 || blocks.k % blocks.block != 0)
    throw UnsupportedQuantisation("blocks of " + std::to_string(blocks.block) + " in rows of " + std::to_string(blocks.k));
  StoredMatrix matrix{.name = name,
                      .how = "bitsandbytes",
                      .shape = {blocks.n, blocks.k},
                      .format = grouped(WeightFormat::kTable4, blocks.block, blocks.k, false),
                      .tensors = {name, state.name, name + ".absmax", name + ".quant_map"},
                      .read = {}};
  const auto count = [](const TensorInfo& tensor) { return tensor.shape.empty() ? 1 : tensor.shape[0]; };
  const int64_t num_blocks = blocks.n * blocks.k / blocks.block;
  const bool is_nested = checkpoint.find(name + ".nested_absmax") != nullptr;
  const TensorInfo& scales = tensor_of(checkpoint, name + ".absmax", is_nested ? "U8" : "F32", 1);
  if (count(scales) != num_blocks) refuse_tensor(checkpoint, scales, "does not fit " + name);
  if (count(tensor_of(checkpoint, name + ".quant_map", "F32", 1)) != kTableSize)
    refuse_tensor(checkpoint, *checkpoint.find(name + ".quant_map"), "has not 16 numbers");
  if (is_nested) {
    blocks.outer_block = integer_in(said, "nested_blocksize", 256);
    if (const json::value* offset = said.if_contains("nested_offset"); offset != nullptr && offset->is_number())
      blocks.outer_offset = offset->to_number<float>();
    const TensorInfo& outer = tensor_of(checkpoint, name + ".nested_absmax", "F32", 1);
    if (blocks.outer_block <= 0 || blocks.outer_block > 1 << 20 || count(outer) * blocks.outer_block < num_blocks)
      refuse_tensor(checkpoint, outer, "does not fit " + scales.name);
    if (count(tensor_of(checkpoint, name + ".nested_quant_map", "F32", 1)) != 256)
      refuse_tensor(checkpoint, *checkpoint.find(name + ".nested_quant_map"), "has not 256 numbers");
    matrix.tensors.insert(matrix.tensors.end(), {name + ".nested_absmax", name + ".nested_quant_map"});
  }
  matrix.read = [blocks](const Checkpoint& from, int64_t, MatrixParts& parts) { blocks.read(from, parts); };
  return matrix;
}

// int8: a weight is code * SCB / 127.
StoredMatrix rows8(const Checkpoint& checkpoint, const TensorInfo& scales, const std::string& module) {
  const std::string name = module + ".weight";
  const TensorInfo& codes = tensor_of(checkpoint, name, "I8", 2);
  const int64_t n = codes.shape[0], k = codes.shape[1];
  if (tensor_of(checkpoint, scales.name, "F32", 1).shape[0] != n) refuse_tensor(checkpoint, scales, "does not fit " + name);
  StoredMatrix matrix{.name = name,
                      .how = "bitsandbytes",
                      .shape = {n, k},
                      .format = grouped(WeightFormat::kInt8Groups, kWholeRow, k, false),
                      .tensors = {name, scales.name},
                      .read = [=, scales = scales.name](const Checkpoint& from, int64_t, MatrixParts& parts) {
                        parts.codes = values_in<uint8_t>(from, name);
                        parts.scales = numbers_in(from, scales);
                        for (float& scale : parts.scales) scale /= 127;
                      }};
  if (checkpoint.find(name + "_format") != nullptr) matrix.tensors.push_back(name + "_format");
  return matrix;
}

}  // namespace

std::vector<StoredMatrix> find_bitsandbytes(const Checkpoint& checkpoint, const json::object&) {
  std::vector<StoredMatrix> matrices;
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    for (const char* ending : {".quant_state.bitsandbytes__nf4", ".quant_state.bitsandbytes__fp4"})
      if (const auto name = module_of(tensor, ending)) matrices.push_back(blocks4(checkpoint, tensor, *name));
    if (const auto module = module_of(tensor, ".SCB")) matrices.push_back(rows8(checkpoint, tensor, *module));
  }
  return matrices;
}

}  // namespace serval
