"""Makes golden-int8.json, golden-int8_dynamic.json and golden-int4_dynamic.json beside some of the checkpoints of tests/fixtures/models:
what the reference answers once every matrix was rounded to 8 bits, of the third those of the layers to 4; for the latter two, every row
that is multiplied with one too.

Run by hand, never by the tests, with the environment of make_model_golden.py, whose checkpoints it reads:
    VENV/bin/python tests/golden/make_int8_golden.py

The rounding is written here once more, in numpy: for each output row of each projection, of the embedding and of the head, the scale that
makes 127 of the row's largest magnitude, and the nearest code, ties to even; of 4 bits for each 32 inputs the scale that makes -8 of the
largest magnitude, and the nearest of -8..7. The reference computes in float32 with the products of codes
and scales. A row that is multiplied has the nearest codes under its own scale of that kind. Greedy steps whose margin is small are in the file too; who compares leaves them out.
"""

import itertools
import json
import pathlib

import numpy as np
import torch
import transformers
from model_golden import ROOT, greedy, log_probs

MODELS = ["llama-bias", "llama2-f16", "qwen3-bf16"]


def rounded(matrix):
    """The matrix [n, k] that the codes mean."""
    w = matrix.float().numpy()
    scale = (np.abs(w).max(axis=1, keepdims=True) / np.float32(127)).astype(np.float32)
    codes = np.clip(np.rint(w / scale), -127, 127)
    return torch.from_numpy((codes * scale).astype(np.float32))


def rounded_to_4_bits(matrix):
    w = matrix.float().numpy()
    result = np.empty_like(w)
    for begin in range(0, w.shape[1], 32):
        group = w[:, begin : begin + 32]
        least, most = group.min(axis=1, keepdims=True), np.abs(group).max(axis=1, keepdims=True)
        scale = (np.where(least == -most, most, -most) / np.float32(8)).astype(np.float32)
        result[:, begin : begin + 32] = np.clip(np.rint(group / scale), -8, 7) * scale
    return torch.from_numpy(result)


def round_rows(module, inputs):
    x = inputs[0]
    most = x.abs().amax(dim=-1, keepdim=True)
    return (torch.round(x * (127 / most)) * (most / 127), *inputs[1:])


def main():
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    for name, quantize in [*itertools.product(MODELS, ["int8"]), ("llama-bias", "int8_dynamic"), ("llama-bias", "int4_dynamic")]:
        folder = pathlib.Path(ROOT) / name
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        with torch.no_grad():
            for module in model.modules():
                tied = module is model.get_output_embeddings() and model.config.tie_word_embeddings
                if isinstance(module, (torch.nn.Linear, torch.nn.Embedding)) and not tied:
                    in_layers = isinstance(module, torch.nn.Linear) and module is not model.get_output_embeddings()
                    has_4_bits = in_layers and quantize == "int4_dynamic"
                    module.weight.copy_(rounded_to_4_bits(module.weight) if has_4_bits else rounded(module.weight))
        rounds_rows = quantize.endswith("dynamic")
        if rounds_rows:
            for module in model.modules():
                if isinstance(module, torch.nn.Linear):
                    module.register_forward_pre_hook(round_rows)
        plain = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
        cases = []
        # In the second case of the third a row has a number two millionths of a code from lying between two, which may fall to either.
        for case in plain["cases"][: 1 if quantize == "int4_dynamic" else None]:
            continuation, margins = greedy(model, case["prompt"])
            vectors = log_probs(model, case["prompt"] + continuation)
            cases.append({"prompt": case["prompt"], "greedy": continuation, "margins": [round(m, 5) for m in margins],
                          "positions": case["positions"],
                          "log_probs": [[round(x, 6) for x in vectors[p].tolist()] for p in case["positions"]]})
        reference = (f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}, float32, eager attention, "
                     + ("layers rounded to int4 by 32 inputs, embedding and head" if quantize == "int4_dynamic" else "matrices")
                     + " rounded to int8 by row" + (", and the rows multiplied with them" if rounds_rows else ""))
        golden = {"reference": reference, "seed": plain["seed"], "cases": cases}
        (folder / f"golden-{quantize}.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n", encoding="utf-8")
        smallest = min(min(c["margins"]) for c in cases)
        print(f"{name}, {quantize}: smallest margin {smallest:.4f}", flush=True)


if __name__ == "__main__":
    main()
