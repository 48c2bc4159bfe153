#include "engine/runner/speculators/medusa_heads.h"

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>

#include "engine/model/float_convert.h"
#include "engine/model/safetensors.h"

namespace serval {
namespace {

constexpr const char* kFileName = "medusa_lm_head.safetensors";

std::string layer_name(int head, const char* what) {
  return std::to_string(head) + ".0.linear." + what;
}
std::string logits_name(int head) {
  return std::to_string(head) + ".1.weight";
}

class File {
 public:
  explicit File(const std::filesystem::path& folder)
      : file_(folder / kFileName), tensors_(read_safetensors_header(file_)) {}

  bool has(const std::string& name) const { return find(name) != nullptr; }
  const TensorInfo& get(const std::string& name, std::initializer_list<int64_t> shape) const {
    const TensorInfo* const tensor = find(name);
    if (tensor == nullptr) fail(name, "is missing");
    if (!std::ranges::equal(tensor->shape, shape)) fail(name, "has another shape than heads for this model have");
    if (!tensor->dtype) fail(name, "is of type " + std::string(tensor->dtype_name) + ", which heads cannot be");
    return *tensor;
  }
  // As numbers of `type`, [n, k] or [n].
  Tensor load(const TensorInfo& tensor, DType type, std::vector<std::byte>& memory) const {
    const size_t count = tensor.bytes / dtype_bytes(*tensor.dtype);
    std::vector<std::byte> stored(tensor.bytes);
    file_.take(tensor.offset, tensor.bytes, stored.data());
    memory.resize(count * dtype_bytes(type));
    convert(stored.data(), *tensor.dtype, memory.data(), type, count);
    Tensor view(memory.data(), type, {tensor.shape[0]});
    view.rank = static_cast<int>(tensor.shape.size());
    for (int i = 0; i < view.rank; ++i) view.dims[i] = tensor.shape[i];
    return view;
  }

 private:
  const TensorInfo* find(const std::string& name) const {
    const auto found = std::ranges::find(tensors_, name, &TensorInfo::name);
    return found == tensors_.end() ? nullptr : &*found;
  }
  [[noreturn]] void fail(const std::string& name, const std::string& why) const {
    throw std::runtime_error(file_.path().string() + ": tensor " + name + " " + why);
  }

  MappedFile file_;
  std::vector<TensorInfo> tensors_;
};

}  // namespace

bool has_medusa(const std::filesystem::path& folder) {
  return std::filesystem::exists(folder / kFileName);
}

MedusaSpec read_medusa_spec(const std::filesystem::path& folder, const ModelSpec& target) {
  constexpr int kMost = 16;
  const File file(folder);
  MedusaSpec spec;
  while (spec.num_heads < kMost && file.has(layer_name(spec.num_heads, "weight"))) ++spec.num_heads;
  const int64_t hidden = target.hidden_size;
  file.get(layer_name(0, "weight"), {hidden, hidden});
  for (int h = 0; h < spec.num_heads; ++h) {
    file.get(layer_name(h, "weight"), {hidden, hidden});
    file.get(layer_name(h, "bias"), {hidden});
    file.get(logits_name(h), {target.vocab_size, hidden});
  }
  return spec;
}

std::vector<MedusaHead> load_medusa(const std::filesystem::path& folder, const MedusaSpec& spec, const ModelSpec& target,
                                    Backend& backend) {
  const File file(folder);
  const DType number = format_row(backend.held_format(format_of(target.weight_dtype)).id).number;
  const int64_t hidden = target.hidden_size;
  std::vector<MedusaHead> heads(spec.num_heads);
  std::vector<std::byte> matrix, vector;
  for (int h = 0; h < spec.num_heads; ++h) {
    const LinearSource layer = source_of(file.load(file.get(layer_name(h, "weight"), {hidden, hidden}), number, matrix));
    const Tensor bias = file.load(file.get(layer_name(h, "bias"), {hidden}), DType::kF32, vector);
    heads[h].layer = backend.pack_linear({&layer, 1}, {&bias, 1});
    const LinearSource source =
        source_of(file.load(file.get(logits_name(h), {target.vocab_size, hidden}), number, matrix));
    heads[h].logits = backend.pack_linear({&source, 1}, {});
  }
  return heads;
}

size_t planned_medusa_bytes(const MedusaSpec& spec, const ModelSpec& target, const Backend& backend) {
  const MatrixFormat held = backend.held_format(format_of(target.weight_dtype));
  const int64_t hidden = target.hidden_size;
  return spec.num_heads * (backend.packed_bytes(hidden, hidden, held, true) +
                           backend.packed_bytes(target.vocab_size, hidden, held, false));
}

}  // namespace serval
