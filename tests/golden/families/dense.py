"""Decoders with attention and one feed-forward part a layer."""

import torch
import transformers as t

from model_golden import make, old_spelling, rope, SMALL, TINY


def make_all():
    def llama(**more):
        return t.LlamaConfig(**{**SMALL, "attn_implementation": "eager", **more})

    def llama2_as_published(config):
        old_spelling(config)
        for field in ("head_dim", "num_key_value_heads", "rope_theta"):
            config.pop(field)

    # Old exporters saved each layer's frequencies.
    frequencies = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": 1.0 / 10000 ** (torch.arange(0, 8, 2) / 8) for i in range(3)}
    make("llama2", t.LlamaForCausalLM, llama(num_key_value_heads=4, rope_parameters=rope()), [5, 40],
         edit=llama2_as_published, extra=frequencies)
    make("llama2-f16", t.LlamaForCausalLM, llama(num_key_value_heads=4, rope_parameters=rope()), [20], dtype=torch.float16,
         edit=old_spelling)

    scaled = rope(500.0, "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
    make("llama31", t.LlamaForCausalLM, llama(head_dim=16, tie_word_embeddings=True, rope_parameters=scaled), [24, 80], [32],
         shard="40KB")
    make("llama-bias", t.LlamaForCausalLM,
         llama(head_dim=24, attention_bias=True, mlp_bias=True, hidden_act="gelu_pytorch_tanh",
               rope_parameters=rope(10000.0, "linear", factor=4.0)), [9, 48], edit=old_spelling)

    # Heads whose size is no multiple of 8, as in OpenLLaMA 3B.
    make("llama-odd-heads", t.LlamaForCausalLM, llama(hidden_size=40, num_attention_heads=2, num_key_value_heads=1, num_hidden_layers=2, rope_parameters=rope()),
         [9, 48], dtype=torch.float16, edit=old_spelling)

    make("mistral", t.MistralForCausalLM,
         t.MistralConfig(**SMALL, sliding_window=16, rope_parameters=rope(), attn_implementation="eager"), [10, 48], [16])

    qwen2 = dict(SMALL, rope_parameters=rope(1000000.0), attn_implementation="eager")
    make("qwen2", t.Qwen2ForCausalLM, t.Qwen2Config(**qwen2, tie_word_embeddings=True), [7, 48], edit=old_spelling)

    def by_max_window_layers(config):
        config.pop("layer_types")  # what published configurations hold instead

    make("qwen2-windows", t.Qwen2ForCausalLM,
         t.Qwen2Config(**qwen2, use_sliding_window=True, sliding_window=16, max_window_layers=1), [10, 48], [16],
         edit=by_max_window_layers)

    stretched = rope(10000.0, "yarn", factor=4.0, original_max_position_embeddings=32, truncate=False)
    make("qwen2-yarn", t.Qwen2ForCausalLM, t.Qwen2Config(**TINY, rope_parameters=stretched, attn_implementation="eager"), [7, 48], [32],
         dtype=torch.float16, edit=old_spelling)

    qwen3 = dict(SMALL, head_dim=16, rope_parameters=rope(1000000.0), attn_implementation="eager")
    make("qwen3", t.Qwen3ForCausalLM, t.Qwen3Config(**qwen3), [7, 48])
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    make("qwen3-bf16", t.Qwen3ForCausalLM,
         t.Qwen3Config(**qwen3, use_sliding_window=True, sliding_window=20, layer_types=kinds, tie_word_embeddings=True),
         [12, 48], [20], dtype=torch.bfloat16)

    # Fused projections; half of a head rotates, stretched by factors up to the original context and by others beyond.
    def longrope_as_published(config):
        ropes = config.pop("rope_parameters")
        config["torch_dtype"] = config.pop("dtype")
        config["rope_theta"] = ropes["rope_theta"]
        config["partial_rotary_factor"] = ropes["partial_rotary_factor"]
        config["rope_scaling"] = {"type": "longrope", "short_factor": ropes["short_factor"], "long_factor": ropes["long_factor"]}

    phi3 = dict(SMALL, num_attention_heads=2, num_key_value_heads=1, intermediate_size=32, attn_implementation="eager", pad_token_id=0)
    longrope = rope(100.0, "longrope", partial_rotary_factor=0.5, short_factor=[1.0, 1.5, 3.0, 5.0], long_factor=[2.0, 4.0, 8.0, 16.0],
                    original_max_position_embeddings=80)
    make("phi3", t.Phi3ForCausalLM,
         t.Phi3Config(**{**phi3, "max_position_embeddings": 512}, original_max_position_embeddings=80, rope_parameters=longrope), [7, 96], [80],
         edit=longrope_as_published)
    make("phi3-bf16", t.Phi3ForCausalLM,
         t.Phi3Config(**phi3, sliding_window=20, rope_parameters=rope(partial_rotary_factor=0.75)), [12, 48], [20],
         dtype=torch.bfloat16)
    def granite_as_published(config):
        old_spelling(config)
        config.pop("head_dim", None)

    granite = dict(TINY, attention_multiplier=0.6, embedding_multiplier=3.0, residual_multiplier=0.5, logits_scaling=2.0,
                   tie_word_embeddings=True, rope_parameters=rope(5000000.0), attn_implementation="eager")
    make("granite", t.GraniteForCausalLM, t.GraniteConfig(**granite), [7, 48], edit=granite_as_published)

    # Norms without weights; then norms behind the parts, and one over all heads of q and of k.
    without_eps = {k: v for k, v in TINY.items() if k != "rms_norm_eps"}
    make("olmo", t.OlmoForCausalLM,
         t.OlmoConfig(**without_eps, clip_qkv=1.5, rope_parameters=rope(), attn_implementation="eager"), [7, 40], edit=old_spelling)
    make("olmo2", t.Olmo2ForCausalLM, t.Olmo2Config(**TINY, rope_parameters=rope(500000.0), attn_implementation="eager"), [7, 48],
         edit=old_spelling)

    # As published: the stretched rotation is written once and holds for the layers without a window.
    def olmo3_as_published(config):
        ropes = config.pop("rope_parameters")
        config["torch_dtype"] = config.pop("dtype")
        config["rope_theta"] = ropes["full_attention"].pop("rope_theta")
        config["rope_scaling"] = ropes["full_attention"]

    yarn = rope(500000.0, "yarn", factor=8.0, original_max_position_embeddings=32, attention_factor=1.2079441541679836, beta_fast=32.0,
                beta_slow=1.0)
    make("olmo3", t.Olmo3ForCausalLM,
         t.Olmo3Config(**{**TINY, "num_hidden_layers": 4}, sliding_window=16, attn_implementation="eager",
                       rope_parameters={"full_attention": yarn, "sliding_attention": rope(500000.0)}), [10, 48], [16, 32],
         dtype=torch.float16, edit=olmo3_as_published)

    gemma = dict(TINY, head_dim=16, rope_parameters=rope(),
                 attn_implementation="eager")
    make("gemma", t.GemmaForCausalLM, t.GemmaConfig(**gemma, hidden_act="gelu"), [7, 48], edit=old_spelling)

    seed_oss = dict(TINY, head_dim=16, attention_bias=True, attention_out_bias=False, rope_parameters=rope(10000000.0),
                    attn_implementation="eager", pad_token_id=0)
    make("seed-oss", t.SeedOssForCausalLM, t.SeedOssConfig(**seed_oss), [7, 48], edit=old_spelling)

    smollm3 = dict(TINY, num_hidden_layers=3, no_rope_layers=[1, 0, 1], rope_parameters=rope(5000.0), pad_token_id=0, attn_implementation="eager")
    make("smollm3", t.SmolLM3ForCausalLM, t.SmolLM3Config(**smollm3), [7, 48], edit=old_spelling)

    # A base stretched by a fixed alpha under the name of another type.
    hunyuan = rope(100.0, "dynamic", alpha=1000.0, factor=1.0, beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=1.0)
    make("hunyuan", t.HunYuanDenseV1ForCausalLM,
         t.HunYuanDenseV1Config(**TINY, head_dim=16, tie_word_embeddings=True, rope_parameters=hunyuan, attn_implementation="eager"), [7, 48],
         edit=old_spelling)

    exaone4 = dict(TINY, head_dim=16, attn_implementation="eager")
    three_in_four = ["sliding_attention"] * 3 + ["full_attention"]
    stretched = rope(1000.0, "llama3", factor=16.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
    make("exaone4", t.Exaone4ForCausalLM,
         t.Exaone4Config(**{**exaone4, "num_hidden_layers": 4}, sliding_window=16, sliding_window_pattern="LLLG", layer_types=three_in_four,
                         rope_parameters=stretched), [10, 48], [16, 32], dtype=torch.float16, edit=old_spelling)
    make("exaone4-bf16", t.Exaone4ForCausalLM,
         t.Exaone4Config(**exaone4, sliding_window=None, sliding_window_pattern=None, layer_types=["full_attention"] * 2, tie_word_embeddings=True,
                         rope_parameters=stretched), [40], [32], dtype=torch.bfloat16, edit=old_spelling)

    make("ministral", t.MinistralForCausalLM,
         t.MinistralConfig(**TINY, head_dim=8, sliding_window=16, layer_types=["full_attention", "sliding_attention"],
                           rope_parameters=rope(1000000.0), attn_implementation="eager", pad_token_id=0), [10, 48], [16])
    make("cwm", t.CwmForCausalLM,
         t.CwmConfig(**TINY, head_dim=8, sliding_window=16, layer_types=["full_attention", "sliding_attention"], rope_parameters=stretched,
                     attn_implementation="eager"), [10, 48], [16, 32], dtype=torch.float16, edit=old_spelling)
    # Pairs of neighbours rotate: half of a head of GLM-4's, all of it of the others.
    glm = dict(TINY, head_dim=16, attention_bias=True, pad_token_id=0, rope_parameters=rope(partial_rotary_factor=0.5), attn_implementation="eager")
    make("glm", t.GlmForCausalLM, t.GlmConfig(**glm), [7, 48], dtype=torch.float16)
    make("glm4", t.Glm4ForCausalLM, t.Glm4Config(**glm), [7, 48], dtype=torch.float16)
    make("ernie4.5", t.Ernie4_5ForCausalLM, t.Ernie4_5Config(**TINY, head_dim=16, use_bias=True, rope_parameters=rope(500000.0), attn_implementation="eager"),
         [7, 48], dtype=torch.float16, edit=old_spelling)
    make("helium", t.HeliumForCausalLM,
         t.HeliumConfig(**{**TINY, "num_key_value_heads": 3}, head_dim=8, rope_parameters=rope(100000.0), attn_implementation="eager"), [7, 48],
         dtype=torch.float16, edit=old_spelling)
    make("arcee", t.ArceeForCausalLM,
         t.ArceeConfig(**TINY, attn_implementation="eager", rope_parameters=rope(10000.0, "yarn", factor=4.0, original_max_position_embeddings=32,
                                                                                 mscale=1.0, beta_fast=32.0, beta_slow=1.0)), [7, 48], [32],
         dtype=torch.float16, edit=old_spelling)

    # xIELU, by numbers of each layer.
    make("apertus", t.ApertusForCausalLM,
         t.ApertusConfig(**TINY, rope_parameters=rope(500.0, "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32),
                         attn_implementation="eager"), [7, 48], [32], dtype=torch.float16,
         edit=lambda config: (old_spelling(config), config.update(mlp_bias=False, post_norm=False, qk_norm=True)))
