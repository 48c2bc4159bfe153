#include "engine/model/weight_map.h"

#include <utility>

namespace serval {
namespace {

// Collects the slots of one layer or of the frame around the layers; `prefix` stands before every name.
class SlotList {
 public:
  SlotList(std::vector<WeightSlot>& slots, std::string prefix) : slots_(slots), prefix_(std::move(prefix)) {}

  void vector(Buffer& target, const std::string& module, int64_t size) {
    slots_.emplace_back(VectorSlot{&target, {prefix_ + module + ".weight", {size}}});
  }

  struct Part {
    std::string module;
    int64_t rows;
  };
  void linear(LinearWeight& target, const std::vector<Part>& parts, int64_t columns, bool bias) {
    LinearSlot slot{.target = &target, .parts = {}, .biases = {}};
    for (const Part& part : parts) {
      slot.parts.push_back({prefix_ + part.module + ".weight", {part.rows, columns}});
      if (bias) slot.biases.push_back({prefix_ + part.module + ".bias", {part.rows}});
    }
    slots_.emplace_back(std::move(slot));
  }

 private:
  std::vector<WeightSlot>& slots_;
  std::string prefix_;
};

void map_attention(const GqaSpec& spec, int64_t hidden, GqaWeights& w, SlotList& slots) {
  slots.linear(w.qkv,
               {{"self_attn.q_proj", spec.q_size()},
                {"self_attn.k_proj", spec.kv_size()},
                {"self_attn.v_proj", spec.kv_size()}},
               hidden, spec.qkv_bias);
  slots.linear(w.output, {{"self_attn.o_proj", hidden}}, spec.q_size(), spec.output_bias);
  if (spec.qk_norm) {
    slots.vector(w.q_norm, "self_attn.q_norm", spec.head_dim);
    slots.vector(w.k_norm, "self_attn.k_norm", spec.head_dim);
  }
}

void map_ffn(const DenseFfnSpec& spec, int64_t hidden, DenseFfnWeights& w, SlotList& slots) {
  slots.linear(w.gate_up,
               {{"mlp.gate_proj", spec.intermediate_size}, {"mlp.up_proj", spec.intermediate_size}}, hidden,
               spec.bias);
  slots.linear(w.down, {{"mlp.down_proj", hidden}}, spec.intermediate_size, spec.bias);
}

}  // namespace

std::vector<WeightSlot> map_weights(const ModelSpec& spec, ModelWeights& weights) {
  std::vector<WeightSlot> slots;
  SlotList(slots, "model.")
      .linear(weights.embedding, {{"embed_tokens", spec.vocab_size}}, spec.hidden_size, false);
  weights.layers.resize(spec.layers.size());
  for (size_t l = 0; l < spec.layers.size(); ++l) {
    LayerWeights& layer = weights.layers[l];
    SlotList list(slots, "model.layers." + std::to_string(l) + ".");
    list.vector(layer.attention_norm, "input_layernorm", spec.hidden_size);
    const auto& attention = std::get<GqaSpec>(spec.layers[l].attention);
    map_attention(attention, spec.hidden_size, layer.attention.emplace<GqaWeights>(), list);
    list.vector(layer.ffn_norm, "post_attention_layernorm", spec.hidden_size);
    const auto& ffn = std::get<DenseFfnSpec>(spec.layers[l].ffn);
    map_ffn(ffn, spec.hidden_size, layer.ffn.emplace<DenseFfnWeights>(), list);
  }
  SlotList(slots, "model.").vector(weights.final_norm, "norm", spec.hidden_size);
  if (!spec.tied_embeddings) {
    SlotList(slots, "").linear(weights.lm_head, {{"lm_head", spec.vocab_size}}, spec.hidden_size, false);
  }
  return slots;
}

bool is_ignorable_tensor(std::string_view name) {
  return name.ends_with(".rotary_emb.inv_freq");
}

}  // namespace serval
