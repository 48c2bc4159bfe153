#include "engine/model/gguf.h"

#include <algorithm>
#include <bit>
#include <boost/json.hpp>
#include <cstdio>
#include <cstring>
#include <optional>
#include <stdexcept>

#include "kernels/base/shown.h"
#include "kernels/base/utf8.h"

namespace serval {
namespace {

namespace json = boost::json;

constexpr uint64_t kMaxKeys = 1 << 16, kMaxTensors = 1 << 20, kMaxNameBytes = 1 << 10;
constexpr size_t kMaxHeaderBytes = size_t{512} << 20;

// The bytes of the header, one value after the other, through a window.
class Reader {
 public:
  explicit Reader(const MappedFile& file) : file_(file) {}

  template <class T>
  T number() {
    T value;
    std::memcpy(&value, bytes(sizeof value), sizeof value);
    return value;
  }
  std::string text(uint64_t most) {
    const auto length = number<uint64_t>();
    if (length > most || length > left()) fail("has a string that is too long or cut off");
    const char* const data = bytes(static_cast<size_t>(length));
    return {data, static_cast<size_t>(length)};
  }
  // `count` elements of at least `size` bytes each could be there.
  void expect(uint64_t count, uint64_t size) const {
    if (count > left() / size) fail("has an array that is longer than the file");
  }
  size_t position() const { return position_; }
  [[noreturn]] void fail(const std::string& why) const { throw std::runtime_error(file_.path().string() + " " + why); }

 private:
  size_t left() const { return std::min(file_.size(), kMaxHeaderBytes) - position_; }
  const char* bytes(size_t count) {
    if (count > left()) fail("ends inside its header, or has one that is too large");
    if (position_ + count > begin_ + window_.size()) {
      constexpr size_t kWindow = 1 << 20;
      begin_ = position_;
      window_.resize(std::min(std::max(count, kWindow), file_.size() - begin_));
      file_.copy(begin_, window_.size(), window_.data());
    }
    const char* const data = window_.data() + (position_ - begin_);
    position_ += count;
    return data;
  }

  const MappedFile& file_;
  std::vector<char> window_;
  size_t begin_ = 0, position_ = 0;
};

constexpr uint32_t kString = 8, kArray = 9;

uint64_t size_of_value(uint32_t type) {
  constexpr uint64_t kSizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};
  return type < std::size(kSizes) ? kSizes[type] : 0;
}

json::value read_value(Reader& reader, uint32_t type, const std::string& key) {
  switch (type) {
    case 0:
      return int64_t{reader.number<uint8_t>()};
    case 1:
      return int64_t{reader.number<int8_t>()};
    case 2:
      return int64_t{reader.number<uint16_t>()};
    case 3:
      return reader.number<int16_t>();
    case 4:
      return int64_t{reader.number<uint32_t>()};
    case 5:
      return reader.number<int32_t>();
    case 6:
      return double{reader.number<float>()};
    case 7:
      return reader.number<uint8_t>() != 0;
    case kString: {
      std::string text = reader.text(uint64_t{16} << 20);
      return json::value(std::move(text));
    }
    case 10: {
      const auto value = reader.number<uint64_t>();
      if (value > uint64_t{INT64_MAX}) reader.fail("has a number that is too large as " + in_quotes(key));
      return static_cast<int64_t>(value);
    }
    case 11:
      return reader.number<int64_t>();
    case 12:
      return reader.number<double>();
    case kArray: {
      const auto inner = reader.number<uint32_t>();
      const auto count = reader.number<uint64_t>();
      if (inner == kArray || size_of_value(inner) == 0) reader.fail("has an array of an unknown type as " + in_quotes(key));
      reader.expect(count, size_of_value(inner));
      json::array values;
      values.reserve(static_cast<size_t>(count));
      for (uint64_t i = 0; i < count; ++i) values.push_back(read_value(reader, inner, key));
      return values;
    }
    default:
      reader.fail("has a value of an unknown type as " + in_quotes(key));
  }
}

}  // namespace

GgufFile::GgufFile(const std::filesystem::path& path) {
  constexpr int64_t kMaxFiles = 1024;
  files_.reserve(kMaxFiles);
  read(path);
  const json::value* count = metadata_.if_contains("split.count");
  const int64_t num_files = count != nullptr && count->is_int64() ? count->get_int64() : 1;
  if (num_files > 1) {
    const std::string name = path.filename().string();
    char ending[40];
    const auto ending_of = [&](int64_t i) {
      std::snprintf(ending, sizeof ending, "-%05d-of-%05d.gguf", static_cast<int>(i), static_cast<int>(num_files));
      return std::string(ending);
    };
    if (num_files > kMaxFiles || !name.ends_with(ending_of(1)))
      throw std::runtime_error(path.string() + " is one of " + std::to_string(num_files) +
                               " files of a model; serve the first, whose name ends in -00001-of-...");
    const std::string stem = name.substr(0, name.size() - ending_of(1).size());
    for (int64_t i = 2; i <= num_files; ++i) read(path.parent_path() / (stem + ending_of(i)));
  }
  std::sort(tensors_.begin(), tensors_.end(), [](const GgufTensor& a, const GgufTensor& b) { return a.name < b.name; });
  for (size_t i = 1; i < tensors_.size(); ++i) {
    if (tensors_[i].name == tensors_[i - 1].name)
      throw std::runtime_error(path.string() + " has the tensor " + in_quotes(tensors_[i].name) + " twice");
  }
}

void GgufFile::read(const std::filesystem::path& path) {
  const MappedFile& file = files_.emplace_back(path);
  const size_t first = tensors_.size();
  json::object metadata;
  Reader reader(file);
  if (file.size() < 24) reader.fail("is too short to be a GGUF file");
  if (reader.number<uint32_t>() != 0x46554747) reader.fail("is not a GGUF file");
  const auto version = reader.number<uint32_t>();
  if (version != 2 && version != 3)
    reader.fail("is a GGUF file of version " + std::to_string(version) + "; supported are 2 and 3, little-endian");
  const auto num_tensors = reader.number<uint64_t>(), num_keys = reader.number<uint64_t>();
  if (num_tensors > kMaxTensors || num_keys > kMaxKeys) reader.fail("declares more tensors or keys than any model has");
  for (uint64_t i = 0; i < num_keys; ++i) {
    const std::string key = reader.text(kMaxNameBytes);
    if (!is_valid_utf8(key)) reader.fail("has a key that is not UTF-8");
    const auto type = reader.number<uint32_t>();
    if (!metadata.emplace(key, read_value(reader, type, key)).second) reader.fail("has the key " + in_quotes(key) + " twice");
  }
  for (uint64_t i = 0; i < num_tensors; ++i) {
    GgufTensor& tensor = tensors_.emplace_back();
    tensor.name = reader.text(kMaxNameBytes);
    const std::string subject = "has the tensor " + in_quotes(tensor.name);
    const auto rank = reader.number<uint32_t>();
    if (rank < 1 || rank > 4) reader.fail(subject + " of " + std::to_string(rank) + " dimensions");
    int64_t elements = 1;
    for (uint32_t d = 0; d < rank; ++d) {
      const auto dim = reader.number<uint64_t>();
      if (dim == 0 || dim > uint64_t{INT64_MAX} || __builtin_mul_overflow(elements, static_cast<int64_t>(dim), &elements))
        reader.fail(subject + " of a size that overflows");
      tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(dim));
    }
    const auto type = reader.number<uint32_t>();
    tensor.type = find_gguf_type(type);
    if (tensor.type == nullptr) reader.fail(subject + " of the type " + gguf_type_name(type) + ", which is not supported");
    if (tensor.shape.back() % tensor.type->block != 0)
      reader.fail(subject + " with rows that are no whole blocks of " + std::string(tensor.type->name));
    if (elements / tensor.type->block > INT64_MAX / tensor.type->block_bytes) reader.fail(subject + " of a size that overflows");
    tensor.bytes = static_cast<size_t>(elements / tensor.type->block * tensor.type->block_bytes);
    tensor.offset = static_cast<size_t>(reader.number<uint64_t>());
    tensor.file = files_.size() - 1;
  }
  const json::value* alignment = metadata.if_contains("general.alignment");
  const int64_t step = alignment != nullptr && alignment->is_int64() ? alignment->get_int64() : 32;
  if (step < 1 || step > 1 << 20 || !std::has_single_bit(static_cast<uint64_t>(step))) reader.fail("has no usable general.alignment");
  const size_t begin = (reader.position() + static_cast<size_t>(step) - 1) / static_cast<size_t>(step) * static_cast<size_t>(step);
  std::vector<const GgufTensor*> by_place;
  for (size_t i = first; i < tensors_.size(); ++i) {
    GgufTensor& tensor = tensors_[i];
    const std::string subject = "has the tensor " + in_quotes(tensor.name);
    if (begin > file.size() || tensor.offset > file.size() - begin || tensor.bytes > file.size() - begin - tensor.offset)
      reader.fail(subject + " that ends beyond the end of the file");
    if (tensor.offset % static_cast<size_t>(step) != 0) reader.fail(subject + " at a place that is not aligned");
    tensor.offset += begin;
    by_place.push_back(&tensor);
  }
  std::sort(by_place.begin(), by_place.end(), [](const auto* a, const auto* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < by_place.size(); ++i) {
    if (by_place[i]->offset < by_place[i - 1]->offset + by_place[i - 1]->bytes)
      reader.fail("has the tensor " + in_quotes(by_place[i]->name) + " that overlaps the one before it");
  }
  if (files_.size() == 1) metadata_ = std::move(metadata);
}

const GgufTensor* GgufFile::find(std::string_view name) const {
  const auto at = std::lower_bound(tensors_.begin(), tensors_.end(), name,
                                   [](const GgufTensor& a, std::string_view b) { return a.name < b; });
  return at != tensors_.end() && at->name == name ? &*at : nullptr;
}

bool is_gguf(const std::filesystem::path& model) {
  std::error_code ignored;
  return model.extension() == ".gguf" && std::filesystem::is_regular_file(model, ignored);
}

}  // namespace serval
