"""Trains Serval's demo model or its draft on the CPU: corpus, tokenizer, training loop, export.

    python train.py nano --work DIR                    train, or resume from DIR, and export to ../serval-nano
    python train.py nano --work DIR2 --again ../serval-nano --steps 300    a second, shorter stage from an exported folder
    python train.py nano --work DIR3 --again ../serval-nano --tools --steps 2300 --dialogues 60000    a third, in which it learns to call tools
    python train.py draft --work DIR --steps 600 --decay 0.3    the sibling
    python train.py draft --work DIR2 --again ../serval-nano-draft --teacher ../serval-nano --tools --steps 800    and its distillation

The schedule is warm-up, constant, linear decay. While the rate is constant a checkpoint does not depend on --steps, so
a short branch (copy DIR, smaller --steps) gives an early usable model.
"""

import argparse
import math
import pathlib
import time

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from answers import answers
from corpus import DISTIL_MIX, IGNORE, SPECIAL, VOCAB_SIZE, Rows, copy_material, held_out_questions, load_books, load_sums, train_tokenizer
from dialogues import dialogues
from export import export

HERE = pathlib.Path(__file__).resolve().parent
SEED = 20
WARMUP_STEPS = 60
AGAIN_RATE = 0.4  # of a second stage: it starts at this part of the full rate and falls from there
PROSE_STEPS = {"nano": 900, "draft": 0}
LONG_FROM = 0.95  # the part of training after which rows are as long as the context

SHAPES = {
    "nano": dict(hidden_size=192, num_hidden_layers=7, num_attention_heads=6, num_key_value_heads=2, head_dim=32,
                 intermediate_size=512),
    "draft": dict(hidden_size=64, num_hidden_layers=4, num_attention_heads=2, num_key_value_heads=1, head_dim=32,
                  intermediate_size=192),
}


def new_model(name):
    torch.manual_seed(SEED)
    config = Qwen3Config(vocab_size=VOCAB_SIZE, max_position_embeddings=2048, tie_word_embeddings=True,
                         rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, attention_bias=False,
                         use_sliding_window=False, attn_implementation="sdpa", **SHAPES[name])
    return Qwen3ForCausalLM(config)


def get_tokenizer(data, work, banned):
    path = work / "tokenizer.json"
    if not path.exists():
        books, _ = load_books(data)
        sums, _ = load_sums(data)
        words, lines = copy_material(books)
        chat = [m["content"] for d in dialogues(SEED + 2, 20000, banned, None, words, lines) for m in d]
        train_tokenizer([*books, *(t for pair in sums for t in pair), *chat]).save(str(path))
    return Tokenizer.from_file(str(path))


def new_optimizers(model):
    """Muon for the matrices, AdamW for embeddings and norms."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [torch.optim.Muon(matrices, lr=0.02, momentum=0.95, weight_decay=0.02),
            torch.optim.AdamW(others, lr=0.004, betas=(0.9, 0.95), weight_decay=0.0)]


def rate(step, steps, decay, highest):
    """The learning rate's factor: warm-up, constant, then linear to a twentieth."""
    left = (steps - step) / max(1, int(steps * decay))
    return highest * min(1.0, (step + 1) / WARMUP_STEPS, max(0.05, left))


def own_documents(docs):
    """The attention mask [rows, 1, length, length] by which a token sees those of its own document, up to itself."""
    same = docs[:, None, :, None] == docs[:, None, None, :]
    return same & torch.ones_like(same[0, 0]).tril()


def cross_entropy(model):
    """Of a batch: its mean over the labelled tokens."""
    def loss(ids, labels, docs):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(input_ids=ids, attention_mask=own_documents(docs), use_cache=False).logits.float()
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE)
    return torch.compile(loss, dynamic=False)


def distance(model, teacher):
    """Of a batch: the mean KL(teacher || model) over the labelled tokens (the forward KL of DistillSpec, Zhou et al. 2023)."""
    def log_shares(of, ids, labels, docs):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rows = of.model(input_ids=ids, attention_mask=own_documents(docs), use_cache=False).last_hidden_state
            return of.lm_head(rows[labels != IGNORE]).float().log_softmax(-1)

    def loss(*batch):
        with torch.no_grad():
            wanted = log_shares(teacher, *batch)
        return F.kl_div(log_shares(model, *batch), wanted, reduction="batchmean", log_target=True)
    return loss


def train(args, model, loss_of, rows, checkpoint):
    optimizers = new_optimizers(model)
    rates = [[g["lr"] for g in o.param_groups] for o in optimizers]
    step, seconds = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        step, seconds = state["step"], state["seconds"]
        print(f"resumed at step {step}", flush=True)
    mean, started = None, time.time()
    while step < args.steps:
        factor = rate(step, args.steps, args.decay, AGAIN_RATE if args.again else 1.0)
        for optimizer, base in zip(optimizers, rates):
            for group, lr in zip(optimizer.param_groups, base):
                group["lr"] = lr * factor
        length = args.length
        if step >= LONG_FROM * args.steps:
            length = model.config.max_position_embeddings
        ids, labels, docs = (torch.from_numpy(a) for a in rows.batch(step, args.batch_tokens // length, length))
        loss = loss_of(ids[:, :-1].contiguous(), labels[:, 1:].contiguous(), docs[:, :-1].contiguous())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        step += 1
        mean = loss.item() if mean is None else 0.95 * mean + 0.05 * loss.item()
        if not math.isfinite(mean):
            raise SystemExit(f"loss is {mean} at step {step}")
        if step % 20 == 0 or step == args.steps:
            now = time.time()
            seconds += now - started
            started = now
            print(f"step {step} length {length} rate {factor:.2f} loss {mean:.3f} tokens {step * args.batch_tokens} "
                  f"seconds {seconds:.0f}", flush=True)
        if step % 50 == 0 or step == args.steps:
            state = {"model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers],
                     "step": step, "seconds": seconds}
            torch.save(state, checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").rename(checkpoint)  # never half a checkpoint


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=SHAPES)
    parser.add_argument("--data", type=pathlib.Path, default=HERE / "../../../../shared/data", help="folder of corpus-*")
    parser.add_argument("--work", type=pathlib.Path, required=True, help="folder for token cache and checkpoints")
    parser.add_argument("--out", type=pathlib.Path, help="model folder to write")
    parser.add_argument("--again", type=pathlib.Path, help="exported model to go on from, with other data and a falling rate")
    parser.add_argument("--tools", action="store_true", help="with conversations that call tools")
    parser.add_argument("--teacher", type=pathlib.Path, help="exported model whose answers and distributions a draft learns")
    parser.add_argument("--answers", type=int, default=6000, help="that the teacher gives")
    parser.add_argument("--steps", type=int, default=1900)
    parser.add_argument("--decay", type=float, default=0.135, help="the last part of training, over which the rate falls")
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--dialogues", type=int, default=120000)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)

    banned = held_out_questions()
    if args.again:
        args.decay = 1.0
    tokenizer = Tokenizer.from_file(str(args.again / "tokenizer.json")) if args.again else get_tokenizer(args.data, args.work, banned)
    assert [tokenizer.token_to_id(t) for t in SPECIAL] == [0, 1, 2]
    seed, prose_steps = (SEED + (30 if args.tools else 10), 0) if args.again else (SEED, PROSE_STEPS[args.model])
    rows = Rows(args.data, tokenizer, banned, args.dialogues, seed, prose_steps, args.work / "tokens.npz", args.tools)
    model = new_model(args.model)
    if args.again:
        model.load_state_dict(AutoModelForCausalLM.from_pretrained(args.again, dtype=torch.float32).state_dict())
    print(f"{args.model}: {sum(p.numel() for p in model.parameters())} parameters; tokens: books {len(rows.books)}, "
          + ", ".join(f"{n} {len(d[0])}" for n, d in rows.docs.items()), flush=True)
    teacher = None
    if args.teacher:
        teacher = AutoModelForCausalLM.from_pretrained(args.teacher, dtype=torch.float32).eval()
        cache = args.work / "answers.npz"
        if not cache.exists():
            np.savez(cache, *answers(teacher, rows, args.answers, seed))
        rows.docs["answers"], rows.mix = tuple(np.load(cache).values()), DISTIL_MIX
    train(args, model, distance(model, teacher) if teacher else cross_entropy(model), rows, args.work / f"{args.model}.pt")
    folder = args.out or HERE.parent / ("serval-nano" if args.model == "nano" else "serval-nano-draft")
    export(model.eval(), tokenizer, folder)
    print(f"wrote {folder.name}", flush=True)


if __name__ == "__main__":
    main()
