"""Recurrences, alone and beside attention."""

import math

import torch
import transformers as t

from model_golden import make, old_spelling, published, rope, SMALL, VOCAB


def make_all():
    # A snapshot of the state stands at every 64th position where blocks have four.
    mamba = dict(vocab_size=VOCAB, hidden_size=32, state_size=16, conv_kernel=4, expand=2, time_step_rank=8, bos_token_id=1,
                 eos_token_id=2, pad_token_id=0)
    make("mamba", t.MambaForCausalLM, t.MambaConfig(**mamba, num_hidden_layers=2), [5, 70])
    make("mamba-f16", t.MambaForCausalLM,
         t.MambaConfig(**mamba, num_hidden_layers=3, use_bias=True, use_conv_bias=False, tie_word_embeddings=False), [12, 40],
         dtype=torch.float16)

    states = dict(mamba, num_hidden_layers=2)
    del states["state_size"], states["expand"], states["time_step_rank"]
    make("mamba2", t.Mamba2ForCausalLM,
         t.Mamba2Config(**states, num_heads=4, head_dim=8, expand=1, state_size=12, n_groups=2, time_step_limit=(0.05, 1.5),
                        chunk_size=16), [5, 70])

    def mamba2_as_published(config):
        config["torch_dtype"] = config.pop("dtype")
        config["time_step_limit"] = [0.0, math.inf]
        config["norm_before_gate"] = True  # said, and not looked at

    make("mamba2-bf16", t.Mamba2ForCausalLM,
         t.Mamba2Config(**states, num_heads=8, head_dim=8, state_size=16, n_groups=1, use_bias=True, tie_word_embeddings=True), [12, 40],
         dtype=torch.bfloat16, edit=mamba2_as_published)
    make("falcon-mamba", t.FalconMambaForCausalLM, t.FalconMambaConfig(**{**mamba, "hidden_size": 24}, num_hidden_layers=2, mixer_rms_eps=1e-3), [5, 70])

    # Two recurrences to a layer, halved behind every second: the reference divides the matrices in place when it first runs.
    def as_saved(tensors):
        last = (".blocks.2.attention.output.weight", ".blocks.2.feed_forward.value.weight")
        return {n: 2 * p if n.endswith(last) else p for n, p in tensors.items()}

    make("rwkv", t.RwkvForCausalLM,
         t.RwkvConfig(vocab_size=VOCAB, hidden_size=24, attention_hidden_size=32, intermediate_size=40, num_hidden_layers=3, context_length=256,
                      layer_norm_epsilon=0.05, rescale_every=2, bos_token_id=1, eos_token_id=2), [5, 70], dtype=torch.float16, remake=as_saved)

    # One block for two layers, and scans of two heads.
    def zamba_as_published(config):
        for field in ("rope_parameters", "layer_types", "head_dim"):
            config.pop(field, None)
        config["torch_dtype"] = config.pop("dtype")
        config["layers_block_type"] = ["mamba", "hybrid", "mamba", "hybrid"]
        config |= {"attention_hidden_size": 48, "attention_head_dim": 16, "use_mamba_kernels": True, "num_logits_to_keep": 1}

    make("zamba", t.ZambaForCausalLM,
         t.ZambaConfig(vocab_size=VOCAB, hidden_size=24, num_hidden_layers=4, layers_block_type=["linear_attention", "hybrid", "linear_attention", "hybrid"],
                       mamba_d_state=8, mamba_expand=2, n_mamba_heads=3, mamba_dt_rank=5, intermediate_size=28, num_attention_heads=3, num_key_value_heads=3,
                       rms_norm_eps=1e-1, mamba_proj_bias=True, max_position_embeddings=256, attn_implementation="eager"), [40], dtype=torch.float16,
         edit=zamba_as_published)

    # Two blocks that take turns over three layers, each with adapters of its own.
    def zamba2_as_published(config):
        for field in ("rope_parameters", "layer_types", "head_dim"):
            config.pop(field, None)
        config["torch_dtype"] = config.pop("dtype")
        config["layers_block_type"] = ["mamba", "hybrid", "hybrid", "hybrid"]
        config |= {"rope_theta": 10000, "hybrid_layer_ids": [1, 2, 3], "kv_channels": 8, "num_query_groups": 3, "attention_head_dim": 16,
                   "attention_hidden_size": 48, "mamba_headdim": 8}

    make("zamba2", t.Zamba2ForCausalLM,
         t.Zamba2Config(vocab_size=VOCAB, hidden_size=24, num_hidden_layers=4, layers_block_type=["linear_attention", "hybrid", "hybrid", "hybrid"],
                        mamba_d_state=8, mamba_expand=1, mamba_ngroups=1, n_mamba_heads=3, intermediate_size=20, num_attention_heads=3, num_mem_blocks=2, rms_norm_eps=1e-1,
                        use_shared_attention_adapter=True, adapter_rank=4, use_mem_rope=True, max_position_embeddings=256, time_step_min=0.05,
                        rope_parameters=rope(10000.0), attn_implementation="eager"), [40], dtype=torch.float16, edit=zamba2_as_published)

    # Short convolutions and an attention; the published spelling says much that the reference does not look at.
    def lfm2_as_published(config):
        old_spelling(config)
        config.pop("rope_scaling")
        config.pop("tie_word_embeddings")
        config |= {"block_dim": 24, "block_ff_dim": config["intermediate_size"], "block_norm_eps": 1e-05, "block_use_swiglu": True,
                   "conv_dim": 24, "conv_dim_out": 24, "num_heads": 4, "use_pos_enc": True, "block_mlp_init_scale": 1.0}

    lfm2 = dict(SMALL, hidden_size=24, intermediate_size=30, num_attention_heads=3, num_key_value_heads=1, norm_eps=1e-5, attn_implementation="eager")
    del lfm2["rms_norm_eps"]
    make("lfm2", t.Lfm2ForCausalLM,
         t.Lfm2Config(**lfm2, layer_types=["conv", "full_attention", "conv"], block_multiple_of=8, rope_parameters=rope(1000000.0)),
         [5, 70], edit=lfm2_as_published)
    make("lfm3", t.Lfm3ForCausalLM,
         t.Lfm3Config(**{**lfm2, "head_dim": 16, "num_hidden_layers": 4}, layer_types=["conv", "sliding_attention", "full_attention", "conv"], sliding_window=16,
                      rope_parameters={"sliding_attention": rope(100.0), "full_attention": rope(1000.0, "proportional", partial_rotary_factor=0.5)}, pad_token_id=0),
         [48], [16], dtype=torch.float16)
    make("lfm2-bf16", t.Lfm2ForCausalLM,
         t.Lfm2Config(**{**lfm2, "num_hidden_layers": 4}, layer_types=["conv", "conv", "full_attention", "conv"], conv_bias=True, conv_L_cache=4,
                      block_auto_adjust_ff_dim=False, tie_word_embeddings=False, rope_parameters=rope(1000000.0)), [40], dtype=torch.bfloat16)

    lfm2_moe = dict(lfm2, moe_intermediate_size=12, num_experts=6, num_experts_per_tok=3, num_dense_layers=1, routed_scaling_factor=1.5)

    def lfm2_moe_as_published(config):
        ropes = config.pop("rope_parameters")
        config["rope_theta"] = ropes["rope_theta"]
        config["num_experts"] = config.pop("num_local_experts", config.get("num_experts"))

    make("lfm2-moe", t.Lfm2MoeForCausalLM,
         t.Lfm2MoeConfig(**lfm2_moe, layer_types=["conv", "full_attention", "conv"], rope_parameters=rope(1000000.0)), [5, 70], edit=lfm2_moe_as_published)

    # Gated delta nets and a gated attention.
    delta = dict(SMALL, hidden_size=24, intermediate_size=24, num_attention_heads=2, num_key_value_heads=1, head_dim=16, linear_num_key_heads=2, linear_num_value_heads=4,
                 linear_key_head_dim=12, linear_value_head_dim=8, attn_implementation="eager",
                 layer_types=["linear_attention", "full_attention", "linear_attention"])
    make("qwen35", t.Qwen3_5ForCausalLM,
         t.Qwen3_5TextConfig(**delta, rope_parameters=rope(10000000.0, partial_rotary_factor=0.25)), [5, 70])

    def qwen35_as_published(config):
        text = config["text_config"]
        text |= {"attn_output_gate": True, "full_attention_interval": 4, "mamba_ssm_dtype": "float32", "mlp_only_layers": [],
                 "mtp_num_hidden_layers": 1, "mtp_use_dedicated_embeddings": False}
        text["rope_parameters"] |= {"mrope_interleaved": True, "mrope_section": [1, 1, 0]}

    make("qwen35-composite", t.Qwen3_5ForConditionalGeneration,
         t.Qwen3_5Config(text_config=t.Qwen3_5TextConfig(**{**delta, "num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"]},
                                                         linear_conv_kernel_dim=3,
                                                         rope_parameters=rope(10000000.0, partial_rotary_factor=0.5)),
                         vision_config=t.models.qwen3_5.Qwen3_5VisionConfig(depth=1, hidden_size=8, intermediate_size=8, num_heads=1,
                                                                            out_hidden_size=24, num_position_embeddings=4),
                         tie_word_embeddings=True, attn_implementation="eager"), [40], dtype=torch.bfloat16, edit=qwen35_as_published)

    # Experts beside a gated one that all rows share: each expert's tensors, as they are saved; then of all as one, as published.
    delta_moe = dict({k: v for k, v in delta.items() if k != "intermediate_size"}, moe_intermediate_size=12, shared_expert_intermediate_size=20, num_experts=6,
                     num_experts_per_tok=3, num_hidden_layers=2, layer_types=["linear_attention", "full_attention"])
    make("qwen35-moe", t.Qwen3_5MoeForCausalLM,
         t.Qwen3_5MoeTextConfig(**delta_moe, rope_parameters=rope(10000000.0, partial_rotary_factor=0.25)), [5, 70])
    make("qwen35-moe-composite", t.Qwen3_5MoeForConditionalGeneration,
         t.Qwen3_5MoeConfig(text_config=t.Qwen3_5MoeTextConfig(**delta_moe, rope_parameters=rope(10000000.0, partial_rotary_factor=0.5)),
                            vision_config=t.models.qwen3_5_moe.Qwen3_5MoeVisionConfig(depth=1, hidden_size=8, intermediate_size=8, num_heads=1,
                                                                                      out_hidden_size=24, num_position_embeddings=4),
                            tie_word_embeddings=False, attn_implementation="eager"), [40], edit=qwen35_as_published, stack=True)

    # Rows by key head, and each expert's tensors, as they are published.
    def qwen3_next_as_published(config):
        old_spelling(config)
        part = config["rope_scaling"].pop("partial_rotary_factor") if config["rope_scaling"] else 0.25
        for field in ("layer_types", "pad_token_id"):
            config.pop(field, None)
        config |= {"rope_scaling": None, "partial_rotary_factor": part, "full_attention_interval": 2, "use_sliding_window": False}
        config["num_experts"] = config.pop("num_local_experts", config.get("num_experts"))

    make("qwen3-next", t.Qwen3NextForCausalLM,
         t.Qwen3NextConfig(**{**delta_moe, "intermediate_size": 20, "num_hidden_layers": 4, "layer_types": None}, full_attention_interval=2, mlp_only_layers=[2],
                           rope_parameters=rope(10000000.0, partial_rotary_factor=0.25)), [70], dtype=torch.float16, edit=qwen3_next_as_published)

    # A delta attention that decays by key, beside latent attention without a rotation.
    kda = dict(vocab_size=VOCAB, hidden_size=24, intermediate_size=20, moe_intermediate_size=12, num_attention_heads=2, num_key_value_heads=2, kv_lora_rank=16, qk_nope_head_dim=8,
               qk_rope_head_dim=8, v_head_dim=8, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2, pad_token_id=0, attn_implementation="eager")

    def kimi_linear_as_published(config):
        published(config, architectures=["KimiLinearForCausalLM"], bos_token_id=1, dtype="float16", eos_token_id=2, first_k_dense_replace=1, head_dim=12,
                  hidden_act="silu", hidden_size=24, initializer_range=0.02, intermediate_size=20, kv_lora_rank=16,
                  linear_attn_config={"full_attn_layers": [2], "head_dim": 8, "kda_layers": [1, 3], "num_heads": 3, "short_conv_kernel_size": 4},
                  mla_use_nope=True, model_max_length=256, model_type="kimi_linear", moe_intermediate_size=12, moe_layer_freq=1, moe_renormalize=True,
                  moe_router_activation_func="sigmoid", num_attention_heads=2, num_expert_group=1, num_experts=6, num_experts_per_token=3,
                  num_hidden_layers=3, num_key_value_heads=2, num_nextn_predict_layers=0, num_shared_experts=1, pad_token_id=0, q_lora_rank=None,
                  qk_nope_head_dim=8, qk_rope_head_dim=8, rms_norm_eps=1e-5, rope_scaling=None, rope_theta=10000.0, routed_scaling_factor=2.446,
                  tie_word_embeddings=False, topk_group=1, use_cache=True, use_grouped_topk=True, v_head_dim=8, vocab_size=VOCAB)

    # The saver names the dense layer's part as it does the experts'.
    make("kimi-linear", t.KimiLinearForCausalLM,
         t.KimiLinearConfig(**kda, num_hidden_layers=3, model_max_length=256, num_experts=6, num_experts_per_token=3, num_shared_experts=1, linear_num_heads=3,
                            linear_head_dim=8, layer_types=["linear_attention", "full_attention", "linear_attention"],
                            mlp_layer_types=["dense", "sparse", "sparse"]), [70], dtype=torch.float16, edit=kimi_linear_as_published,
         remake=lambda tensors: {n.replace("layers.0.block_sparse_moe.", "layers.0.mlp."): p for n, p in tensors.items()})
    make("bailing-hybrid", t.BailingHybridForCausalLM,
         t.BailingHybridConfig(**kda, num_hidden_layers=4, model_max_length=256, num_experts=8, num_experts_per_token=3, num_shared_experts=1, head_dim=8,
                               num_expert_group=4, topk_group=2, layer_group_size=2, first_k_dense_replace=1, kda_lower_bound=-3.0, num_nextn_predict_layers=0,
                               rope_parameters=rope(6000000.0)), [70], dtype=torch.float16)

    # Lightning attention and attention, where norms become the residual.
    make("minimax", t.MiniMaxForCausalLM,
         t.MiniMaxConfig(**{**SMALL, "hidden_size": 24, "intermediate_size": 12, "num_attention_heads": 3, "num_key_value_heads": 1}, head_dim=16,
                         num_local_experts=6, num_experts_per_tok=2, layer_types=["linear_attention", "full_attention", "linear_attention"], block_size=16,
                         full_attn_alpha_factor=1.5, full_attn_beta_factor=0.9, linear_attn_alpha_factor=2.0, linear_attn_beta_factor=1.2,
                         mlp_alpha_factor=1.7, mlp_beta_factor=0.8, rope_parameters=rope(1000000.0), attn_implementation="eager"), [70], dtype=torch.float16)

    # Mamba 2 beside attention: layers of either kind, or both in one layer.
    bamba = dict(SMALL, hidden_size=24, intermediate_size=24, num_attention_heads=3, num_key_value_heads=1, mamba_n_heads=4, mamba_d_state=12,
                 attn_implementation="eager", pad_token_id=0)
    make("bamba", t.BambaForCausalLM,
         t.BambaConfig(**bamba, attn_layer_indices=[1], rope_parameters=rope(), time_step_limit=(0.05, 1.5)), [5, 70])

    def granite_as_published(config):
        config["layer_types"] = [{"linear_attention": "mamba", "full_attention": "attention"}[kind] for kind in config["layer_types"]]
        config["time_step_limit"] = [0.0, math.inf]
        config |= {"init_method": "mup", "normalization_function": "rmsnorm"}

    granite = dict(bamba, num_local_experts=0, shared_intermediate_size=24, embedding_multiplier=0.5, residual_multiplier=0.8,
                   attention_multiplier=0.2, logits_scaling=1.5, mamba_n_groups=2)
    make("granite-hybrid", t.GraniteMoeHybridForCausalLM,
         t.GraniteMoeHybridConfig(**granite, layer_types=["linear_attention", "full_attention", "linear_attention"], mamba_conv_bias=False),
         [5, 70], edit=granite_as_published)
    make("granite-hybrid-bf16", t.GraniteMoeHybridForCausalLM,
         t.GraniteMoeHybridConfig(**{**granite, "num_hidden_layers": 2}, layer_types=["linear_attention", "full_attention"],
                                  position_embedding_type="rope", rope_parameters=rope(), mamba_proj_bias=True, attention_bias=True,
                                  tie_word_embeddings=True), [40], dtype=torch.bfloat16)

    def granite_moe_as_published(config):
        granite_as_published(config)
        old_spelling(config)
        config["position_embedding_type"] = "nope"

    make("granite-hybrid-moe", t.GraniteMoeHybridForCausalLM,
         t.GraniteMoeHybridConfig(**{**granite, "num_hidden_layers": 2, "num_local_experts": 6, "intermediate_size": 12}, num_experts_per_tok=3,
                                  layer_types=["linear_attention", "full_attention"], rope_parameters=rope()), [70], dtype=torch.float16, edit=granite_moe_as_published)

    def falcon_h1_as_published(config):
        old_spelling(config)
        config |= {"mamba_use_mlp": True, "mlp_expansion_factor": 8, "attn_layer_indices": None}

    falcon_h1 = dict(bamba, num_hidden_layers=2, mamba_d_ssm=32, mamba_n_groups=2, ssm_multipliers=[0.7, 0.5, 1.3, 0.8, 0.6], ssm_in_multiplier=1.5,
                     ssm_out_multiplier=0.6, attention_in_multiplier=1.2, attention_out_multiplier=0.7, key_multiplier=0.8,
                     mlp_multipliers=[0.7, 1.4], embedding_multiplier=2.0, lm_head_multiplier=1.5)
    make("falcon-h1", t.FalconH1ForCausalLM, t.FalconH1Config(**falcon_h1, rope_parameters=rope(100000.0)), [5, 70],
         edit=falcon_h1_as_published)
    make("falcon-h1-bf16", t.FalconH1ForCausalLM,
         t.FalconH1Config(**falcon_h1, mamba_rms_norm=True, mamba_norm_before_gate=False, projectors_bias=True, mlp_bias=True,
                          rope_parameters=rope(100000.0)), [40], dtype=torch.bfloat16)

    olmo_hybrid = dict(SMALL, hidden_size=24, intermediate_size=24, num_attention_heads=3, num_key_value_heads=3, pad_token_id=0,
                       attn_implementation="eager", linear_key_head_dim=12, linear_value_head_dim=12)  # equal, for the saver cuts the convolution in thirds
    make("olmo-hybrid", t.OlmoHybridForCausalLM,
         t.OlmoHybridConfig(**olmo_hybrid, layer_types=["linear_attention", "full_attention", "linear_attention"],
                            rope_parameters=rope(500000.0)), [5, 70])

    def without_rotation(config):
        config["rope_parameters"] = None

    make("olmo-hybrid-bf16", t.OlmoHybridForCausalLM,
         t.OlmoHybridConfig(**{**olmo_hybrid, "num_hidden_layers": 2}, layer_types=["linear_attention", "full_attention"],
                            linear_allow_neg_eigval=False, rope_parameters={"rope_theta": None, "rope_type": "default"}), [40],
         dtype=torch.bfloat16, edit=without_rotation)

    # A part a layer; the published files name them by letters, and a rotation that attention does not have.
    def nemotron_h_as_published(config):
        config["hybrid_override_pattern"] = "".join({"linear_attention": "M", "full_attention": "*", "mlp": "-"}[k] for k in config.pop("layers_block_type"))
        config["num_hidden_layers"] = len(config["hybrid_override_pattern"])
        config |= {"rope_theta": 10000, "attention_head_dim": 8, "rms_norm_eps": 1e-05, "partial_rotary_factor": 1.0}

    nemotron_h = dict(vocab_size=VOCAB, hidden_size=24, intermediate_size=40, num_attention_heads=3, num_key_value_heads=1, head_dim=8,
                      max_position_embeddings=256, bos_token_id=1, eos_token_id=2, mamba_num_heads=4, mamba_head_dim=8, n_groups=2,
                      ssm_state_size=12, time_step_min=0.4, attn_implementation="eager")
    make("nemotron-h", t.NemotronHForCausalLM,
         t.NemotronHConfig(**nemotron_h, layers_block_type=["linear_attention", "mlp", "full_attention", "linear_attention", "mlp"]), [5, 70],
         edit=nemotron_h_as_published)
    make("nemotron-h-bf16", t.NemotronHForCausalLM,
         t.NemotronHConfig(**nemotron_h, use_bias=True, mlp_bias=True,
                           layers_block_type=["linear_attention", "mlp", "full_attention"]), [40], dtype=torch.bfloat16)

    # Nemotron 3: experts without gates; then of a width of their own.
    def nemotron_3_as_published(config):
        config["hybrid_override_pattern"] = "".join({"linear_attention": "M", "full_attention": "*", "moe": "E"}[k] for k in config.pop("layers_block_type"))
        config["num_hidden_layers"] = len(config["hybrid_override_pattern"])
        config["n_routed_experts"] = config.pop("num_local_experts", config.get("n_routed_experts"))
        config |= {"rope_theta": 10000, "norm_eps": 1e-05, "partial_rotary_factor": 1.0, "mamba_proj_bias": False, "time_step_limit": [0.0, math.inf]}

    nemotron_3 = dict(nemotron_h, moe_intermediate_size=12, moe_shared_expert_intermediate_size=20, n_routed_experts=6, num_experts_per_tok=3,
                      routed_scaling_factor=2.5)
    make("nemotron-h-moe", t.NemotronHForCausalLM,
         t.NemotronHConfig(**nemotron_3, layers_block_type=["linear_attention", "moe", "full_attention", "moe"]), [5, 70], edit=nemotron_3_as_published)
    make("nemotron-h-latent", t.NemotronHForCausalLM,
         t.NemotronHConfig(**nemotron_3, moe_latent_size=16, layers_block_type=["linear_attention", "moe", "full_attention"]), [40],
         edit=nemotron_3_as_published)

    jamba = dict(SMALL, hidden_size=24, intermediate_size=24, num_attention_heads=3, num_key_value_heads=1, pad_token_id=0,
                 attn_implementation="eager")
    make("jamba", t.JambaForCausalLM,
         t.JambaConfig(**{**jamba, "num_hidden_layers": 2}, num_experts=1, attn_layer_period=2, attn_layer_offset=1, mamba_d_state=8, mamba_d_conv=3, mamba_dt_rank=5,
                       mamba_proj_bias=True), [5, 70])
    make("jamba-moe", t.JambaForCausalLM,
         t.JambaConfig(**{**jamba, "num_hidden_layers": 3, "intermediate_size": 16}, num_experts=5, num_experts_per_tok=2, attn_layer_period=2,
                       attn_layer_offset=1, expert_layer_period=2, expert_layer_offset=0, mamba_d_state=8, mamba_d_conv=3), [70], dtype=torch.float16)

    # Recurrent blocks, and attention with a window, of which half of each head rotates.
    def recurrent_gemma_as_published(config):
        config.pop("rope_parameters")
        config["torch_dtype"] = config.pop("dtype")
        config |= {"rope_theta": 10000.0, "partial_rotary_factor": 0.5, "final_w_init_variance_scale": 0.07, "w_init_variance_scale": 0.01}

    make("recurrent-gemma", t.RecurrentGemmaForCausalLM,
         t.RecurrentGemmaConfig(vocab_size=VOCAB, hidden_size=16, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1,
                                lru_width=24, attention_window_size=16, logits_soft_cap=8.0, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2, pad_token_id=0,
                                block_types=["recurrent", "attention"], rope_parameters=rope(10000.0, partial_rotary_factor=0.5), attn_implementation="eager"),
         [5, 70], [16], dtype=torch.float16, edit=recurrent_gemma_as_published)
