// Every slot of a model: the frame's and those that its parts list. Loading, planning and the search for
// unexpected tensors all read this list.
#pragma once

#include <cstddef>
#include <vector>

#include "engine/model/model_spec.h"
#include "engine/model/weight_slots.h"
#include "engine/model/weights.h"

namespace serval {

// Every slot of `weights`, which gets spec's layers and parts where it has others, and whose slots the result
// points into (its layers must not move).
std::vector<WeightSlot> map_weights(const ModelSpec& spec, ModelWeights& weights);

// The slots of one layer, in `list`, which has the prefix of its names.
void list_layer(const ModelSpec& spec, const LayerSpec& layer, LayerWeights& weights, SlotList& list);

// The bytes that are held in the slots.
size_t held_bytes(const std::vector<WeightSlot>& slots);

}  // namespace serval
