"""What a model says itself: the text that its draft is distilled on (DistillSpec, Zhou et al. 2023, section 4: text of the
target rather than the corpus's alone).

Three quarters are its answers in conversations of the corpus, functions among them, a quarter how it goes on behind a piece of
a book; every other one greedy, the rest drawn at temperature 1.
"""

import numpy as np
import torch

from corpus import IGNORE

LONGEST = 400  # tokens of a prompt
NEW = 96  # tokens of an answer, at most
BATCH = 64


def prompts(rows, count, random):
    """int arrays of tokens: a conversation up to one of its answers, or a piece of a book."""
    while count:
        name = ("chat", "tools", "chat", "books")[count % 4]
        if name == "books":
            size = random.integers(24, 65)
            at = random.integers(len(rows.books) - size)
            prompt = rows.books[at : at + size]
        else:
            ids, labels, starts = rows.docs[name]
            doc = random.integers(len(starts) - 1)
            said = labels[starts[doc] : starts[doc + 1]] != IGNORE
            answers = np.flatnonzero(said[1:] & ~said[:-1]) + 1
            prompt = ids[starts[doc] : starts[doc] + random.choice(answers)]
        if len(prompt) <= LONGEST:
            count -= 1
            yield prompt


@torch.no_grad()
def draw(model, batch, sample):
    """What the model says behind each of the prompts, as arrays that end with its stop token where it stopped."""
    longest = max(map(len, batch))
    ids = torch.zeros(len(batch), longest, dtype=torch.int64)
    seen = torch.zeros_like(ids)
    for row, prompt in enumerate(batch):
        ids[row, longest - len(prompt) :] = torch.from_numpy(prompt.astype(np.int64))
        seen[row, longest - len(prompt) :] = 1
    kind = dict(temperature=1.0, top_k=0, top_p=1.0) if sample else dict(temperature=None, top_k=None, top_p=None)
    out = model.generate(input_ids=ids, attention_mask=seen, do_sample=sample, max_new_tokens=NEW, **kind)
    stops = model.generation_config.eos_token_id
    for said in out[:, longest:].numpy().astype(np.int32):
        ends = np.flatnonzero(np.isin(said, stops))
        yield said[: ends[0] + 1] if len(ends) else said


def answers(model, rows, count, seed):
    """(ids, labels, starts) as Rows keeps its documents: prompt and what the model said, of which the latter is trained on."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    asked = sorted(prompts(rows, count, random), key=len)
    texts = []
    for at in range(0, count, BATCH):
        batch = asked[at : at + BATCH]
        for half, sample in ((batch[::2], False), (batch[1::2], True)):
            texts += zip(half, draw(model, half, sample)) if half else []
    random.shuffle(texts)
    ids = np.concatenate([part for text in texts for part in text])
    labels = np.concatenate([part for prompt, said in texts for part in (np.full(len(prompt), IGNORE, np.int32), said)])
    return ids, labels, np.cumsum([0, *(len(prompt) + len(said) for prompt, said in texts)])[:-1]
