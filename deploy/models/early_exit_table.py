"""What `speculation.acceptance: exit` saves and changes, by how sure the first layers must be.

For each number of layers a daemon with `--speculation self`; each text is gone on with exactly and by each threshold, greedy, one stream.
Printed: tokens a step, prompts' steps included; the share of tokens that were taken unverified; the share of tokens in whose place the whole
model would have drawn another behind the same text; the share of the exact answer's places that have another token or none, which counts
all that comes behind a first difference.

    python early_exit_table.py /path/to/serval ../models/serval-nano --layers 3 5 --thresholds 0 0.5 0.9 1
"""

import argparse
import itertools
import json
import pathlib

from speculation_table import HERE, Daemon, prompts


def counted(daemon):
    """Steps, and guesses that were taken."""
    return daemon.steps(), daemon.counter("spec_decode_num_accepted_tokens_total")


def answer(daemon, kind, text, tokens, speculation):
    """The tokens, and for each whether it is the whole model's most probable one."""
    body = {"max_tokens": tokens, "temperature": 0, "speculation": speculation, "return_tokens_as_token_ids": True}
    told = json.load(daemon.post(kind, text, body, {"logprobs": True, "top_logprobs": 1}, {"logprobs": 1}))["choices"][0]["logprobs"]
    if kind == "chat":
        return [(of["token"], of["logprob"] == of["top_logprobs"][0]["logprob"]) for of in told["content"]]
    return [(token, logprob == max(best.values())) for token, logprob, best in zip(told["tokens"], told["token_logprobs"], told["top_logprobs"])]


def row(daemon, texts, exact, tokens, speculation):
    before, told = counted(daemon), [answer(daemon, kind, text, tokens, speculation) for kind, text in texts]
    steps, taken = (now - then for now, then in zip(counted(daemon), before))
    total = sum(len(one) for one in told)
    others = sum(not is_best for one in told for _, is_best in one)
    places = sum(len(one) for one in exact)
    moved = sum(a is not None and (b is None or a[0] != b[0]) for x, y in zip(exact, told) for a, b in itertools.zip_longest(x, y))
    return f"{total / steps:.2f} | {taken / total:.1%} | {others / total:.1%} | {moved / places:.1%}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("model")
    parser.add_argument("--layers", type=int, nargs="+", default=[3])
    parser.add_argument("--guesses", type=int, default=4)
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0, 0.2, 0.5, 0.8, 0.9, 0.95, 1])
    parser.add_argument("--data", type=pathlib.Path, default=HERE.parents[2] / "shared" / "data")
    parser.add_argument("--tokens", type=int, default=96)
    args = parser.parse_args()
    texts = list(itertools.chain(*prompts(args.data).values()))
    print("| layers | threshold | tokens a step | taken unverified | others than the whole model's | unlike the exact answer |", flush=True)
    for layers in args.layers:
        daemon = Daemon(args.binary, args.model, ["--speculation", "self", "--num-draft-layers", str(layers), "--num-draft-tokens", str(args.guesses)])
        try:
            exact = [answer(daemon, kind, text, args.tokens, {"method": "off"}) for kind, text in texts]
            print(f"| {layers} | exact | {row(daemon, texts, exact, args.tokens, {})} |", flush=True)
            for threshold in args.thresholds:
                print(f"| {layers} | {threshold:g} | {row(daemon, texts, exact, args.tokens, {'acceptance': 'exit', 'threshold': threshold})} |", flush=True)
        finally:
            daemon.end()


if __name__ == "__main__":
    main()
