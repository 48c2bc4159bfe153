"""Makes the golden data for deploy/models/serval-nano with transformers in fp32: what the C++ tests compare with.

    python tests/golden/make_nano_golden.py            needs torch, transformers; rewrites tests/fixtures/serval-nano/

golden.jsonl, one prompt a line: prompt (already rendered when it is a chat; then also messages), prompt_ids, greedy_ids
(64 steps, not stopped by an end token), margins (log-probability of the best minus the second, per step: compare a
token only where the margin is well above the numeric error), top5 ([id, log-probability] pairs of the first 8 steps).
tokenizer_cases.jsonl: text and ids, without special tokens added; marker texts inside are taken as special tokens.
"""

import json
import pathlib

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "deploy/models/serval-nano"
OUT = ROOT / "tests/fixtures/serval-nano"
NUM_STEPS, NUM_TOP_STEPS = 64, 8

PLAIN = [
    "Once upon a time", "The prince looked at her and", "It was a cold morning in", "\"My dear Mr. Bennet,\" said",
    "Alice was beginning to", "ROMEO:\n", "Natasha ran into the room", "<|endoftext|>CHAPTER I\n\n",
    "Weng earns $12 an hour. Yesterday she worked 5 hours. How much did she earn?\n", "The", "a-b-c-d-",
]
CHATS = [
    ["Hello!"], ["Who are you?"], ["Spell the word river."], ["Count from 3 to 9."], ["What is 4 + 5?"],
    ["List three animals."], ["Repeat after me: the little bell is in the garden."], ["Tell me a story about a fox."],
    ["Write a JSON object with name Ada and age 36."],
    ["My name is Clara.", "Nice to meet you, Clara.", "What is my name?"],
]
SYSTEM_CHAT = [{"role": "system", "content": "You are a helpful assistant."},
               {"role": "user", "content": "What is the capital of France?"}]

TEXTS = [
    "", " ", "  ", "\n", "\n\n", "\t", " \n", "\r\n", "a", "A", " a", "  a", "a ", "a  b", "hello world", "Hello, world!",
    "HELLO", "I'm you're we'll he'd they've it's", "I'M YOU'RE IT'S", "don't", "12345", "3.14159", "1,000,000", "007 a1b2",
    "x+y=z", "a-b-c", "--- *** ///", "...", "?!", "(a) [b] {c}", '{"name": "Ada", "age": 36}', "1. one\n2. two\n3. three",
    "- one\n- two", "line one\nline two\r\nline three", "tab\tbetween\twords", "trailing spaces   ", "   leading spaces",
    "end with newline\n", "\n  indented\n\n\n  more", "def f(x):\n    return x + 1\n", "caf\u00e9", "cafe\u0301",
    "na\u00efve fa\u00e7ade \u2014 dash", "\u201cquoted\u201d \u2018text\u2019\u2026", "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440", "\u0645\u0631\u062d\u0628\u0627", "\u05e9\u05dc\u05d5\u05dd", "\ud55c\uad6d\uc5b4",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35", "\U0001F600", "\U0001F468\u200d\U0001F469\u200d\U0001F467 family", "\U0001F1EB\U0001F1F7 flag",
    "emoji \U0001F680 between", "\u00a0non-breaking\u00a0space", "\u3000wide space", "zero\u200bwidth", "\u0000null", "\ufeffmark",
    "\u00bd \u2460 \u0663\u0664", "\u01c5 \u00df \ufb01", "http://example.org/a?b=c&d=e#f", "user@example.org", "C:\\dir\\file.txt",
    "aaaaaaaaaaaaaaaaaaaa", "the the the the", "Antidisestablishmentarianism", "<|endoftext|>", "a<|im_end|>b",
    "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", "<|im_start", "|im_end|>", "<|IM_END|>",
    "It is a truth universally acknowledged, that a single man in possession\nof a good fortune, must be in want of a wife.",
]


@torch.no_grad()
def golden(model, tokenizer, prompt):
    ids = tokenizer(prompt, add_special_tokens=False).input_ids
    tokens, margins, top5 = list(ids), [], []
    for step in range(NUM_STEPS):  # the whole sequence each step: no cache to be wrong
        log_probs = model(torch.tensor([tokens]), use_cache=False).logits[0, -1].double().log_softmax(-1)
        best = log_probs.topk(5)
        margins.append(round((best.values[0] - best.values[1]).item(), 6))
        if step < NUM_TOP_STEPS:
            top5.append([[i, round(v, 6)] for i, v in zip(best.indices.tolist(), best.values.tolist())])
        tokens.append(best.indices[0].item())
    return {"prompt": prompt, "prompt_ids": ids, "greedy_ids": tokens[len(ids):], "margins": margins, "top5": top5}


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows), encoding="utf-8")
    print(f"{path.name}: {len(rows)} lines")


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32, attn_implementation="eager").eval()
    chats = [[{"role": ("user", "assistant")[i % 2], "content": c} for i, c in enumerate(turns)] for turns in CHATS]
    rows = [golden(model, tokenizer, p) for p in PLAIN]
    for messages in [*chats, SYSTEM_CHAT]:
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        rows.append({"messages": messages, **golden(model, tokenizer, prompt)})
    OUT.mkdir(parents=True, exist_ok=True)
    write(OUT / "golden.jsonl", rows)
    write(OUT / "tokenizer_cases.jsonl",
          [{"text": t, "ids": tokenizer(t, add_special_tokens=False).input_ids} for t in TEXTS])


if __name__ == "__main__":
    main()
