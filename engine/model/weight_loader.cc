#include "engine/model/weight_loader.h"

#include <malloc.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "engine/model/float_convert.h"
#include "engine/model/safetensors.h"
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

// What the checkpoint must have, as the slot wants it.
const TensorInfo& find_tensor(const Checkpoint& checkpoint, const SourceTensor& source) {
  const TensorInfo* info = checkpoint.find(source.name);
  if (info == nullptr) throw std::runtime_error("the checkpoint lacks the tensor " + in_quotes(source.name));
  const std::string subject = checkpoint.file_of(*info).string() + ": tensor " + in_quotes(source.name);
  if (info->shape != source.stored_shape()) {
    throw std::runtime_error(subject + " has shape " + shape_text(info->shape) +
                             ", the configuration asks for " + shape_text(source.stored_shape()));
  }
  if (!info->dtype || *info->dtype == DType::kI32) {
    throw std::runtime_error(subject + " has dtype " + std::string(info->dtype_name) +
                             "; supported are F32, F16, BF16");
  }
  return *info;
}

// Calls visit(source, type) for every tensor of the slot with the type that it is staged in.
template <class Visit>
void for_sources(const LinearSlot& slot, DType type, const Visit& visit) {
  for (const SourceTensor& part : slot.parts) visit(part, type);
  for (const SourceTensor& bias : slot.biases) visit(bias, DType::kF32);
}
template <class Visit>
void for_sources(const VectorSlot& slot, DType, const Visit& visit) {
  visit(slot.source, DType::kF32);
}
template <class Visit>
void for_sources(const WeightSlot& slot, DType type, const Visit& visit) {
  std::visit([&](const auto& s) { for_sources(s, type, visit); }, slot);
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

// Memory for one slot's tensors on their way, as large as the largest slot needs and used by all in turn: the
// loader never holds more than one slot twice, and the system clears those pages once.
class Staging {
 public:
  // The slots are those that check_tensors() has seen.
  Staging(const Checkpoint& checkpoint, const std::vector<WeightSlot>& slots, DType type,
          const Progress& progress)
      : checkpoint_(checkpoint), progress_(progress) {
    for (const WeightSlot& slot : slots) {
      size_t bytes = 0;
      for_sources(slot, type, [&](const SourceTensor& source, DType staged) {
        const TensorInfo& info = find_tensor(checkpoint_, source);
        bytes += aligned(info.bytes);
        const size_t staged_bytes = aligned(info.bytes / dtype_bytes(*info.dtype) * dtype_bytes(staged));
        if (*info.dtype != staged) bytes += staged_bytes;
        if (source.is_transposed) bytes += staged_bytes;
      });
      capacity_ = std::max(capacity_, bytes);
    }
    memory_ = std::make_unique_for_overwrite<std::byte[]>(capacity_);
  }

  // The tensor's values in `type`. The view is good until clear().
  Tensor load(const SourceTensor& source, DType type) {
    const TensorInfo& info = find_tensor(checkpoint_, source);
    const auto count = static_cast<size_t>(source.num_elements());
    std::byte* raw = take(info.bytes);
    checkpoint_.read(info, raw);
    done_ += info.bytes;
    if (!all_finite(raw, *info.dtype, count)) {
      log_warn("a weight is not finite",
               {{"tensor", shown(info.name)}, {"file", checkpoint_.file_of(info).string()}});
    }
    Tensor view(raw, *info.dtype, {source.num_elements()});
    if (source.shape.size() == 2) view = Tensor(raw, *info.dtype, {source.shape[0], source.shape[1]});
    if (*info.dtype != type) {
      view.data = take(count * dtype_bytes(type));
      view.dtype = type;
      convert(raw, *info.dtype, view.data, type, count);
    }
    if (source.is_transposed) {
      void* const stored = std::exchange(view.data, take(count * dtype_bytes(type)));
      transpose(stored, source.shape[1], source.shape[0], dtype_bytes(type), view.data);
    }
    if (source.some_rows < 0) return view;
    return Tensor(view.at(source.first_row * view.dim(1)), view.dtype, {source.some_rows, view.dim(1)});
  }

  void clear() {
    used_ = 0;
    if (progress_) progress_(done_, checkpoint_.total_bytes());
  }
  void skip(size_t bytes) { done_ += bytes; }

 private:
  static constexpr size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

  // Uninitialised.
  std::byte* take(size_t bytes) {
    std::byte* const piece = memory_.get() + used_;
    used_ += aligned(bytes);
    SERVAL_CHECK(used_ <= capacity_, used_, capacity_);
    return piece;
  }

  const Checkpoint& checkpoint_;
  const Progress& progress_;
  std::unique_ptr<std::byte[]> memory_;
  size_t capacity_ = 0, used_ = 0;
  size_t done_ = 0;
};

void load_slot(const LinearSlot& slot, DType type, Staging& staging, Backend& backend) {
  std::vector<LinearSource> parts;
  std::vector<Tensor> biases;
  for (const SourceTensor& part : slot.parts) parts.push_back(source_of(staging.load(part, type)));
  for (const SourceTensor& bias : slot.biases) biases.push_back(staging.load(bias, DType::kF32));
  *slot.target = backend.pack_linear(parts, biases);
}

void load_slot(const VectorSlot& slot, DType, Staging& staging, Backend& backend) {
  const Tensor source = staging.load(slot.source, DType::kF32);
  if (slot.offset != 0) {
    for (int64_t i = 0; i < source.num_elements(); ++i) source.as<float>()[i] += slot.offset;
  }
  if (slot.prepare != nullptr) {
    std::vector<float> values(source.as<float>(), source.as<float>() + source.num_elements());
    slot.prepare(values, slot.source.shape);
    std::copy(values.begin(), values.end(), source.as<float>());
  }
  *slot.target = backend.allocate(source.num_bytes());
  backend.upload(slot.target->data(), source.data, source.num_bytes());
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

// Tensors that the forward pass does not need: rotation frequencies that old exporters saved, and what the
// family names.
bool is_ignored(std::string_view tensor, const TensorNames& names) {
  return tensor.ends_with(".rotary_emb.inv_freq") ||
         std::any_of(names.ignored.begin(), names.ignored.end(),
                     [&](std::string_view part) { return tensor.find(part) != tensor.npos; });
}

// Holds the checkpoint's headers against the slots: every tensor is there as the slot wants it, and every
// tensor has a slot, because one we would leave out silently would change the output. Returns the bytes of
// those that need none.
size_t check_tensors(const Checkpoint& checkpoint, const std::vector<WeightSlot>& slots,
                     const ModelSpec& spec) {
  std::vector<const SourceTensor*> wanted;
  for (const WeightSlot& slot : slots)
    for_sources(slot, DType::kF32, [&](const SourceTensor& source, DType) { wanted.push_back(&source); });
  std::unordered_set<std::string_view> expected;
  for (const SourceTensor* source : wanted) expected.insert(source->name);
  size_t bytes = 0;
  for (const TensorInfo& tensor : checkpoint.tensors()) {
    if (expected.contains(tensor.name)) continue;
    if (spec.tied_embeddings && tensor.name == spec.names.head_tensor()) {
      check_tied_head(checkpoint, tensor, spec.names);
    } else if (!is_ignored(tensor.name, spec.names)) {
      throw std::runtime_error(checkpoint.file_of(tensor).string() + ": tensor " + in_quotes(tensor.name) +
                               " has no place in this model");
    }
    bytes += tensor.bytes;
  }
  for (const SourceTensor* source : wanted) find_tensor(checkpoint, *source);
  return bytes;
}

}  // namespace

void check_weights(const std::filesystem::path& model_dir, const ModelSpec& model) {
  const Checkpoint checkpoint(model_dir);
  ModelSpec spec = model;
  spec.names = model.names.found_in(checkpoint);
  ModelWeights weights;
  check_tensors(checkpoint, map_weights(spec, weights), spec);
}

ModelWeights load_weights(const std::filesystem::path& model_dir, const ModelSpec& model, Backend& backend,
                          const Progress& progress) {
  const Checkpoint checkpoint(model_dir);
  ModelSpec spec = model;
  spec.names = model.names.found_in(checkpoint);
  ModelWeights weights;
  const std::vector<WeightSlot> slots = map_weights(spec, weights);
  const size_t skipped = check_tensors(checkpoint, slots, spec);
  {
    const DType held = format_row(backend.held_format(format_of(spec.weight_dtype))).number;
    Staging staging(checkpoint, slots, held, progress);
    staging.skip(skipped);
    for (const WeightSlot& slot : slots) {
      std::visit([&](const auto& s) { load_slot(s, held, staging, backend); }, slot);
      staging.clear();
    }
  }
  ::malloc_trim(0);  // what staging freed goes back to the system: the resident size is a promise of the plan
  return weights;
}

namespace {

size_t planned_bytes(const LinearSlot& slot, WeightFormat format, const Backend& backend) {
  int64_t rows = 0;
  for (const SourceTensor& part : slot.parts) rows += part.num_rows();
  return backend.packed_bytes(rows, slot.parts[0].shape[1], format, !slot.biases.empty());
}
size_t planned_bytes(const VectorSlot& slot, WeightFormat, const Backend&) {
  return static_cast<size_t>(slot.source.num_elements()) * sizeof(float);
}

}  // namespace

size_t planned_weight_bytes(const ModelSpec& spec, const Backend& backend) {
  const WeightFormat held = backend.held_format(format_of(spec.weight_dtype));
  ModelWeights weights;
  size_t bytes = 0;
  for (const WeightSlot& slot : map_weights(spec, weights)) {
    bytes += std::visit([&](const auto& s) { return planned_bytes(s, held, backend); }, slot);
  }
  return bytes;
}

}  // namespace serval
