"""Whether the closed loop ever loses: a daemon with `--speculation auto`, whose requests are made without guesses and with them in
turns, so that whatever else runs on the machine slows both; by how many streams decode together, and by kind of text.

Printed for each: the tokens a second of all streams with guesses, divided by those without (median over the turns, and the range);
the same of the time of a token (median stream) and of the time to the first token (slowest stream), without divided by with; tokens
a step with guesses. Above 1 the guesses pay. With --fixed also what each daemon with such a setting does beside `auto`: the
tokens a second of `auto` divided by those of the best of them and of none (medians over the turns), and which that is.

    python closed_loop_table.py /path/to/serval ../models/serval-nano "--speculation-model serval-nano-draft" --fixed "ngram --num-draft-tokens 8"
"""

import argparse
import pathlib
import statistics
import threading
import time

from speculation_table import HERE, Daemon, prompts


def together(daemon, texts, streams, method, args):
    """Tokens a second of all, seconds a token of the median stream, of the slowest to its first token; tokens a step."""
    told = [None] * streams
    gate = threading.Barrier(streams + 1)

    def one(i):
        kind, text = texts[i % len(texts)]
        gate.wait()
        told[i] = daemon.ask(kind, text, method, args.tokens, args.temperature, seed=i, counts_steps=False)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(streams)]
    for thread in threads:
        thread.start()
    before = daemon.steps()
    gate.wait()
    begin = time.monotonic()
    for thread in threads:
        thread.join()
    took = time.monotonic() - begin
    tokens = sum(answer["tokens"] for answer in told)
    return (tokens / took, statistics.median(a["of_a_token"] for a in told), max(a["first"] for a in told),
            tokens / (daemon.steps() - before))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary")
    parser.add_argument("model")
    parser.add_argument("options", nargs="?", default="", help="of the daemon, beside --speculation auto")
    parser.add_argument("--data", type=pathlib.Path, default=HERE.parents[2] / "shared" / "data")
    parser.add_argument("--streams", default="1,2,4,8,16,32")
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--temperature", type=float, default=0)
    parser.add_argument("--fixed", action="append", default=[], help="a drafter's name, and options of its daemon; as often as there are")
    args = parser.parse_args()
    texts = prompts(args.data)
    named = {"auto": f"auto {args.options}", **{fixed: fixed for fixed in args.fixed}}
    daemons = {name: Daemon(args.binary, args.model, ["--max-num-seqs", "32", "--speculation", *of.split()]) for name, of in named.items()}
    settings = [("off", daemons["auto"], "off"), *((name, daemon, "auto") for name, daemon in daemons.items())]
    try:
        print("| streams | text | tokens/s | of a token | to the first | tokens a step |" + (" beside the best fixed |" if args.fixed else ""), flush=True)
        for streams in map(int, args.streams.split(",")):
            for name, of_one in texts.items():
                for _, daemon, method in settings:
                    together(daemon, of_one, streams, method, args)  # warms
                turns = []
                for turn in range(args.turns):
                    order = settings if turn % 2 == 0 else settings[::-1]
                    turns.append({setting: together(daemon, of_one, streams, method, args) for setting, daemon, method in order})
                pairs = [(t["auto"][0] / t["off"][0], t["off"][1] / t["auto"][1], t["off"][2] / t["auto"][2], t["auto"][3]) for t in turns]
                rates, of_token, first, steps = (sorted(p[i] for p in pairs) for i in range(4))
                row = (f"| {streams} | {name} | {statistics.median(rates):.2f} ({rates[0]:.2f} to {rates[-1]:.2f}) | {statistics.median(of_token):.2f} | "
                       f"{statistics.median(first):.2f} | {statistics.median(steps):.2f} |")
                if args.fixed:
                    best, beside = min(((setting, statistics.median(t["auto"][0] / t[setting][0] for t in turns)) for setting in ("off", *args.fixed)),
                                       key=lambda one: one[1])
                    row += f" {beside:.2f}: {best} |"
                print(row, flush=True)
    finally:
        for daemon in daemons.values():
            daemon.end()


if __name__ == "__main__":
    main()
