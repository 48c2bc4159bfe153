// How a family of checkpoints spells the names of its tensors. Parts ask by the most common spelling,
// Llama's; a family says what it stores under another name. Data only.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace serval {

// A module of a layer that is stored under another name than parts ask for. Neighbours of one matrix that are
// stored under the same name are one tensor, their rows in the order that parts ask for them. A name that ends in a point
// stands for all that begin with it.
struct StoredName {
  std::string_view asked;   // "self_attn.q_proj", "mixer."
  std::string_view stored;  // "self_attn.qkv_proj", "mamba."
};

// The modules outside the layers, and what the layers' names begin with.
struct FrameNames {
  std::string_view embedding, layers, final_norm, head;
};

// How the rows lie of queries, keys and values that are stored as one tensor.
enum class FusedQkv : uint8_t {
  kOneAfterAnother,
  kByKvHead,    // for each key-value head its queries, its key, its value (GPT-NeoX, Falcon)
  kFourSlices,  // in each of four a quarter of the queries, of the values, of the keys (CodeGen)
};

struct TensorNames {
  std::string_view embedding = "model.embed_tokens";
  std::string_view positions = {};           // where they are learned
  std::string_view token_types = {};         // where there are some
  std::string_view embedding_norm = {};
  std::string_view project_in = {}, project_out = {};  // of an embedding of another size
  std::string_view layers = "model.layers";  // "model.layers.7.self_attn.q_proj.weight"
  std::string_view final_norm = "model.norm";
  std::string_view head = "lm_head";  // a tied model's checkpoint may repeat the embedding under it
  // Begins the names above; a checkpoint that was saved without the head leaves it out everywhere.
  std::string_view optional_prefix = "model.";
  // Other spellings in use of those four, tried where the first embedding is not there.
  std::span<const FrameNames> also = {};
  // Of a layer's modules, the first that fits; the others are stored as they are asked for. The experts'
  // modules are asked for with a star ("mlp.experts.*.up_proj"); one that is stored under a name without a star is a
  // tensor of all experts' matrices, under its whole name ("mlp.experts.up_proj", [experts, out, in]).
  std::span<const StoredName> modules = {};
  // The checkpoint has such tensors where `modules` says so; else it has each expert's, as they are asked for.
  bool has_stacked_experts = true;
  // Of such tensors: each matrix is [in, out]; the rows of gate and of up take turns.
  bool has_transposed_stacks = false, alternates_gate_up = false;
  // They are matrices in which the experts' rows lie one behind the other, those of down turned round (DBRX).
  bool has_flat_stacks = false;
  FusedQkv fused_qkv = FusedQkv::kOneAfterAnother;
  // The norms of heads, where each has its own, are stored as one tensor a head.
  bool has_tensor_per_head_norm = false;
  // The shares of a time mix are one tensor (the first RWKV-7 checkpoints): set when a checkpoint is seen.
  bool has_packed_mixes = false;
  // A layer's matrices are stored as [in, out].
  bool has_transposed_layers = false;
  // Parts of the names of tensors that published checkpoints carry and a forward pass does not need.
  std::span<const std::string_view> ignored = {};

  std::string stored(std::string_view asked) const {
    for (const StoredName& name : modules) {
      if (!has_stacked_experts && is_stack(name)) continue;
      if (name.asked == asked || (name.asked.ends_with('.') && asked.starts_with(name.asked)))
        return std::string(name.stored) + std::string(asked.substr(name.asked.size()));
    }
    return std::string(asked);
  }
  static bool is_stack(const StoredName& name) {
    return name.asked.find('*') != name.asked.npos && name.stored.find('*') == name.stored.npos;
  }
  // As this checkpoint spells them.
  template <class Checkpoint>
  TensorNames found_in(const Checkpoint& checkpoint) const {
    TensorNames bare = *this;
    for (std::string_view* name : {&bare.embedding, &bare.positions, &bare.token_types, &bare.embedding_norm, &bare.project_in,
                                   &bare.project_out, &bare.layers, &bare.final_norm}) {
      if (name->starts_with(optional_prefix)) name->remove_prefix(optional_prefix.size());
    }
    if (checkpoint.find(bare.embedding_tensor()) != nullptr) return bare;
    for (const FrameNames& other : also) {
      TensorNames names = *this;
      names.embedding = other.embedding;
      names.layers = other.layers;
      names.final_norm = other.final_norm;
      names.head = other.head;
      if (checkpoint.find(names.embedding_tensor()) != nullptr) return names;
    }
    return *this;
  }
  // What stands before the names of modules outside the layers.
  std::string frame_prefix() const { return std::string(layers.substr(0, layers.rfind('.') + 1)); }
  std::string embedding_tensor() const { return std::string(embedding) + ".weight"; }
  std::string head_tensor() const { return std::string(head) + ".weight"; }
};

}  // namespace serval
