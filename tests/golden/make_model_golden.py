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
    tied = getattr(model.config, "tie_word_embeddings", False)
    kind = model.config.model_type
    stores_above_one = kind.startswith(("gemma", "nemotron", "qwen3_5", "qwen3_next", "muse")) and kind != "nemotron_h" and "gemma4" not in kind
    has_transposed = kind in ("gpt2", "openai-gpt")

    def normal(p, std, mean=0.0):
        p.copy_(torch.randn(p.shape, generator=generator) * std + mean)

    with torch.no_grad():
        for name, p in sorted(model.named_buffers()):
            if name.endswith("layer_scalar"):
                normal(p, 0.2, 0.8)
        for name, p in sorted(model.named_parameters()):
            if name.endswith("A_log"):  # states that last from a token to a hundred
                normal(p, 1.5, -2.0)
            elif name.endswith(("norm.weight", "layernorm.weight", "norm_f.weight", "norm_1.weight", "norm_2.weight", ".D")) or ".ln_" in name and name.endswith(".weight"):
                normal(p, 0.3, 0.0 if stores_above_one and not name.endswith("linear_attn.norm.weight") else 1.0)
            elif name.endswith(".bias") or p.dim() < 2:
                normal(p, 0.5)
            elif ".wpe." in name:
                normal(p, 0.3)
            elif ".c_" in name and has_transposed:  # as [in, out]
                normal(p, (1.3 if "c_attn" in name else 1.2) / math.sqrt(p.shape[0]))
            elif p.dim() == 3:  # a convolution
                normal(p, 0.6)
            elif "embed" in name or ".wte." in name:
                normal(p, 2.5 / math.sqrt(p.shape[1]) if tied else 1.0)
            elif "lm_head" in name:
                normal(p, 3.0 / math.sqrt(p.shape[1]))
            elif "q_proj" in name or "k_proj" in name:
                normal(p, 1.3 / math.sqrt(p.shape[1]))
            else:
                normal(p, 1.2 / math.sqrt(p.shape[-1]))
        for name, b in sorted(model.named_buffers()):
            if name.endswith("e_score_correction_bias"):
                normal(b, 0.2)


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


def published_experts(count):
    """The older spelling, with the published name of how many experts there are."""
    def edit(config):
        old_spelling(config)
        config[count] = config.pop("num_local_experts", config.get(count))
    return edit


def stacked(tensors):
    """The matrices of all experts of a layer as one tensor, gate and up in one."""
    experts = {}
    for name in [n for n in tensors if ".mlp.experts." in n]:
        layer, rest = name.split(".mlp.experts.")
        index, part, _ = rest.split(".")
        experts.setdefault(layer, {}).setdefault(part, {})[int(index)] = tensors.pop(name)
    for layer, parts in experts.items():
        gate, up, down = ([parts[p][e] for e in sorted(parts[p])] for p in ("gate_proj", "up_proj", "down_proj"))
        tensors[f"{layer}.mlp.experts.gate_up_proj"] = torch.stack([torch.cat(pair) for pair in zip(gate, up)])
        tensors[f"{layer}.mlp.experts.down_proj"] = torch.stack(down)
    return tensors


def make(name, model_class, config, lengths, thresholds=(), dtype=torch.float32, shard=None, edit=None, extra=None,
         rename=lambda name: name, remake=None, stack=False):
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
            scalars = [b for n, b in model.named_buffers() if n.endswith("layer_scalar")]
            for p in [*model.parameters(), *scalars]:  # the values the checkpoint can hold; not model.to(), which would round the rotation too
                p.copy_(p.to(dtype))
        cases = make_cases(model, lengths, thresholds)
        if cases is not None:
            break
    else:
        raise SystemExit(f"{name}: no seed keeps its margins")

    model.to(dtype).save_pretrained(folder, **({"max_shard_size": shard} if shard else {}))
    path = folder / "model.safetensors"
    if remake is not None:
        save_file({n: p.contiguous() for n, p in remake(load_file(path)).items()}, path, metadata={"format": "pt"})
    if extra is not None:
        save_file({**{rename(n): p for n, p in load_file(path).items()}, **extra}, path, metadata={"format": "pt"})
    if stack:
        path = folder / "model.safetensors"
        save_file(stacked(load_file(path)), path, metadata={"format": "pt"})
    config_path = folder / "config.json"
    written = json.loads(config_path.read_text(encoding="utf-8"))
    if edit is not None:
        edit(written)
    write_json(config_path, written)
    (folder / "generation_config.json").unlink(missing_ok=True)
    reference = f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}, float32, {model.config._attn_implementation} attention"
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

    # Published configurations with their sizes shrunk.
    def published(config, **fields):
        config.clear()
        config.update(fields)

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

    internlm = dict(bias=False, bos_token_id=1, eos_token_id=2, hidden_act="silu", hidden_size=32, initializer_range=0.02, intermediate_size=40,
                    max_position_embeddings=256, num_attention_heads=4, num_hidden_layers=2, num_key_value_heads=2, pad_token_id=2, rms_norm_eps=1e-5,
                    tie_word_embeddings=False, vocab_size=VOCAB)
    internlm_frame = {"model.embed_tokens.weight": "model.tok_embeddings.weight", "model.norm.weight": "model.norm.weight", "lm_head.weight": "output.weight"}
    internlm_modules = {"": "model.layers", "qkv": "attention.wqkv", "self_attn.o_proj": "attention.wo", "mlp.gate_proj": "feed_forward.w1",
                        "mlp.up_proj": "feed_forward.w3", "mlp.down_proj": "feed_forward.w2", "input_layernorm": "attention_norm",
                        "post_attention_layernorm": "ffn_norm"}
    by_kv_head = lambda q, k, v: torch.cat([q.reshape(2, 2, 8, 32), k.reshape(2, 1, 8, 32), v.reshape(2, 1, 8, 32)], dim=1).reshape(-1, 32)
    make("internlm2-bf16", t.LlamaForCausalLM,
         t.LlamaConfig(**{k: v for k, v in internlm.items() if k != "bias"}, rope_parameters=rope(1000000.0), attn_implementation="eager"), [10, 48],
         dtype=torch.bfloat16, remake=lambda tensors: renamed(tensors, internlm_frame, internlm_modules, by_kv_head),
         edit=lambda config: published(config, **internlm, architectures=["InternLM2ForCausalLM"], attn_implementation="eager",
                                       auto_map={"AutoConfig": "configuration_internlm2.InternLM2Config", "AutoModel": "modeling_internlm2.InternLM2ForCausalLM"},
                                       model_type="internlm2", pretraining_tp=1, rope_scaling={"type": "dynamic", "factor": 2.0}, rope_theta=1000000,
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
    make("lfm2-bf16", t.Lfm2ForCausalLM,
         t.Lfm2Config(**{**lfm2, "num_hidden_layers": 4}, layer_types=["conv", "conv", "full_attention", "conv"], conv_bias=True, conv_L_cache=4,
                      block_auto_adjust_ff_dim=False, tie_word_embeddings=False, rope_parameters=rope(1000000.0)), [40], dtype=torch.bfloat16)

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

    jamba = dict(SMALL, hidden_size=24, intermediate_size=24, num_attention_heads=3, num_key_value_heads=1, pad_token_id=0,
                 attn_implementation="eager")
    make("jamba", t.JambaForCausalLM,
         t.JambaConfig(**{**jamba, "num_hidden_layers": 2}, num_experts=1, attn_layer_period=2, attn_layer_offset=1, mamba_d_state=8, mamba_d_conv=3, mamba_dt_rank=5,
                       mamba_proj_bias=True), [5, 70])


if __name__ == "__main__":
    main()
