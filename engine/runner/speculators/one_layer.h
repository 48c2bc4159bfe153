// A model of one layer that is like one of another's, with keys and values of its own: what some heads have inside.
#pragma once

#include <optional>

#include "engine/model/model_spec.h"

namespace serval {

// Nothing where the layer works on more than the rows of its own.
inline std::optional<ModelSpec> one_layer_of(const ModelSpec& target, LayerSpec layer) {
  if (target.streams.is_there() || target.layer_inputs.is_there() || target.mixed.is_there() || layer.kv_source || layer.far_layer ||
      layer.is_beside)
    return std::nullopt;
  ModelSpec model = target;
  KvGroupSpec group = target.kv_groups[layer.kv_group];
  group.layers = {0};
  layer.kv_group = 0;
  model.layers = {layer};
  model.kv_groups = {group};
  model.tied_embeddings = true;
  model.rounded_to.reset();
  model.stored.clear();
  return model;
}

}  // namespace serval
