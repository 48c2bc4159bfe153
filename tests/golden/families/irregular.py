"""Decoders whose layers are of unequal width or lack a part. transformers has no class for them: they are Llama's and Qwen3's arithmetic
with other modules in some layers, as the published modeling files have it."""

import copy

import torch
import transformers as t
from transformers.models.llama import modeling_llama
from transformers.models.qwen3 import modeling_qwen3

from model_golden import make, rope, VOCAB


class NoAttention(torch.nn.Module):
    def forward(self, hidden_states, **kwargs):
        return torch.zeros_like(hidden_states), None


class NoMlp(torch.nn.Module):
    def forward(self, x):
        return torch.zeros_like(x)


def with_layers(model_class, modeling, family, widths):
    """A model whose layer i has the heads, key-value heads and feed-forward width of widths[i]; None: it lacks the part."""

    def build(config):
        model = model_class(config)
        for i, (heads, kv_heads, width) in enumerate(widths):
            layer, own = model.model.layers[i], copy.deepcopy(config)
            if heads is None:
                layer.self_attn, layer.input_layernorm = NoAttention(), torch.nn.Identity()
            else:
                own.num_attention_heads, own.num_key_value_heads = heads, kv_heads
                layer.self_attn = getattr(modeling, f"{family}Attention")(own, i)
            if width is None:
                layer.mlp, layer.post_attention_layernorm = NoMlp(), torch.nn.Identity()
            else:
                own.intermediate_size = width
                layer.mlp = getattr(modeling, f"{family}MLP")(own)
        return model

    return build


def published(config, **fields):
    config.clear()
    config.update(fields)


def make_all():
    frame = dict(vocab_size=VOCAB, bos_token_id=1, eos_token_id=2, attn_implementation="eager")
    scaling = dict(factor=8.0, high_freq_factor=4.0, low_freq_factor=1.0, original_max_position_embeddings=32)

    # The published configuration of Llama 3.3 Nemotron Super, with its sizes shrunk.
    nas = dict(hidden_size=16, num_attention_heads=2, num_hidden_layers=4, max_position_embeddings=256, rms_norm_eps=1e-5, tie_word_embeddings=False)
    attention = dict(num_sink_tokens=None, replace_with_linear=False, sparsify=None, unshifted_sink=False, use_prefill_window_in_sink_attention=False,
                     window_length=None)
    ffn = dict(replace_with_linear=False, sparsify=None)
    blocks = [{"attention": {**attention, "n_heads_in_group": group, "no_op": group is None},
               "ffn": {**ffn, "ffn_mult": multiplier, "no_op": multiplier is None}} for group, multiplier in [(2, 20.0), (None, 40.0), (1, None), (None, None)]]
    make("nemotron-nas-bf16", with_layers(t.LlamaForCausalLM, modeling_llama, "Llama", [(2, 1, 256), (None, None, 512), (2, 2, None), (None, None, None)]),
         t.LlamaConfig(**frame, **nas, intermediate_size=8, num_key_value_heads=1, rope_parameters=rope(500.0, "llama3", **scaling)), [10, 48], [32],
         dtype=torch.bfloat16,
         edit=lambda config: published(config, **nas, architectures=["DeciLMForCausalLM"], attention_bias=False, attention_dropout=0.0,
                                       auto_map={"AutoConfig": "configuration_decilm.DeciLMConfig", "AutoModelForCausalLM": "modeling_decilm.DeciLMForCausalLM"},
                                       block_configs=blocks, bos_token_id=128000, eos_token_id=[128001, 128008, 128009], hidden_act="silu",
                                       initializer_range=0.02, intermediate_size=None, mlp_bias=False, model_type="nemotron-nas", num_key_value_heads=None,
                                       pretraining_tp=1, rope_scaling={**scaling, "rope_type": "llama3"}, rope_theta=500.0, torch_dtype="bfloat16",
                                       transformers_version="4.48.3", use_cache=True, vocab_size=VOCAB))

    decilm = dict(hidden_size=32, intermediate_size=56, num_attention_heads=4, num_hidden_layers=3, max_position_embeddings=256, rms_norm_eps=1e-5,
                  tie_word_embeddings=False)
    make("decilm-f16", with_layers(t.LlamaForCausalLM, modeling_llama, "Llama", [(4, 1, 56), (4, 4, 56), (4, 2, 56)]),
         t.LlamaConfig(**frame, **decilm, num_key_value_heads=1, rope_parameters=rope()), [10, 48], dtype=torch.float16,
         edit=lambda config: published(config, **decilm, architectures=["DeciLMForCausalLM"], bos_token_id=1, eos_token_id=2, hidden_act="silu",
                                       auto_map={"AutoConfig": "configuration_decilm.DeciLMConfig", "AutoModelForCausalLM": "modeling_decilm.DeciLMForCausalLM"},
                                       initializer_range=0.02, num_key_value_heads_per_layer=[1, 4, 2], pretraining_tp=1, rope_scaling=None,
                                       rope_theta=10000.0, torch_dtype="float16", transformers_version="4.35.2", use_bfloat16=True, use_cache=True,
                                       vocab_size=VOCAB))

    openelm = dict(hidden_size=24, head_dim=8, num_hidden_layers=3, max_position_embeddings=256, rms_norm_eps=1e-6, tie_word_embeddings=True)
    modules = {"self_attn.o_proj": "attn.out_proj", "self_attn.q_norm": "attn.q_norm", "self_attn.k_norm": "attn.k_norm", "mlp.down_proj": "ffn.proj_2",
               "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}

    def as_published(tensors):
        made = {"transformer.token_embeddings.weight": tensors["model.embed_tokens.weight"], "transformer.norm.weight": tensors["model.norm.weight"]}
        for i in range(3):
            old, new = f"model.layers.{i}.", f"transformer.layers.{i}."
            made |= {f"{new}{stored}.weight": tensors[f"{old}{name}.weight"] for name, stored in modules.items()}
            made[f"{new}attn.qkv_proj.weight"] = torch.cat([tensors[f"{old}self_attn.{x}_proj.weight"] for x in "qkv"])
            made[f"{new}ffn.proj_1.weight"] = torch.cat([tensors[f"{old}mlp.{x}_proj.weight"] for x in ("gate", "up")])
        return made

    make("openelm-bf16", with_layers(t.Qwen3ForCausalLM, modeling_qwen3, "Qwen3", [(2, 1, 16), (3, 3, 40), (4, 2, 56)]),
         t.Qwen3Config(**frame, **openelm, intermediate_size=8, num_attention_heads=3, num_key_value_heads=1, rope_parameters=rope()), [10, 48],
         dtype=torch.bfloat16, remake=as_published,
         edit=lambda config: published(config, activation_fn_name="swish", architectures=["OpenELMForCausalLM"], bos_token_id=1, eos_token_id=2,
                                       auto_map={"AutoConfig": "configuration_openelm.OpenELMConfig", "AutoModelForCausalLM": "modeling_openelm.OpenELMForCausalLM"},
                                       ffn_dim_divisor=8, ffn_multipliers=[0.5, 1.5, 2.25], ffn_with_glu=True, head_dim=8, initializer_range=0.02,
                                       max_context_length=256, model_dim=24, model_type="openelm", normalization_layer_name="rms_norm",
                                       normalize_qk_projections=True, num_gqa_groups=4, num_kv_heads=[1, 3, 2], num_query_heads=[2, 3, 4],
                                       num_transformer_layers=3, qkv_multipliers=[0.5, 1.0], rope_freq_constant=10000, rope_max_length=4096,
                                       share_input_output_layers=True, torch_dtype="bfloat16", transformers_version="4.39.3", use_cache=True, vocab_size=VOCAB))
