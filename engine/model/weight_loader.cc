#include "engine/model/weight_loader.h"

#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "engine/model/float_convert.h"
#include "engine/model/packed_cache.h"
#include "engine/model/quantised_checkpoint.h"
#include "engine/model/safetensors.h"
#include "engine/model/stored_matrix.h"
#include "engine/model/weight_map.h"
#include "kernels/base/check.h"
#include "kernels/base/log.h"
#include "kernels/base/shown.h"

namespace serval {
namespace {

std::string shape_text(std::span<const int64_t> shape) {
  std::string text = "[";
  for (const int64_t dim : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(dim);
  return text + "]";
}

// Whether the tensor is what is wanted: of a vector, dimensions of 1 may stand around it.
bool has_shape(const TensorInfo& info, const SourceTensor& source) {
  if (source.shape.size() > 1 || source.stack > 0 || info.stored != nullptr) return info.shape == source.stored_shape();
  std::vector<int64_t> shape = info.shape;
  std::erase(shape, 1);
  return shape == source.shape || info.shape == source.shape;
}

// What the checkpoint must have, as the slot wants it.
const TensorInfo& find_tensor(const Checkpoint& checkpoint, const SourceTensor& source) {
  const TensorInfo* info = checkpoint.find(source.name);
  if (info == nullptr) throw std::runtime_error("the checkpoint lacks the tensor " + in_quotes(source.name));
  const std::string subject = checkpoint.file_of(*info).string() + ": tensor " + in_quotes(source.name);
  if (!has_shape(*info, source)) {
    throw std::runtime_error(subject + " has shape " + shape_text(info->shape) +
                             ", the configuration asks for " + shape_text(source.stored_shape()));
  }
  if (info->stored != nullptr) return *info;
  if (source.integers_below > 0) {
    if (info->dtype_name == "I64" || info->dtype_name == "I32") return *info;
    throw std::runtime_error(subject + " has dtype " + std::string(info->dtype_name) + "; supported are I64, I32");
  }
  if (!info->dtype || *info->dtype == DType::kI32) {
    throw std::runtime_error(subject + " has dtype " + std::string(info->dtype_name) +
                             "; supported are F32, F16, BF16");
  }
  return *info;
}

// Calls visit(source) for every tensor of the slot.
template <class Visit>
void for_sources(const LinearSlot& slot, const Visit& visit) {
  for (const SourceTensor& part : slot.parts) visit(part);
  for (const SourceTensor& bias : slot.biases) visit(bias);
}
template <class Visit>
void for_sources(const VectorSlot& slot, const Visit& visit) {
  for (const SourceTensor& source : slot.sources) visit(source);
}
template <class Visit>
void for_sources(const ConstantSlot&, const Visit&) {}
template <class Visit>
void for_sources(const TableSlot&, const Visit&) {}
template <class Visit>
void for_sources(const WeightSlot& slot, const Visit& visit) {
  std::visit([&](const auto& s) { for_sources(s, visit); }, slot);
}

// [rows, columns] -> [columns, rows], in squares that stay in the cache.
template <class Element>
void transpose(const Element* from, int64_t rows, int64_t columns, Element* to) {
  constexpr int64_t kSquare = 32;
  for (int64_t r = 0; r < rows; r += kSquare) {
    for (int64_t c = 0; c < columns; c += kSquare) {
      for (int64_t i = r; i < std::min(rows, r + kSquare); ++i)
        for (int64_t j = c; j < std::min(columns, c + kSquare); ++j) to[j * rows + i] = from[i * columns + j];
    }
  }
}
void transpose(const void* from, int64_t rows, int64_t columns, size_t element_bytes, void* to) {
  if (element_bytes == 4)
    return transpose(static_cast<const uint32_t*>(from), rows, columns, static_cast<uint32_t*>(to));
  SERVAL_CHECK(element_bytes == 2, element_bytes);
  transpose(static_cast<const uint16_t*>(from), rows, columns, static_cast<uint16_t*>(to));
}

void copy_rows(const std::byte* from, const std::vector<RowRange>& rows, size_t row_bytes, std::byte* to) {
  for (const RowRange& range : rows) {
    for (int64_t r = 0; r < range.count; ++r, to += row_bytes)
      std::memcpy(to, from + (range.first + r * range.step) * row_bytes, row_bytes);
  }
}

// Memory for one slot's tensors on their way, as large as the largest slot needs and used by all in turn: the
// loader never holds more than one slot twice, and the system clears those pages once.
class Staging {
 public:
  // The slots are those that check_tensors() has seen.
  Staging(const Checkpoint& checkpoint, const std::vector<WeightSlot>& slots, Backend& backend, const Progress& progress)
      : checkpoint_(checkpoint), backend_(backend), progress_(progress) {
    for (const WeightSlot& slot : slots)
      capacity_ = std::max(capacity_, std::visit([&](const auto& s) { return bytes_for(s); }, slot));
    memory_ = std::make_unique_for_overwrite<std::byte[]>(capacity_);
  }

  // The tensor's values in `type`. The view is good until clear(), as are all below.
  Tensor load(const SourceTensor& source, DType type) {
    if (find_tensor(checkpoint_, source).stored != nullptr) return load_stored_numbers(source, type);
    if (source.integers_below > 0) return load_integers(source);
    Tensor view = read(source);
    if (view.dtype == type) return view;
    const Tensor stored = view;
    const auto count = static_cast<size_t>(stored.num_elements());
    view.data = take(count * dtype_bytes(type));
    view.dtype = type;
    convert(stored.data, stored.dtype, view.data, type, count);
    return view;
  }

  // The matrix as what the backend holds of the format.
  LinearSource load_matrix(const SourceTensor& source, const MatrixFormat& format) {
    const MatrixFormat held = backend_.held_format(format);
    const DType number = format_row(held.id).number;
    if (is_stored(source)) {
      return is_rounded(held) ? source_of_stored(source, held) : source_of(load_stored_numbers(source, number));
    }
    if (!is_rounded(format)) return source_of(load(source, number));
    const Tensor stored = read(source);
    const int64_t n = stored.dim(0), k = stored.dim(1);
    std::byte* const codes = take(code_bytes(format.id, n, k));
    auto* const scales = reinterpret_cast<float*>(take(scale_bytes(format, n, k)));
    const int64_t row_codes = static_cast<int64_t>(code_bytes(format.id, 1, k)), row_scales = num_groups(format, k);
    for_rows(n, [&](int64_t first, int64_t count) {
      quantise_groups(Tensor(stored.at(first * k), stored.dtype, {count, k}), format, codes + first * row_codes,
                      scales + first * row_scales);
    });
    const LinearSource rounded{
        .format = format.id, .n = n, .k = k, .data = codes, .scales = scales, .group = format.group};
    return backend_.supports(format.id) ? rounded : source_of(dequantised(rounded, number, stored.data));
  }

  void clear() {
    used_ = 0;
    stored_.clear();
    if (progress_) progress_(done_, checkpoint_.total_bytes());
  }
  void skip(size_t bytes) { done_ += bytes; }

 private:
  static constexpr size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }
  static bool is_rounded(const MatrixFormat& format) { return format_row(format.id).group != 0; }
  bool is_stored(const SourceTensor& source) const { return find_tensor(checkpoint_, source).stored != nullptr; }

  // Of the tensor's rows or of those that are wanted, which may be more: some more than once.
  static int64_t most_rows(const SourceTensor& source) { return std::max(source.shape[0], source.chosen_rows()); }
  static size_t most_elements(const SourceTensor& source) {
    return static_cast<size_t>(source.num_elements() / source.shape[0] * most_rows(source));
  }

  // What read(), load() and load_matrix() take.
  size_t read_bytes(const SourceTensor& source) const {
    const size_t bytes = find_tensor(checkpoint_, source).bytes / std::max<int64_t>(1, source.stack);
    const bool moves[] = {source.is_transposed, has_steps(source), source.is_turned};
    return aligned(bytes / source.shape[0] * most_rows(source)) * (1 + std::count(std::begin(moves), std::end(moves), true));
  }
  size_t bytes_for(const SourceTensor& source, DType type) const {
    if (is_stored(source)) {
      const int64_t columns = source.shape.size() == 1 ? 1 : source.num_columns();
      return aligned(static_cast<size_t>(source.num_rows() * columns) * dtype_bytes(type));
    }
    if (source.integers_below > 0) return read_bytes(source) + aligned(most_elements(source) * sizeof(float));
    const DType stored = *find_tensor(checkpoint_, source).dtype;
    return read_bytes(source) +
           (stored == type ? 0 : aligned(most_elements(source) * dtype_bytes(type)));
  }
  size_t bytes_for(const SourceTensor& source, const MatrixFormat& format) const {
    const MatrixFormat held = backend_.held_format(format);
    if (is_stored(source) && is_rounded(held)) return 0;
    if (is_stored(source) || !is_rounded(format)) return bytes_for(source, format_row(held.id).number);
    const int64_t n = source.num_rows(), k = source.num_columns();
    return read_bytes(source) + aligned(code_bytes(format.id, n, k)) + aligned(scale_bytes(format, n, k));
  }
  size_t bytes_for(const LinearSlot& slot) const {
    size_t bytes = 0;
    for (const SourceTensor& part : slot.parts) bytes += bytes_for(part, slot.format);
    for (const SourceTensor& bias : slot.biases) bytes += bytes_for(bias, DType::kF32);
    return bytes;
  }
  size_t bytes_for(const VectorSlot& slot) const {
    size_t bytes = 0;
    for (const SourceTensor& source : slot.sources) bytes += bytes_for(source, DType::kF32);
    return bytes;
  }
  size_t bytes_for(const ConstantSlot&) const { return 0; }
  size_t bytes_for(const TableSlot&) const { return 0; }

  // Whether rows are wanted that do not lie side by side in the file.
  static bool has_steps(const SourceTensor& source) {
    return std::any_of(source.rows.begin(), source.rows.end(), [&](const RowRange& range) {
      return range.step != 1 || source.is_transposed;
    });
  }

  // The rows that are wanted, in the type that the checkpoint has them in.
  Tensor read(const SourceTensor& source) {
    const TensorInfo& info = find_tensor(checkpoint_, source);
    const size_t bytes = info.bytes / std::max<int64_t>(1, source.stack), row_bytes = bytes / source.shape[0];
    const std::vector<RowRange> whole = {{0, source.shape[0]}};
    const size_t room = row_bytes * most_rows(source);
    std::byte* raw = take(room);
    size_t used = 0;
    bool are_finite = true;
    for (const RowRange& range : source.rows.empty() || has_steps(source) ? whole : source.rows) {
      are_finite &= read_numbers(info, source.index * bytes + range.first * row_bytes, range.count * row_bytes, raw + used);
      used += range.count * row_bytes;
    }
    done_ += used;
    if (!are_finite) {
      log_warn("a weight is not finite",
               {{"tensor", shown(info.name)}, {"file", checkpoint_.file_of(info).string()}});
    }
    if (source.is_transposed) {
      const std::byte* const stored = std::exchange(raw, take(room));
      transpose(stored, source.shape[1], source.shape[0], dtype_bytes(*info.dtype), raw);
    }
    if (has_steps(source)) {
      const std::byte* const stored = std::exchange(raw, take(room));
      copy_rows(stored, source.rows, row_bytes, raw);
    }
    const int64_t rows = source.chosen_rows();
    if (source.shape.size() == 1) return Tensor(raw, *info.dtype, {rows});
    if (source.shape.size() != 2) return Tensor(raw, *info.dtype, {source.num_elements()});
    if (source.is_turned) {
      const std::byte* const stored = std::exchange(raw, take(room));
      transpose(stored, rows, source.shape[1], dtype_bytes(*info.dtype), raw);
    }
    return Tensor(raw, *info.dtype, {source.num_rows(), source.num_columns()});
  }

  // As f32.
  Tensor load_integers(const SourceTensor& source) {
    const TensorInfo& info = find_tensor(checkpoint_, source);
    const size_t size = info.dtype_name == "I64" ? 8 : 4;
    const std::byte* raw = take(info.bytes);
    checkpoint_.read(info, 0, info.bytes, const_cast<std::byte*>(raw));
    done_ += info.bytes;
    const Tensor view(take(source.num_elements() * sizeof(float)), DType::kF32, {source.num_elements()});
    for (int64_t i = 0; i < source.num_elements(); ++i, raw += size) {
      int64_t value = 0;
      int32_t narrow = 0;
      std::memcpy(size == 8 ? static_cast<void*>(&value) : &narrow, raw, size);
      if (size == 4) value = narrow;
      if (value < 0 || value >= source.integers_below)
        throw std::runtime_error(checkpoint_.file_of(info).string() + ": tensor " + in_quotes(info.name) + " holds " +
                                 std::to_string(value) + "; it must hold numbers from 0 to " +
                                 std::to_string(source.integers_below - 1));
      view.as<float>()[i] = static_cast<float>(value);
    }
    return view;
  }

  // Copies some bytes of a tensor, in pieces by all of the device's threads; whether the numbers are finite.
  bool read_numbers(const TensorInfo& info, size_t begin, size_t bytes, std::byte* to) {
    constexpr size_t kPiece = size_t{1} << 20;
    std::atomic<bool> are_finite{true}, is_cut{false};
    backend_.for_each_on_host(static_cast<int64_t>((bytes + kPiece - 1) / kPiece), [&](int64_t i) {
      const size_t from = static_cast<size_t>(i) * kPiece, count = std::min(kPiece, bytes - from);
      try {
        checkpoint_.read(info, begin + from, count, to + from);
      } catch (const std::runtime_error&) {
        is_cut = true;
        return;
      }
      if (!all_finite(to + from, *info.dtype, count / dtype_bytes(*info.dtype))) are_finite = false;
    });
    if (is_cut) checkpoint_.read(info, begin, bytes, to);  // to throw on this thread
    return are_finite;
  }

  // Calls body(first row, rows) for pieces of n rows, on all of the device's threads.
  template <class Body>
  void for_rows(int64_t n, const Body& body) {
    constexpr int64_t kRows = 64;
    backend_.for_each_on_host((n + kRows - 1) / kRows, [&](int64_t i) { body(i * kRows, std::min(kRows, n - i * kRows)); });
  }

  // The checkpoint's own codes, of the rows that are wanted.
  LinearSource source_of_stored(const SourceTensor& source, const MatrixFormat& held) {
    const TensorInfo& info = find_tensor(checkpoint_, source);
    const MatrixFormat& format = info.stored->format;
    const int64_t n = source.shape[0], k = source.shape.size() == 1 ? 1 : source.shape[1], groups = num_groups(format, k);
    MatrixParts& parts = stored_.emplace_back();
    info.stored->read(checkpoint_, source.index, parts);
    done_ += info.bytes / static_cast<size_t>(std::max<int64_t>(1, source.stack));
    const auto check = [&](size_t have, int64_t want) {
      SERVAL_CHECK(have == static_cast<size_t>(want), info.name, have, want);
    };
    const bool has_codes = is_rounded(format);
    check(parts.codes.size(), has_codes ? n * k : 0);
    check(parts.scales.size(), has_codes ? n * groups : 0);
    check(parts.offsets.size(), format.has_offsets ? n * groups : 0);
    check(parts.numbers.size(), has_codes ? 0 : n * k);
    choose_rows(source.rows, k, parts.codes);
    choose_rows(source.rows, groups, parts.scales);
    choose_rows(source.rows, groups, parts.offsets);
    choose_rows(source.rows, k, parts.numbers);
    if (has_codes) regroup(format, held, source.chosen_rows(), k, parts);
    const void* const data = has_codes ? static_cast<const void*>(parts.codes.data()) : parts.numbers.data();
    return {.format = has_codes ? held.id : WeightFormat::kF32,
            .n = source.chosen_rows(),
            .k = k,
            .data = data,
            .scales = parts.scales.data(),
            .group = held.group,
            .offsets = held.has_offsets && has_codes ? parts.offsets.data() : nullptr,
            .table = parts.table.data()};
  }

  // Scales and offsets of smaller groups, offsets where there were none, and whole numbers for the codes of a table.
  static void regroup(const MatrixFormat& from, const MatrixFormat& to, int64_t n, int64_t k, MatrixParts& parts) {
    if (from.id == WeightFormat::kTable4 && to.id == WeightFormat::kInt8Groups) {
      for (uint8_t& code : parts.codes) code = static_cast<uint8_t>(static_cast<int8_t>(parts.table[code]));
    }
    const int64_t had = num_groups(from, k), groups = num_groups(to, k);
    const auto spread = [&](std::vector<float>& values) {
      if (had == groups || values.empty()) return;
      const std::vector<float> all = std::move(values);
      values.resize(static_cast<size_t>(n * groups));
      for (int64_t r = 0; r < n; ++r)
        for (int64_t g = 0; g < groups; ++g) values[r * groups + g] = all[r * had + (had == 1 ? 0 : g * to.group / from.group)];
    };
    spread(parts.scales);
    spread(parts.offsets);
    if (to.has_offsets && parts.offsets.empty()) parts.offsets.resize(parts.scales.size());
  }

  template <class T>
  static void choose_rows(const std::vector<RowRange>& rows, int64_t row, std::vector<T>& values) {
    if (rows.empty() || values.empty()) return;
    const std::vector<T> all = std::move(values);
    values.clear();
    for (const RowRange& range : rows) {
      for (int64_t r = 0; r < range.count; ++r) {
        const auto from = all.begin() + (range.first + r * range.step) * row;
        values.insert(values.end(), from, from + row);
      }
    }
  }

  Tensor load_stored_numbers(const SourceTensor& source, DType number) {
    if (source.is_transposed || source.shape.size() > 2)
      throw std::runtime_error("tensor " + in_quotes(source.name) + " is quantised, which is not supported of its kind");
    const MatrixFormat own = find_tensor(checkpoint_, source).stored->format;
    const LinearSource matrix = source_of_stored(source, own);
    const auto bytes = static_cast<size_t>(matrix.n * matrix.k) * dtype_bytes(number);
    const Tensor numbers = dequantised(matrix, number, take(bytes));
    if (source.shape.size() == 1) return Tensor(numbers.data, number, {matrix.n});
    if (!source.is_turned) return numbers;
    const std::vector<std::byte> upright(static_cast<std::byte*>(numbers.data), static_cast<std::byte*>(numbers.data) + bytes);
    transpose(upright.data(), matrix.n, matrix.k, dtype_bytes(number), numbers.data);
    return Tensor(numbers.data, number, {matrix.k, matrix.n});
  }

  // In `memory`: that of the values it was made of, which are no smaller and done with.
  Tensor dequantised(const LinearSource& matrix, DType number, void* memory) {
    const Tensor result(memory, number, {matrix.n, matrix.k});
    for_rows(matrix.n, [&](int64_t first, int64_t count) {
      std::vector<float> row(static_cast<size_t>(matrix.k));
      for (int64_t r = first; r < first + count; ++r) {
        dequantise_row(matrix, r, row.data());
        convert(row.data(), DType::kF32, result.at(r * matrix.k), number, row.size());
      }
    });
    return result;
  }

  // Uninitialised.
  std::byte* take(size_t bytes) {
    std::byte* const piece = memory_.get() + used_;
    used_ += aligned(bytes);
    SERVAL_CHECK(used_ <= capacity_, used_, capacity_);
    return piece;
  }

  const Checkpoint& checkpoint_;
  Backend& backend_;
  const Progress& progress_;
  std::unique_ptr<std::byte[]> memory_;
  size_t capacity_ = 0, used_ = 0;
  size_t done_ = 0;
  std::list<MatrixParts> stored_;
};

void load_slot(const LinearSlot& slot, Staging& staging, Backend& backend) {
  std::vector<LinearSource> parts;
  std::vector<Tensor> biases;
  for (const SourceTensor& part : slot.parts) parts.push_back(staging.load_matrix(part, slot.format));
  for (const SourceTensor& bias : slot.biases) biases.push_back(staging.load(bias, DType::kF32));
  for (const LinearSource& part : parts) {
    if (part.format == WeightFormat::kTable4 && std::memcmp(part.table, parts[0].table, kTableSize * sizeof(float)) != 0)
      throw std::runtime_error("the tensor " + in_quotes(slot.parts[0].name) +
                               " and others of its matrix have different tables of what codes mean");
  }
  *slot.target = backend.pack_linear(parts, biases);
}

void load_slot(const VectorSlot& slot, Staging& staging, Backend& backend) {
  std::vector<float> values;
  values.reserve(static_cast<size_t>(slot.num_elements()));
  for (const SourceTensor& source : slot.sources) {
    const Tensor part = staging.load(source, DType::kF32);
    values.insert(values.end(), part.as<float>(), part.as<float>() + part.num_elements());
  }
  for (float& value : values) value += slot.offset;
  if (slot.prepare) slot.prepare(values, slot.shape());
  *slot.target = backend.allocate(values.size() * sizeof(float));
  backend.upload(slot.target->data(), values.data(), slot.target->bytes);
}

void load_slot(const ConstantSlot& slot, Staging&, Backend& backend) {
  *slot.target = backend.allocate(slot.values.size() * sizeof(float));
  backend.upload(slot.target->data(), slot.values.data(), slot.target->bytes);
}

void load_slot(const TableSlot& slot, Staging&, Backend& backend) {
  const DType number = format_row(backend.held_format(slot.format).id).number;
  const auto columns = static_cast<size_t>(slot.columns);
  std::vector<float> row(columns);
  std::vector<std::byte> table(slot.rows * columns * dtype_bytes(number));
  const Tensor numbers(table.data(), number, {slot.rows, slot.columns});
  for (int64_t r = 0; r < slot.rows; ++r) {
    slot.fill(slot.first_row + r, row);
    convert(row.data(), DType::kF32, numbers.at(r * slot.columns), number, columns);
  }
  const LinearSource source = source_of(numbers);
  *slot.target = backend.pack_linear({&source, 1}, {});
}

// A tied model may repeat its embedding as the head; a head that differs would have to be honoured, and the
// configuration says no.
void check_tied_head(const Checkpoint& checkpoint, const TensorInfo& head, const TensorNames& names) {
  const TensorInfo* embedding = checkpoint.find(names.embedding_tensor());
  bool same =
      embedding != nullptr && embedding->shape == head.shape && embedding->dtype_name == head.dtype_name;
  if (same) {
    const auto a = std::make_unique_for_overwrite<std::byte[]>(head.bytes);
    const auto b = std::make_unique_for_overwrite<std::byte[]>(head.bytes);
    checkpoint.read(head, a.get());
    checkpoint.read(*embedding, b.get());
    same = std::memcmp(a.get(), b.get(), head.bytes) == 0;
  }
  if (!same) {
    throw std::runtime_error(checkpoint.file_of(head).string() + ": tensor " + in_quotes(head.name) +
                             " differs from the embedding although the configuration ties them");
  }
}

// As this checkpoint spells them. A family that stacks the matrices of all experts has files that do not, and files that
// have each matrix turned or not: [experts, hidden, 2 * width] and [experts, width, hidden], or the other way round.
TensorNames names_in(const Checkpoint& checkpoint, const TensorNames& known) {
  TensorNames names = known.found_in(checkpoint);
  names.has_packed_mixes = std::ranges::any_of(checkpoint.tensors(), [](const TensorInfo& tensor) { return tensor.name.ends_with(".attn.x_x"); });
  if (std::none_of(names.modules.begin(), names.modules.end(), TensorNames::is_stack)) return names;
  const std::string up = names.stored("mlp.experts.*.up_proj"), down = names.stored("mlp.experts.*.down_proj");
  names.has_stacked_experts = false;
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    if (!tensor.name.ends_with(up)) continue;
    names.has_stacked_experts = true;
    const TensorInfo* other = checkpoint.find(tensor.name.substr(0, tensor.name.size() - up.size()) + down);
    if (other == nullptr || tensor.shape.size() != 3 || other->shape.size() != 3) break;
    // Gate and up apart are never turned.
    names.has_transposed_stacks = names.stored("mlp.experts.*.gate_proj") == up && tensor.shape[1] == other->shape[2];
    break;
  }
  return names;
}

// Tensors that the forward pass does not need: rotation frequencies that old exporters saved, and what the
// family names.
bool is_ignored(std::string_view tensor, const ModelSpec& spec) {
  const auto is_of_layer = [&](int layer) {
    return tensor.starts_with(std::string(spec.names.layers) + "." + std::to_string(layer) + ".");
  };
  const std::span<const std::string_view> parts = spec.names.ignored;
  return tensor.ends_with(".rotary_emb.inv_freq") ||
         std::any_of(parts.begin(), parts.end(),
                     [&](std::string_view part) { return tensor.find(part) != tensor.npos; }) ||
         std::any_of(spec.layers_unused.begin(), spec.layers_unused.end(), is_of_layer);
}

// Holds the checkpoint's headers against the slots: every tensor is there as the slot wants it, and every
// tensor has a slot, because one we would leave out silently would change the output. Returns the bytes of
// those that need none.
size_t check_tensors(const Checkpoint& checkpoint, const std::vector<WeightSlot>& slots,
                     const ModelSpec& spec) {
  std::vector<const SourceTensor*> wanted;
  for (const WeightSlot& slot : slots)
    for_sources(slot, [&](const SourceTensor& source) { wanted.push_back(&source); });
  std::unordered_set<std::string_view> expected;
  for (const SourceTensor* source : wanted) expected.insert(source->name);
  size_t bytes = 0, num_ignored = 0;
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    if (expected.contains(tensor.name)) continue;
    if (spec.tied_embeddings && tensor.name == spec.names.head_tensor()) {
      check_tied_head(checkpoint, tensor, spec.names);
    } else if (!is_ignored(tensor.name, spec)) {
      throw std::runtime_error(checkpoint.file_of(tensor).string() + ": tensor " + in_quotes(tensor.name) +
                               " has no place in this model");
    } else {
      ++num_ignored;
    }
    bytes += tensor.bytes;
  }
  for (const SourceTensor* source : wanted) find_tensor(checkpoint, *source);
  if (num_ignored > 0)
    log_info("tensors that text does not need are skipped", {{"tensors", num_ignored}, {"bytes", bytes}});
  return bytes;
}

void fill_slots(const Checkpoint& checkpoint, const std::vector<WeightSlot>& slots, size_t skipped, Backend& backend,
                const Progress& progress) {
  Staging staging(checkpoint, slots, backend, progress);
  staging.skip(skipped);
  for (const WeightSlot& slot : slots) {
    std::visit([&](const auto& s) { load_slot(s, staging, backend); }, slot);
    staging.clear();
  }
}

}  // namespace

void check_weights(const std::filesystem::path& model_dir, const ModelSpec& model) {
  const QuantisedCheckpoint opened(model_dir);
  const Checkpoint& checkpoint = opened.tensors();
  ModelSpec spec = model;
  spec.names = names_in(checkpoint, model.names);
  ModelWeights weights;
  check_tensors(checkpoint, map_weights(spec, weights), spec);
}

std::vector<LayerMatrix> layer_matrices(const std::filesystem::path& model_dir, const ModelSpec& model, ModelWeights& weights) {
  const QuantisedCheckpoint opened(model_dir);
  ModelSpec spec = model;
  spec.names = names_in(opened.tensors(), model.names);
  spec.rounded_to = ModelSpec::Rounding{WeightFormat::kInt8, format_of(spec.weight_dtype)};
  std::vector<LayerMatrix> matrices;
  for (const WeightSlot& slot : map_weights(spec, weights)) {
    const auto* const linear = std::get_if<LinearSlot>(&slot);
    if (linear == nullptr || linear->format.id != WeightFormat::kInt8) continue;
    for (const SourceTensor& part : linear->parts)
      if (part.stack == 0 && !part.is_transposed && !part.is_turned) matrices.push_back({part.name, linear->target});
  }
  return matrices;
}

std::vector<std::string> layer_matrices(const std::filesystem::path& model_dir, const ModelSpec& model) {
  ModelWeights weights;
  std::vector<std::string> names;
  for (LayerMatrix& matrix : layer_matrices(model_dir, model, weights)) names.push_back(std::move(matrix.tensor));
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

ModelWeights load_weights(const std::filesystem::path& model_dir, const ModelSpec& model, Backend& backend,
                          const Progress& progress, const std::filesystem::path& packed_cache) {
  const QuantisedCheckpoint opened(model_dir);
  const Checkpoint& checkpoint = opened.tensors();
  ModelSpec spec = model;
  spec.names = names_in(checkpoint, model.names);
  ModelWeights weights;
  const std::vector<WeightSlot> slots = map_weights(spec, weights);
  const size_t skipped = check_tensors(checkpoint, slots, spec);
  const MatrixFormat wanted = spec.main_format(), held = backend.held_format(wanted);
  if (held != wanted)
    log_info("weights are held in another format",
             {{"format", format_row(wanted.id).name},
              {"held_as", format_row(held.id).name},
              {"reason", std::string(backend.name()) + " has no kernels for it"}});
  std::optional<PackedCache> cache;
  if (!packed_cache.empty() && !backend.packed_layout().empty()) {
    cache.emplace(packed_cache, model_dir, checkpoint, slots, backend);
    weights.mapping = cache->load(slots);
    if (weights.mapping != nullptr) {
      if (progress) progress(checkpoint.total_bytes(), checkpoint.total_bytes());
      return weights;
    }
  }
  fill_slots(checkpoint, slots, skipped, backend, progress);
  if (cache) cache->store(slots);
  ::malloc_trim(0);  // what staging freed goes back to the system: the resident size is a promise of the plan
  return weights;
}

namespace {

size_t slot_bytes(const LinearSlot& slot, const Backend& backend) {
  int64_t rows = 0;
  for (const SourceTensor& part : slot.parts) rows += part.num_rows();
  return backend.packed_bytes(rows, slot.parts[0].num_columns(), backend.held_format(slot.format),
                              !slot.biases.empty());
}
size_t slot_bytes(const VectorSlot& slot, const Backend&) {
  return static_cast<size_t>(slot.num_elements()) * sizeof(float);
}
size_t slot_bytes(const ConstantSlot& slot, const Backend&) {
  return slot.values.size() * sizeof(float);
}
size_t slot_bytes(const TableSlot& slot, const Backend& backend) {
  return backend.packed_bytes(slot.rows, slot.columns, backend.held_format(slot.format), false);
}

}  // namespace

void load_slots(const Checkpoint& checkpoint, const std::vector<WeightSlot>& slots, std::span<const std::string_view> ignored,
                Backend& backend) {
  ModelSpec nothing;
  nothing.names.ignored = ignored;
  const size_t skipped = check_tensors(checkpoint, slots, nothing);
  fill_slots(checkpoint, slots, skipped, backend, {});
}

void check_slots(const Checkpoint& checkpoint, const std::vector<WeightSlot>& slots) {
  for (const WeightSlot& slot : slots)
    for_sources(slot, [&](const SourceTensor& source) { find_tensor(checkpoint, source); });
}

size_t planned_weight_bytes(const ModelSpec& spec, const Backend& backend) {
  ModelWeights weights;
  return planned_bytes(map_weights(spec, weights), backend);
}

size_t planned_bytes(const std::vector<WeightSlot>& slots, const Backend& backend) {
  size_t bytes = 0;
  for (const WeightSlot& slot : slots) bytes += std::visit([&](const auto& s) { return slot_bytes(s, backend); }, slot);
  return bytes;
}

}  // namespace serval
