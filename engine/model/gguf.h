// Reads the headers of GGUF files, version 2 and 3: metadata of typed values, and tensors by name, shape, type and place.
// Trusts nothing: memory and time are bounded by the bytes that the file has. Knows no model (gguf_model.h) and no
// tokenizer.
#pragma once

#include <boost/json/object.hpp>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/mapped_file.h"
#include "engine/model/stored_matrix.h"
#include "kernels/quant.h"

namespace serval {

// How a type of the format has its numbers, in blocks of neighbours along k.
struct GgufType {
  uint32_t id;
  std::string_view name;  // "Q4_K"
  int64_t block;
  int64_t block_bytes;
  StoredFormat format;  // that holds it; plain for F32, F16 and BF16
  // [n, k] from the blocks, row after row; null where the type is plain.
  void (*read)(const uint8_t* blocks, int64_t n, int64_t k, MatrixParts& parts);
};
// Null for a type that is not read.
const GgufType* find_gguf_type(uint32_t id);
std::string gguf_type_name(uint32_t id);

struct GgufTensor {
  std::string name;
  std::vector<int64_t> shape;  // [n, k]: the innermost last
  const GgufType* type = nullptr;
  size_t offset = 0, bytes = 0;  // from the start of the file
  size_t file = 0;               // which of a model's files
};

// One file, or all of a model that was cut ("name-00001-of-00003.gguf"), by its first.
class GgufFile {
 public:
  // Throws std::runtime_error with one sentence that names the file, and the tensor or the key.
  explicit GgufFile(const std::filesystem::path& path);

  const MappedFile& file(size_t i = 0) const { return files_[i]; }
  std::vector<MappedFile> take_files() { return std::move(files_); }
  // Numbers, truth values, strings and arrays of one of these.
  const boost::json::object& metadata() const { return metadata_; }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  const GgufTensor* find(std::string_view name) const;

 private:
  // Reads the next file; its metadata are kept where it is the first.
  void read(const std::filesystem::path& path);

  std::vector<MappedFile> files_;
  boost::json::object metadata_;
  std::vector<GgufTensor> tensors_;
};

// Whether MODEL is such a file, by its name.
bool is_gguf(const std::filesystem::path& model);

}  // namespace serval
