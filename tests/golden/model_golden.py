"""How a small random checkpoint is made and what the reference answers on it; which there are is families/.

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
    stores_above_one = kind.startswith(("minimax_m3", "recurrent_gemma", "gemma", "nemotron", "qwen3_5", "qwen3_next", "muse")) and kind != "nemotron_h" and "gemma4" not in kind and "gemma3n" not in kind
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
            elif name.endswith("LayerNorm.weight") and kind in ("bert", "roberta", "xlm-roberta"):
                normal(p, 0.3, 1.0)
            elif name.endswith((".g_norm_swish_gate.weight", ".k_a", ".k_k")):
                normal(p, 0.3, 1.0)
            elif ".time_mix_" in name or ".x_" in name:
                p.copy_(torch.rand(p.shape, generator=generator))
            elif name.endswith((".ln1.weight", ".ln2.weight", ".pre_ln.weight", ".ln_out.weight")):
                normal(p, 0.3, 1.0)
            elif name.endswith(("time_decay", "w_lora.lora.2.bias")):
                normal(p, 1.5, -2.0)
            elif name.endswith(("router.scale", "per_expert_scale")):
                normal(p, 0.4, 1.0)
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
            if name.endswith(("e_score_correction_bias", "expert_bias")):
                normal(b, 0.2)
            elif name.endswith("tid2eid"):  # each token's experts, no two alike
                for row in b:
                    row.copy_(torch.randperm(model.config.n_routed_experts, generator=generator)[:len(row)])


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


def make_cases(model, lengths, thresholds, become):
    cases = []
    for i, length in enumerate(lengths):
        if become is not None:
            become(model, length + NUM_GREEDY)
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


def published(config, **fields):
    """A published configuration with its sizes shrunk, in place of what the saver wrote."""
    config.clear()
    config.update(fields)


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


def fresh_folder(name):
    """The golden's folder, empty; None where others were asked for."""
    if len(sys.argv) > 1 and name not in sys.argv[1:]:
        return None
    folder = ROOT / name
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.iterdir():
        stale.unlink()
    return folder


def make(name, model_class, config, lengths, thresholds=(), dtype=torch.float32, shard=None, edit=None, extra=None,
         rename=lambda name: name, remake=None, stack=False, become=None, reference=None):
    """become(model, length): before a prompt, what its whole sequence has in the end. reference: who answers, where it is another."""
    folder = fresh_folder(name)
    if folder is None:
        return
    for seed in range(1, 200):
        model = model_class(config).eval()
        randomise(model, seed)
        with torch.no_grad():
            scalars = [b for n, b in model.named_buffers() if n.endswith(("layer_scalar", "_bias"))]
            for p in [*model.parameters(), *scalars]:  # the values the checkpoint can hold; not model.to(), which would round the rotation too
                p.copy_(p.to(dtype))
        cases = make_cases(model, lengths, thresholds, become)
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
    reference = reference or f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}, float32, {model.config._attn_implementation} attention"
    golden = {"reference": reference, "seed": seed, "cases": cases}
    (folder / "golden.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n", encoding="utf-8")
    for path in folder.iterdir():
        path.chmod(0o644)
    size = sum(p.stat().st_size for p in folder.iterdir())
    margin = min(min(c["margins"]) for c in cases)
    print(f"{name}: seed {seed}, smallest margin {margin:.4f}, {size} bytes", flush=True)
