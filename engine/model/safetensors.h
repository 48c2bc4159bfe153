// Reads checkpoints in the safetensors format (8-byte little-endian header length, JSON header, tensor
// bytes), one file or several shards listed by model.safetensors.index.json. Trusts nothing: a header is
// accepted only if its tensors tile the file exactly. Knows no model: names, shapes and bytes only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/mapped_file.h"
#include "kernels/tensor.h"

namespace serval {

struct StoredMatrix;

struct TensorInfo {
  std::string name;
  std::string_view dtype_name;  // as the format spells it: "F32", "BF16", "I64", ...
  std::optional<DType> dtype;   // absent when the format knows the type and we cannot compute with it
  std::vector<int64_t> shape;   // empty: a scalar; a zero dimension: an empty tensor
  size_t offset = 0;            // of its first byte, from the start of the file
  size_t bytes = 0;
  size_t file = 0;  // which of the checkpoint's files, see Checkpoint::file_of
  // A quantised matrix under the name that models ask for it by (Checkpoint::put_together); its bytes are those of
  // its parts.
  const StoredMatrix* stored = nullptr;
};

inline constexpr size_t kDefaultMaxHeaderBytes = size_t{16} << 20;

// The tensors of one mapped file, by ascending offset. Throws std::runtime_error with one sentence that names
// the file, and the tensor where there is one to blame. Memory is bounded by a small multiple of the header.
std::vector<TensorInfo> read_safetensors_header(const MappedFile& file,
                                                size_t max_header_bytes = kDefaultMaxHeaderBytes);

// Whether a Checkpoint of the folder would find files.
bool has_safetensors(const std::filesystem::path& model_dir);

// All tensors of a model folder: `model.safetensors`, or the shards of its index. Every shard's header is
// read and held against the index here; no tensor byte is touched before read().
class Checkpoint {
 public:
  explicit Checkpoint(const std::filesystem::path& model_dir,
                      size_t max_header_bytes = kDefaultMaxHeaderBytes);

  // Of files in another format, whose tensors these are, of bytes inside them.
  Checkpoint(std::vector<MappedFile> files, std::vector<TensorInfo> tensors);

  // Has each of the matrices, which outlive this, in place of the tensors that it is made of.
  void put_together(const std::vector<StoredMatrix>& matrices);

  // Null when there is none.
  const TensorInfo* find(std::string_view name) const;
  // A tensor that a matrix is made of; null when there is none.
  const TensorInfo* find_part(std::string_view name) const;
  const std::vector<TensorInfo>& tensors() const { return tensors_; }  // ascending names
  const std::filesystem::path& file_of(const TensorInfo& tensor) const { return files_[tensor.file].path(); }
  const std::vector<MappedFile>& files() const { return files_; }
  size_t total_bytes() const { return total_bytes_; }

  // Copies tensor.bytes bytes to `to` and lets the source pages go. Throws when the file was truncated
  // meanwhile.
  void read(const TensorInfo& tensor, void* to) const { read(tensor, 0, tensor.bytes, to); }
  // The same of [begin, begin + bytes) of its bytes.
  void read(const TensorInfo& tensor, size_t begin, size_t bytes, void* to) const;

 private:
  void index_tensors();
  void open_shards(const std::filesystem::path& index_path, size_t max_header_bytes);

  std::vector<MappedFile> files_;
  std::vector<TensorInfo> tensors_, parts_;
  size_t total_bytes_ = 0;
};

}  // namespace serval
