"""Pads a demo model, its draft and its heads with zeros to a larger shape: the same function, so that guesses come true as
often, at the cost in bytes and time of a model of that size.

Everything that is added is zero, or read by nothing: rows and columns of the hidden size, heads in front of nothing, units of the
feed-forward part, layers that add nothing. A root mean square is then taken over more numbers, of which the new ones are zero:
the norm's weight is multiplied by sqrt(old / new hidden size), a power of two for the factors 4, 16, 64, and its epsilon by
old / new. Heads keep their dimension, which the rotation depends on, and their share of queries to keys. The vocabulary stays.

    python inflate.py serval-nano /tmp/nano-1b --factor 16 --intermediate 8192 --layers 10     # 1.0 G parameters
    python inflate.py serval-nano-eagle /tmp/nano-1b-eagle --factor 16 --intermediate 8192
"""

import argparse
import json
import math
import pathlib
import shutil

import torch
from safetensors.torch import load_file, save_file


def pad(tensor, shape):
    out = torch.zeros(shape, dtype=tensor.dtype)
    out[tuple(slice(0, n) for n in tensor.shape)] = tensor
    return out


def side_by_side(matrix, parts, factor):
    """Columns of so many rows beside each other, each padded."""
    return torch.cat([pad(part, (part.shape[0], part.shape[1] * factor)) for part in matrix.chunk(parts, dim=1)], dim=1)


def inflate(name, tensor, hidden, factor, intermediate):
    """One tensor, by its name."""
    part = name.removesuffix(".weight").removesuffix(".bias").split(".")[-1]
    if name in ("d2t", "t2d"):
        return tensor
    if part in ("q_norm", "k_norm") or name.startswith("hydra_lm_head") and tensor.dim() == 1:
        return tensor
    if tensor.dim() == 1:  # of the hidden size: a norm's weight, or a bias
        scale = 1 if name.endswith(".bias") else 1 / math.sqrt(factor)
        return pad(tensor * scale, (tensor.shape[0] * factor,))
    rows, columns = tensor.shape
    if part in ("embed_tokens", "lm_head") or name.startswith("hydra_lm_head") or name.split(".")[-2:] == ["1", "weight"]:
        return pad(tensor, (rows, columns * factor))  # a row a token
    if part in ("gate_proj", "up_proj"):
        return pad(tensor, (intermediate, columns * factor))
    if part == "down_proj":
        return pad(tensor, (rows * factor, intermediate))
    wide = side_by_side(tensor, columns // hidden, factor) if columns % hidden == 0 else pad(tensor, (rows, columns * factor))
    return pad(wide, (rows * factor, wide.shape[1]))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("inflated", type=pathlib.Path)
    parser.add_argument("--factor", type=int, default=16, help="of the hidden size and of the number of heads")
    parser.add_argument("--intermediate", type=int, default=8192)
    parser.add_argument("--layers", type=int, default=0, help="of a model: so many; 0: as many as it has")
    args = parser.parse_args()
    config = json.loads((args.folder / "config.json").read_text())
    args.inflated.mkdir(parents=True, exist_ok=True)
    for file in args.folder.iterdir():
        if file.name not in ("config.json", "README.md") and file.suffix != ".safetensors":
            shutil.copy(file, args.inflated / file.name)
    (weights,) = args.folder.glob("*.safetensors")
    tensors = load_file(weights)
    hidden = config.get("hidden_size") or next(t for name, t in tensors.items() if name.endswith("0.linear.bias")).shape[0]
    out = {name: inflate(name, t, hidden, args.factor, args.intermediate).contiguous() for name, t in tensors.items()}
    for layer in range(config.get("num_hidden_layers", 0), args.layers):
        for name in [n for n in out if n.startswith("model.layers.0.")]:
            copy = out[name].clone()
            if "o_proj" in name or "down_proj" in name:
                copy.zero_()
            out[name.replace("layers.0.", f"layers.{layer}.")] = copy
    save_file(out, args.inflated / weights.name, metadata={"format": "pt"})
    if "hidden_size" in config:
        config["hidden_size"] *= args.factor
        config["num_attention_heads"] *= args.factor
        config["num_key_value_heads"] *= args.factor
        config["intermediate_size"] = args.intermediate
        config["rms_norm_eps"] /= args.factor
        config["num_hidden_layers"] = max(config["num_hidden_layers"], args.layers)
    (args.inflated / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    print(args.inflated, sum(t.numel() for t in out.values()) / 1e6, "M numbers")


if __name__ == "__main__":
    main()
