// Streams a checkpoint into a backend: finds each slot's tensors, checks every shape, converts, packs, and
// lets the source pages go as it proceeds, so that the peak is the packed weights plus the largest single
// slot. Start-up only.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/model_spec.h"
#include "engine/model/weight_slots.h"
#include "engine/model/weights.h"
#include "kernels/backend.h"

namespace serval {

class Checkpoint;

// Throws std::runtime_error with one sentence that names the file and the tensor: missing, unexpected, wrong
// shape, unsupported dtype, truncated file. Not-a-number and infinite weights are legal in the format: they
// are warned of in the log, once a tensor. progress: checkpoint bytes read and in all, on the calling thread
// after every slot, the last call with both equal. packed_cache: the folder that the weights are taken from and
// left in for the next start (packed_cache.h); empty: none.
ModelWeights load_weights(const std::filesystem::path& model_dir, const ModelSpec& spec, Backend& backend,
                          const Progress& progress = {}, const std::filesystem::path& packed_cache = {});

// The same of slots that are no whole model's: heads beside one. ignored: as TensorNames has it.
void load_slots(const Checkpoint& checkpoint, const std::vector<WeightSlot>& slots, std::span<const std::string_view> ignored,
                Backend& backend);
// Throws what load_slots would for the tensors of the slots, from the headers alone.
void check_slots(const Checkpoint& checkpoint, const std::vector<WeightSlot>& slots);

// Throws what load_weights would throw for the names, shapes and types of the tensors, from the headers alone
// (and the bytes of a head that a tied model repeats).
void check_weights(const std::filesystem::path& model_dir, const ModelSpec& spec);

// The names, ascending, of the checkpoint's tensors that `quantize` would round as matrices of layers and that are each one
// matrix [out, in].
std::vector<std::string> layer_matrices(const std::filesystem::path& model_dir, const ModelSpec& spec);

// Those tensors, and which of the loaded weights has each.
struct LayerMatrix {
  std::string tensor;
  const LinearWeight* held;
};
std::vector<LayerMatrix> layer_matrices(const std::filesystem::path& model_dir, const ModelSpec& spec, ModelWeights& weights);

// What load_weights will hold, exactly, from the specification alone; and load_slots.
size_t planned_weight_bytes(const ModelSpec& spec, const Backend& backend);
size_t planned_bytes(const std::vector<WeightSlot>& slots, const Backend& backend);

}  // namespace serval
