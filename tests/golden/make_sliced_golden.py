"""Makes golden-sliced.json beside a checkpoint of tests/fixtures/models: what the smaller model answers that is cut out of it.

Run by hand, never by the tests, with the environment of make_model_golden.py, whose checkpoint it reads:
    VENV/bin/python tests/golden/make_sliced_golden.py

The cut is that of Gemma 3n's MatFormer Lab: whole layers are left out, with what the model has for each layer beside them, and of the
feed-forward parts' neurons the first stay. The layers that stay keep their kinds and what they cut off their gates.
"""

import json
import pathlib

import torch
import transformers
from model_golden import MIN_MARGIN, ROOT, greedy, log_probs, make_prompt

NAME = "gemma3n"
SKIPPED, WIDTHS = [2], [16, 20, 24]


def cut_model(whole):
    config = whole.config.__class__(**whole.config.to_dict())
    num_layers = config.num_hidden_layers
    kept = [l for l in range(num_layers) if l not in SKIPPED]
    config.num_hidden_layers, config.intermediate_size = len(kept), WIDTHS
    config.num_kv_shared_layers -= len(SKIPPED)  # each of them reads the keys of another
    config.layer_types = [config.layer_types[l] for l in kept]
    config.activation_sparsity_pattern = [config.activation_sparsity_pattern[l] for l in kept]
    tensors = {}
    for name, p in whole.state_dict().items():
        if ".layers." in name:
            before, rest = name.split(".layers.")
            layer, module = rest.split(".", 1)
            if int(layer) in SKIPPED:
                continue
            place = kept.index(int(layer))
            name, width = f"{before}.layers.{place}.{module}", WIDTHS[place]
            p = p[:width] if module in ("mlp.gate_proj.weight", "mlp.up_proj.weight") else p[:, :width] if module == "mlp.down_proj.weight" else p
        elif "per_layer_model_projection" in name:
            p = p.reshape(num_layers, -1, p.shape[1])[kept].reshape(-1, p.shape[1])
        elif "embed_tokens_per_layer" in name:
            p = p.reshape(p.shape[0], num_layers, -1)[:, kept].reshape(p.shape[0], -1)
        tensors[name] = p
    config._attn_implementation = "eager"
    model = whole.__class__(config).eval()
    model.load_state_dict(tensors)
    return model


def main():
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    folder = pathlib.Path(ROOT) / NAME
    model = cut_model(transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval())
    plain = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    cases = []
    for case in plain["cases"]:
        for seed in range(2000, 2200):  # whose steps are not too close for a comparison
            prompt = make_prompt(seed, len(case["prompt"]))
            continuation, margins = greedy(model, prompt)
            if min(margins) >= MIN_MARGIN:
                break
        else:
            raise SystemExit("no prompt keeps its margins")
        vectors = log_probs(model, prompt + continuation)
        cases.append({"prompt": prompt, "greedy": continuation, "margins": [round(m, 5) for m in margins], "positions": case["positions"],
                      "log_probs": [[round(x, 6) for x in vectors[p].tolist()] for p in case["positions"]]})
    reference = f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}, float32, eager attention, of the checkpoint that was cut"
    golden = {"reference": reference, "seed": plain["seed"], "cases": cases}
    (folder / "golden-sliced.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"smallest margin {min(min(c['margins']) for c in cases):.4f}", flush=True)


if __name__ == "__main__":
    main()
