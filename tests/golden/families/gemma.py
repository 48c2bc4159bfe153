"""Gemma 2, 3 and 4."""

import torch
import transformers as t

from model_golden import make, old_spelling, rope, SMALL, VOCAB


def make_all():
    # Each kind of layer has a rotation of its own, and a scaled one; the older spelling names them apart.
    def by_pattern(config):
        config.pop("layer_types")
        ropes = config.pop("rope_parameters")
        config["sliding_window_pattern"] = 2
        config["torch_dtype"] = config.pop("dtype")
        config["rope_theta"] = ropes["full_attention"].pop("rope_theta")
        config["rope_local_base_freq"] = ropes["sliding_attention"].pop("rope_theta")
        config["rope_scaling"] = ropes["full_attention"]

    gemma3 = dict(SMALL, num_attention_heads=2, num_key_value_heads=1, head_dim=16, intermediate_size=40, query_pre_attn_scalar=40, sliding_window=16, attn_implementation="eager",
                  rope_parameters={"full_attention": rope(3000.0, "linear", factor=4.0), "sliding_attention": rope(100.0)})
    make("gemma3", t.Gemma3ForCausalLM,
         t.Gemma3TextConfig(**gemma3, layer_types=["sliding_attention", "full_attention", "sliding_attention"], final_logit_softcapping=4.0),
         [10, 48], [16])
    make("gemma3-bf16", t.Gemma3ForCausalLM, t.Gemma3TextConfig(**gemma3, sliding_window_pattern=2, tie_word_embeddings=False), [12, 48], [16],
         dtype=torch.bfloat16, edit=by_pattern)

    # A composite of which only text is served; of its text's fields it leaves out those that have the reference's values.
    def sparse(config):
        text = config["text_config"]
        for field in ("rms_norm_eps", "max_position_embeddings", "rope_parameters", "layer_types", "_sliding_window_pattern"):
            text.pop(field)
        config["text_config"] = {name: value for name, value in text.items() if value is not None}

    whole = {**gemma3, "rms_norm_eps": 1e-6, "max_position_embeddings": 131072, "rope_parameters": None, "num_hidden_layers": 2}
    make("gemma3-composite", t.Gemma3ForConditionalGeneration,
         t.Gemma3Config(text_config=t.Gemma3TextConfig(**{k: v for k, v in whole.items() if v is not None}, layer_types=["sliding_attention"] * 2),
                        vision_config=t.SiglipVisionConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
                                                           image_size=8, patch_size=4), mm_tokens_per_image=4, attn_implementation="eager"),
         [12, 48], [16], dtype=torch.bfloat16, edit=sparse)

    # Heads differ between kinds of layers; values are keys in those that see everything. As it is saved today, by layer, and in
    # the published words.
    gemma4 = dict(vocab_size=VOCAB, hidden_size=24, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=2,
                  head_dim=8, global_head_dim=16, num_global_key_value_heads=1, attention_k_eq_v=True, hidden_size_per_layer_input=0,
                  layer_types=["sliding_attention", "full_attention", "full_attention"], sliding_window=16, max_position_embeddings=256,
                  final_logit_softcapping=4.0, bos_token_id=1, eos_token_id=2,
                  rope_parameters={"sliding_attention": rope(100.0), "full_attention": rope(1000.0, "proportional", partial_rotary_factor=0.5)})
    make("gemma4", t.Gemma4ForCausalLM, t.Gemma4TextConfig(**gemma4, attn_implementation="eager"), [10, 48], [16], dtype=torch.float16)

    # Inputs of each layer; the last two layers read the keys and values of the first two, and are twice as wide inside.
    shared = {**gemma4, "num_hidden_layers": 4, "attention_k_eq_v": False, "num_global_key_value_heads": None, "num_kv_shared_layers": 2,
              "use_double_wide_mlp": True, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCAB,
              "layer_types": ["sliding_attention", "full_attention"] * 2}
    make("gemma4-e", t.Gemma4ForCausalLM, t.Gemma4TextConfig(**shared, attn_implementation="eager"), [10, 48], [16], dtype=torch.float16)

    # The feed-forward part beside experts, each with norms of its own.
    make("gemma4-moe", t.Gemma4ForCausalLM,
         t.Gemma4TextConfig(**{**gemma4, "hidden_size_per_layer_input": 0}, enable_moe_block=True, num_experts=6, top_k_experts=3, moe_intermediate_size=16,
                            attn_implementation="eager"), [48], [16], dtype=torch.float16)

    def by_kind(config):
        text = config["text_config"]
        text.pop("per_layer_config")
        text.update(global_head_dim=16, num_global_key_value_heads=1)

    small_eyes = dict(position_embedding_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1, head_dim=8)
    make("gemma4-composite", t.Gemma4ForConditionalGeneration,
         t.Gemma4Config(text_config=gemma4, vision_config=small_eyes, attn_implementation="eager"), [48], [16], dtype=torch.bfloat16,
         edit=by_kind)
    unified = {k: v for k, v in gemma4.items() if k not in ("hidden_size_per_layer_input", "attention_k_eq_v", "num_global_key_value_heads")}
    make("gemma4-unified", t.Gemma4UnifiedForConditionalGeneration,
         t.Gemma4UnifiedConfig(text_config=unified, attn_implementation="eager"), [48], [16], dtype=torch.float16)

    # Scores and logits are capped.
    gemma2 = dict(SMALL, num_attention_heads=2, num_key_value_heads=1, head_dim=16, intermediate_size=40, query_pre_attn_scalar=4,
                  sliding_window=16, attn_implementation="eager", rope_parameters=rope(), attn_logit_softcapping=2.0, final_logit_softcapping=4.0)
    make("gemma2-bf16", t.Gemma2ForCausalLM, t.Gemma2Config(**gemma2), [12, 48], [16], dtype=torch.bfloat16, edit=old_spelling)

    make("vaultgemma", t.VaultGemmaForCausalLM, t.VaultGemmaConfig(**{**gemma2, "num_hidden_layers": 2, "hidden_size": 24}), [48], [16],
         dtype=torch.float16, edit=old_spelling)

    # Streams of residuals, of which layers work on one; the last two layers read the keys and values of the first two; ids that the
    # table of each layer's inputs does not have.
    gemma3n = dict({k: v for k, v in SMALL.items() if k not in ("num_hidden_layers", "intermediate_size", "hidden_size")}, hidden_size=24, num_attention_heads=3,
                   num_key_value_heads=1, head_dim=8, num_hidden_layers=4, intermediate_size=[24, 32, 24, 24], num_kv_shared_layers=2, laurel_rank=8,
                   hidden_size_per_layer_input=8, vocab_size_per_layer_input=90, activation_sparsity_pattern=[0.8, 0.0, 0.5, 0.0], sliding_window=16,
                   layer_types=["sliding_attention", "full_attention"] * 2, final_logit_softcapping=4.0,
                   rope_parameters={"sliding_attention": rope(100.0), "full_attention": rope(1000.0)})
    make("gemma3n", t.Gemma3nForCausalLM, t.Gemma3nTextConfig(**gemma3n, attn_implementation="eager"), [10, 48], [16], dtype=torch.float16)

    # The text of a model that reads pictures and sound, in its published words.
    def gemma3n_as_published(config):
        text = {**config}
        ropes = text.pop("rope_parameters")
        text |= {"rope_theta": ropes["full_attention"]["rope_theta"], "rope_local_base_freq": ropes["sliding_attention"]["rope_theta"],
                 "rope_scaling": None, "altup_lr_multiplier": 1.0, "query_pre_attn_scalar": 256}
        config.clear()
        config.update(architectures=["Gemma3nForConditionalGeneration"], model_type="gemma3n", text_config=text, audio_config={"hidden_size": 8},
                      vision_config={"hidden_size": 8}, audio_soft_tokens_per_image=188, audio_token_id=94, boa_token_id=93, boi_token_id=92, eoa_token_id=91,
                      eoi_token_id=90, image_token_id=89, vision_soft_tokens_per_image=256, torch_dtype="float16", initializer_range=0.02)

    make("gemma3n-composite", t.Gemma3nForCausalLM,
         t.Gemma3nTextConfig(**{**gemma3n, "num_hidden_layers": 2, "intermediate_size": 24, "num_kv_shared_layers": 0, "altup_num_inputs": 2,
                                "activation_sparsity_pattern": [0.0, 0.9], "layer_types": ["sliding_attention", "full_attention"],
                                "vocab_size_per_layer_input": VOCAB}, attn_implementation="eager"), [48], [16], dtype=torch.float16, edit=gemma3n_as_published,
         extra={"model.vision_tower.timm_model.conv_stem.weight": torch.ones(4), "model.embed_vision.embedding.weight": torch.ones(4)},
         rename=lambda name: name.replace("model.", "model.language_model.", 1))
