"""Whether the closed loop ever loses: a daemon with `--speculation auto`, whose requests are made without guesses and with them in
turns, so that whatever else runs on the machine slows both; by how many streams decode together, and by kind of text.

Printed for each: the tokens a second of all streams with guesses, divided by those without (median over the turns, and the range);
the same of the time of a token (median stream) and of the time to the first token (slowest stream), without divided by with; tokens
a step with guesses. Above 1 the guesses pay.

    python closed_loop_table.py /path/to/serval ../models/serval-nano "--speculation-model serval-nano-draft"
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
    args = parser.parse_args()
    texts = prompts(args.data)
    options = ["--speculation", "auto", "--max-num-seqs", "32", *args.options.split()]
    daemon = Daemon(args.binary, args.model, options)
    try:
        print("| streams | text | tokens/s | of a token | to the first | tokens a step |", flush=True)
        for streams in map(int, args.streams.split(",")):
            for name, of_one in texts.items():
                for method in ("off", "auto"):
                    together(daemon, of_one, streams, method, args)  # warms
                pairs = []
                for turn in range(args.turns):
                    order = ("off", "auto") if turn % 2 == 0 else ("auto", "off")
                    told = {method: together(daemon, of_one, streams, method, args) for method in order}
                    off, on = told["off"], told["auto"]
                    pairs.append((on[0] / off[0], off[1] / on[1], off[2] / on[2], on[3]))
                rates, of_token, first, steps = (sorted(p[i] for p in pairs) for i in range(4))
                print(f"| {streams} | {name} | {statistics.median(rates):.2f} ({rates[0]:.2f} to {rates[-1]:.2f}) | {statistics.median(of_token):.2f} | "
                      f"{statistics.median(first):.2f} | {statistics.median(steps):.2f} |", flush=True)
    finally:
        daemon.end()


if __name__ == "__main__":
    main()
