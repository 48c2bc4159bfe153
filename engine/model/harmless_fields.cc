#include "engine/model/harmless_fields.h"

#include <algorithm>
#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <iterator>

namespace serval {
namespace {

namespace json = boost::json;

constexpr std::string_view kHarmless[] = {
    // files, versions, limits of tokenizers, other programs
    "_attn_implementation_autoset", "_commit_hash", "_flash_attn_2_enabled", "_name_or_path",
    "attn_implementation", "auto_map", "cache_implementation", "custom_pipelines", "dtype", "is_llama_config",
    "max_sequence_length", "model_max_length", "model_name", "name_or_path", "seq_length", "tf_legacy_loss",
    "tokenizer_class", "tokenizer_model_max_length", "torch_dtype", "torchscript", "transformers.js_config",
    "transformers_version", "unsloth_fixed", "unsloth_version", "use_bfloat16", "use_cache",
    "use_flash_attention_2", "use_flash_attn",
    // ids; generation_defaults.cc reads those it needs
    "begin_suppress_tokens", "bos_token_id", "decoder_start_token_id", "eos_token_id", "forced_bos_token_id",
    "forced_eos_token_id", "pad_token_id", "sep_token_id", "suppress_tokens", "unk_token_id",
    // training
    "activation_dropout", "attention_dropout", "attention_probs_dropout_prob", "attn_pdrop", "classifier_dropout", "dropout", "embd_pdrop",
    "embed_dropout", "embedding_dropout", "ffn_dropout", "hidden_dropout", "hidden_dropout_prob", "init_std", "initializer_range",
    "layerdrop", "resid_dropout", "resid_pdrop", "residual_dropout", "router_aux_loss_coef",
    "router_jitter_noise", "summary_activation", "summary_first_dropout", "summary_proj_to_labels",
    "summary_type", "summary_use_proj",
    // labels of classifiers, and sampling as configurations once held it
    "bad_words_ids", "chunk_size_feed_forward", "diversity_penalty", "do_sample", "early_stopping",
    "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "finetuning_task", "id2label",
    "classifier_from_token", "is_original_qwen3_reranker", "label2id", "length_penalty", "sentence_transformers", "max_length", "min_length", "no_repeat_ngram_size", "num_beam_groups",
    "num_beams", "num_labels", "num_return_sequences", "output_attentions", "output_hidden_states",
    "output_scores", "prefix", "problem_type", "remove_invalid_values", "repetition_penalty", "return_dict",
    "return_dict_in_generate", "task_specific_params", "temperature", "tie_encoder_decoder", "top_k", "top_p",
    "typical_p",
    // without use_sliding_window it says nothing
    "max_window_layers"};

struct NeutralNumber {
  std::string_view name;
  double number;
};
constexpr NeutralNumber kNeutral[] = {
    {"num_experts", 0}, {"num_local_experts", 0},    {"n_routed_experts", 0},    {"partial_rotary_factor", 1},
    {"rotary_pct", 1},  {"embedding_multiplier", 1}, {"residual_multiplier", 1}, {"logits_scaling", 1},
    {"logit_scale", 1}, {"pretraining_tp", 1},
};

bool says_nothing(const json::value& value) {
  if (value.is_null() || (value.is_bool() && !value.get_bool())) return true;
  if (value.is_array()) return value.get_array().empty();
  if (value.is_object()) return value.get_object().empty();
  return value.is_string() && value.get_string().empty();
}

bool is_harmless(std::string_view name, const json::value& value) {
  if (says_nothing(value)) return true;
  if (std::find(std::begin(kHarmless), std::end(kHarmless), name) != std::end(kHarmless)) return true;
  return std::any_of(std::begin(kNeutral), std::end(kNeutral), [&](const NeutralNumber& neutral) {
    return name == neutral.name && value.is_number() && value.to_number<double>() == neutral.number;
  });
}

}  // namespace

void refuse_unasked(const Fields& fields) {
  for (const json::key_value_pair* member : fields.unasked()) {
    if (is_harmless(member->key(), member->value())) continue;
    fields.refuse(member->key(),
                  "would change the output and is not supported, for all that is known of this architecture "
                  "(it is " +
                      shown_value(member->value()) + ")");
  }
}

}  // namespace serval
