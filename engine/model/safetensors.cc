#include "engine/model/safetensors.h"

#include <algorithm>
#include <array>
#include <boost/json/basic_parser_impl.hpp>
#include <map>
#include <stdexcept>
#include <unordered_set>
#include <utility>

#include "engine/json/json_reader.h"
#include "engine/model/other_formats.h"
#include "engine/model/stored_matrix.h"
#include "kernels/base/check.h"
#include "kernels/base/shown.h"

namespace serval {
namespace {

struct FormatType {
  std::string_view name;
  size_t bytes;
  std::optional<DType> dtype;  // that a Tensor can have
};

// The whole-byte types of the format. Its 4- and 6-bit types are packed and belong to quantised checkpoints:
// refused as unknown.
constexpr std::array kFormatTypes = {
    FormatType{"F32", 4, DType::kF32}, FormatType{"F16", 2, DType::kF16}, FormatType{"BF16", 2, DType::kBF16},
    FormatType{"F64", 8, {}},          FormatType{"I64", 8, {}},          FormatType{"I32", 4, DType::kI32},
    FormatType{"I16", 2, {}},          FormatType{"I8", 1, {}},           FormatType{"U64", 8, {}},
    FormatType{"U32", 4, {}},          FormatType{"U16", 2, {}},          FormatType{"U8", 1, {}},
    FormatType{"BOOL", 1, {}},         FormatType{"F8_E4M3", 1, {}},      FormatType{"F8_E5M2", 1, {}},
    FormatType{"F8_E8M0", 1, {}},      FormatType{"C64", 8, {}},
};

// Receives the header as parser events, so that no tree is ever built: the header has one legal structure and
// anything else is refused where it appears, however deep or long it would have gone on.
class HeaderHandler {
 public:
  static constexpr size_t max_object_size = size_t(-1);
  static constexpr size_t max_array_size = size_t(-1);
  static constexpr size_t max_key_size = size_t(-1);  // the header's own cap bounds all four
  static constexpr size_t max_string_size = size_t(-1);
  using Code = boost::system::error_code;

  std::vector<TensorInfo> tensors;
  std::string problem;  // what an event was refused for; empty when the JSON itself is broken

  bool on_document_begin(Code&) { return true; }
  bool on_document_end(Code&) { return true; }

  bool on_object_begin(Code& code) {
    switch (place_) {
      case Place::kDocument:
        place_ = Place::kTop;
        return true;
      case Place::kTop:
        if (key_ == "__metadata__") {
          place_ = Place::kMetadata;
          return names_.insert(key_).second || refuse(code, "__metadata__ appears twice");
        }
        place_ = Place::kTensor;
        if (!names_.insert(key_).second) return refuse(code, "tensor " + in_quotes(key_) + " appears twice");
        tensors.emplace_back().name = key_;
        has_dtype_ = has_shape_ = has_offsets_ = false;
        return true;
      default:
        return refuse_value(code, "an object");
    }
  }

  bool on_object_end(size_t, Code& code) {
    if (place_ == Place::kTensor && !(has_dtype_ && has_shape_ && has_offsets_)) {
      return refuse(code, "tensor " + in_quotes(tensors.back().name) + " lacks dtype, shape or data_offsets");
    }
    place_ = place_ == Place::kTop ? Place::kDocument : Place::kTop;
    return true;
  }

  bool on_array_begin(Code& code) {
    if (place_ == Place::kTensor && key_ == "shape" && !std::exchange(has_shape_, true)) {
      place_ = Place::kShape;
      return true;
    }
    if (place_ == Place::kTensor && key_ == "data_offsets" && !std::exchange(has_offsets_, true)) {
      place_ = Place::kOffsets;
      num_offsets_ = 0;
      return true;
    }
    return refuse_value(code, "an array");
  }

  bool on_array_end(size_t, Code& code) {
    if (place_ == Place::kOffsets) {
      TensorInfo& tensor = tensors.back();
      if (num_offsets_ != 2 || offsets_[0] > offsets_[1]) {
        return refuse(code,
                      "tensor " + in_quotes(tensor.name) + " needs data_offsets of two ascending integers");
      }
      tensor.offset = offsets_[0];
      tensor.bytes = offsets_[1] - offsets_[0];
    }
    place_ = Place::kTensor;
    return true;
  }

  bool on_key_part(std::string_view part, size_t, Code&) { return append(part); }
  bool on_key(std::string_view part, size_t, Code&) {
    append(part);
    key_ = std::exchange(text_, {});
    return true;
  }
  bool on_string_part(std::string_view part, size_t, Code&) { return append(part); }
  bool on_string(std::string_view part, size_t, Code& code) {
    append(part);
    const std::string value = std::exchange(text_, {});
    if (place_ == Place::kMetadata) return true;
    if (place_ != Place::kTensor || key_ != "dtype" || std::exchange(has_dtype_, true)) {
      return refuse_value(code, "a string");
    }
    TensorInfo& tensor = tensors.back();
    const auto* type = std::find_if(kFormatTypes.begin(), kFormatTypes.end(),
                                    [&](const FormatType& t) { return t.name == value; });
    if (type == kFormatTypes.end()) {
      return refuse(code,
                    "tensor " + in_quotes(tensor.name) + " has the unsupported dtype " + in_quotes(value));
    }
    tensor.dtype_name = type->name;
    tensor.dtype = type->dtype;
    return true;
  }

  bool on_int64(int64_t value, std::string_view, Code& code) {
    if (value >= 0 && place_ == Place::kShape) {
      tensors.back().shape.push_back(value);
      return true;
    }
    if (value >= 0 && place_ == Place::kOffsets && num_offsets_ < 2) {
      offsets_[num_offsets_++] = static_cast<size_t>(value);
      return true;
    }
    return refuse_value(code, "the number " + std::to_string(value));
  }
  bool on_uint64(uint64_t value, std::string_view, Code& code) {  // only beyond the range of int64
    return refuse_value(code, "the number " + std::to_string(value));
  }
  bool on_number_part(std::string_view, Code&) { return true; }
  bool on_double(double, std::string_view, Code& code) { return refuse_value(code, "a fractional number"); }
  bool on_bool(bool, Code& code) { return refuse_value(code, "a boolean"); }
  bool on_null(Code& code) { return refuse_value(code, "null"); }
  bool on_comment_part(std::string_view, Code&) { return true; }
  bool on_comment(std::string_view, Code&) { return true; }

 private:
  enum class Place : uint8_t { kDocument, kTop, kMetadata, kTensor, kShape, kOffsets };

  bool append(std::string_view part) {
    text_.append(part);
    return true;
  }
  bool refuse(Code& code, std::string why) {
    problem = std::move(why);
    code = boost::json::error::exception;
    return false;
  }
  bool refuse_value(Code& code, std::string_view what) {
    std::string where = "the header";
    if (place_ >= Place::kTensor) {
      where = "tensor " + in_quotes(tensors.back().name) + ", field " + in_quotes(key_) + ",";
    } else if (place_ != Place::kDocument) {
      where = (place_ == Place::kMetadata ? "__metadata__ " : "entry ") + in_quotes(key_);
    }
    return refuse(code, where + " may not hold " + std::string(what) + " there");
  }

  Place place_ = Place::kDocument;
  std::string text_;  // of the key or string that is arriving in parts
  std::string key_;
  std::unordered_set<std::string> names_;
  bool has_dtype_ = false, has_shape_ = false, has_offsets_ = false;
  int num_offsets_ = 0;
  size_t offsets_[2] = {0, 0};
};

// Bytes of `tensor` by its shape; nothing when the product leaves 63 bits. Zero dimensions are checked after
// the others, as the format's own reader does: 0 x 2^63 x 2 is refused although the tensor would be empty.
std::optional<size_t> bytes_of_shape(const TensorInfo& tensor) {
  size_t bytes = 0;
  for (const FormatType& type : kFormatTypes) {
    if (type.name == tensor.dtype_name) bytes = type.bytes;
  }
  bool empty = false;
  for (const int64_t dim : tensor.shape) {
    if (dim == 0) {
      empty = true;
    } else if (__builtin_mul_overflow(bytes, static_cast<size_t>(dim), &bytes) || bytes > size_t{INT64_MAX}) {
      return std::nullopt;
    }
  }
  return empty ? 0 : bytes;
}

// The tensors, in order of offset, must tile [0, data_bytes): no overlap, no hole, nothing outside.
void check_layout(std::vector<TensorInfo>& tensors, size_t data_bytes, const std::string& file) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::pair(a.offset, a.bytes) < std::pair(b.offset, b.bytes);
  });
  size_t end = 0;
  for (const TensorInfo& tensor : tensors) {
    const std::string subject = file + ": tensor " + in_quotes(tensor.name);
    const std::optional<size_t> wanted = bytes_of_shape(tensor);
    if (!wanted) throw std::runtime_error(subject + " has a shape whose size overflows");
    if (*wanted != tensor.bytes) {
      throw std::runtime_error(subject + " has a shape of " + std::to_string(*wanted) +
                               " bytes but offsets of " + std::to_string(tensor.bytes));
    }
    if (tensor.offset > data_bytes || tensor.bytes > data_bytes - tensor.offset) {
      throw std::runtime_error(subject + " ends beyond the end of the file");
    }
    if (tensor.offset < end) throw std::runtime_error(subject + " overlaps the tensor before it");
    if (tensor.offset > end) throw std::runtime_error(subject + " leaves a hole before it");
    end = tensor.offset + tensor.bytes;
  }
  if (end != data_bytes) {
    throw std::runtime_error(file + ": " + std::to_string(data_bytes - end) +
                             " bytes after the last tensor belong to none");
  }
}

// A shard's name is joined to the model folder, so it may only be a plain file name.
bool is_plain_file_name(std::string_view name) {
  return !name.empty() && name.size() <= 255 && name.front() != '.' &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string_view::npos;
}

}  // namespace

std::vector<TensorInfo> read_safetensors_header(const MappedFile& file, size_t max_header_bytes) {
  constexpr size_t kLengthBytes = 8;
  const std::string name = file.path().string();
  if (file.size() < kLengthBytes) throw std::runtime_error(name + " is too short to be a safetensors file");
  std::array<unsigned char, kLengthBytes> raw;
  file.copy(0, kLengthBytes, raw.data());
  uint64_t length = 0;
  for (size_t i = kLengthBytes; i-- > 0;) length = length << 8 | raw[i];
  if (length > max_header_bytes) {
    throw std::runtime_error(name + " declares a header of " + std::to_string(length) +
                             " bytes, more than the " + std::to_string(max_header_bytes) + " allowed");
  }
  if (length > file.size() - kLengthBytes) throw std::runtime_error(name + " ends inside its header");
  std::string header(length, '\0');
  file.copy(kLengthBytes, length, header.data());
  if (header.empty() || header.front() != '{')
    throw std::runtime_error(name + " has a header that is not a JSON object");

  boost::json::basic_parser<HeaderHandler> parser{boost::json::parse_options{}};
  boost::system::error_code code;
  const size_t used = parser.write_some(false, header.data(), header.size(), code);
  HeaderHandler& handler = parser.handler();
  if (!handler.problem.empty()) throw std::runtime_error(name + ": " + handler.problem);
  if (code) throw std::runtime_error(name + " has a header that is not valid JSON: " + code.message());
  if (used != header.size()) throw std::runtime_error(name + " has bytes after the JSON of its header");

  std::vector<TensorInfo> tensors = std::move(handler.tensors);
  const size_t data_begin = kLengthBytes + length;
  check_layout(tensors, file.size() - data_begin, name);
  for (TensorInfo& tensor : tensors) tensor.offset += data_begin;
  return tensors;
}

bool has_safetensors(const std::filesystem::path& model_dir) {
  return std::filesystem::exists(model_dir / "model.safetensors") || std::filesystem::exists(model_dir / "model.safetensors.index.json");
}

Checkpoint::Checkpoint(const std::filesystem::path& model_dir, size_t max_header_bytes) {
  const std::filesystem::path single = model_dir / "model.safetensors";
  const std::filesystem::path index = model_dir / "model.safetensors.index.json";
  if (std::filesystem::exists(single)) {
    files_.emplace_back(single);
    tensors_ = read_safetensors_header(files_.back(), max_header_bytes);
  } else if (std::filesystem::exists(index)) {
    open_shards(index, max_header_bytes);
  } else {
    const std::string other = other_format_in(model_dir);
    throw std::runtime_error(model_dir.string() +
                             " holds neither model.safetensors nor model.safetensors.index.json" +
                             (other.empty() ? "" : "; " + other));
  }
  index_tensors();
}

Checkpoint::Checkpoint(std::vector<MappedFile> files, std::vector<TensorInfo> tensors)
    : files_(std::move(files)), tensors_(std::move(tensors)) {
  index_tensors();
}

void Checkpoint::index_tensors() {
  std::sort(tensors_.begin(), tensors_.end(),
            [](const TensorInfo& a, const TensorInfo& b) { return a.name < b.name; });
  for (const TensorInfo& tensor : tensors_) total_bytes_ += tensor.bytes;
}

void Checkpoint::open_shards(const std::filesystem::path& index_path, size_t max_header_bytes) {
  constexpr size_t kMaxShards = 1024;
  const std::string index_name = index_path.string();
  const boost::json::object index = read_json_file(index_path, max_header_bytes);
  const boost::json::value* map = index.if_contains("weight_map");
  if (map == nullptr || !map->is_object()) throw std::runtime_error(index_name + " has no weight_map object");

  std::map<std::string, size_t> num_listed;  // tensors the index promises of each shard
  for (const auto& [tensor, shard] : map->get_object()) {
    if (!shard.is_string() || !is_plain_file_name(shard.get_string())) {
      throw std::runtime_error(index_name + ": tensor " + in_quotes(tensor) +
                               " must name a file of the same folder");
    }
    ++num_listed[std::string(shard.get_string())];
  }
  if (num_listed.size() > kMaxShards) throw std::runtime_error(index_name + " lists more than 1024 files");

  files_.reserve(num_listed.size());
  for (const auto& [shard, listed] : num_listed) {
    files_.emplace_back(index_path.parent_path() / shard);
    std::vector<TensorInfo> tensors = read_safetensors_header(files_.back(), max_header_bytes);
    for (TensorInfo& tensor : tensors) {
      const boost::json::value* home = map->get_object().if_contains(tensor.name);
      if (home == nullptr || home->get_string() != shard) {
        throw std::runtime_error(files_.back().path().string() + ": tensor " + in_quotes(tensor.name) +
                                 " is not where model.safetensors.index.json says");
      }
      tensor.file = files_.size() - 1;
      tensors_.push_back(std::move(tensor));
    }
    // Every tensor found is listed for this shard, so only missing ones can make the counts differ.
    if (tensors.size() != listed) {
      std::unordered_set<std::string_view> found;
      for (const TensorInfo& tensor : tensors_) found.insert(tensor.name);
      for (const auto& [tensor, home] : map->get_object()) {
        if (home.get_string() == shard && !found.contains(std::string_view(tensor))) {
          throw std::runtime_error(index_name + ": tensor " + in_quotes(tensor) + " is missing from " +
                                   in_quotes(shard));
        }
      }
    }
  }
}

namespace {

bool is_before(const TensorInfo& a, const TensorInfo& b) {
  return a.name < b.name;
}

const TensorInfo* find_in(const std::vector<TensorInfo>& tensors, std::string_view name) {
  const auto at = std::lower_bound(tensors.begin(), tensors.end(), name,
                                   [](const TensorInfo& a, std::string_view b) { return a.name < b; });
  return at != tensors.end() && at->name == name ? &*at : nullptr;
}

}  // namespace

const TensorInfo* Checkpoint::find(std::string_view name) const {
  return find_in(tensors_, name);
}

const TensorInfo* Checkpoint::find_part(std::string_view name) const {
  return find_in(parts_, name);
}

void Checkpoint::put_together(const std::vector<StoredMatrix>& matrices) {
  std::vector<TensorInfo> made;
  std::unordered_set<std::string_view> used;
  for (const StoredMatrix& matrix : matrices) {
    TensorInfo& whole = made.emplace_back();
    whole.name = matrix.name;
    whole.dtype_name = matrix.how;
    whole.shape = matrix.shape;
    whole.stored = &matrix;
    for (const std::string& part : matrix.tensors) {
      if (!used.insert(part).second) continue;
      const TensorInfo* const tensor = find(part);
      SERVAL_CHECK(tensor != nullptr, part);
      whole.bytes += tensor->bytes;
      whole.file = tensor->file;
    }
  }
  for (TensorInfo& tensor : tensors_) {
    if (used.contains(tensor.name)) parts_.push_back(tensor);
  }
  std::erase_if(tensors_, [&](const TensorInfo& tensor) { return used.contains(tensor.name); });
  tensors_.insert(tensors_.end(), made.begin(), made.end());
  std::sort(tensors_.begin(), tensors_.end(), is_before);
}

void Checkpoint::read(const TensorInfo& tensor, size_t begin, size_t bytes, void* to) const {
  files_[tensor.file].take(tensor.offset + begin, bytes, to);
}

}  // namespace serval
