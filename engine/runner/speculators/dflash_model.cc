#include "engine/runner/speculators/dflash_model.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "engine/model/architectures/architecture.h"
#include "engine/model/harmless_fields.h"
#include "engine/model/model_folder.h"
#include "engine/model/safetensors.h"
#include "engine/model/weight_loader.h"
#include "engine/model/weight_map.h"

namespace serval {
namespace {

namespace fs = std::filesystem;

// A field of the method's own stands in an object of its own or beside it.
const Fields& holder_of(std::string_view field, const Fields& file, const std::optional<Fields>& inside) {
  return inside && inside->find(field) != nullptr ? *inside : file;
}

// What these layers made is what the next ones read.
std::vector<int> read_layers_of(const Fields& file, int num_layers) {
  std::vector<int> layers;
  for (const int64_t layer : file.find_integers("target_layer_ids")) layers.push_back(static_cast<int>(layer + 1));
  const bool ascends = std::ranges::adjacent_find(layers, std::greater_equal()) == layers.end();
  if (layers.empty() || !ascends || layers.front() < 1 || layers.back() >= num_layers)
    file.refuse("target_layer_ids", "must be ascending layers before the model's last, which is " + std::to_string(num_layers - 1));
  return layers;
}

std::vector<WeightSlot> slots_of(const DflashSpec& spec, DflashWeights& w) {
  const int64_t hidden = spec.model.hidden_size;
  std::vector<WeightSlot> slots;
  SlotList frame(slots, spec.model.names, "", spec.model.weight_format());
  frame.linear(w.fc, {{"fc", hidden}}, hidden * std::ssize(spec.read_layers), false);
  frame.norm(w.row_norm, "hidden_norm", hidden, spec.model.final_norm);
  w.model.layers.resize(spec.model.layers.size());
  for (size_t l = 0; l < spec.model.layers.size(); ++l) {
    SlotList inside(slots, spec.model.names, "layers." + std::to_string(l) + ".", spec.model.weight_format());
    list_layer(spec.model, spec.model.layers[l], w.model.layers[l], inside);
  }
  frame.norm(w.model.final_norm, "norm", hidden, spec.model.final_norm);
  return slots;
}

}  // namespace

bool has_dflash(const fs::path& folder) {
  if (!fs::exists(folder / "model.safetensors")) return false;
  const Checkpoint checkpoint(folder);
  return checkpoint.find("fc.weight") != nullptr && checkpoint.find("hidden_norm.weight") != nullptr;
}

DflashSpec read_dflash_spec(const fs::path& folder, const ModelSpec& target) {
  const auto [object, path] = read_config(folder);
  const Fields file(object, path.string());
  const std::optional<Fields> inside = file.find_object("dflash_config");
  const Architecture& architecture = find_architecture("Qwen3ForCausalLM");  // whatever the target's is
  file.find_strings("architectures", 256);
  file.find_string("model_type");
  file.find("num_target_layers");
  DflashSpec spec;
  spec.model = architecture.read(file);
  spec.model.names = architecture.names;
  if (spec.model.hidden_size != target.hidden_size)
    file.refuse("hidden_size", "is not the model's, " + std::to_string(target.hidden_size));
  for (const KvGroupSpec& group : spec.model.kv_groups)
    if (group.window > 0) file.refuse("sliding_window", "is not supported in a block drafter");
  if (target.embedding_size != 0)
    throw std::runtime_error("speculation_model: " + folder.string() + " reads embeddings of tokens, which are narrower than this model's rows");
  spec.read_layers = read_layers_of(holder_of("target_layer_ids", file, inside), target.num_layers());
  spec.block_size = holder_of("block_size", file, inside).find_int("block_size", 2, kMaxDrafts + 1).value_or(16);
  spec.mask = holder_of("mask_token_id", file, inside).get_int("mask_token_id", 0, target.vocab_size - 1);
  if (inside) refuse_unasked(*inside);
  refuse_unasked(file);
  spec.model.architecture = "a DFlash drafter's " + std::string(architecture.name);
  spec.model.weight_dtype = target.weight_dtype;
  spec.model.vocab_size = target.vocab_size;
  spec.model.tied_embeddings = true;
  // Rotations go on as long as one wants.
  spec.model.max_positions = target.max_positions;
  return spec;
}

DflashWeights load_dflash(const fs::path& folder, const DflashSpec& spec, Backend& backend) {
  DflashWeights weights;
  constexpr std::string_view kRepeated[] = {"embed_tokens.weight", "lm_head.weight", "rotary_emb.inv_freq"};
  load_slots(Checkpoint(folder), slots_of(spec, weights), kRepeated, backend);
  return weights;
}

size_t planned_dflash_bytes(const DflashSpec& spec, const Backend& backend) {
  DflashWeights weights;
  return planned_bytes(slots_of(spec, weights), backend);
}

DflashModel::DflashModel(DflashSpec spec, DflashWeights weights, const StepLimits& steps, Transformer& target, Backend& backend)
    : spec_(std::move(spec)),
      fc_(std::move(weights.fc)),
      row_norm_(std::move(weights.row_norm)),
      target_(target),
      backend_(backend),
      layers_(spec_.model, std::move(weights.model), steps.max_model_len, backend),
      ws_(spec_.model, steps.max_rows, steps.max_logit_rows, backend) {
  const DType type = backend.activation_dtype(spec_.model.weight_dtype);
  const int64_t rows = std::ssize(spec_.read_layers) * steps.max_rows, hidden = spec_.model.hidden_size;
  memory_ = backend.allocate(rows * hidden * dtype_bytes(type));
  paired_ = Tensor(memory_.data(), type, {rows, hidden});
  order_.reserve(rows);
}

size_t DflashModel::planned_bytes(const DflashSpec& spec, const StepLimits& steps, const Backend& backend) {
  const DType type = backend.activation_dtype(spec.model.weight_dtype);
  const size_t rows = spec.read_layers.size() * steps.max_rows;
  return Transformer::planned_bytes(spec.model, steps.max_model_len) +
         Workspace::planned_bytes(spec.model, steps.max_rows, steps.max_logit_rows, type) +
         rows * (spec.model.hidden_size * dtype_bytes(type) + sizeof(int32_t));
}

void DflashModel::read(const Tensor& kept, const KeptRows& places, std::span<const int32_t> rows, const ForwardInput& input,
                       std::span<const KvLayer> kv) {
  const int64_t n = std::ssize(rows), parts = std::ssize(spec_.read_layers), hidden = spec_.model.hidden_size;
  order_.clear();
  for (const int32_t row : rows)
    for (int p = 0; p < parts; ++p) order_.push_back(places.row_of(p, row));
  ws_.start(static_cast<int>(n));
  backend_.gather_rows(kept, order_, {paired_.data, paired_.dtype, {n * parts, hidden}});
  backend_.linear({paired_.data, paired_.dtype, {n, parts * hidden}}, fc_, ws_.residual);
  layers_.write_keys(add_norm(backend_, spec_.model.final_norm, row_norm_, ws_.residual, {}, ws_.h), input, kv, ws_);
}

void DflashModel::forward(const ForwardInput& input, std::span<const KvLayer> kv) {
  ws_.start(input.num_rows());
  backend_.embed(target_.weights().embedding, input.token_ids, 1, ws_.residual);
  layers_.run_layers(input, kv, ws_, spec_.model.num_layers());
}

}  // namespace serval
