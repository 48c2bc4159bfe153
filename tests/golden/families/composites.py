"""Models that read pictures or sound beside text, of which the text is served."""

import torch
import transformers as t

from model_golden import make, rope, TINY


def make_all():
    # Composites of which only text is served. Published Qwen2.5-VL is flat, with the text's tensors under `model.`; the others hold
    # text_config.
    def flat(config):
        text = config.pop("text_config")
        for field in ("model_type", "layer_types"):
            text.pop(field, None)
        ropes = text.pop("rope_parameters")
        config.update(text)
        config["torch_dtype"] = config.pop("dtype")
        config["rope_theta"] = ropes["rope_theta"]
        config["rope_scaling"] = {"type": "mrope", "mrope_section": [1, 1, 2]}
        config.update(use_sliding_window=False, sliding_window=32768, max_window_layers=2)

    mrope = rope(1000000.0, "default", mrope_section=[1, 1, 2])
    eyes = dict(depth=1, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=24, patch_size=4, spatial_merge_size=1,
                temporal_patch_size=1)
    for name, kind in (("qwen2-vl", "Qwen2VL"), ("qwen2.5-vl", "Qwen2_5_VL")):
        text = getattr(t, kind + "TextConfig" if hasattr(t, kind + "TextConfig") else kind + "Config")
        vision = dict(depth=1, embed_dim=16, hidden_size=24, num_heads=2, patch_size=4, temporal_patch_size=1) if kind == "Qwen2VL" else eyes
        make(name, getattr(t, kind + "ForConditionalGeneration"),
             getattr(t, kind + "Config")(text_config={**TINY, "rope_parameters": mrope, "tie_word_embeddings": True}, vision_config=vision,
                                         tie_word_embeddings=True, attn_implementation="eager"), [7, 48], dtype=torch.float16, edit=flat)

    def qwen3_vl_as_published(config):
        text = config["text_config"]
        ropes = text.pop("rope_parameters")
        text["rope_theta"] = ropes["rope_theta"]
        text["rope_scaling"] = {"mrope_interleaved": True, "mrope_section": ropes["mrope_section"], "rope_type": "default"}
        config.pop("dtype")

    make("qwen3-vl", t.Qwen3VLForConditionalGeneration,
         t.Qwen3VLConfig(text_config={**TINY, "head_dim": 16, "tie_word_embeddings": True,
                                      "rope_parameters": rope(5000000.0, "default", mrope_section=[4, 2, 2], mrope_interleaved=True)},
                         vision_config={**eyes, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}, tie_word_embeddings=True,
                         attn_implementation="eager"), [7, 48], dtype=torch.bfloat16, edit=qwen3_vl_as_published)

    # The second of three layers looks at pictures alone.
    make("mllama", t.MllamaForConditionalGeneration,
         t.MllamaConfig(text_config={**TINY, "num_hidden_layers": 3, "cross_attention_layers": [1], "pad_token_id": 0,
                                     "rope_parameters": rope(500.0, "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                                             original_max_position_embeddings=32)},
                        vision_config=dict(hidden_size=8, num_hidden_layers=1, num_global_layers=1, attention_heads=1, intermediate_size=8,
                                           vision_output_dim=16, image_size=8, patch_size=4, max_num_tiles=1, intermediate_layers_indices=[0],
                                           supported_aspect_ratios=[[1, 1]]), attn_implementation="eager"), [7, 48], [32],
         dtype=torch.float16)

    # Gated attention; heads and embeddings are normalised without weights; the layer without a window does not rotate.
    muse = {k: v for k, v in TINY.items()}
    make("muse-glimmer", t.MuseGlimmerForConditionalGeneration,
         t.MuseGlimmerConfig(text_config=dict(muse, head_dim=16, sliding_window=16, final_logit_softcapping=8.0, output_multiplier=0.6,
                                              layer_types=["full_attention", "sliding_attention"], layer_rope_theta=[0, 1000.0],
                                              rope_parameters=rope(1000.0)),
                             vision_config=dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, patch_size=4),
                             out_hidden_size=32, projector_hidden_size=8, attn_implementation="eager"), [10, 48], [16], dtype=torch.float16)

    clip = t.CLIPVisionConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=8, patch_size=4,
                              projection_dim=8)
    a_llama = t.LlamaConfig(**TINY, rope_parameters=rope())
    make("llava", t.LlavaForConditionalGeneration,
         t.LlavaConfig(text_config=a_llama, vision_config=clip, attn_implementation="eager"), [7, 48], dtype=torch.float16)
    make("llava-next", t.LlavaNextForConditionalGeneration,
         t.LlavaNextConfig(text_config=t.MistralConfig(**TINY, head_dim=8, sliding_window=16, rope_parameters=rope()), vision_config=clip,
                           attn_implementation="eager"), [40], [16], dtype=torch.float16)
    make("llava-next-granite", t.LlavaNextForConditionalGeneration,
         t.LlavaNextConfig(text_config=t.GraniteConfig(**TINY, attention_multiplier=0.6, embedding_multiplier=3.0, residual_multiplier=0.5,
                                                       logits_scaling=2.0, rope_parameters=rope()), vision_config=clip,
                           attn_implementation="eager"), [40], dtype=torch.float16)
    a_qwen = t.Qwen2Config(**TINY, rope_parameters=rope(1000000.0))
    eye = t.SiglipVisionConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=8, patch_size=4)
    make("llava-onevision", t.LlavaOnevisionForConditionalGeneration,
         t.LlavaOnevisionConfig(text_config=a_qwen, vision_config=eye, attn_implementation="eager"), [40], dtype=torch.float16)
    a_cohere = {k: v for k, v in TINY.items() if k not in ("rms_norm_eps",)}
    make("aya-vision", t.AyaVisionForConditionalGeneration,
         t.AyaVisionConfig(text_config=t.Cohere2Config(**a_cohere, sliding_window=16, logit_scale=1.5, pad_token_id=0, rope_parameters=rope(),
                                                       layer_types=["sliding_attention", "full_attention"]),
                           vision_config=eye, attn_implementation="eager"), [40], [16], dtype=torch.float16)
    ear = dict(d_model=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, encoder_layers=1, encoder_attention_heads=1,
               encoder_ffn_dim=8, num_mel_bins=8, max_source_positions=8)
    make("voxtral", t.VoxtralForConditionalGeneration,
         t.VoxtralConfig(text_config={**TINY, "model_type": "llama", "head_dim": 8, "rope_parameters": rope()},
                         audio_config={k: v for k, v in ear.items() if not k.startswith(("encoder", "d_model"))}, audio_token_id=3,
                         attn_implementation="eager"), [40], dtype=torch.float16)
    make("qwen2-audio", t.Qwen2AudioForConditionalGeneration,
         t.Qwen2AudioConfig(text_config={**TINY, "model_type": "qwen2", "rope_parameters": rope(1000000.0)},
                            audio_config={k: v for k, v in ear.items() if k.startswith(("encoder", "d_model", "num_mel", "max_source"))},
                            attn_implementation="eager"), [40], dtype=torch.float16)
    make("internvl", t.InternVLForConditionalGeneration,
         t.InternVLConfig(text_config=t.Qwen2Config(**TINY, rope_parameters=rope(1000000.0)), tie_word_embeddings=False,
                          vision_config=t.InternVLVisionConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
                                                               image_size=[8, 8], patch_size=[4, 4]), attn_implementation="eager"), [40],
         dtype=torch.float16)
    siglip = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=8, patch_size=4)
    for name, kind in (("idefics3", "Idefics3"), ("smolvlm", "SmolVLM")):
        make(name, getattr(t, kind + "ForConditionalGeneration"),
             getattr(t, kind + "Config")(text_config=a_llama, vision_config=siglip, attn_implementation="eager"), [40], dtype=torch.float16)
    make("glm4v", t.Glm4vForConditionalGeneration,
         t.Glm4vConfig(text_config={**TINY, "hidden_size": 48, "num_hidden_layers": 1,
                                    "rope_parameters": rope(10000.0, "default", partial_rotary_factor=0.5, mrope_section=[1, 1, 2])},
                       vision_config=dict(depth=1, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=48, patch_size=4,
                                          spatial_merge_size=1, temporal_patch_size=1, image_size=8), attn_implementation="eager"),
         [7, 48], dtype=torch.float16)

    growing = rope(1000000.0, "yarn", factor=4.0, original_max_position_embeddings=32, beta_fast=32.0, beta_slow=1.0, mscale=1.0,
                   mscale_all_dim=1.0, llama_4_scaling_beta=0.5)
    make("ministral3", t.Ministral3ForCausalLM,
         t.Ministral3Config(**TINY, head_dim=16, rope_parameters=growing, attn_implementation="eager"), [7, 48], [32])

    pixtral = t.PixtralVisionConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=8, patch_size=4,
                                    head_dim=8)
    make("mistral3", t.Mistral3ForConditionalGeneration,
         t.Mistral3Config(text_config=t.MistralConfig(**{**TINY, "rope_parameters": rope(1e9)}, head_dim=8, sliding_window=None),
                          vision_config=pixtral, tie_word_embeddings=False, attn_implementation="eager"), [7, 48], dtype=torch.float16)
    make("mistral3-ministral", t.Mistral3ForConditionalGeneration,
         t.Mistral3Config(text_config=t.Ministral3Config(**{**TINY, "tie_word_embeddings": True}, head_dim=16, rope_parameters=growing),
                          vision_config=pixtral, tie_word_embeddings=True, attn_implementation="eager"), [7, 48], [32], dtype=torch.float16)
