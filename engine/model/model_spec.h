// A decoder as data: what every layer is made of, how rows are rotated, which layers share KV block tables.
// Read from config.json by a row of architectures/, executed by Transformer. It holds no weights.
//
// The guard against a soup of flags: a field may switch one line of one block; whatever changes structure
// (latent attention, a recurrence, experts) is a new alternative of MixerSpec or FfnSpec.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/length_classes.h"
#include "engine/long_attention.h"
#include "engine/model/ffn/dense.h"
#include "engine/model/ffn/mlp.h"
#include "engine/model/ffn/moe.h"
#include "engine/model/ffn/none.h"
#include "engine/model/layer_inputs.h"
#include "engine/model/mixed_residuals.h"
#include "engine/model/mixers/compressed.h"
#include "engine/model/mixers/delta_net.h"
#include "engine/model/mixers/gla.h"
#include "engine/model/mixers/gqa.h"
#include "engine/model/mixers/griffin.h"
#include "engine/model/mixers/head_mamba.h"
#include "engine/model/mixers/kda.h"
#include "engine/model/mixers/lightning.h"
#include "engine/model/mixers/mamba.h"
#include "engine/model/mixers/mamba2.h"
#include "engine/model/mixers/mla.h"
#include "engine/model/mixers/none.h"
#include "engine/model/mixers/rwkv.h"
#include "engine/model/mixers/rwkv7.h"
#include "engine/model/mixers/short_conv.h"
#include "engine/model/mixers/zamba_block.h"
#include "engine/model/norm.h"
#include "engine/model/rope_table.h"
#include "engine/model/stored_matrix.h"
#include "engine/model/streams.h"
#include "engine/model/tensor_names.h"
#include "kernels/quant.h"
#include "kernels/tensor.h"

namespace serval {

using MixerSpec = OneMixerOf<GqaSpec, MlaSpec, MambaSpec, Mamba2Spec, DeltaNetSpec, KdaSpec, LightningSpec, GlaSpec, GriffinSpec,
                              ShortConvSpec, RwkvTimeSpec, RwkvChannelSpec, Rwkv7TimeSpec, Rwkv7ChannelSpec, ZambaBlockSpec, HeadMambaSpec,
                              CompressedAttentionSpec, CompressedKeysSpec, NoMixerSpec>;
using FfnSpec = OneFfnOf<DenseFfnSpec, MoeFfnSpec, MlpFfnSpec, NoFfnSpec>;

// What a layer without a rotation has in place of one (NoPE; Kazemnejad et al. 2023).
inline constexpr int kNoRope = -1;

// A residual layer: x += post(mixer(norm(x))), then the same of its feed-forward part, where norm and post are
// there or not. Norms before alone are the usual order (Llama); before and after is the sandwich (Gemma); after
// alone is OLMo 2's.
struct LayerSpec {
  // The norms after parts are of x with what the part adds, and become x (Vaswani et al. 2017, section 3.1).
  bool norms_residual = false;
  // The norms before parts become x (MiniMax-01): x = norm(x), then x += part(x).
  bool keeps_normed = false;
  // Both parts read x as it came into the layer (Wang and Komatsuzaki 2021, GPT-J): the feed-forward part what the
  // mixer read, where it has no norm of its own.
  bool is_parallel = false;
  MixerSpec mixer;
  FfnSpec ffn;
  NormSpec mixer_norm;
  NormSpec mixer_post_norm;
  NormSpec ffn_norm;
  NormSpec ffn_post_norm;
  bool has_output_scale = false;  // x, when both parts are done, is multiplied by a number of the checkpoint (Gemma 4)
  int rope = 0;      // into ModelSpec::ropes, or kNoRope
  std::optional<int> query_rope;  // of queries alone, where it is another one
  // What whole queries are multiplied by, position by position: into ModelSpec::ropes, of growth_alone().
  std::optional<int> query_growth;
  int kv_group = 0;  // into ModelSpec::kv_groups; of a layer without a mixer it means nothing
  // The earlier layer whose keys and values it reads, having none of its own (Gemma 4 E).
  std::optional<int> kv_source;
  // The layer that keeps what this one's mixer has compressed, and has nothing else (CompressedKeysSpec).
  std::optional<int> far_layer;
  // The mixer reads what the layer before's read, beside it (Falcon-H1: two mixers in one layer of the checkpoint).
  bool is_beside = false;
  // What the mixer gives is for the next layer's mixer alone, which reads it with the residual (Zamba); there is no
  // feed-forward part.
  bool is_aside = false;
  // The earlier layer whose mixer's weights it uses.
  std::optional<int> weights_of;
  // Of what each part adds to the residual, beside ModelSpec::residual_scale.
  float mixer_scale = 1, ffn_scale = 1;
  // Which of the checkpoint's layers it belongs to; absent: that of its own index.
  std::optional<int> stored_index;
  // Within which of that layer's modules ("mamba_decoder."); empty: it is the layer itself.
  std::string_view stored_inside = {};
};

// Layers that share block tables because they keep and forget the same positions.
struct KvGroupSpec {
  bool keeps_state = false;  // instead of keys and values a state of all positions so far
  int window = 0;           // 0: every position stays visible; w: a row at position p sees positions > p - w
  bool is_in_chunks = false;  // of those, the ones from the last multiple of w on (Llama 4)
  int sinks = 0;            // with a window: it sees the first so many as well
  std::vector<int> layers;  // ascending; without those that read another's

  int attended_window() const { return is_in_chunks ? -window : window; }  // AttentionArgs::window
};

// Whether a row of a table is added to each position's embedding, and whose.
enum class PositionTable : uint8_t {
  kNone,
  kLearned,    // the checkpoint's
  kSinusoids,  // computed: sines, then cosines (Vaswani et al. 2017, section 3.5, as tensor2tensor has it)
};

struct ModelSpec {
  std::string architecture;  // "LlamaForCausalLM"
  TensorNames names;
  int vocab_size = 0;
  int hidden_size = 0;
  int max_positions = 0;
  // Why that is less than the configuration says, in a clause; empty: it is not.
  std::string why_no_longer;
  PositionTable positions = PositionTable::kNone;
  // Rows of the table before that of position 0 (OPT).
  int positions_unused = 0;
  // Rows of a table of which one is added to each token's embedding, by which of two texts it is of (BERT); 0: there is none.
  int num_token_types = 0;
  // Rows see those behind them: a prompt is computed whole, in one step, and nothing can be written behind it.
  bool is_encoder = false;
  // Of a row of the embedding table, where it is projected to hidden_size, and back before the head (OPT 350M); 0: it
  // is hidden_size.
  int embedding_size = 0;
  bool head_bias = false;
  // Of the checkpoint, what text does not need: rows of the embedding behind those of the vocabulary, and whole layers
  // (Llama 3.2 Vision).
  int embedding_rows_unused = 0;
  std::vector<int> layers_unused;
  // The output head is the embedding table.
  bool tied_embeddings = false;
  // Of the numbers that the matrices are; norms and biases are f32.
  DType weight_dtype = DType::kBF16;
  // What the matrices are rounded to while they are loaded; see quantised().
  struct Rounding {
    MatrixFormat layers, frame;  // of the layers' matrices; of the embedding and the head
  };
  std::optional<Rounding> rounded_to;
  // What those matrices are held as that the checkpoint has quantised, by their names there (stored_matrix.h).
  std::map<std::string, StoredFormat> stored;
  float embedding_scale = 1;
  bool keeps_embedding = false;  // mixers read what the layers began with
  bool keeps_first_values = false;  // and what the first of them left (MixerInput::first_values)
  NormSpec embedding_norm;  // of what its tables come to, added up
  // Of what each part adds to the residual (Granite, MiniCPM).
  float residual_scale = 1;
  NormSpec final_norm;
  // Of the logits, before they are capped (Granite, Cohere).
  float logit_scale = 1;
  // 0: none; c: logits become c * tanh(logit / c).
  float final_logit_cap = 0;
  // The first neurons of its feed-forward parts are those of narrower models (MatFormer), which the settings may ask for.
  bool has_nested_ffn = false;
  LayerInputsSpec layer_inputs;
  StreamsSpec streams;  // with layer_inputs alone
  MixedResidualsSpec mixed;  // without anything that stands on one residual: streams, scales, norms of it
  std::vector<RopeSpec> ropes;
  LongAttention long_attention;
  std::vector<LayerSpec> layers;
  std::vector<KvGroupSpec> kv_groups;  // 1..kMaxKvGroups; every layer with a mixer is in exactly one

  // Of sequences, by the lengths at which a rotation becomes another one. Throws std::runtime_error where there are too
  // many.
  LengthClasses length_classes() const;
  int embedding_width() const { return embedding_size > 0 ? embedding_size : hidden_size; }
  int num_layers() const { return static_cast<int>(layers.size()); }
  MatrixFormat weight_format() const { return rounded_to ? rounded_to->layers : format_of(weight_dtype); }
  // Of the first matrix that is stored as codes, or else of all.
  MatrixFormat main_format() const {
    for (const auto& [name, format] : stored)
      if (format_row(format.id).group != 0) return format;
    return weight_format();
  }
  MatrixFormat frame_format() const { return rounded_to ? rounded_to->frame : format_of(weight_dtype); }
};

// The same model with its matrices rounded as the setting `quantize` says, a row of the table in the .cc; off: as the model's own
// folder says, if it does. What the checkpoint has quantised stays as it is.
// Throws std::runtime_error with a sentence for another name.
ModelSpec quantised(ModelSpec spec, const std::string& quantize);

}  // namespace serval
