"""Makes tests/fixtures/models: small random checkpoints of every supported architecture and what the reference answers on them.

Run by hand, never by the tests:
    python3 -m venv VENV && VENV/bin/pip install torch==2.11.0 transformers==5.23.0
    VENV/bin/python tests/golden/make_model_golden.py [NAME...]

Weights are drawn wider than an initialisation would, so that logits have real margins and every feature (a bias, a window, a norm)
moves them by far more than the tolerance. Prompts cross each threshold: the window, the original context of a scaled rotation.
The reference computes in float32 whatever the checkpoint stores. A golden.json beside each checkpoint holds, per prompt:
the greedy continuation, the margin of each of its steps, and the full log-probability vectors at chosen positions.
"""

import json
import math
import pathlib
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file

ROOT = pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "models"
NUM_GREEDY = 64
MIN_MARGIN = 0.01  # of every greedy step: a seed whose steps are closer than this is passed over
VOCAB = 96

SMALL = dict(vocab_size=VOCAB, hidden_size=32, intermediate_size=56, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=256, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2)
# As small as a checkpoint can be and still tell features apart.
TINY = dict(SMALL, hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1)


def rope(theta=10000.0, rope_type="default", **more):
    return {"rope_theta": theta, "rope_type": rope_type, **more}


def randomise(model, seed):
    """Fresh weights: matrices scaled by fan-in, norms around one, biases that matter. Names decide, in a fixed order."""
    generator = torch.Generator().manual_seed(seed)
    tied = model.config.tie_word_embeddings
    is_gemma = model.config.model_type.startswith("gemma")  # stores what is above 1

    def normal(p, std, mean=0.0):
        p.copy_(torch.randn(p.shape, generator=generator) * std + mean)

    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            if name.endswith(("norm.weight", "layernorm.weight", "norm_f.weight", "mixer.D")) or ".ln_" in name and name.endswith(".weight"):
                normal(p, 0.3, 0.0 if is_gemma else 1.0)
            elif name.endswith(".bias") or p.dim() < 2:
                normal(p, 0.5)
            elif ".wpe." in name:
                normal(p, 0.3)
            elif ".c_" in name:  # stored as [in, out]
                normal(p, (1.3 if "c_attn" in name else 1.2) / math.sqrt(p.shape[0]))
            elif name.endswith("A_log"):  # states that last from a token to a hundred
                normal(p, 1.5, -2.0)
            elif "conv1d" in name:
                normal(p, 0.6)
            elif "embed" in name or ".wte." in name:
                normal(p, 2.5 / math.sqrt(p.shape[1]) if tied else 1.0)
            elif "lm_head" in name:
                normal(p, 3.0 / math.sqrt(p.shape[1]))
            elif "q_proj" in name or "k_proj" in name:
                normal(p, 1.3 / math.sqrt(p.shape[1]))
            else:
                normal(p, 1.2 / math.sqrt(p.shape[-1]))


@torch.no_grad()
def log_probs(model, ids):
    logits = model(torch.tensor([ids]), use_cache=False).logits[0].double()
    return torch.log_softmax(logits, dim=-1)


def greedy(model, prompt):
    ids, margins = list(prompt), []
    for _ in range(NUM_GREEDY):
        top = log_probs(model, ids)[-1].topk(2)
        margins.append((top.values[0] - top.values[1]).item())
        ids.append(top.indices[0].item())
    return ids[len(prompt):], margins


def make_prompt(seed, length):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCAB, (length,), generator=generator).tolist()


def make_cases(model, lengths, thresholds):
    cases = []
    for i, length in enumerate(lengths):
        prompt = make_prompt(1000 + i, length)
        continuation, margins = greedy(model, prompt)
        if min(margins) < MIN_MARGIN:
            return None
        all_ids = prompt + continuation
        vectors = log_probs(model, all_ids)
        near = {0, length - 1, len(all_ids) - 1} | set(range(7, len(all_ids), 16))
        for t in thresholds:
            near |= {t - 1, t, t + 1, t + 9}
        positions = sorted(p for p in near if 0 <= p < len(all_ids))
        cases.append({"prompt": prompt, "greedy": continuation, "margins": [round(m, 5) for m in margins],
                      "positions": positions,
                      "log_probs": [[round(x, 6) for x in vectors[p].tolist()] for p in positions]})
    return cases


def write_json(path, value, indent=2):
    path.write_text(json.dumps(value, indent=indent) + "\n", encoding="utf-8")


def old_spelling(config):
    """config.json as exporters wrote it before rope_parameters and dtype."""
    rope_parameters = config.pop("rope_parameters")
    config["torch_dtype"] = config.pop("dtype")
    config["rope_theta"] = rope_parameters.pop("rope_theta")
    kind = rope_parameters.pop("rope_type")
    config["rope_scaling"] = None if kind == "default" else {"type": kind, **rope_parameters}


def make(name, model_class, config, lengths, thresholds=(), dtype=torch.float32, shard=None, edit=None, extra=None,
         rename=lambda name: name):
    if len(sys.argv) > 1 and name not in sys.argv[1:]:
        return
    folder = ROOT / name
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.iterdir():
        stale.unlink()
    for seed in range(1, 200):
        model = model_class(config).eval()
        randomise(model, seed)
        with torch.no_grad():
            for p in model.parameters():  # the values the checkpoint can hold; not model.to(), which would round the rotation too
                p.copy_(p.to(dtype))
        cases = make_cases(model, lengths, thresholds)
        if cases is not None:
            break
    else:
        raise SystemExit(f"{name}: no seed keeps its margins")

    model.to(dtype).save_pretrained(folder, **({"max_shard_size": shard} if shard else {}))
    if extra is not None:
        path = folder / "model.safetensors"
        save_file({**{rename(n): p for n, p in load_file(path).items()}, **extra}, path, metadata={"format": "pt"})
    config_path = folder / "config.json"
    written = json.loads(config_path.read_text(encoding="utf-8"))
    if edit is not None:
        edit(written)
    write_json(config_path, written)
    (folder / "generation_config.json").unlink(missing_ok=True)
    reference = f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}, float32, eager attention"
    golden = {"reference": reference, "seed": seed, "cases": cases}
    (folder / "golden.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n", encoding="utf-8")
    for path in folder.iterdir():
        path.chmod(0o644)
    size = sum(p.stat().st_size for p in folder.iterdir())
    margin = min(min(c["margins"]) for c in cases)
    print(f"{name}: seed {seed}, smallest margin {margin:.4f}, {size} bytes", flush=True)


def main():
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    t = transformers

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

    make("mistral", t.MistralForCausalLM,
         t.MistralConfig(**SMALL, sliding_window=16, rope_parameters=rope(), attn_implementation="eager"), [10, 48], [16])

    # The saver writes the published layout: an expert's matrices one by one, in block_sparse_moe.
    mixtral = dict(SMALL, hidden_size=24, intermediate_size=20, num_attention_heads=3, num_key_value_heads=1, num_hidden_layers=2,
                   num_local_experts=5, num_experts_per_tok=2, attn_implementation="eager")
    make("mixtral", t.MixtralForCausalLM, t.MixtralConfig(**mixtral, rope_parameters=rope(1000000.0)), [10, 48], edit=old_spelling)
    # In lower precision a close choice of experts may fall out differently: here all are chosen.
    make("mixtral-bf16", t.MixtralForCausalLM,
         t.MixtralConfig(**{**mixtral, "num_local_experts": 2, "hidden_size": 32, "num_attention_heads": 4,
                            "num_key_value_heads": 2}, sliding_window=16, rope_parameters=rope()), [40], [16], dtype=torch.bfloat16)

    gpt2 = dict(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=160, bos_token_id=1, eos_token_id=2, attn_implementation="eager")
    make("gpt2", t.GPT2LMHeadModel, t.GPT2Config(**gpt2, n_inner=40), [10, 48])

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

    # Scores and logits are capped.
    gemma2 = dict(SMALL, num_attention_heads=2, num_key_value_heads=1, head_dim=16, intermediate_size=40, query_pre_attn_scalar=4,
                  sliding_window=16, attn_implementation="eager", rope_parameters=rope(), attn_logit_softcapping=2.0, final_logit_softcapping=4.0)
    make("gemma2-bf16", t.Gemma2ForCausalLM, t.Gemma2Config(**gemma2), [12, 48], [16], dtype=torch.bfloat16, edit=old_spelling)

    # Fused projections; half of a head rotates, stretched by factors that hold up to the original context.
    def longrope_as_published(config):
        ropes = config.pop("rope_parameters")
        config["torch_dtype"] = config.pop("dtype")
        config["rope_theta"] = ropes["rope_theta"]
        config["partial_rotary_factor"] = ropes["partial_rotary_factor"]
        config["rope_scaling"] = {"type": "longrope", "short_factor": ropes["short_factor"], "long_factor": ropes["long_factor"]}

    phi3 = dict(SMALL, num_attention_heads=2, num_key_value_heads=1, intermediate_size=32, attn_implementation="eager", pad_token_id=0)
    longrope = rope(100.0, "longrope", partial_rotary_factor=0.5, short_factor=[1.0, 1.5, 3.0, 5.0], long_factor=[2.0, 4.0, 8.0, 16.0],
                    original_max_position_embeddings=160)
    make("phi3", t.Phi3ForCausalLM,
         t.Phi3Config(**{**phi3, "max_position_embeddings": 512}, original_max_position_embeddings=160, rope_parameters=longrope), [7, 48],
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
    make("olmo", t.OlmoForCausalLM, t.OlmoConfig(**without_eps, rope_parameters=rope(), attn_implementation="eager"), [7, 40], edit=old_spelling)
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
    # A snapshot of the state stands at every 64th position where blocks have four.
    mamba = dict(vocab_size=VOCAB, hidden_size=32, state_size=16, conv_kernel=4, expand=2, time_step_rank=8, bos_token_id=1,
                 eos_token_id=2, pad_token_id=0)
    make("mamba", t.MambaForCausalLM, t.MambaConfig(**mamba, num_hidden_layers=2), [5, 70])
    make("mamba-f16", t.MambaForCausalLM,
         t.MambaConfig(**mamba, num_hidden_layers=3, use_bias=True, use_conv_bias=False, tie_word_embeddings=False), [12, 40],
         dtype=torch.float16)


if __name__ == "__main__":
    main()
