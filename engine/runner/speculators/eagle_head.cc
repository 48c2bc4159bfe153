#include "engine/runner/speculators/eagle_head.h"

#include <algorithm>
#include <iterator>
#include <stdexcept>
#include <utility>

#include "engine/model/architectures/architecture.h"
#include "engine/model/harmless_fields.h"
#include "engine/model/model_folder.h"
#include "engine/model/safetensors.h"
#include "engine/model/weight_loader.h"
#include "engine/model/weight_map.h"
#include "engine/runner/speculators/one_layer.h"

namespace serval {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse(const fs::path& folder, const std::string& why) {
  throw std::runtime_error("speculation_model: " + folder.string() + " " + why);
}

// Its layer's architecture: tools add "Eagle" or "Eagle3" to the name, before or behind.
const Architecture& architecture_of(const Fields& file) {
  std::vector<std::string> names = file.find_strings("architectures", 256);
  if (names.empty()) return find_architecture_of_type(file.get_string("model_type"));
  file.find_string("model_type");
  std::string name = names[0];
  for (const std::string_view added : {"Eagle3", "Eagle"}) {
    const size_t at = name.find(added);
    if (at != name.npos) name.erase(at, added.size());
  }
  return find_architecture(name);
}

// What three of the layers read, as published configurations say: nothing, or their numbers, or those of the layers before.
std::vector<int> read_layers_of(const Fields& file, int num_layers) {
  std::vector<int64_t> said = file.find_integers("eagle_aux_hidden_state_layer_ids");
  if (const auto inside = file.find_object("eagle_config")) {
    inside->find("use_aux_hidden_state");
    said = inside->find_integers("eagle_aux_hidden_state_layer_ids");
    for (int64_t& layer : said) ++layer;
  }
  if (said.empty()) said = {2, num_layers / 2, num_layers - 3};
  std::vector<int> layers(said.begin(), said.end());
  const bool ascends = std::ranges::adjacent_find(layers, std::greater_equal()) == layers.end();
  if (!ascends || layers.front() < 0 || layers.back() >= num_layers)
    file.refuse("eagle_aux_hidden_state_layer_ids", "must be ascending layers of the model, which has " + std::to_string(num_layers));
  return layers;
}

std::vector<WeightSlot> slots_of(const EagleSpec& spec, EagleWeights& weights) {
  const int64_t hidden = spec.model.hidden_size;
  std::vector<WeightSlot> slots;
  weights.layers.resize(spec.names.size());
  for (size_t l = 0; l < spec.names.size(); ++l) {
    const EagleSpec::Names& names = spec.names[l];
    EagleWeights::Layer& w = weights.layers[l];
    SlotList frame(slots, spec.model.names, "", spec.model.weight_format());
    SlotList inside(slots, spec.model.names, names.layer, spec.model.weight_format());
    frame.linear(w.fc, {{names.fc, hidden}}, hidden * (spec.reads_beside ? spec.num_read() : 2), spec.has_fc_bias);
    frame.norm(w.embedding_norm, names.embedding_norm, hidden, spec.embedding_norm);
    frame.norm(w.row_norm, names.row_norm, hidden, spec.row_norm);
    w.model.layers.resize(1);
    list_layer(spec.model, spec.model.layers[l], w.model.layers[0], inside);
    for (WeightSlot& slot : slots) {
      auto* const linear = std::get_if<LinearSlot>(&slot);
      for (size_t i = 0; spec.reads_beside && linear && i < linear->parts.size(); ++i) {
        SourceTensor& part = linear->parts[i];
        for (const char* reading : {"q_proj", "k_proj", "v_proj"})
          if (part.name == names.layer + "self_attn." + reading + ".weight") part.shape[1] = 2 * hidden;
      }
    }
    frame.norm(w.model.final_norm, names.norm, hidden, spec.model.final_norm);
    if (spec.has_own_head) frame.linear(w.model.lm_head, {{names.head, spec.model.vocab_size}}, hidden, false);
  }
  return slots;
}

// Layers that predict further tokens (DeepSeek-V3, section 2.2).
struct Mtp {
  std::vector<EagleSpec::Names> names;
  bool goes_on_normed = false;
};

// The first of them, at most so many, that are as wide as the target: behind the target's own layers, numbered on; or
// Qwen3-Next's and Qwen3.5's, of which there is one. None: there are none.
Mtp find_mtp(const Checkpoint& checkpoint, const ModelSpec& target, int most) {
  Mtp mtp;
  const auto add = [&](const EagleSpec::Names& names) {
    const TensorInfo* const fc = checkpoint.find(names.fc + ".weight");
    if (fc == nullptr || fc->shape != std::vector<int64_t>{target.hidden_size, 2 * target.hidden_size}) return false;
    mtp.names.push_back(names);
    return std::ssize(mtp.names) < most;
  };
  for (const int further : target.layers_unused) {
    const std::string layer = std::string(target.names.layers) + "." + std::to_string(further) + ".";
    if (!add({layer + "eh_proj", layer, layer + "enorm", layer + "hnorm", layer + "shared_head.norm", ""})) break;
  }
  if (!mtp.names.empty()) return mtp;
  add({"mtp.fc", "mtp.layers.0.", "mtp.pre_fc_norm_embedding", "mtp.pre_fc_norm_hidden", "mtp.norm", ""});
  mtp.goes_on_normed = true;
  return mtp;
}

// Their layers are like the last of the target's that has keys and values.
EagleSpec read_mtp(const fs::path& folder, const Checkpoint& checkpoint, const ModelSpec& target, const Mtp& mtp) {
  EagleSpec spec;
  auto like = target.layers.rbegin();
  while (like != target.layers.rend() && target.kv_groups[like->kv_group].keeps_state) ++like;
  const std::optional<ModelSpec> model = like == target.layers.rend() ? std::nullopt : one_layer_of(target, *like);
  if (!model) refuse(folder, "has layers that predict further tokens of a kind that is not supported");
  spec.model = *model;
  for (int l = 1; l < std::ssize(mtp.names); ++l) {
    spec.model.layers.push_back(spec.model.layers[0]);
    spec.model.kv_groups[0].layers.push_back(l);
  }
  spec.embedding_norm = spec.row_norm = target.final_norm;
  spec.names = mtp.names;
  spec.goes_on_normed = mtp.goes_on_normed;
  spec.ignored = {""};  // all the rest is the model's
  EagleWeights weights;
  check_slots(checkpoint, slots_of(spec, weights));
  return spec;
}

ModelSpec one_of(const ModelSpec& alike) {
  ModelSpec one = alike;
  one.layers.erase(one.layers.begin() + 1, one.layers.end());
  one.kv_groups[0].layers = {0};
  return one;
}

}  // namespace

bool has_eagle(const fs::path& folder) {
  return fs::exists(folder / "model.safetensors") && Checkpoint(folder).find("fc.weight") != nullptr;
}

bool has_mtp(const fs::path& folder, const ModelSpec& target) {
  return has_safetensors(folder) && !find_mtp(Checkpoint(folder), target, 1).names.empty();
}

EagleSpec read_eagle_spec(const fs::path& folder, const ModelSpec& target, int most) {
  const Checkpoint checkpoint(folder);
  if (const Mtp mtp = find_mtp(checkpoint, target, most); !mtp.names.empty()) return read_mtp(folder, checkpoint, target, mtp);
  const auto [object, path] = read_config(folder);
  const Fields file(object, path.string());
  EagleSpec spec;
  spec.reads_beside = checkpoint.find("midlayer.hidden_norm.weight") != nullptr;
  const std::string layer = spec.reads_beside ? "midlayer." : "layers.0.";
  if (checkpoint.find("fc.weight") == nullptr || checkpoint.find(layer + "self_attn.q_proj.weight") == nullptr)
    refuse(folder, "has no EAGLE head: its tensors have neither fc and layers.0 nor fc and midlayer, nor a layer for further tokens that is as wide as the model");
  const Architecture& architecture = architecture_of(file);
  spec.model = architecture.read(file);
  spec.model.names = architecture.names;
  if (spec.model.num_layers() != 1) file.refuse("num_hidden_layers", "must be 1 of an EAGLE head");
  if (spec.model.hidden_size != target.hidden_size)
    file.refuse("hidden_size", "is not the model's, " + std::to_string(target.hidden_size));
  LayerSpec& only = spec.model.layers[0];
  spec.has_fc_bias = checkpoint.find("fc.bias") != nullptr;
  file.find_bool("bias");  // the same
  if (spec.reads_beside) {
    spec.embedding_norm = spec.row_norm = spec.model.final_norm;
    only.mixer_norm = {};
    spec.read_layers = read_layers_of(file, target.num_layers());
    spec.has_own_head = true;
    spec.model.vocab_size = file.find_int("draft_vocab_size", 1, target.vocab_size).value_or(target.vocab_size);
    spec.has_own_ids = spec.model.vocab_size < target.vocab_size;
    spec.names = {{"fc", layer, layer + "input_layernorm", layer + "hidden_norm", "norm", "lm_head"}};
    for (const char* field : {"target_hidden_size", "norm_before_residual"}) file.find(field);
  } else {
    spec.model.vocab_size = target.vocab_size;
    spec.model.final_norm = {};
    if (checkpoint.find(layer + "input_layernorm.weight") == nullptr) only.mixer_norm = {};
    spec.names = {{.fc = "fc", .layer = layer}};
  }
  spec.ignored = {"embed_tokens.weight", "d2t", "t2d", "rotary_emb.inv_freq"};
  refuse_unasked(file);
  spec.model.architecture = "an EAGLE head's " + std::string(architecture.name);
  spec.model.weight_dtype = target.weight_dtype;
  // Rotations go on as long as one wants.
  spec.model.max_positions = target.max_positions;
  EagleWeights weights;
  for (const WeightSlot& slot : slots_of(spec, weights)) {
    const auto* const linear = std::get_if<LinearSlot>(&slot);
    if (linear != nullptr && checkpoint.find(linear->parts[0].name) == nullptr)
      refuse(folder, "lacks the tensor " + linear->parts[0].name);
  }
  return spec;
}

EagleWeights load_eagle(const fs::path& folder, const EagleSpec& spec, int vocab, Backend& backend) {
  EagleWeights weights;
  const Checkpoint checkpoint(folder);
  load_slots(checkpoint, slots_of(spec, weights), spec.ignored, backend);
  if (!spec.has_own_ids) return weights;
  const TensorInfo* const map = checkpoint.find("d2t");
  const auto count = static_cast<size_t>(spec.model.vocab_size);
  if (map == nullptr || map->dtype_name != "I64" || map->bytes != count * sizeof(int64_t))
    refuse(folder, "needs a tensor d2t of " + std::to_string(count) + " numbers (I64)");
  std::vector<int64_t> added(count);
  checkpoint.read(*map, added.data());
  for (size_t i = 0; i < count; ++i) {
    const int64_t id = static_cast<int64_t>(i) + added[i];
    if (id < 0 || id >= vocab) refuse(folder, "has a tensor d2t that names the token " + std::to_string(id));
    weights.own_ids.push_back(static_cast<int32_t>(id));
  }
  return weights;
}

size_t planned_eagle_bytes(const EagleSpec& spec, const Backend& backend) {
  EagleWeights weights;
  return planned_bytes(slots_of(spec, weights), backend);
}

EagleHead::EagleHead(EagleSpec spec, EagleWeights weights, const StepLimits& steps, Transformer& target, Backend& backend)
    : spec_(std::move(spec)),
      max_seqs_(steps.max_seqs),
      weights_(std::move(weights.layers)),
      own_ids_(std::move(weights.own_ids)),
      target_(target),
      backend_(backend),
      ws_(spec_.model, steps.max_rows, steps.max_logit_rows, backend) {
  layers_.reserve(weights_.size());
  for (EagleWeights::Layer& layer : weights_) layers_.emplace_back(one_of(spec_.model), std::move(layer.model), steps.max_model_len, backend);
  const int64_t max_rows = steps.max_rows, hidden = spec_.model.hidden_size, num_set_aside = num_aside(spec_, steps);
  const DType type = backend.activation_dtype(spec_.model.weight_dtype);
  const int widest = std::max(2, spec_.num_read());
  memory_ = backend.allocate(((3 + widest) * max_rows + num_set_aside) * hidden * dtype_bytes(type));
  rows_ = Tensor(memory_.data(), type, {max_rows, hidden});
  stacked_ = Tensor(rows_.at(max_rows * hidden), type, {2 * max_rows, hidden});
  paired_ = Tensor(rows_.at(3 * max_rows * hidden), type, {widest * max_rows, hidden});
  aside_ = Tensor(rows_.at((3 + widest) * max_rows * hidden), type, {num_set_aside, hidden});
  order_.reserve(static_cast<size_t>(widest * max_rows));
}

size_t EagleHead::planned_bytes(const EagleSpec& spec, const StepLimits& steps, const Backend& backend) {
  const DType type = backend.activation_dtype(spec.model.weight_dtype);
  const size_t widest = std::max(2, spec.num_read()), rows = steps.max_rows;
  return spec.num_layers() * Transformer::planned_bytes(spec.model, steps.max_model_len) +
         Workspace::planned_bytes(spec.model, steps.max_rows, steps.max_logit_rows, type) +
         ((3 + widest) * rows + num_aside(spec, steps)) * spec.model.hidden_size * dtype_bytes(type) + widest * rows * sizeof(int32_t);
}

// Rows of one of the buffers, or so many of them seen as one that is wider.
Tensor EagleHead::part_of(const Tensor& memory, int64_t first_row, int64_t rows, int times) const {
  return {memory.at(first_row * memory.dim(1)), memory.dtype, {rows, times * memory.dim(1)}};
}

void EagleHead::put(const NormSpec& norm, const NormWeights& weights, const Tensor& from, const Tensor& to) {
  if (norm.is_there()) {
    add_norm(backend_, norm, weights, from, {}, to);
  } else {
    backend_.scaled_add(from, 1, {}, to);
  }
}

void EagleHead::read(const Tensor& kept, const KeptRows& places, std::span<const int32_t> rows) {
  num_rows_ = static_cast<int>(rows.size());
  const int parts = spec_.num_read();
  order_.clear();
  for (const int32_t row : rows)
    for (int p = 0; p < parts; ++p) order_.push_back(places.row_of(p, row));
  const Tensor to = part_of(rows_, 0, num_rows_);
  if (spec_.read_layers.empty()) return backend_.gather_rows(kept, order_, to);
  backend_.gather_rows(kept, order_, part_of(paired_, 0, int64_t{parts} * num_rows_));
  backend_.linear(part_of(paired_, 0, num_rows_, parts), weights_[0].fc, to);
}

// Those of the forward and those that were set aside are put behind each other, then in order.
void EagleHead::read_own(std::span<const int32_t> rows) {
  num_rows_ = static_cast<int>(rows.size());
  const auto is_own = [](int32_t row) { return row > kSetAside; };
  const int64_t num_own = std::ranges::count_if(rows, is_own);
  if (num_own == num_rows_) return backend_.gather_rows(own_rows(), rows, part_of(rows_, 0, num_rows_));
  order_.clear();
  std::ranges::copy_if(rows, std::back_inserter(order_), is_own);
  if (num_own > 0) backend_.gather_rows(own_rows(), order_, part_of(paired_, 0, num_own));
  order_.clear();
  for (const int32_t row : rows)
    if (!is_own(row)) order_.push_back(last_layer_ * max_seqs_ + kSetAside - row);
  backend_.gather_rows(aside_, order_, part_of(paired_, num_own, num_rows_ - num_own));
  order_.clear();
  for (int32_t own = 0, other = static_cast<int32_t>(num_own); const int32_t row : rows) order_.push_back(is_own(row) ? own++ : other++);
  backend_.gather_rows(part_of(paired_, 0, num_rows_), order_, part_of(rows_, 0, num_rows_));
}

// Slots behind each other at once.
void EagleHead::set_aside(std::span<const int32_t> rows, std::span<const SlotId> slots) {
  for (size_t i = 0, n = 1; i < rows.size(); i += n) {
    for (n = 1; i + n < rows.size() && slots[i + n] == slots[i] + static_cast<SlotId>(n);) ++n;
    backend_.gather_rows(own_rows(), rows.subspan(i, n), part_of(aside_, int64_t{last_layer_} * max_seqs_ + slots[i], static_cast<int64_t>(n)));
  }
}

void EagleHead::forward(int layer, const ForwardInput& input, std::span<const KvLayer> kv) {
  const int n = input.num_rows();
  SERVAL_CHECK(n == num_rows_, n, num_rows_);
  last_layer_ = layer;
  const EagleWeights::Layer& w = weights_[layer];
  ws_.start(n);
  target_.embed(input.token_ids, ws_);
  const Tensor rows = part_of(rows_, 0, n);
  put(spec_.embedding_norm, w.embedding_norm, ws_.residual, part_of(stacked_, 0, n));
  put(spec_.row_norm, w.row_norm, rows, part_of(stacked_, n, n));
  order_.clear();
  for (int32_t i = 0; i < n; ++i) order_.insert(order_.end(), {i, n + i});
  backend_.gather_rows(part_of(stacked_, 0, 2 * n), order_, part_of(paired_, 0, 2 * n));
  const Tensor pairs = part_of(paired_, 0, n, 2);
  if (spec_.reads_beside) {
    backend_.scaled_add(rows, 1, {}, ws_.residual);
    layers_[layer].run_layers(input, kv.subspan(layer, 1), ws_, 1, pairs);
  } else {
    backend_.linear(pairs, w.fc, ws_.residual);
    layers_[layer].run_layers(input, kv.subspan(layer, 1), ws_, 1);
  }
}

Tensor EagleHead::logits(std::span<const int32_t> rows) {
  return (spec_.has_own_head ? layers_[last_layer_] : target_).logits(rows, ws_);
}

}  // namespace serval
