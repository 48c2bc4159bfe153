// One table from the slots of a model to the checkpoint's tensors: their names, their shapes, and what is
// fused with what. Loading, planning and the search for unexpected tensors all read this table. A checkpoint
// that spells names differently changes only here.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine/model/model_spec.h"
#include "engine/model/weights.h"

namespace serval {

// A tensor the checkpoint must have.
struct SourceTensor {
  std::string name;
  std::vector<int64_t> shape;  // [out, in] of a matrix, [n] of a norm or bias

  int64_t num_elements() const {
    int64_t n = 1;
    for (const int64_t dim : shape) n *= dim;
    return n;
  }
};

// A matrix made of one or more tensors with the same number of columns, rows in the given order; biases:
// none, or one per part.
struct LinearSlot {
  LinearWeight* target = nullptr;
  std::vector<SourceTensor> parts;
  std::vector<SourceTensor> biases;
};

// An f32 vector: the weight of a norm.
struct VectorSlot {
  Buffer* target = nullptr;
  SourceTensor source;
};

using WeightSlot = std::variant<LinearSlot, VectorSlot>;

// Every slot of `weights`, which is resized to spec's layers and whose slots the result points into (its
// layers must not move).
std::vector<WeightSlot> map_weights(const ModelSpec& spec, ModelWeights& weights);

// Tensors that published checkpoints carry and a forward pass does not need: rotation frequencies that old
// exporters saved.
bool is_ignorable_tensor(std::string_view name);

// The output head's name; a tied model's checkpoint may repeat the embedding under it.
inline constexpr std::string_view kHeadTensor = "lm_head.weight";
inline constexpr std::string_view kEmbeddingTensor = "model.embed_tokens.weight";

}  // namespace serval
