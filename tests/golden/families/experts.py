"""Models with routed experts, and latent attention."""

import torch
import transformers as t

from model_golden import make, old_spelling, published, published_experts, rope, SMALL, VOCAB


def make_all():
    # The saver writes the published layout: an expert's matrices one by one, in block_sparse_moe.
    mixtral = dict(SMALL, hidden_size=24, intermediate_size=20, num_attention_heads=3, num_key_value_heads=1, num_hidden_layers=2,
                   num_local_experts=5, num_experts_per_tok=2, attn_implementation="eager")
    make("mixtral", t.MixtralForCausalLM, t.MixtralConfig(**mixtral, rope_parameters=rope(1000000.0)), [10, 48], edit=old_spelling)
    # In lower precision a close choice of experts may fall out differently: here all are chosen.
    make("mixtral-bf16", t.MixtralForCausalLM,
         t.MixtralConfig(**{**mixtral, "num_local_experts": 2, "hidden_size": 32, "num_attention_heads": 4,
                            "num_key_value_heads": 2}, sliding_window=16, rope_parameters=rope()), [40], [16], dtype=torch.bfloat16)

    # Experts in some layers: all but one by number (and by name), each another choice of a few among several.
    moe = dict(SMALL, hidden_size=24, num_attention_heads=3, num_key_value_heads=1, head_dim=16, intermediate_size=40, moe_intermediate_size=12,
               num_experts=6, num_experts_per_tok=3, attn_implementation="eager", rope_parameters=rope(1000000.0))
    make("qwen3-moe", t.Qwen3MoeForCausalLM, t.Qwen3MoeConfig(**moe, norm_topk_prob=True, mlp_only_layers=[1]), [7, 48],
         edit=published_experts("num_experts"))
    make("qwen2-moe", t.Qwen2MoeForCausalLM,
         t.Qwen2MoeConfig(**{k: v for k, v in moe.items() if k != "head_dim"}, decoder_sparse_step=2, shared_expert_intermediate_size=20), [7, 48],
         edit=published_experts("num_experts"))

    def gpt_oss_as_published(config):
        old_spelling(config)
        config.update(initial_context_length=config["rope_scaling"]["original_max_position_embeddings"], experts_per_token=config["num_experts_per_tok"])
        config["rope_scaling"]["rope_type"] = config["rope_scaling"].pop("type")
        config.pop("swiglu_alpha")

    # Latent attention: queries of one matrix and of two, experts chosen with and without groups, a rotation that scales the scores.
    mla = dict(vocab_size=VOCAB, hidden_size=24, intermediate_size=32, moe_intermediate_size=8, num_hidden_layers=2, num_attention_heads=3,
               num_key_value_heads=3, kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=24, n_routed_experts=8, n_shared_experts=2,
               num_experts_per_tok=3, first_k_dense_replace=1, max_position_embeddings=256, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2,
               attn_implementation="eager")
    yarn = rope(10000.0, "yarn", factor=4.0, original_max_position_embeddings=32, beta_fast=32, beta_slow=1, mscale=0.7, mscale_all_dim=1.0)

    def deepseek_as_published(score, **more):
        def edit(config):
            old_spelling(config)
            for field in ("head_dim", "num_mtp_layers", "rope_interleave", "mlp_bias", "output_router_logits", "qk_head_dim"):
                config.pop(field, None)
            config["n_routed_experts"] = config.pop("num_local_experts", config.get("n_routed_experts"))
            config.update(moe_layer_freq=1, aux_loss_alpha=0.001, seq_aux=True, scoring_func=score, ep_size=1, pretraining_tp=1, **more)
        return edit

    make("deepseek-v2-lite", t.DeepseekV2ForCausalLM,
         t.DeepseekV2Config(**mla, q_lora_rank=None, topk_method="greedy", n_group=1, topk_group=1, rope_parameters=yarn), [7, 48], [32],
         edit=deepseek_as_published("softmax"))
    make("deepseek-v2", t.DeepseekV2ForCausalLM,
         t.DeepseekV2Config(**mla, q_lora_rank=16, topk_method="group_limited_greedy", n_group=4, topk_group=2, routed_scaling_factor=4.0,
                            attention_bias=True, rope_parameters=rope()), [7, 48], edit=deepseek_as_published("softmax"))
    # The layer that guesses a second token is not run.
    guesses = {"model.layers.2.eh_proj.weight": torch.ones(24, 48), "model.layers.2.enorm.weight": torch.ones(24)}
    make("deepseek-v3", t.DeepseekV3ForCausalLM,
         t.DeepseekV3Config(**mla, q_lora_rank=16, n_group=4, topk_group=2, rope_parameters=yarn), [7, 48], [32],
         edit=deepseek_as_published("sigmoid", topk_method="noaux_tc", num_nextn_predict_layers=1), extra=guesses)

    # The text of a model that reads pictures is a DeepSeek V3 without groups.
    def kimi_as_published(config):
        text = {**config}
        deepseek_as_published("sigmoid", topk_method="noaux_tc", num_nextn_predict_layers=0)(text)
        text.update(model_type="kimi_k2", architectures=["DeepseekV3ForCausalLM"])
        config.clear()
        config.update(architectures=["KimiK25ForConditionalGeneration"], model_type="kimi_k25", text_config=text, dtype="float32", bos_token_id=1,
                      eos_token_id=2, ignore_index=-100, media_placeholder_token_id=95, pad_token_id=0, tie_word_embeddings=False,
                      use_unified_vision_chunk=True, video_placeholder="<|kimi_k25_video_placeholder|>", vision_config={"patch_size": 14})

    make("kimi-k25", t.DeepseekV3ForCausalLM,
         t.DeepseekV3Config(**{**mla, "n_shared_experts": 1}, q_lora_rank=16, n_group=1, topk_group=1, rope_parameters=rope(50000.0)), [7, 48],
         edit=kimi_as_published, extra={"vision_tower.patch_embed.weight": torch.ones(4), "mm_projector.pre_norm.weight": torch.ones(4)},
         rename=lambda name: "language_model." + name)
    make("glm4-moe-lite", t.Glm4MoeLiteForCausalLM,
         t.Glm4MoeLiteConfig(**mla, q_lora_rank=16, n_group=1, topk_group=1, rope_parameters=rope(1000000.0, partial_rotary_factor=1.0)), [7, 48])

    # Sinks, alternating windows, experts with biases of which two tensors hold all, a stretched rotation with broken ends.
    make("gpt-oss", t.GptOssForCausalLM,
         t.GptOssConfig(vocab_size=VOCAB, hidden_size=24, intermediate_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
                        num_local_experts=6, num_experts_per_tok=3, sliding_window=16, max_position_embeddings=256, bos_token_id=1, eos_token_id=2,
                        swiglu_limit=1.5, attn_implementation="eager",
                        rope_parameters=rope(1500.0, "yarn", factor=4.0, beta_fast=32.0, beta_slow=1.0, truncate=False, original_max_position_embeddings=32)),
         [10, 48], [16, 32], edit=gpt_oss_as_published)

    # Plain attention with experts chosen in that way.
    corrected = dict(moe, n_shared_experts=1, n_routed_experts=6, num_experts_per_tok=3)
    corrected.pop("num_experts")
    make("glm4-moe", t.Glm4MoeForCausalLM,
         t.Glm4MoeConfig(**{**corrected, "rope_parameters": rope(1000000.0, partial_rotary_factor=0.5)}, use_qk_norm=True, attention_bias=True,
                         routed_scaling_factor=2.5), [7, 48])
    make("dots1", t.Dots1ForCausalLM,
         t.Dots1Config(**corrected, first_k_dense_replace=1, norm_topk_prob=True, sliding_window=16, max_window_layers=1, routed_scaling_factor=2.5),
         [10, 48], [16])

    def minimax_as_published(config):
        old_spelling(config)
        config["rotary_dim"] = int(config["head_dim"] * config["rope_scaling"].pop("partial_rotary_factor")) if config["rope_scaling"] else 8
        config.update(rope_scaling=None, use_qk_norm=True, qk_norm_type="per_layer", scoring_func="sigmoid", use_routing_bias=True, num_mtp_modules=3,
                      mtp_transformer_layers=1, use_mtp=True, shared_intermediate_size=0, attn_type_list=[1] * 3)

    make("minimax-m2", t.MiniMaxM2ForCausalLM,
         t.MiniMaxM2Config(**{**SMALL, "hidden_size": 24, "intermediate_size": 12, "num_attention_heads": 3, "num_key_value_heads": 1}, head_dim=16,
                           num_local_experts=6, num_experts_per_tok=2, rope_parameters=rope(5000000.0, partial_rotary_factor=0.5),
                           attn_implementation="eager"), [7, 48], edit=minimax_as_published)

    # Experts of which two tensors hold all, multipliers, and with and without one that all rows share.
    granite_moe = dict({k: v for k, v in moe.items() if k not in ("head_dim", "moe_intermediate_size", "num_experts")}, hidden_size=32, num_attention_heads=4,
                       num_key_value_heads=2, num_hidden_layers=2, intermediate_size=12, num_local_experts=6, embedding_multiplier=3.0, logits_scaling=2.0,
                       residual_multiplier=0.5, attention_multiplier=0.6)
    make("granite-moe", t.GraniteMoeForCausalLM, t.GraniteMoeConfig(**granite_moe), [7, 48], edit=old_spelling)
    make("granite-moe-shared", t.GraniteMoeSharedForCausalLM, t.GraniteMoeSharedConfig(**granite_moe, shared_intermediate_size=20), [7, 48], edit=old_spelling)

    olmoe = {k: v for k, v in moe.items() if k not in ("head_dim", "moe_intermediate_size")}
    make("olmoe", t.OlmoeForCausalLM,
         t.OlmoeConfig(**{**olmoe, "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 12, "num_hidden_layers": 2}),
         [7, 48], edit=published_experts("num_experts"))

    def hunyuan_moe_as_published(config):
        published_experts("num_experts")(config)
        config.pop("num_experts_per_tok", None)
        config.update(moe_topk=[3, 3], num_shared_expert=[1, 1], moe_intermediate_size=[12, 12], use_mixed_mlp_moe=True, use_qk_norm=True, use_cla=False,
                      cla_share_factor=2, norm_type="rms", moe_drop_tokens=False, moe_random_routing_dropped_token=False, attention_head_dim=16)

    make("hunyuan-moe", t.HunYuanMoEV1ForCausalLM,
         t.HunYuanMoEV1Config(**{**olmoe, "intermediate_size": 12, "num_hidden_layers": 2, "rope_parameters": rope(100.0, "dynamic", alpha=1000.0, factor=1.0)},
                              head_dim=16, moe_topk=3), [7, 48],
         edit=hunyuan_moe_as_published)

    make("hy3", t.HYV3ForCausalLM,
         t.HYV3Config(**{k: v for k, v in moe.items()}, num_shared_experts=1, mlp_layer_types=["dense", "sparse", "sparse"], router_scaling_factor=2.5),
         [7, 48], edit=published_experts("num_experts"))
    # A window in which layers rotate, and experts behind dense layers: gated behind norms, and in groups.
    def afmoe_as_published(config):
        published_experts("num_experts")(config)
        config.update(score_func="sigmoid", route_norm=True, n_group=1, topk_group=1, num_expert_groups=1, num_limited_groups=1,
                      load_balance_coeff=0.001, use_grouped_mm=True)

    windowed = {k: v for k, v in moe.items() if k not in ("attn_implementation", "rope_parameters")}
    windowed |= dict(sliding_window=16, layer_types=["sliding_attention", "full_attention", "sliding_attention"], rope_parameters=rope(), attn_implementation="eager")
    make("afmoe", t.AfmoeForCausalLM,
         t.AfmoeConfig(**windowed, num_dense_layers=1, num_shared_experts=1, route_scale=2.8, mup_enabled=True, global_attn_every_n_layers=2), [48], [16],
         dtype=torch.float16, edit=afmoe_as_published)

    def exaone_moe_as_published(config):
        published_experts("num_experts")(config)
        config.update(scoring_func="sigmoid", topk_method="noaux_tc", num_nextn_predict_layers=1, is_moe_layer=[False, True, True])

    make("exaone-moe", t.ExaoneMoeForCausalLM,
         t.ExaoneMoeConfig(**{**windowed, "num_experts": 8}, sliding_window_pattern="LG", n_group=4, topk_group=2, num_shared_experts=1), [48], [16],
         dtype=torch.float16, edit=exaone_moe_as_published, extra={"mtp.fc.weight": torch.ones(24, 48)})
    make("solar-open", t.SolarOpenForCausalLM,
         t.SolarOpenConfig(**{k: v for k, v in moe.items() if k not in ("num_experts", "intermediate_size")}, n_routed_experts=6, n_shared_experts=1,
                           routed_scaling_factor=2.5), [48], dtype=torch.float16, edit=published_experts("n_routed_experts"))

    # Latent attention in a dense model, with factors of what is embedded, added and answered.
    minicpm3 = {k: v for k, v in mla.items() if not k.startswith(("n_", "moe_", "first_", "num_experts"))}
    make("minicpm3", t.MiniCPM3ForCausalLM,
         t.MiniCPM3Config(**minicpm3, q_lora_rank=16, scale_emb=3, scale_depth=0.8, dim_model_base=16, tie_word_embeddings=False,
                          rope_parameters=rope(100.0, "longrope", short_factor=[1.0, 1.5, 3.0, 5.0], long_factor=[2.0, 4.0, 8.0, 16.0],
                                               original_max_position_embeddings=256)), [7, 48], edit=old_spelling)

    # The text of a model that reads pictures, its experts' matrices in two tensors, turned round.
    vl = dict(vision_config=dict(depth=1, hidden_size=8, num_heads=1, intermediate_size=8, patch_size=4, out_hidden_size=24, num_position_embeddings=4,
                                 deepstack_visual_indexes=[]))
    make("qwen3-vl-moe", t.Qwen3VLMoeForConditionalGeneration,
         t.Qwen3VLMoeConfig(text_config={**{k: v for k, v in moe.items() if k != "attn_implementation"}, "mlp_only_layers": [1], "tie_word_embeddings": False,
                                         "rope_parameters": rope(500000.0, mrope_section=[4, 2, 2], mrope_interleaved=True)}, **vl,
                            tie_word_embeddings=False, attn_implementation="eager"), [7, 48])

    # Two experts one after the other, each beside those near it; LayerNorms, biases, a rotation of a named amplitude.
    def phimoe_as_published(config):
        old_spelling(config)
        config["architectures"] = ["PhiMoEForCausalLM"]

    phimoe = rope(100.0, "longrope", short_factor=[1.0, 1.5, 3.0, 5.0], long_factor=[2.0, 4.0, 8.0, 16.0], short_mscale=1.2, long_mscale=1.3,
                  original_max_position_embeddings=160)
    make("phimoe", t.PhimoeForCausalLM,
         t.PhimoeConfig(**{**SMALL, "hidden_size": 24, "num_attention_heads": 3, "num_key_value_heads": 1, "num_hidden_layers": 2, "intermediate_size": 12,
                           "max_position_embeddings": 512}, original_max_position_embeddings=160, num_local_experts=6, num_experts_per_tok=2,
                        router_jitter_noise=0.3, attention_bias=True, lm_head_bias=True, rope_parameters=phimoe, attn_implementation="eager"),
         [7, 48], edit=phimoe_as_published)

    def ernie_as_published(config):
        old_spelling(config)
        config.update(moe_capacity=[64, 64, 64], moe_gate="topk", moe_use_aux_free=True, num_nextn_predict_layers=1)
        config["moe_num_experts"] = config.pop("num_local_experts", config.get("moe_num_experts"))
        config["moe_k"] = config.pop("num_experts_per_tok", config.get("moe_k"))

    ernie = {k: v for k, v in moe.items() if k not in ("head_dim", "num_experts", "num_experts_per_tok")}
    make("ernie4.5-moe", t.Ernie4_5_MoeForCausalLM,
         t.Ernie4_5_MoeConfig(**ernie, moe_num_experts=6, moe_k=3, moe_num_shared_experts=2, moe_norm_min=0.5, use_bias=True, tie_word_embeddings=False),
         [7, 48], edit=ernie_as_published, extra={"model.mtp_linear_proj.0.weight": torch.ones(4)})

    # Queries of latent attention that grow with their positions; probabilities that groups limit.
    mistral4 = {**mla, "first_k_dense_replace": 0, "n_shared_experts": 1}
    growing = rope(10000.0, "yarn", factor=4.0, original_max_position_embeddings=32, beta_fast=32.0, beta_slow=1.0, mscale=1.0, mscale_all_dim=1.0,
                   llama_4_scaling_beta=0.5, partial_rotary_factor=1 / 3)
    make("mistral4", t.Mistral4ForCausalLM,
         t.Mistral4Config(**mistral4, q_lora_rank=16, n_group=4, topk_group=2, rope_parameters=growing), [48], [32])
    pixtral = t.PixtralVisionConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=8, patch_size=4, head_dim=8)
    make("mistral3-mistral4", t.Mistral3ForConditionalGeneration,
         t.Mistral3Config(text_config=t.Mistral4Config(**{k: v for k, v in mistral4.items() if k != "attn_implementation"}, q_lora_rank=16, n_group=1,
                                                       topk_group=1, rope_parameters=growing), vision_config=pixtral, attn_implementation="eager"), [48], [32],
         dtype=torch.float16)

    # Values that are narrower than keys, and more heads of keys, and sinks, where there is a window.
    def mimo_as_published(config):
        for field in ("layer_types", "mlp_layer_types", "rope_parameters", "rms_norm_eps", "sliding_window"):
            config.pop(field)
        config["n_routed_experts"] = config.pop("num_local_experts", config.get("n_routed_experts"))
        config |= {"add_full_attention_sink_bias": False, "add_swa_attention_sink_bias": True, "attention_chunk_size": 16, "hybrid_block_size": None,
                   "hybrid_layer_pattern": [0, 1, 1], "layernorm_epsilon": 1e-5, "moe_layer_freq": [0, 1, 1], "n_shared_experts": None,
                   "partial_rotary_factor": 0.334, "rope_theta": 5000000, "routed_scaling_factor": None, "scoring_func": "sigmoid", "sliding_window": 16,
                   "sliding_window_size": 16, "swa_head_dim": 24, "swa_num_attention_heads": 4, "swa_num_key_value_heads": 2, "swa_rope_theta": 10000,
                   "swa_v_head_dim": 16, "topk_method": "noaux_tc"}

    mimo = dict(SMALL, hidden_size=24, intermediate_size=20, num_attention_heads=4, num_key_value_heads=1, head_dim=24, v_head_dim=16, moe_intermediate_size=12,
                n_routed_experts=6, num_experts_per_tok=3, attn_implementation="eager")
    make("mimo-v2", t.MiMoV2FlashForCausalLM,
         t.MiMoV2FlashConfig(**mimo, sliding_window=17, layer_types=["full_attention", "sliding_attention", "sliding_attention"]), [48], [17], dtype=torch.float16,
         edit=mimo_as_published)

    # Chunks of attention; layers without a rotation, whose queries grow; experts that weigh what they are given.
    def llama4_as_published(config):
        old_spelling(config)
        config.pop("layer_types")
        config |= {"attn_temperature_tuning": 4, "cache_implementation": "hybrid", "for_llm_compressor": False}

    llama4 = dict(vocab_size=VOCAB, hidden_size=24, intermediate_size=12, intermediate_size_mlp=20, num_hidden_layers=3, num_attention_heads=3,
                  num_key_value_heads=1, head_dim=16, max_position_embeddings=256, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2, num_local_experts=4,
                  num_experts_per_tok=2, moe_layers=[0, 2], no_rope_layers=[1, 0, 1], attention_chunk_size=16, floor_scale=20, attn_scale=0.5)
    stretched = rope(500.0, "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
    make("llama4", t.Llama4ForCausalLM, t.Llama4TextConfig(**llama4, rope_parameters=stretched, attn_implementation="eager"), [48], [16, 20, 32, 40],
         dtype=torch.float16, edit=llama4_as_published)
    make("llama4-composite", t.Llama4ForConditionalGeneration,
         t.Llama4Config(text_config={**llama4, "num_hidden_layers": 2, "moe_layers": [1], "no_rope_layers": [1, 0], "use_qk_norm": False,
                                     "rope_parameters": rope(500000.0)},
                        vision_config=dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=8, patch_size=4,
                                           projector_input_dim=8, projector_output_dim=8, vision_output_dim=8), attn_implementation="eager"), [48], [16, 32],
         dtype=torch.float16)

    # LayerNorms without biases, a limit of queries, keys and values, and experts' matrices one behind the other.
    def dbrx_as_published(config):
        published(config, architectures=["DbrxForCausalLM"], attn_config={"clip_qkv": 1.5, "kv_n_heads": 1, "model_type": "", "rope_theta": 500000},
                  auto_map={"AutoConfig": "configuration_dbrx.DbrxConfig", "AutoModelForCausalLM": "modeling_dbrx.DbrxForCausalLM"}, d_model=24, emb_pdrop=0.0,
                  ffn_config={"ffn_hidden_size": 12, "model_type": "", "moe_jitter_eps": 0.01, "moe_loss_weight": 0.05, "moe_num_experts": 6, "moe_top_k": 3},
                  initializer_range=0.02, max_seq_len=256, model_type="dbrx", n_heads=3, n_layers=2, output_router_logits=False, resid_pdrop=0.0,
                  router_aux_loss_coef=0.05, tie_word_embeddings=False, torch_dtype="float16", transformers_version="4.38.1", use_cache=True, vocab_size=VOCAB)

    make("dbrx", t.DbrxForCausalLM,
         t.DbrxConfig(d_model=24, n_heads=3, n_layers=2, max_seq_len=256, vocab_size=VOCAB, attn_config=dict(clip_qkv=1.5, kv_n_heads=1, rope_theta=500000.0),
                      ffn_config=dict(ffn_hidden_size=12, moe_num_experts=6, moe_top_k=3), rope_parameters=rope(500000.0), attn_implementation="eager"), [48],
         dtype=torch.float16, edit=dbrx_as_published)

    # An index chooses the keys.
    indexed = {k: v for k, v in mla.items() if k != "num_key_value_heads"}

    def indexed_as_published(config):
        deepseek_as_published("sigmoid", topk_method="noaux_tc", num_nextn_predict_layers=1)(config)
        for field in ("layer_types", "mlp_layer_types"):
            config.pop(field)

    make("deepseek-v32", t.DeepseekV32ForCausalLM,
         t.DeepseekV32Config(**indexed, num_key_value_heads=3, q_lora_rank=16, n_group=4, topk_group=2, index_topk=24, index_head_dim=16, index_n_heads=9,
                             rope_parameters=yarn), [48], [24, 32], dtype=torch.float16, edit=indexed_as_published)
    make("glm-moe-dsa", t.GlmMoeDsaForCausalLM,
         t.GlmMoeDsaConfig(**{**indexed, "num_hidden_layers": 3, "n_routed_experts": 6}, num_key_value_heads=3, q_lora_rank=16, index_topk=20, index_head_dim=8, index_n_heads=9, index_topk_freq=2,
                           index_skip_topk_offset=1, rope_parameters=rope(1000000.0)), [48], [20], dtype=torch.float16)

    # Attention to compressed keys; the published configuration counts positions for each compressed one, layer by layer.
    def deepseek_v4_as_published(config):
        published(config, architectures=["DeepseekV4ForCausalLM"], attention_bias=False, attention_dropout=0.0, bos_token_id=0, eos_token_id=1,
                  expert_dtype="fp4", hc_eps=1e-06, hc_mult=3, hc_sinkhorn_iters=20, head_dim=16, hidden_act="silu", hidden_size=16, index_head_dim=8,
                  index_n_heads=11, index_topk=9, initializer_range=0.02, max_position_embeddings=512, model_type="deepseek_v4",
                  moe_intermediate_size=8, n_routed_experts=4, n_shared_experts=1, norm_topk_prob=True, num_attention_heads=4,
                  num_experts_per_tok=2, num_hidden_layers=3, num_hash_layers=1, num_key_value_heads=1, num_nextn_predict_layers=1, o_groups=2,
                  o_lora_rank=8, q_lora_rank=16, qk_rope_head_dim=8, rms_norm_eps=1e-06,
                  rope_scaling=dict(beta_fast=32, beta_slow=1, factor=16, original_max_position_embeddings=32, type="yarn"), rope_theta=10000,
                  routed_scaling_factor=1.5, scoring_func="sqrtsoftplus", sliding_window=20, swiglu_limit=1.0, tie_word_embeddings=False,
                  topk_method="noaux_tc", torch_dtype="float16", transformers_version="4.57.1", use_cache=True, vocab_size=VOCAB,
                  compress_rope_theta=160000, compress_ratios=[0, 4, 128, 0], compress_rate_hca=24)

    # The saver has some of the published names alone.
    def deepseek_v4_names(tensors):
        made = {"mtp.0.e_proj.weight": torch.ones(16, 16), "mtp.0.enorm.weight": torch.ones(16)}
        for name, p in tensors.items():
            name = name.removeprefix("model.").replace("embed_tokens", "embed").replace("hc_head.hc_", "hc_head_")
            made[name.replace(".attn.norm.", ".attn.kv_norm.")] = p.float() if "hc_" in name or "attn_sink" in name else p
        return made

    fields = {}
    deepseek_v4_as_published(fields)
    make("deepseek-v4", t.DeepseekV4ForCausalLM, t.DeepseekV4Config(**fields, attn_implementation="eager"), [90], [20, 24, 48],
         dtype=torch.float16, edit=deepseek_v4_as_published, remake=deepseek_v4_names)

    # Families that transformers has no class for are another one's arithmetic under their own names.
    def bailing_names(tensors):
        made, fused = {}, {}
        for name, p in tensors.items():
            name = name.replace("model.embed_tokens", "model.word_embeddings").replace("self_attn.o_proj", "attention.dense")
            name = name.replace("self_attn.q_norm", "attention.query_layernorm").replace("self_attn.k_norm", "attention.key_layernorm")
            name = name.replace("mlp.gate.e_score_correction_bias", "mlp.gate.expert_bias")
            if name.endswith(("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight")):
                fused.setdefault(name[:-len("self_attn.q_proj.weight")], {})[name[-13]] = p
                continue
            made[name] = p
        for layer, parts in fused.items():
            made[layer + "attention.query_key_value.weight"] = torch.cat([parts[k] for k in "qkv"])
        return made

    def bailing_from_granite(tensors):
        made = {}
        for name, p in tensors.items():
            layer = name.split("block_sparse_moe.")[0].split("shared_mlp.")[0]
            if name.endswith("block_sparse_moe.input_linear.weight"):
                for e, both in enumerate(p):
                    made[f"{layer}mlp.experts.{e}.gate_proj.weight"], made[f"{layer}mlp.experts.{e}.up_proj.weight"] = both.chunk(2)
            elif name.endswith("block_sparse_moe.output_linear.weight"):
                made |= {f"{layer}mlp.experts.{e}.down_proj.weight": down for e, down in enumerate(p)}
            elif name.endswith("shared_mlp.input_linear.weight"):
                made[layer + "mlp.shared_experts.gate_proj.weight"], made[layer + "mlp.shared_experts.up_proj.weight"] = p.chunk(2)
            else:
                made[name.replace("shared_mlp.output_linear", "mlp.shared_experts.down_proj").replace("block_sparse_moe.router.layer", "mlp.gate")] = p
        return bailing_names(made)

    bailing = dict(attention_dropout=0.0, embedding_dropout=0.0, eos_token_id=2, head_dim=8, hidden_act="silu", hidden_size=24, initializer_range=0.02,
                   max_position_embeddings=256, model_type="bailing_moe", moe_intermediate_size=12, norm_topk_prob=True, num_attention_heads=3,
                   num_experts_per_tok=3, num_key_value_heads=1, output_dropout=0.0, pad_token_id=2, rms_norm_eps=1e-5, rope_scaling=None, rope_theta=600000,
                   tie_word_embeddings=False, torch_dtype="float16", transformers_version="4.52.3", use_bias=False, use_cache=True, use_qkv_bias=False,
                   use_rmsnorm=True, vocab_size=VOCAB)
    make("bailing-moe", t.GraniteMoeSharedForCausalLM,
         t.GraniteMoeSharedConfig(**{**granite_moe, "hidden_size": 24, "num_attention_heads": 3, "num_key_value_heads": 1, "embedding_multiplier": 1.0,
                                     "logits_scaling": 1.0, "residual_multiplier": 1.0, "attention_multiplier": 8**-0.5, "rope_parameters": rope(600000.0)},
                                  shared_intermediate_size=24), [48], dtype=torch.float16, remake=bailing_from_granite,
         edit=lambda config: published(config, **bailing, architectures=["BailingMoeForCausalLM"], first_k_dense_replace=0, intermediate_size=32,
                                       norm_head=False, norm_softmax=False, num_experts=6, num_hidden_layers=2, num_shared_experts=2,
                                       output_router_logits=False, pretraining_tp=1))
    make("bailing-moe-v2", t.Glm4MoeForCausalLM,
         t.Glm4MoeConfig(**{**corrected, "n_routed_experts": 8, "head_dim": 8, "num_hidden_layers": 2, "rms_norm_eps": 1e-5,
                            "rope_parameters": rope(600000.0, partial_rotary_factor=0.5)}, n_group=4, topk_group=2, first_k_dense_replace=1, use_qk_norm=True,
                         attention_bias=False, routed_scaling_factor=2.5), [48], dtype=torch.float16, remake=bailing_names,
         edit=lambda config: published(config, **bailing, architectures=["BailingMoeV2ForCausalLM"], first_k_dense_replace=1, intermediate_size=40,
                                       moe_router_enable_expert_bias=True, moe_shared_expert_intermediate_size=12, n_group=4, num_experts=8,
                                       num_hidden_layers=2, num_shared_experts=1, partial_rotary_factor=0.5, routed_scaling_factor=2.5, router_dtype="fp32",
                                       score_function="sigmoid", topk_group=2, use_qk_norm=True))

    # Clamped gates in experts and in the dense layer; an index chooses blocks of keys.
    def minimax_m3_as_published(config):
        text = config["text_config"]
        for field in ("layer_types", "mlp_layer_types", "index_block_size", "index_topk_blocks", "index_local_blocks", "index_n_heads", "index_head_dim"):
            text.pop(field)
        ropes = text.pop("rope_parameters")
        text |= {"hidden_act": "swigluoai", "moe_layer_freq": [0, 1], "rope_theta": ropes["rope_theta"], "partial_rotary_factor": 0.5,
                 "sparse_attention_config": {"sparse_attention_freq": [0, 1], "sparse_block_size": 8, "sparse_topk_blocks": 4, "sparse_local_block": 1,
                                             "sparse_num_index_heads": 2, "sparse_index_dim": 16}}

    make("minimax-m3", t.MiniMaxM3SparseForConditionalGeneration,
         t.MiniMaxM3VLConfig(text_config=dict(vocab_size=VOCAB, hidden_size=24, intermediate_size=12, dense_intermediate_size=20, shared_intermediate_size=16,
                                              num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=256,
                                              rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2, num_local_experts=6, num_experts_per_tok=3, rotary_dim=8,
                                              swiglu_limit=1.5, mlp_layer_types=["dense", "sparse"], layer_types=["full_attention", "minimax_m3_sparse"],
                                              index_n_heads=2, index_head_dim=16, index_block_size=8, index_topk_blocks=4,
                                              rope_parameters=rope(5000000.0, partial_rotary_factor=0.5)),
                             vision_config=dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=8, patch_size=4),
                             attn_implementation="eager"), [48], [32], dtype=torch.float16, edit=minimax_m3_as_published,
         remake=lambda tensors: {n: p for n, p in tensors.items() if "language_model." in n or n == "lm_head.weight"} | {"vision_tower.x": torch.ones(4)})
