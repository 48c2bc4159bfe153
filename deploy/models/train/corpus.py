"""Text to training rows: the pages, the tokenizer, and batches that depend only on (seed, step, length).

Three sources are mixed: book pages, school sums (gsm8k) and generated dialogues. One page in fifty and one sum in fifty
are held out and never trained on. Because a batch is a pure function of its step, training resumes anywhere.
"""

import json
import pathlib
import re
from collections import Counter

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from dialogues import Source, bare, dialogue, dialogues
from tools import tool_dialogues

HERE = pathlib.Path(__file__).resolve().parent
END, START, STOP = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL = [END, START, STOP]
TOOLS_HEAD = 'Tools, called as <tool_call>{"name": NAME, "arguments": {}}</tool_call>:'
VOCAB_SIZE = 2048
HOLD_OUT_EVERY = 50
PAGE_CHARS = 2000
IGNORE = -100  # the label cross_entropy skips

# The first `prose_steps` read mostly prose and see the neighbours in their row; then conversations lead, and each sees
# itself alone, as it will when served. Before that change answers had the right form but did not copy from the question;
# 300 steps after it they did.
PROSE_MIX = {"books": 0.40, "sums": 0.15, "chat": 0.45}
MIX = {"books": 0.25, "sums": 0.10, "chat": 0.65}
TOOLS_MIX = {"books": 0.05, "sums": 0.03, "chat": 0.17, "tools": 0.75}  # of the stage that teaches to call tools

DISTIL_MIX = {"books": 0.15, "sums": 0.10, "chat": 0.15, "tools": 0.10, "answers": 0.50}  # of a draft that learns from its target

# Letters with one leading mark, single digits, punctuation runs, white space: the cut Qwen2 made common. Single digits
# let a small model add.
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
         r"|\s+(?!\S)|\s+")


def pages(text):
    """Cuts at the first line end after each PAGE_CHARS characters."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + PAGE_CHARS)
        end = len(text) if end < 0 else end + 1
        yield text[start:end]
        start = end


def load_books(data):
    """Training text by book, as lists of runs of pages between held-out ones, and the held-out pages."""
    train, held = [], {}
    for path in sorted((data / "corpus-english").glob("*.txt")):
        book = list(pages(path.read_text(encoding="utf-8").replace("\r\n", "\n")))
        middle = HOLD_OUT_EVERY // 2  # not the title page
        held[path.stem] = book[middle::HOLD_OUT_EVERY]
        runs = [book[:middle]] + [book[i + 1:i + HOLD_OUT_EVERY] for i in range(middle, len(book), HOLD_OUT_EVERY)]
        train += ["".join(run) for run in runs if run]
    return train, held


def load_sums(data):
    """(question, answer) pairs: training and held out. The <<48/2=24>> notes for calculators are taken out."""
    pairs = []
    for line in (data / "corpus-gsm8k-train" / "train.jsonl").read_text(encoding="utf-8").splitlines():
        item = json.loads(line)
        answer = re.sub(r"<<.*?>>", "", item["answer"]).replace("#### ", "The answer is ")
        pairs.append((item["question"].strip(), answer.strip() + "."))
    held = pairs[HOLD_OUT_EVERY // 2::HOLD_OUT_EVERY]
    return [p for i, p in enumerate(pairs) if i % HOLD_OUT_EVERY != HOLD_OUT_EVERY // 2], held


def copy_material(books):
    """Common words to spell and short lines to copy, from the training pages."""
    text = "\n".join(books)
    words = [w for w, _ in Counter(re.findall(r"\b[a-z]{3,9}\b", text)).most_common(2500)]
    lines = [line for line in text.split("\n") if 8 <= len(line) <= 60 and line[0].isalpha() and '"' not in line]
    return words, [line.strip() for line in lines[::7]]


def train_tokenizer(texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB_SIZE, special_tokens=SPECIAL, show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def signature(tool):
    """A function in one line: name(parameter: type, optional?: type) what it does."""
    f = tool["function"]
    needed = f["parameters"]["required"]
    params = ", ".join(f"{key}{'' if key in needed else '?'}: {p['type']}" for key, p in f["parameters"]["properties"].items())
    return f"{f['name']}({params}) {f.get('description', '')}".rstrip()


def call_text(call):
    return (f'<tool_call>\n{{"name": "{call["function"]["name"]}", "arguments": '
            f'{json.dumps(call["function"]["arguments"], ensure_ascii=False)}}}\n</tool_call>')


def chat_pieces(messages, tools=()):
    """The conversation as (text, is trained on); joined, it is what the chat template renders."""
    pieces, before = [], ""
    if tools:
        has_system = messages[0]["role"] == "system"
        system = messages[0]["content"] + "\n" if has_system else ""
        messages = messages[has_system:]
        before = f"{START}system\n{system}{TOOLS_HEAD}" + "".join("\n" + signature(t) for t in tools) + STOP + "\n"
    for m in messages:
        head = before + f"{START}{m['role']}\n"
        if m["role"] == "assistant":
            text = "\n".join(map(call_text, m["tool_calls"])) if "tool_calls" in m else m["content"]
            pieces += [(head, False), (text + STOP, True)]
            before = "\n"
        else:
            before = head + m["content"] + STOP + "\n"
    return pieces


class Rows:
    """All training tokens in memory, and batches from them."""

    def __init__(self, data, tokenizer, banned, num_dialogues, seed, prose_steps, cache, with_tools=False):
        self.seed, self.prose_steps, self.mix = seed, prose_steps, TOOLS_MIX if with_tools else MIX
        if cache.exists():
            stored = np.load(cache)
            self.books, self.docs = stored["books"], {}
            for name in ("sums", "chat", "long", *(["tools"] if with_tools else [])):
                self.docs[name] = tuple(stored[f"{name}_{part}"] for part in ("ids", "labels", "starts"))
            return
        books, _ = load_books(data)
        words, lines = copy_material(books)
        encode = lambda texts: [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
        self.books = np.concatenate([np.array(ids, np.int32) for ids in encode([END + run for run in books])])
        # A sum is told once as plain text and once as a conversation.
        sums, _ = load_sums(data)
        conversations = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in sums]
        plain = [[(f"{q}\n{a}{END}", True)] for q, a in sums]
        told = [p for pair in zip(plain, map(chat_pieces, conversations)) for p in pair]
        self.docs = {
            "sums": self._pack(told, encode, train_all=True),
            "chat": self._pack(map(chat_pieces, dialogues(seed, num_dialogues, banned, None, words, lines)), encode),
            "long": self._pack(map(chat_pieces, dialogues(seed + 1, num_dialogues // 40, banned, 16, words, lines)), encode),
        }
        if with_tools:
            told = tool_dialogues(Source(seed + 2, words, lines), num_dialogues // 2, banned, bare, lambda r: dialogue(r, 1)[-2:])
            self.docs["tools"] = self._pack((chat_pieces(messages, tools) for tools, messages in told), encode)
        arrays = {f"{n}_{p}": a for n, d in self.docs.items() for p, a in zip(("ids", "labels", "starts"), d)}
        np.savez(cache, books=self.books, **arrays)

    @staticmethod
    def _pack(docs, encode, train_all=False):
        docs = [list(d) for d in docs]
        flat = encode([text for d in docs for text, _ in d])
        ids, labels, starts, at = [], [], [], 0
        i = 0
        for d in docs:
            starts.append(at)
            for _, trained in d:
                ids.append(np.array(flat[i], np.int32))
                labels.append(ids[-1] if trained or train_all else np.full(len(flat[i]), IGNORE, np.int32))
                at += len(flat[i])
                i += 1
        return np.concatenate(ids), np.concatenate(labels), np.array(starts, np.int64)

    def batch(self, step, num_rows, length):
        """int64 (ids, labels, docs), each [num_rows, length + 1]: row[:-1] predicts row[1:], and a token should attend
        only to tokens of its own doc."""
        r = np.random.default_rng([self.seed, step])
        ids = np.empty((num_rows, length + 1), np.int64)
        labels = np.empty_like(ids)
        docs = np.zeros_like(ids)
        mix = PROSE_MIX if step < self.prose_steps else self.mix
        # Systematic sampling keeps the mix nearly exact in each batch, even for two rows.
        edges = np.cumsum(list(mix.values()))
        sources = np.searchsorted(edges, ((np.arange(num_rows) + r.random()) / num_rows) * edges[-1], side="right")
        for row, source in enumerate(sources):
            name = list(mix)[min(source, len(mix) - 1)]
            if name == "books":
                at = r.integers(len(self.books) - length - 1)
                ids[row] = labels[row] = self.books[at:at + length + 1]
                continue
            if name == "chat" and length > 512 and r.random() < 0.5:
                name = "long"
            doc_ids, doc_labels, starts = self.docs[name]
            last = np.searchsorted(starts, len(doc_ids) - length - 1, side="right")
            at = starts[r.integers(last)]  # a row starts where a conversation starts
            ids[row], labels[row] = doc_ids[at:at + length + 1], doc_labels[at:at + length + 1]
            if step >= self.prose_steps:
                docs[row] = np.searchsorted(starts, np.arange(at, at + length + 1), side="right")
        return ids, labels, docs


def read_prompts(path):
    return [line for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]


def held_out_questions():
    """Those of the evaluations, made `bare`: no generator may ask them."""
    prompts = [p for name in ("eval_prompts.txt", "identity_prompts.txt") for p in read_prompts(HERE / name)]
    return frozenset(map(bare, prompts + [case["prompt"] for case in read_tool_cases(HERE / "tool_cases.json")]))


def read_tool_cases(path):
    """Questions with the functions that each may call (OpenAI's form), and the call that is right."""
    read = json.loads(path.read_text(encoding="utf-8"))
    tools = {tool["function"]["name"]: tool for tool in read["tools"]}
    return [{**case, "tools": [tools[name] for name in case["tools"]]} for case in read["cases"]]
