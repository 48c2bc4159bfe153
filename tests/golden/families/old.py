"""Decoders after GPT-2: LayerNorms, feed-forward parts without a gate, learned positions, slopes."""

import torch
import transformers as t
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from model_golden import make, published, rope, VOCAB


def make_all():
    gpt2 = dict(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=160, bos_token_id=1, eos_token_id=2, attn_implementation="eager")
    make("gpt2", t.GPT2LMHeadModel, t.GPT2Config(**gpt2, n_inner=40, scale_attn_by_inverse_layer_idx=True), [10, 48])

    def gpt2_as_published(config):
        for field in ("tie_word_embeddings", "dtype", "add_cross_attention", "n_inner", "reorder_and_upcast_attn", "scale_attn_by_inverse_layer_idx",
                      "scale_attn_weights", "pad_token_id"):
            config.pop(field)
        config["n_ctx"] = config["n_positions"]

    # The published file was saved without the head, with the causal masks (here of one byte a number).
    masks = {f"h.{i}.attn.bias": torch.tril(torch.ones(1, 1, 160, 160, dtype=torch.uint8)) for i in range(2)}
    masks |= {f"h.{i}.attn.masked_bias": torch.tensor(-1e4) for i in range(2)}
    make("gpt2-bare", t.GPT2LMHeadModel, t.GPT2Config(**{**gpt2, "n_embd": 16, "n_head": 2}, activation_function="gelu"), [48],
         edit=gpt2_as_published, extra=masks, rename=lambda name: name.removeprefix("transformer."))

    gpt_neo = dict(activation_function="gelu_new", attention_dropout=0, attention_layers=["global", "local"], attention_types=[[["global", "local"], 1]],
                   bos_token_id=1, embed_dropout=0, eos_token_id=2, hidden_size=32, initializer_range=0.02, intermediate_size=None,
                   layer_norm_epsilon=1e-5, max_position_embeddings=160, num_heads=4, num_layers=2, resid_dropout=0, vocab_size=VOCAB, window_size=16)
    neo_masks = {f"transformer.h.{i}.attn.attention.bias": torch.ones(1, 1, 8, 8, dtype=torch.uint8) for i in range(2)}
    neo_masks |= {f"transformer.h.{i}.attn.attention.masked_bias": torch.tensor(-1e9) for i in range(2)}
    make("gpt-neo", t.GPTNeoForCausalLM, t.GPTNeoConfig(**gpt_neo, attn_implementation="eager"), [10, 48], [16], dtype=torch.float16, extra=neo_masks,
         edit=lambda config: published(config, **gpt_neo, architectures=["GPTNeoForCausalLM"], gradient_checkpointing=False, model_type="gpt_neo",
                                       summary_activation=None, summary_first_dropout=0.1, summary_proj_to_labels=True, summary_type="cls_index",
                                       summary_use_proj=True, torch_dtype="float16", transformers_version="4.9.0.dev0", use_cache=True))

    bigcode = dict(activation_function="gelu_pytorch_tanh", attention_softmax_in_fp32=True, multi_query=True, attn_pdrop=0.1, bos_token_id=0, embd_pdrop=0.1,
                   eos_token_id=0, initializer_range=0.01275, layer_norm_epsilon=1e-5, n_embd=32, n_head=4, n_inner=72, n_layer=2, n_positions=160,
                   resid_pdrop=0.1, scale_attention_softmax_in_fp32=True, scale_attn_weights=True, vocab_size=VOCAB)
    make("gpt-bigcode", t.GPTBigCodeForCausalLM, t.GPTBigCodeConfig(**bigcode, attn_implementation="eager"), [10, 48], dtype=torch.float16,
         edit=lambda config: published(config, **bigcode, architectures=["GPTBigCodeForCausalLM"], inference_runner=0, max_batch_size=None,
                                       max_sequence_length=None, model_type="gpt_bigcode", pad_key_length=True, pre_allocate_kv_cache=False,
                                       summary_activation=None, summary_first_dropout=0.1, summary_proj_to_labels=True, summary_type="cls_index",
                                       summary_use_proj=True, torch_dtype="float16", transformers_version="4.28.1", use_cache=True,
                                       validate_runner_input=True))

    starcoder2 = dict(attention_dropout=0.1, bos_token_id=0, embedding_dropout=0.1, eos_token_id=0, hidden_act="gelu_pytorch_tanh", hidden_size=32,
                      initializer_range=0.018042, intermediate_size=72, max_position_embeddings=256, norm_epsilon=1e-5, num_attention_heads=4,
                      num_hidden_layers=2, num_key_value_heads=2, residual_dropout=0.1, sliding_window=16, use_bias=True, vocab_size=VOCAB)
    make("starcoder2-bf16", t.Starcoder2ForCausalLM, t.Starcoder2Config(**starcoder2, rope_parameters=rope(1000.0), attn_implementation="eager"), [10, 48],
         [16], dtype=torch.bfloat16,
         edit=lambda config: published(config, **starcoder2, activation_function="gelu_pytorch_tanh", architectures=["Starcoder2ForCausalLM"],
                                       layer_norm_epsilon=1e-5, mlp_type="default", model_type="starcoder2", norm_type="layer_norm", rope_theta=1000.0,
                                       scale_attention_softmax_in_fp32=True, scale_attn_weights=True, torch_dtype="bfloat16",
                                       transformers_version="4.37.0.dev0", use_cache=True))

    opt = dict(_remove_final_layer_norm=False, activation_dropout=0.0, activation_function="relu", attention_dropout=0.0, bos_token_id=2,
               do_layer_norm_before=True, dropout=0.1, eos_token_id=2, ffn_dim=72, hidden_size=32, init_std=0.02, layerdrop=0.0,
               max_position_embeddings=160, num_attention_heads=4, num_hidden_layers=2, pad_token_id=1, vocab_size=VOCAB, word_embed_proj_dim=32)
    make("opt", t.OPTForCausalLM, t.OPTConfig(**opt, attn_implementation="eager"), [10, 48], dtype=torch.float16,
         edit=lambda config: published(config, **opt, architectures=["OPTForCausalLM"], model_type="opt", prefix="</s>", torch_dtype="float16",
                                       transformers_version="4.21.0.dev0", use_cache=True))

    # Norms behind the residual, and an embedding that is projected.
    opt_350m = {**opt, "do_layer_norm_before": False, "word_embed_proj_dim": 24}
    make("opt-350m", t.OPTForCausalLM, t.OPTConfig(**opt_350m, attn_implementation="eager"), [10, 48], dtype=torch.float16,
         edit=lambda config: published(config, **opt_350m, architectures=["OPTForCausalLM"], model_type="opt", prefix="</s>", torch_dtype="float16",
                                       transformers_version="4.20.0.dev0", use_cache=True))

    gpt = dict(afn="gelu", attn_pdrop=0.1, embd_pdrop=0.1, initializer_range=0.02, layer_norm_epsilon=1e-5, n_embd=32, n_head=4, n_layer=2, n_positions=160,
               resid_pdrop=0.1, summary_activation=None, summary_first_dropout=0.1, summary_proj_to_labels=True, summary_type="cls_index",
               summary_use_proj=True, vocab_size=VOCAB)
    gpt_masks = {f"h.{i}.attn.bias": torch.ones(1, 1, 8, 8, dtype=torch.uint8) for i in range(2)}
    make("gpt", t.OpenAIGPTLMHeadModel, t.OpenAIGPTConfig(**gpt), [10, 48], dtype=torch.float16, extra=gpt_masks,
         rename=lambda name: name.removeprefix("transformer."),
         edit=lambda config: published(config, **gpt, architectures=["OpenAIGPTLMHeadModel"], model_type="openai-gpt", n_ctx=160, n_special=0,
                                       predict_special_tokens=True, task_specific_params={"text-generation": {"do_sample": True, "max_length": 50}}))

    biogpt = dict(activation_dropout=0.0, attention_probs_dropout_prob=0.1, bos_token_id=0, eos_token_id=2, hidden_act="gelu", hidden_dropout_prob=0.1,
                  hidden_size=32, initializer_range=0.02, intermediate_size=72, layer_norm_eps=1e-12, layerdrop=0.0, max_position_embeddings=160,
                  num_attention_heads=4, num_hidden_layers=2, pad_token_id=1, scale_embedding=True, vocab_size=VOCAB)
    make("biogpt", t.BioGptForCausalLM, t.BioGptConfig(**biogpt, attn_implementation="eager"), [10, 48], dtype=torch.float16,
         edit=lambda config: published(config, **biogpt, architectures=["BioGptForCausalLM"], model_type="biogpt", torch_dtype="float32",
                                       transformers_version="4.25.0.dev0", use_cache=True))

    xglm = dict(activation_dropout=0, activation_function="gelu", attention_dropout=0.1, attention_heads=4, bos_token_id=0, d_model=32,
                decoder_start_token_id=2, dropout=0.1, eos_token_id=2, ffn_dim=56, init_std=0.02, layerdrop=0.0, max_position_embeddings=160,
                num_layers=2, pad_token_id=1, scale_embedding=True, vocab_size=VOCAB)
    make("xglm", t.XGLMForCausalLM, t.XGLMConfig(**xglm, attn_implementation="eager"), [10, 48],
         edit=lambda config: published(config, **xglm, architectures=["XGLMForCausalLM"], model_type="xglm", transformers_version="4.16.0.dev0", use_cache=True))

    # Three heads: their slopes are of two series. The published file was saved without the head.
    bloom = dict(apply_residual_connection_post_layernorm=False, attention_dropout=0.0, bos_token_id=1, eos_token_id=2, hidden_dropout=0.0,
                 initializer_range=0.02, layer_norm_epsilon=1e-5, n_layer=2, num_attention_heads=3, pad_token_id=3, pretraining_tp=1,
                 slow_but_exact=False, vocab_size=VOCAB)
    make("bloom", t.BloomForCausalLM, t.BloomConfig(**bloom, hidden_size=24, attn_implementation="eager"), [10, 48], dtype=torch.float16,
         extra={}, rename=lambda name: name.removeprefix("transformer."),
         edit=lambda config: published(config, **bloom, architectures=["BloomForCausalLM"], attention_softmax_in_fp32=True, bias_dropout_fusion=True,
                                       masked_softmax_fusion=True, model_type="bloom", n_embed=24, n_inner=None, offset_alibi=100, skip_bias_add=True,
                                       skip_bias_add_qkv=False, transformers_version="4.20.0", unk_token_id=0, use_cache=True))

    make("bloom-normed", t.BloomForCausalLM,
         t.BloomConfig(**{**bloom, "apply_residual_connection_post_layernorm": True, "num_attention_heads": 2}, hidden_size=16, attn_implementation="eager"), [40],
         dtype=torch.float16)

    mpt = dict(d_model=32, emb_pdrop=0, embedding_fraction=1.0, expansion_ratio=4, init_device="cpu", learned_pos_emb=True, logit_scale=None, max_seq_len=256,
               n_heads=4, n_layers=2, no_bias=True, norm_type="low_precision_layernorm", resid_pdrop=0, vocab_size=VOCAB)
    mpt_attention = dict(alibi=True, alibi_bias_max=16, attn_impl="torch", attn_pdrop=0, attn_type="multihead_attention", attn_uses_sequence_id=False,
                         clip_qkv=1.5, prefix_lm=False, qk_ln=False, softmax_scale=None)
    mpt_init = dict(emb_init_std=None, emb_init_uniform_lim=None, fan_mode="fan_in", init_div_is_residual=True, init_gain=0, init_nonlinearity="relu",
                    init_std=0.02, name="kaiming_normal_", verbose=0)
    make("mpt-bf16", t.MptForCausalLM, t.MptConfig(**mpt, attn_config=mpt_attention, attn_implementation="eager"), [10, 48], dtype=torch.bfloat16,
         edit=lambda config: published(config, **mpt, architectures=["MPTForCausalLM"], attn_config=mpt_attention,
                                       auto_map={"AutoConfig": "configuration_mpt.MPTConfig", "AutoModelForCausalLM": "modeling_mpt.MPTForCausalLM"},
                                       init_config=mpt_init, model_type="mpt", tokenizer_name="EleutherAI/gpt-neox-20b", torch_dtype="bfloat16",
                                       transformers_version="4.28.1", use_cache=False, verbose=0))

    # Families that transformers has no class for are another one's arithmetic under their own names.
    def renamed(tensors, frame, modules, fuse):
        made, fused = {}, {}
        for name, p in tensors.items():
            if ".layers." not in name:
                made[frame[name]] = p
                continue
            layer, module = name.removeprefix("model.layers.").split(".", 1)
            module, kind = module.rsplit(".", 1)
            if module in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"):
                fused.setdefault((layer, kind), {})[module[-6]] = p
            else:
                made[f"{modules['']}.{layer}.{modules[module]}.{kind}"] = p
        for (layer, kind), parts in fused.items():
            made[f"{modules['']}.{layer}.{modules['qkv']}.{kind}"] = fuse(parts["q"], parts["k"], parts["v"])
        return made

    # A rotation that grows with the sequence, fixed at the length of its class: the first of 80, 160, ... that holds it.
    def become(model, length):
        rotary, config = model.model.rotary_emb, model.config
        longest = config.max_position_embeddings
        while longest < length:
            longest *= 2
        longest = min(longest, config.max_position_embeddings * config.rope_parameters["factor"])
        rotary.inv_freq = ROPE_INIT_FUNCTIONS["dynamic"](config, "cpu", seq_len=longest)[0]
        rotary.max_seq_len_cached, rotary.original_max_seq_len = longest, 0

    internlm = dict(bias=False, bos_token_id=1, eos_token_id=2, hidden_act="silu", hidden_size=32, initializer_range=0.02, intermediate_size=40,
                    max_position_embeddings=80, num_attention_heads=4, num_hidden_layers=2, num_key_value_heads=2, pad_token_id=2, rms_norm_eps=1e-5,
                    tie_word_embeddings=False, vocab_size=VOCAB)
    internlm_frame = {"model.embed_tokens.weight": "model.tok_embeddings.weight", "model.norm.weight": "model.norm.weight", "lm_head.weight": "output.weight"}
    internlm_modules = {"": "model.layers", "qkv": "attention.wqkv", "self_attn.o_proj": "attention.wo", "mlp.gate_proj": "feed_forward.w1",
                        "mlp.up_proj": "feed_forward.w3", "mlp.down_proj": "feed_forward.w2", "input_layernorm": "attention_norm",
                        "post_attention_layernorm": "ffn_norm"}
    by_kv_head = lambda q, k, v: torch.cat([q.reshape(2, 2, 8, 32), k.reshape(2, 1, 8, 32), v.reshape(2, 1, 8, 32)], dim=1).reshape(-1, 32)
    make("internlm2-bf16", t.LlamaForCausalLM,
         t.LlamaConfig(**{k: v for k, v in internlm.items() if k != "bias"}, rope_parameters=rope(1000.0, "dynamic", factor=2.0),
                       attn_implementation="eager"), [10, 96], [80], become=become,
         dtype=torch.bfloat16, remake=lambda tensors: renamed(tensors, internlm_frame, internlm_modules, by_kv_head),
         edit=lambda config: published(config, **internlm, architectures=["InternLM2ForCausalLM"], attn_implementation="eager",
                                       auto_map={"AutoConfig": "configuration_internlm2.InternLM2Config", "AutoModel": "modeling_internlm2.InternLM2ForCausalLM"},
                                       model_type="internlm2", pretraining_tp=1, rope_scaling={"type": "dynamic", "factor": 2.0}, rope_theta=1000,
                                       torch_dtype="bfloat16", transformers_version="4.41.0", use_cache=True))

    qwen1_frame = {"model.embed_tokens.weight": "transformer.wte.weight", "model.norm.weight": "transformer.ln_f.weight", "lm_head.weight": "lm_head.weight"}
    qwen1_modules = {"": "transformer.h", "qkv": "attn.c_attn", "self_attn.o_proj": "attn.c_proj", "mlp.gate_proj": "mlp.w2", "mlp.up_proj": "mlp.w1",
                     "mlp.down_proj": "mlp.c_proj", "input_layernorm": "ln_1", "post_attention_layernorm": "ln_2"}
    qwen1 = dict(hidden_size=32, initializer_range=0.02, max_position_embeddings=1024, num_attention_heads=4, num_hidden_layers=2,
                 tie_word_embeddings=False, vocab_size=VOCAB)
    make("qwen1-bf16", t.Qwen2ForCausalLM,
         t.Qwen2Config(**qwen1, intermediate_size=40, num_key_value_heads=4, rms_norm_eps=1e-6, rope_parameters=rope(), attn_implementation="eager"), [10, 48],
         dtype=torch.bfloat16, remake=lambda tensors: renamed(tensors, qwen1_frame, qwen1_modules, lambda q, k, v: torch.cat([q, k, v])),
         edit=lambda config: published(config, **qwen1, architectures=["QWenLMHeadModel"], attn_dropout_prob=0.0,
                                       auto_map={"AutoConfig": "configuration_qwen.QWenConfig", "AutoModelForCausalLM": "modeling_qwen.QWenLMHeadModel"},
                                       bf16=True, emb_dropout_prob=0.0, fp16=False, fp32=False, intermediate_size=80, kv_channels=8, layer_norm_epsilon=1e-6,
                                       model_type="qwen", no_bias=True, onnx_safe=None, rotary_emb_base=10000, rotary_pct=1.0, scale_attn_weights=True,
                                       seq_length=512, tokenizer_class="QWenTokenizer", torch_dtype="bfloat16", transformers_version="4.32.0", use_cache=True,
                                       use_dynamic_ntk=True, use_flash_attn="auto", use_logn_attn=True))

    # Both parts read one norm; a part of a head rotates, neighbours together. CodeGen's projection is in four slices.
    gptj = dict(activation_function="gelu_new", attn_pdrop=0.0, bos_token_id=1, embd_pdrop=0.0, eos_token_id=2, initializer_range=0.02,
                layer_norm_epsilon=1e-5, n_embd=32, n_head=2, n_inner=None, n_layer=2, n_positions=160, resid_pdrop=0.0, rotary_dim=8,
                tie_word_embeddings=False, vocab_size=VOCAB)
    older = dict(scale_attn_weights=True, summary_activation=None, summary_first_dropout=0.1, summary_proj_to_labels=True, summary_type="cls_index",
                 summary_use_proj=True, task_specific_params={"text-generation": {"do_sample": True, "max_length": 50, "temperature": 1.0}},
                 tokenizer_class="GPT2Tokenizer", use_cache=True)
    gptj_masks = {f"transformer.h.{i}.attn.bias": torch.ones(1, 1, 8, 8, dtype=torch.uint8) for i in range(2)}
    gptj_masks |= {f"transformer.h.{i}.attn.masked_bias": torch.tensor(-1e9) for i in range(2)}
    make("gptj", t.GPTJForCausalLM, t.GPTJConfig(**gptj, attn_implementation="eager"), [10, 48], dtype=torch.float16, extra=gptj_masks,
         edit=lambda config: published(config, **gptj, **older, architectures=["GPTJForCausalLM"], gradient_checkpointing=False, model_type="gptj", rotary=True,
                                       transformers_version="4.18.0.dev0"))
    codegen = {**gptj, "n_head": 4, "rotary_dim": 4}
    codegen_masks = {f"transformer.h.{i}.attn.causal_mask": torch.ones(1, 1, 8, 8, dtype=torch.bool) for i in range(2)}
    make("codegen", t.CodeGenForCausalLM, t.CodeGenConfig(**codegen, n_ctx=160, attn_implementation="eager"), [10, 48], dtype=torch.float16, extra=codegen_masks,
         edit=lambda config: published(config, **codegen, **older, architectures=["CodeGenForCausalLM"], gradient_checkpointing=False, model_type="codegen", n_ctx=160,
                                       torch_dtype="float16", transformers_version="4.21.0.dev0"))

    # Pythia: a quarter of a head rotates.
    neox = dict(bos_token_id=0, eos_token_id=0, hidden_act="gelu", hidden_size=32, initializer_range=0.02, intermediate_size=72, layer_norm_eps=1e-5,
                max_position_embeddings=256, num_attention_heads=2, num_hidden_layers=2, tie_word_embeddings=False, use_parallel_residual=True, vocab_size=VOCAB)
    neox_says = dict(architectures=["GPTNeoXForCausalLM"], classifier_dropout=0.1, model_type="gpt_neox", rotary_emb_base=10000, rotary_pct=0.25,
                     torch_dtype="float16", transformers_version="4.24.0", use_cache=True)
    neox_rope = rope(partial_rotary_factor=0.25)
    neox_masks = {f"gpt_neox.layers.{i}.attention.bias": torch.ones(1, 1, 8, 8, dtype=torch.uint8) for i in range(2)}
    neox_masks |= {f"gpt_neox.layers.{i}.attention.masked_bias": torch.tensor(-1e9) for i in range(2)}
    neox_masks |= {f"gpt_neox.layers.{i}.attention.rotary_emb.inv_freq": torch.ones(2) for i in range(2)}
    make("gpt-neox", t.GPTNeoXForCausalLM, t.GPTNeoXConfig(**neox, rope_parameters=neox_rope, attn_implementation="eager"), [10, 48], dtype=torch.float16,
         extra=neox_masks, edit=lambda config: published(config, **neox, **neox_says))
    in_turn = {**neox, "use_parallel_residual": False, "hidden_size": 16}
    make("gpt-neox-in-turn", t.GPTNeoXForCausalLM, t.GPTNeoXConfig(**in_turn, rope_parameters=neox_rope, attn_implementation="eager"), [40],
         dtype=torch.float16, edit=lambda config: published(config, **in_turn, **neox_says))

    # A head of an odd multiple of eight.
    phi = dict(attention_dropout=0.0, bos_token_id=1, embd_pdrop=0.0, eos_token_id=2, hidden_act="gelu_new", hidden_size=40, initializer_range=0.02,
               intermediate_size=72, layer_norm_eps=1e-5, max_position_embeddings=256, num_attention_heads=1, num_hidden_layers=2, num_key_value_heads=1,
               qk_layernorm=False, resid_pdrop=0.1, tie_word_embeddings=False, vocab_size=VOCAB)
    make("phi", t.PhiForCausalLM, t.PhiConfig(**phi, rope_parameters=rope(partial_rotary_factor=0.4), attn_implementation="eager"), [10, 48],
         dtype=torch.float16,
         edit=lambda config: published(config, **phi, architectures=["PhiForCausalLM"], model_type="phi", partial_rotary_factor=0.4, rope_scaling=None,
                                       rope_theta=10000.0, torch_dtype="float16", transformers_version="4.37.0", use_cache=True))

    # LayerNorms of heads, with biases.
    make("phi-norms", t.PhiForCausalLM,
         t.PhiConfig(**{**phi, "hidden_size": 32, "num_attention_heads": 2, "qk_layernorm": True}, rope_parameters=rope(partial_rotary_factor=0.5),
                     attn_implementation="eager"), [40], dtype=torch.float16)
    persimmon = dict(attention_dropout=0.0, bos_token_id=1, eos_token_id=2, hidden_act="relu2", hidden_dropout=0.0, hidden_size=32, initializer_range=0.02,
                     intermediate_size=56, layer_norm_eps=1e-5, max_position_embeddings=256, num_attention_heads=2, num_hidden_layers=2, qk_layernorm=True,
                     tie_word_embeddings=False, vocab_size=VOCAB)
    make("persimmon", t.PersimmonForCausalLM,
         t.PersimmonConfig(**persimmon, rope_parameters=rope(25000.0, partial_rotary_factor=0.5), attn_implementation="eager"), [10, 48], dtype=torch.float16,
         edit=lambda config: published(config, **persimmon, architectures=["PersimmonForCausalLM"], model_type="persimmon", num_key_value_heads=2,
                                       partial_rotary_factor=0.5, rope_scaling=None, rope_theta=25000.0, torch_dtype="float16",
                                       transformers_version="4.34.0.dev0", use_cache=True))

    nemotron = dict(attention_bias=False, attention_dropout=0.0, bos_token_id=2, eos_token_id=3, head_dim=16, hidden_act="relu2", hidden_size=32,
                    initializer_range=0.0134, intermediate_size=72, max_position_embeddings=256, mlp_bias=False, norm_eps=1e-5, num_attention_heads=2,
                    num_hidden_layers=2, num_key_value_heads=1, tie_word_embeddings=False, vocab_size=VOCAB)
    make("nemotron-bf16", t.NemotronForCausalLM, t.NemotronConfig(**nemotron, rope_parameters=rope(partial_rotary_factor=0.5), attn_implementation="eager"),
         [10, 48], dtype=torch.bfloat16,
         edit=lambda config: published(config, **nemotron, architectures=["NemotronForCausalLM"], model_type="nemotron", partial_rotary_factor=0.5,
                                       rope_theta=10000, rope_scaling=None, torch_dtype="bfloat16", transformers_version="4.32.0.dev0", use_cache=True))

    jais2 = dict(attention_bias=True, attention_dropout=0.0, bos_token_id=0, eos_token_id=2, head_dim=16, hidden_act="relu2", hidden_size=32,
                 initializer_range=0.02, intermediate_size=72, layer_norm_eps=1e-5, max_position_embeddings=256, mlp_bias=True, num_attention_heads=2,
                 num_hidden_layers=2, num_key_value_heads=2, tie_word_embeddings=False, vocab_size=VOCAB)
    make("jais2-bf16", t.Jais2ForCausalLM, t.Jais2Config(**jais2, rope_parameters=rope(500000.0), attn_implementation="eager"), [10, 48], dtype=torch.bfloat16,
         edit=lambda config: published(config, **jais2, architectures=["Jais2ForCausalLM"], dtype="bfloat16", model_type="jais2", rope_scaling=None,
                                       rope_theta=500000.0, transformers_version="4.57.3", use_cache=True))

    # Logits are scaled; neighbours rotate together; of Cohere 2's layers those that see everything rotate nothing.
    cohere = dict(attention_bias=False, attention_dropout=0.0, bos_token_id=5, eos_token_id=2, hidden_act="silu", hidden_size=32, initializer_range=0.02,
                  intermediate_size=40, layer_norm_eps=1e-5, logit_scale=0.25, max_position_embeddings=256, num_attention_heads=4, num_key_value_heads=2,
                  pad_token_id=0, vocab_size=VOCAB)
    make("cohere", t.CohereForCausalLM, t.CohereConfig(**cohere, num_hidden_layers=2, rope_parameters=rope(8000.0), attn_implementation="eager"), [10, 48],
         dtype=torch.float16,
         edit=lambda config: published(config, **cohere, num_hidden_layers=2, architectures=["CohereForCausalLM"], model_max_length=256, model_type="cohere",
                                       pretraining_tp=1, rope_theta=8000.0, torch_dtype="float16", transformers_version="4.38.2", use_cache=True))
    # Command R+: each head has a norm of its own.
    cohere_norms = dict(cohere, use_qk_norm=True)
    make("cohere-norms", t.CohereForCausalLM,
         t.CohereConfig(**cohere_norms, num_hidden_layers=2, rope_parameters=rope(75000.0), attn_implementation="eager"), [40], dtype=torch.float16,
         edit=lambda config: published(config, **cohere_norms, num_hidden_layers=2, architectures=["CohereForCausalLM"], model_type="cohere", rope_theta=75000.0,
                                       torch_dtype="float16", transformers_version="4.40.0.dev0", use_cache=True))
    cohere2 = dict(cohere, sliding_window=16)
    make("cohere2-bf16", t.Cohere2ForCausalLM,
         t.Cohere2Config(**cohere2, num_hidden_layers=3, sliding_window_pattern=3, rope_parameters=rope(5000.0), attn_implementation="eager"), [10, 48], [16],
         dtype=torch.bfloat16,
         edit=lambda config: published(config, **cohere2, num_hidden_layers=3, architectures=["Cohere2ForCausalLM"], cache_implementation="hybrid", head_dim=8,
                                       layer_switch=3, model_type="cohere2", order_of_interleaved_layers="local_attn_first",
                                       position_embedding_type="rope_gptj", rope_scaling=None, rope_theta=5000, rotary_pct=1.0, sliding_window_pattern=3,
                                       torch_dtype="bfloat16", transformers_version="4.48.0.dev0", use_cache=True, use_embedding_sharing=True,
                                       use_gated_activation=True, use_parallel_block=True, use_parallel_embedding=True))

    stablelm = dict(bos_token_id=1, eos_token_id=2, hidden_act="silu", hidden_size=32, initializer_range=0.02, intermediate_size=40, layer_norm_eps=1e-5,
                    max_position_embeddings=256, num_attention_heads=2, num_hidden_layers=2, num_key_value_heads=1, tie_word_embeddings=False,
                    use_qkv_bias=True, vocab_size=VOCAB)
    make("stablelm-bf16", t.StableLmForCausalLM, t.StableLmConfig(**stablelm, rope_parameters=rope(partial_rotary_factor=0.25), attn_implementation="eager"),
         [10, 48], dtype=torch.bfloat16,
         edit=lambda config: published(config, **stablelm, architectures=["StableLmForCausalLM"], model_type="stablelm", partial_rotary_factor=0.25,
                                       rope_theta=10000, norm_eps=1e-5, torch_dtype="bfloat16", transformers_version="4.38.0", use_cache=True))

    stablelm_12b = dict(stablelm, num_attention_heads=4, num_key_value_heads=2, qk_layernorm=True, use_parallel_residual=True, use_qkv_bias=False)
    make("stablelm-12b-bf16", t.StableLmForCausalLM,
         t.StableLmConfig(**stablelm_12b, rope_parameters=rope(partial_rotary_factor=0.25), attn_implementation="eager"), [40], dtype=torch.bfloat16,
         edit=lambda config: published(config, **stablelm_12b, architectures=["StableLmForCausalLM"], hidden_dropout=0.0, attention_dropout=0.0,
                                       model_type="stablelm", partial_rotary_factor=0.25, rope_theta=10000, torch_dtype="bfloat16",
                                       transformers_version="4.40.0", use_cache=True))

    # The layer of 7B, with one head of keys; of 40B, with groups and two norms; of RW, one part behind the other, with slopes.
    falcon = dict(attention_dropout=0.0, bias=False, bos_token_id=1, eos_token_id=2, hidden_dropout=0.0, hidden_size=32, initializer_range=0.02,
                  layer_norm_epsilon=1e-5, num_attention_heads=4, num_hidden_layers=2, parallel_attn=True, vocab_size=VOCAB)
    falcon_says = dict(apply_residual_connection_post_layernorm=False, architectures=["FalconForCausalLM"], model_type="falcon", torch_dtype="bfloat16",
                       transformers_version="4.27.4", use_cache=True)
    falcon_map = dict(auto_map={"AutoConfig": "configuration_falcon.FalconConfig", "AutoModelForCausalLM": "modeling_falcon.FalconForCausalLM"})
    make("falcon-bf16", t.FalconForCausalLM, t.FalconConfig(**falcon, multi_query=True, attn_implementation="eager"), [10, 48], dtype=torch.bfloat16,
         edit=lambda config: published(config, **falcon, **falcon_says, **falcon_map, alibi=False, multi_query=True, new_decoder_architecture=False))
    make("falcon-new-bf16", t.FalconForCausalLM, t.FalconConfig(**falcon, num_kv_heads=2, new_decoder_architecture=True, attn_implementation="eager"), [10, 48],
         dtype=torch.bfloat16,
         edit=lambda config: published(config, **falcon, **falcon_says, **falcon_map, alibi=False, multi_query=True, new_decoder_architecture=True, num_kv_heads=2))
    # The reference's eager attention adds the slopes twice.
    falcon_rw = {**falcon, "bias": True, "parallel_attn": False, "tie_word_embeddings": False}
    make("falcon-rw-bf16", t.FalconForCausalLM, t.FalconConfig(**falcon_rw, alibi=True, multi_query=False, attn_implementation="sdpa"), [10, 48],
         dtype=torch.bfloat16,
         edit=lambda config: published(config, **falcon_rw, **falcon_says, **falcon_map, alibi=True, multi_query=False, new_decoder_architecture=False))
