"""Trains Medusa heads (Cai et al. 2024, Medusa-1: the model stays as it is) or, with --hydra, Hydra heads (Ankner et al.
2024) for a demo model on the CPU.

A head k reads the model's last hidden row, behind the final norm, at position t, and says what stands at t + 2 + k: the
model itself says t + 1. A head of Hydra also reads the embeddings of the tokens at t + 1 .. t + 1 + k. Medusa's learn what the
model would draw there greedily, Hydra's its whole distribution, over the conversations that trained it. The folders have the
names of the published checkpoints, in safetensors, and their config.json:

 - medusa_lm_head: "k.0.linear" (x + SiLU(linear(x))) and "k.1" (the logits)
 - hydra_lm_head: "hydra_mlp.k.0.linear", "hydra_mlp.k.0.res_connection" (res_connection(x) + SiLU(linear(x)), x all of what the
   head reads side by side) and "hydra_lm_head.k" (the logits)

    python medusa.py ../serval-nano ../serval-nano-medusa
    python medusa.py ../serval-nano ../serval-nano-hydra --hydra --heads 3
"""

import argparse
import itertools
import json
import pathlib
import time

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoModelForCausalLM

from corpus import Rows, chat_pieces, copy_material, held_out_questions, load_books
from dialogues import Source, bare, dialogue, dialogues
from tools import tool_dialogues

HERE = pathlib.Path(__file__).resolve().parent


class Head(nn.Module):
    def __init__(self, lm_head):
        super().__init__()
        vocab, width = lm_head.shape
        self.linear = nn.Linear(width, width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.logits = nn.Linear(width, vocab, bias=False)
        self.logits.weight.data.copy_(lm_head)  # begins as the model's own

    def forward(self, x):
        return self.logits(x + nn.functional.silu(self.linear(x)))


class HydraHead(nn.Module):
    def __init__(self, number, lm_head):
        super().__init__()
        vocab, width = lm_head.shape
        self.linear = nn.Linear((number + 2) * width, width)
        self.res_connection = nn.Linear((number + 2) * width, width)
        for linear in (self.linear, self.res_connection):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        with torch.no_grad():
            self.res_connection.weight[:, :width] += torch.eye(width)
        self.logits = nn.Linear(width, vocab)
        self.logits.weight.data.copy_(lm_head)
        nn.init.zeros_(self.logits.bias)

    def forward(self, x):
        return self.logits(self.res_connection(x) + nn.functional.silu(self.linear(x)))


def names_of(heads, is_hydra):
    """For each head its tensors' names here, and the published ones."""
    for k, head in enumerate(heads):
        names = {}
        for name in head.state_dict():
            part, kind = name.split(".")
            if is_hydra:
                names[name] = f"hydra_lm_head.{k}.{kind}" if part == "logits" else f"hydra_mlp.{k}.0.{name}"
            else:
                names[name] = f"{k}.1.{kind}" if part == "logits" else f"{k}.0.{name}"
        yield names


def load_heads(heads, is_hydra, folder):
    stored = load_file(folder / f"{'hydra' if is_hydra else 'medusa'}_lm_head.safetensors")
    for head, names in zip(heads, names_of(heads, is_hydra)):
        head.load_state_dict({own: stored[name].float() for own, name in names.items()})


def save_heads(heads, is_hydra, model, folder):
    name = "hydra" if is_hydra else "medusa"
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        published: head.state_dict()[own].bfloat16().contiguous()
        for head, names in zip(heads, names_of(heads, is_hydra))
        for own, published in names.items()
    }
    save_file(tensors, folder / f"{name}_lm_head.safetensors", metadata={"format": "pt"})
    config = {f"{name}_num_heads": len(heads), f"{name}_num_layers": 1, "base_model_name_or_path": model.name}
    if is_hydra:
        config |= {"hydra_head_arch": "mlp", "grounded_heads": True, "hidden_state_offset": 0}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def conversations(data, tokenizer, count, seed):
    """Their tokens one after another, and where each begins; behind `count` of them an eighth as many that call functions."""
    banned = held_out_questions()
    words, lines = copy_material(load_books(data)[0])
    encode = lambda texts: [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
    told = tool_dialogues(Source(seed + 2, words, lines), count // 8, banned, bare, lambda r: dialogue(r, 1)[-2:])
    with_tools = (chat_pieces(messages, tools) for tools, messages in told)
    return Rows._pack(itertools.chain(map(chat_pieces, dialogues(seed, count, banned, None, words, lines)), with_tools), encode)


def batches(args, optimizer, ids, labels, starts, warm_up, fall, length=256, num_rows=8):
    """Until the steps or the minutes are over: how many steps are done, when it began, tokens and which of them are trained, each [num_rows, length].
    The rate rises over `warm_up` steps and falls over the last `fall` of the way."""
    random = np.random.default_rng(args.seed)
    begin, done = time.monotonic(), 0
    while done < args.steps and time.monotonic() - begin < 60 * args.minutes:
        share = max(done / args.steps, (time.monotonic() - begin) / (60 * args.minutes))
        for group in optimizer.param_groups:
            group["lr"] = args.rate * min(1, (done + 1) / warm_up) * min(1, (1 - share) / fall)
        at = starts[random.integers(np.searchsorted(starts, len(ids) - length - 1), size=num_rows)]
        batch = torch.from_numpy(np.stack([ids[a : a + length] for a in at]).astype(np.int64))
        done += 1
        yield done, begin, batch, torch.from_numpy(np.stack([labels[a : a + length] for a in at]) >= 0)


def report(done, begin, loss, right):
    if done % 20 == 0:
        print(done, f"{time.monotonic() - begin:.0f} s", f"{loss.item():.3f}", " ".join(f"{r:.2f}" for r in right), flush=True)


def argument_parser(description, steps, rate):
    """What each training of heads on conversations takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--again", type=pathlib.Path, help="a folder that this wrote before, to go on from")
    parser.add_argument("--data", type=pathlib.Path, default=HERE.parents[3] / "shared" / "data")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--dialogues", type=int, default=8000)
    parser.add_argument("--rate", type=float, default=rate)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=20)
    return parser


def begin_training(args):
    """The model, which is not trained, and the conversations: ids, labels and where each begins."""
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    model.requires_grad_(False)
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    return model, *conversations(args.data, tokenizer, args.dialogues, args.seed)


def main():
    parser = argument_parser(__doc__, steps=400, rate=2e-3)
    parser.add_argument("--hydra", action="store_true")
    parser.add_argument("--heads", type=int, default=4)
    args = parser.parse_args()
    model, ids, labels, starts = begin_training(args)
    lm_head, table = model.get_output_embeddings().weight.data, model.get_input_embeddings().weight.data
    heads = nn.ModuleList(HydraHead(k, lm_head) if args.hydra else Head(lm_head) for k in range(args.heads))
    if args.again:
        load_heads(heads, args.hydra, args.again)
    optimizer = torch.optim.AdamW(heads.parameters(), lr=args.rate, weight_decay=0)
    for done, begin, batch, trained in batches(args, optimizer, ids, labels, starts, warm_up=10, fall=0.5):
        with torch.no_grad():
            hidden = model.model(batch).last_hidden_state
            drawn = model.get_output_embeddings()(hidden)  # drawn[t] stands at t + 1
        loss, right = 0, []
        for k, head in enumerate(heads):
            keep, size = trained[:, 1 + k :], batch.shape[1] - 1 - k
            read = [hidden[:, :size][keep]]
            if args.hydra:
                read += [table[batch[:, 1 + i : 1 + i + size]][keep] for i in range(k + 1)]
            logits = head(torch.cat(read, dim=-1))
            wanted = drawn[:, 1 + k :][keep]
            best = wanted.argmax(-1)
            loss = loss + 0.8**k * nn.functional.cross_entropy(logits, wanted.softmax(-1) if args.hydra else best)
            right.append((logits.argmax(-1) == best).float().mean().item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        report(done, begin, loss, right)
    save_heads(heads, args.hydra, args.model, args.folder)


if __name__ == "__main__":
    main()
