// Decoders after GPT-2: LayerNorm, a feed-forward part without a gate, heads that divide the hidden size. They
// differ in how they spell what their configurations say, and in some parts.
#pragma once

#include <string_view>
#include <vector>

#include "engine/model/config_fields.h"
#include "engine/model/model_spec.h"
#include "engine/model/tensor_names.h"

namespace serval {

// Where Megatron's spelling of a layer's modules was kept (Bloom, and Falcon after it).
inline constexpr StoredName kMegatronModules[] = {{"self_attn.q_proj", "self_attention.query_key_value"},
                                                  {"self_attn.k_proj", "self_attention.query_key_value"},
                                                  {"self_attn.v_proj", "self_attention.query_key_value"},
                                                  {"self_attn.o_proj", "self_attention.dense"},
                                                  {"mlp.up_proj", "mlp.dense_h_to_4h"},
                                                  {"mlp.down_proj", "mlp.dense_4h_to_h"}};

// The fields of a family; empty: it has no such field. Those of the first line may also be spelled as here, as in all
// of the reference's configurations.
struct PlainFields {
  std::string_view hidden = "hidden_size", layers = "num_hidden_layers", heads = "num_attention_heads",
                   positions = "max_position_embeddings";
  std::string_view intermediate = "intermediate_size";  // absent: four times the hidden size
  std::string_view activation = "activation_function", usual_activation = "gelu_new";
  std::string_view eps = "layer_norm_epsilon";  // absent: 1e-5
  bool ties_when_absent = true;
};

struct PlainDecoder {
  ModelSpec spec;     // of layers without parts
  GqaSpec attention;  // biases everywhere, scores scaled by 1 / sqrt(head_dim)
  MlpFfnSpec ffn;     // with biases
  NormSpec norm;
  bool is_parallel = false;
  bool has_ffn_norm = true;
  // Norms stand behind the residual, and there is none before the head.
  bool norms_residual = false;
  // Norms before parts become the residual (LayerSpec).
  bool keeps_normed = false;
};

// Where `fields` has none for positions, max_positions is the caller's to set.
PlainDecoder read_plain_decoder(const Fields& config, const PlainFields& fields);

// An integer of 1..most by the family's spelling, or by the common one.
int get_either(const Fields& config, std::string_view own, std::string_view common, int most);

// All layers alike: norms before their parts and before the head, where the decoder does not say otherwise; a rotation
// where there is one, and everything is seen.
ModelSpec made_of(const Fields& config, PlainDecoder decoder);

// Of each head: what ALiBi lowers a score by for each position (Press et al. 2022): 2^(-8/n), 2^(-16/n), ... for n
// heads, a power of two; else those for the next smaller one, then every other of those for the next larger one.
std::vector<float> alibi_slopes(int num_heads);

}  // namespace serval
