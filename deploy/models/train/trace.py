"""Trains Medusa heads on what a server computed for its requests (speculation_trace): the same heads and the same loop as
medusa.py, but the hidden rows come from the file instead of the model, of which the output head alone is read. So heads learn the
texts that a server really writes (online speculative decoding: Liu et al. 2023), and the model need not run for it.

    serval --model ../serval-nano --speculation-trace /tmp/trace ...      # serve for a while
    python trace.py ../serval-nano /tmp/trace /tmp/medusa
"""

import argparse
import pathlib

import numpy as np
import torch
from safetensors import safe_open
from torch import nn

from medusa import Head, batches, report, save_heads

HEAD = np.dtype([("magic", "S8"), ("hidden", "<u4"), ("type", "<u4")])


def read_trace(path):
    """Of each sequence its tokens and the rows that were computed of them, as far as they follow each other."""
    data = np.memmap(path, dtype=np.uint8, mode="r")
    head = data[: HEAD.itemsize].view(HEAD)[0]
    if head["magic"] != b"svtrace1":
        raise SystemExit(f"{path} is not a trace of hidden rows")
    row_bytes = int(head["hidden"]) * (2 if head["type"] == 1 else 4)
    rows, at = {}, HEAD.itemsize
    while at + 16 <= len(data):
        sequence, (position, count) = int(data[at : at + 8].view("<u8")[0]), data[at + 8 : at + 16].view("<i4").tolist()
        tokens_at, rows_at = at + 16, at + 16 + 4 * (count + 1)
        at = rows_at + count * row_bytes
        if at > len(data):
            break  # the server was stopped while it wrote
        for i in range(count):
            token = int(data[tokens_at + 4 * i : tokens_at + 4 * i + 4].view("<i4")[0])
            rows.setdefault(sequence, {})[position + i] = (token, rows_at + i * row_bytes)
    for places in rows.values():
        run = []
        for position in sorted(places):
            if run and run[-1][0] + 1 != position:
                yield from whole(run, data, row_bytes, head)
                run = []
            run.append((position, *places[position]))
        yield from whole(run, data, row_bytes, head)


def whole(run, data, row_bytes, head):
    rows = np.stack([data[at : at + row_bytes] for _, _, at in run])
    if head["type"] == 1:
        hidden = torch.from_numpy(rows.view("<i2").copy()).view(torch.bfloat16).float()
    else:
        hidden = torch.from_numpy(rows.view("<f4").copy())
    yield [token for _, token, _ in run], hidden


def output_head(folder):
    names = ("lm_head.weight", "model.embed_tokens.weight")
    for name in names:
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                if name in file.keys():
                    return file.get_tensor(name).float()
    raise SystemExit(f"{folder} has neither of {', '.join(names)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("trace", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=20)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    lm_head = output_head(args.model)
    texts = [text for text in read_trace(args.trace) if len(text[0]) > args.heads + 1]
    hidden = torch.cat([rows for _, rows in texts])
    # What is drawn is the model's best, as where medusa.py runs it: the row of t says what stands at t + 1.
    labels = np.concatenate([np.r_[np.full(args.heads + 1, -1), np.zeros(len(tokens) - args.heads - 1)] for tokens, _ in texts])
    starts = np.cumsum([0, *(len(tokens) for tokens, _ in texts)])[:-1]
    print(len(texts), "texts,", len(hidden), "rows", flush=True)
    heads = nn.ModuleList(Head(lm_head) for _ in range(args.heads))
    optimizer = torch.optim.AdamW(heads.parameters(), lr=args.rate, weight_decay=0)
    # The loop is of places; the rows that stand there are looked up.
    for done, begin, places, trained in batches(args, optimizer, np.arange(len(hidden)), labels, starts, warm_up=10, fall=0.5, length=args.length):
        read = hidden[places]
        drawn = (read @ lm_head.T).argmax(-1)
        loss, right = 0, []
        for k, head in enumerate(heads):
            keep, wanted = trained[:, 1 + k :], drawn[:, 1 + k :]
            logits = head(read[:, : places.shape[1] - 1 - k][keep])
            loss = loss + 0.8**k * nn.functional.cross_entropy(logits, wanted[keep])
            right.append((logits.argmax(-1) == wanted[keep]).float().mean().item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        report(done, begin, loss, right)
    save_heads(heads, False, args.model, args.folder)


if __name__ == "__main__":
    main()
