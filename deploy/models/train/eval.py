"""Measures an exported model: bits per byte on the held-out pages, and whether unseen chat prompts end.

    python eval.py ../serval-nano [--data DIR] [--show] [--draft ../serval-nano-draft]

Bits per byte: each held-out page alone, after one <|endoftext|>, every token counted, divided by the page's UTF-8 bytes.
Chat: greedy and sampled answers to eval_prompts.txt; an answer passes when it stops by itself within 300 tokens and does
not go round in circles. Identity: greedy answers to identity_prompts.txt, of which none is in the training data; one passes when it
says that it is Serval's model. Tools: greedy answers to tool_cases.json; one passes when it is the call of the function with the arguments and
nothing else. Weights as stored (bf16), computed in fp32.
"""

import argparse
import json
import math
import pathlib
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from corpus import END, load_books, load_sums, read_prompts, read_tool_cases

HERE = pathlib.Path(__file__).resolve().parent
MAX_TOKENS = 300


def loops(ids):
    """True when some run of 2 to 40 tokens stands three times in a row, or one token eight times."""
    for size in range(1, 41):
        times = 8 if size == 1 else 3
        for at in range(len(ids) - size * times + 1):
            run = ids[at:at + size]
            if all(ids[at + k * size:at + (k + 1) * size] == run for k in range(1, times)):
                return True
    return False


@torch.no_grad()
def bits(model, tokenizer, text):
    """The bits that each token of the text costs."""
    ids = torch.tensor([tokenizer(END + text, add_special_tokens=False).input_ids])
    log_probs = model(ids).logits[0, :-1].float().log_softmax(-1)
    return -log_probs.gather(1, ids[0, 1:, None])[:, 0] / math.log(2)


def bits_per_byte(model, tokenizer, texts):
    total = sum(bits(model, tokenizer, t).sum().item() for t in texts)
    return total / sum(len(t.encode()) for t in texts)


@torch.no_grad()
def answer(model, tokenizer, prompt, sample, tools=None):
    text = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], tools=tools, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    out = model.generate(**ids, do_sample=sample, max_new_tokens=MAX_TOKENS,
                         **({} if sample else dict(temperature=None, top_k=None, top_p=None)))
    return out[0, ids.input_ids.shape[1]:].tolist()


def chat(model, tokenizer, prompts, sample, show):
    """How many of the prompts get an answer that ends and does not loop."""
    torch.manual_seed(1)
    stops = model.generation_config.eos_token_id
    good = 0
    for prompt in prompts:
        ids = answer(model, tokenizer, prompt, sample)
        passed = ids[-1] in stops and not loops(ids)
        good += passed
        if show or not passed:
            print(f"  {'ok  ' if passed else 'FAIL'} {prompt!r} -> {tokenizer.decode(ids)!r}")
    return good


def identity(model, tokenizer, prompts, show):
    """How many of the prompts are answered, greedily, with what the model is."""
    good = 0
    for prompt in prompts:
        text = tokenizer.decode(answer(model, tokenizer, prompt, False))
        passed = "Serval" in text and "model" in text
        good += passed
        if show or not passed:
            print(f"  {'ok  ' if passed else 'FAIL'} {prompt!r} -> {text!r}")
    return good


def calls(model, tokenizer, cases, show):
    """How many of the cases are answered, greedily, with the right call."""
    good = 0
    for case in cases:
        text = tokenizer.decode(answer(model, tokenizer, case["prompt"], False, case["tools"]), skip_special_tokens=True)
        begin, end = "<tool_call>", "</tool_call>"
        try:
            call = json.loads(text.removeprefix(begin).removesuffix(end))
        except ValueError:
            call = None
        passed = text.startswith(begin) and text.endswith(end) and call == {"name": case["name"], "arguments": case["arguments"]}
        good += passed
        if show or not passed:
            print(f"  {'ok  ' if passed else 'FAIL'} {case['prompt']!r} -> {text!r}")
    return good


@torch.no_grad()
def agreement(model, draft, tokenizer, prompts):
    """Of the model's greedy answer tokens, the share that the draft would have proposed at the same place."""
    equal = total = 0
    for prompt in prompts:
        ids = answer(model, tokenizer, prompt, False)
        text = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False)
        before = tokenizer(text, add_special_tokens=False).input_ids
        guesses = draft(torch.tensor([before + ids])).logits[0, len(before) - 1:-1].argmax(-1).tolist()
        equal += sum(g == i for g, i in zip(guesses, ids))
        total += len(ids)
    return equal, total


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--data", type=pathlib.Path, default=HERE / "../../../../shared/data", help="folder of corpus-*")
    parser.add_argument("--draft", type=pathlib.Path, help="only measure how often this model proposes the other's token")
    parser.add_argument("--show", action="store_true", help="print every answer")
    args = parser.parse_args()
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    size = sum(f.stat().st_size for f in args.model.iterdir())
    print(f"{args.model.name}: {sum(p.numel() for p in model.parameters())} parameters, folder {size} bytes")

    prompts = read_prompts(HERE / "eval_prompts.txt")
    if args.draft:
        draft = AutoModelForCausalLM.from_pretrained(args.draft, dtype=torch.float32).eval()
        equal, total = agreement(model, draft, tokenizer, prompts)
        print(f"the draft proposes {equal} of {total} greedy tokens ({100 * equal / total:.0f} %)")
        return
    for name, sample in (("greedy", False), ("sampled as in generation_config.json, seed 1", True)):
        start = time.time()
        good = chat(model, tokenizer, prompts, sample, args.show)
        print(f"chat, {name}: {good} of {len(prompts)} end without a loop ({time.time() - start:.0f} s)")

    wordings = read_prompts(HERE / "identity_prompts.txt")
    print(f"identity, greedy: {identity(model, tokenizer, wordings, args.show)} of {len(wordings)} say what it is")

    cases = read_tool_cases(HERE / "tool_cases.json")
    print(f"tools, greedy: {calls(model, tokenizer, cases, args.show)} of {len(cases)} are the right call")

    if not args.data.exists():
        return
    _, books = load_books(args.data)
    _, sums = load_sums(args.data)
    held = {**books, "gsm8k": [f"{q}\n{a}{END}" for q, a in sums]}
    for name, texts in held.items():
        print(f"bits per byte, {name}: {bits_per_byte(model, tokenizer, texts):.3f} ({len(texts)} held-out pages, "
              f"{sum(len(t.encode()) for t in texts)} bytes)")
    pages = [t for texts in books.values() for t in texts]
    print(f"bits per byte, all book pages: {bits_per_byte(model, tokenizer, pages):.3f}")
    print(f"bits per byte, everything held out: "
          f"{bits_per_byte(model, tokenizer, [t for texts in held.values() for t in texts]):.3f}")

    # Long rows of held-out pages: does the context work to its end?
    joined = "".join(p for name in sorted(books) for p in books[name])
    per_part = torch.zeros(4, 2)
    at = 0
    for _ in range(8):
        text = joined[at:at + 6000]  # some 2000 tokens
        at += 6000
        cost = bits(model, tokenizer, text)
        sizes = torch.tensor([len(tokenizer.convert_ids_to_tokens(i)) for i in tokenizer(text, add_special_tokens=False).input_ids])
        for part, (low, high) in enumerate(((0, 256), (256, 512), (512, 1024), (1024, 2048))):
            per_part[part] += torch.tensor([cost[low:high].sum(), sizes[low:high].sum()])
    rates = per_part[:, 0] / per_part[:, 1]
    print("bits per byte by position 0-256, 256-512, 512-1024, 1024-2048: " + ", ".join(f"{x:.3f}" for x in rates))


if __name__ == "__main__":
    main()
