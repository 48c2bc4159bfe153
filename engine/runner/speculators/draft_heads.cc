#include "engine/runner/speculators/draft_heads.h"

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "engine/model/float_convert.h"
#include "engine/model/safetensors.h"
#include "engine/model/weight_loader.h"
#include "engine/model/weight_map.h"
#include "engine/runner/speculators/one_layer.h"

namespace serval {
namespace {

// How a kind's files name things.
struct Layout {
  DrafterKind kind;
  bool has_prefix;
  const char* file;
  std::string (*layer)(int head, int layer);
  std::string (*logits)(int head, int num_layers);
};
constexpr Layout kLayouts[] = {
    {DrafterKind::kMedusa, false, "medusa_lm_head.safetensors",
     [](int head, int layer) { return std::to_string(head) + "." + std::to_string(layer) + "."; },
     [](int head, int num_layers) { return std::to_string(head) + "." + std::to_string(num_layers) + "."; }},
    {DrafterKind::kHydra, false, "hydra_lm_head.safetensors",
     [](int head, int layer) { return "hydra_mlp." + std::to_string(head) + "." + std::to_string(layer) + "."; },
     [](int head, int /*num_layers*/) { return "hydra_lm_head." + std::to_string(head) + "."; }},
    {DrafterKind::kHydra, true, "hydra_lm_head.safetensors",
     [](int head, int layer) { return "hydra_mlp." + std::to_string(head) + "." + std::to_string(2 * layer + 1) + "."; },
     [](int head, int /*num_layers*/) { return "hydra_lm_head." + std::to_string(head) + ".1."; }},
};
constexpr const char* kPrefix = "prefix_embeding_layer.";

const Layout& layout_of(DrafterKind kind, bool has_prefix) {
  return *std::ranges::find_if(kLayouts, [&](const Layout& row) { return row.kind == kind && row.has_prefix == has_prefix; });
}
const Layout& layout_of(const HeadsSpec& spec) {
  return layout_of(spec.kind, spec.prefix.has_value());
}

std::vector<WeightSlot> prefix_slots(const ModelSpec& model, ModelWeights& weights) {
  std::vector<WeightSlot> slots;
  SlotList frame(slots, model.names, kPrefix, model.weight_format());
  SlotList inside(slots, model.names, std::string(kPrefix) + "layers.0.", model.weight_format());
  weights.layers.resize(1);
  list_layer(model, model.layers[0], weights.layers[0], inside);
  frame.norm(weights.final_norm, "norm", model.hidden_size, model.final_norm);
  return slots;
}

class File {
 public:
  File(const std::filesystem::path& folder, const char* name)
      : file_(folder / name), tensors_(read_safetensors_header(file_)) {}

  bool has(const std::string& name) const { return find(name) != nullptr; }
  const TensorInfo& get(const std::string& name, std::initializer_list<int64_t> shape) const {
    const TensorInfo* const tensor = find(name);
    if (tensor == nullptr) fail("tensor " + name + " is missing");
    if (!std::ranges::equal(tensor->shape, shape)) fail("tensor " + name + " has another shape than heads for this model have");
    if (!tensor->dtype) fail("tensor " + name + " is of type " + std::string(tensor->dtype_name) + ", which heads cannot be");
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
  [[noreturn]] void fail(const std::string& why) const { throw std::runtime_error(file_.path().string() + ": " + why); }

 private:
  const TensorInfo* find(const std::string& name) const {
    const auto found = std::ranges::find(tensors_, name, &TensorInfo::name);
    return found == tensors_.end() ? nullptr : &*found;
  }

  MappedFile file_;
  std::vector<TensorInfo> tensors_;
};

// Visits every matrix of every head: its name's beginning, its shape, whether it has a bias, and where it goes.
template <class Visit>
void for_each_matrix(const HeadsSpec& spec, const ModelSpec& target, std::vector<DraftHead>& heads, const Visit& visit) {
  const Layout& layout = layout_of(spec);
  const int64_t hidden = target.hidden_size;
  heads.resize(spec.num_heads);
  for (int h = 0; h < spec.num_heads; ++h) {
    heads[h].layers.resize(spec.num_layers);
    for (int l = 0; l < spec.num_layers; ++l) {
      const int64_t read = l == 0 ? spec.num_read(h) * hidden : hidden;
      visit(layout.layer(h, l) + "linear.", hidden, read, true, heads[h].layers[l].linear);
      if (l == 0 && spec.reads_tokens) visit(layout.layer(h, l) + "res_connection.", hidden, read, true, heads[h].layers[l].around);
    }
    visit(layout.logits(h, spec.num_layers), int64_t{target.vocab_size}, hidden, spec.has_logits_bias, heads[h].logits);
  }
}

}  // namespace

std::optional<DrafterKind> find_heads(const std::filesystem::path& folder) {
  for (const Layout& layout : kLayouts)
    if (std::filesystem::exists(folder / layout.file)) return layout.kind;
  return std::nullopt;
}

HeadsSpec read_heads_spec(DrafterKind kind, const std::filesystem::path& folder, const ModelSpec& target) {
  constexpr int kMost = 16;
  const File file(folder, layout_of(kind, false).file);
  HeadsSpec spec{.kind = kind, .num_layers = 0};
  if (kind == DrafterKind::kHydra && file.has(std::string(kPrefix) + "norm.weight")) {
    spec.prefix = one_layer_of(target, target.layers.front());
    if (!spec.prefix) file.fail("its heads read through a layer like the model's, of a kind that is not supported alone");
  }
  const Layout& layout = layout_of(spec);
  while (spec.num_heads < kMost && file.has(layout.layer(spec.num_heads, 0) + "linear.weight")) ++spec.num_heads;
  while (spec.num_layers < kMost && file.has(layout.layer(0, spec.num_layers) + "linear.weight")) ++spec.num_layers;
  spec.reads_tokens = file.has(layout.layer(0, 0) + "res_connection.weight");
  spec.has_logits_bias = file.has(layout.logits(0, spec.num_layers) + "bias");
  if (spec.num_heads == 0) file.fail("tensor " + layout.layer(0, 0) + "linear.weight is missing");
  if (spec.reads_tokens && target.embedding_size != 0)
    file.fail("its heads read embeddings of tokens, which are narrower than this model's rows");
  std::vector<DraftHead> heads;
  for_each_matrix(spec, target, heads, [&](const std::string& name, int64_t n, int64_t k, bool has_bias, const LinearWeight&) {
    file.get(name + "weight", {n, k});
    if (has_bias) file.get(name + "bias", {n});
  });
  return spec;
}

std::vector<DraftHead> load_heads(const std::filesystem::path& folder, const HeadsSpec& spec, const ModelSpec& target,
                                  Backend& backend) {
  const File file(folder, layout_of(spec).file);
  const DType number = format_row(backend.held_format(format_of(target.weight_dtype)).id).number;
  std::vector<DraftHead> heads;
  std::vector<std::byte> matrix, vector;
  for_each_matrix(spec, target, heads, [&](const std::string& name, int64_t n, int64_t k, bool has_bias, LinearWeight& to) {
    const LinearSource source = source_of(file.load(file.get(name + "weight", {n, k}), number, matrix));
    Tensor bias;
    if (has_bias) bias = file.load(file.get(name + "bias", {n}), DType::kF32, vector);
    to = backend.pack_linear({&source, 1}, {&bias, has_bias ? size_t{1} : size_t{0}});
  });
  return heads;
}

ModelWeights load_prefix(const std::filesystem::path& folder, const HeadsSpec& spec, Backend& backend) {
  constexpr std::string_view kOthers[] = {"hydra_mlp", "hydra_lm_head", "embed_tokens"};
  ModelWeights weights;
  std::vector<MappedFile> files;
  files.emplace_back(folder / layout_of(spec).file);
  std::vector<TensorInfo> tensors = read_safetensors_header(files[0]);
  load_slots(Checkpoint(std::move(files), std::move(tensors)), prefix_slots(*spec.prefix, weights), kOthers, backend);
  return weights;
}

size_t planned_prefix_bytes(const HeadsSpec& spec, const Backend& backend) {
  ModelWeights weights;
  return planned_bytes(prefix_slots(*spec.prefix, weights), backend);
}

size_t planned_heads_bytes(const HeadsSpec& spec, const ModelSpec& target, const Backend& backend) {
  const MatrixFormat held = backend.held_format(format_of(target.weight_dtype));
  std::vector<DraftHead> heads;
  size_t bytes = 0;
  for_each_matrix(spec, target, heads, [&](const std::string&, int64_t n, int64_t k, bool has_bias, const LinearWeight&) {
    bytes += backend.packed_bytes(n, k, held, has_bias);
  });
  return bytes;
}

}  // namespace serval
