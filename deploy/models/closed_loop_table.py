"""Whether the closed loop ever loses: one daemon with `--speculation auto`, whose requests are made without guesses, with those
that it decides on, and with a fixed drafter and depth, in turns, so that whatever else runs on the machine slows all; by how many
streams decode together, and by kind of text.

Printed for each: the tokens a second of all streams with `auto`, divided by those without guesses (median over the turns, and the
range); the same of the time of a token (median stream) and of the time to the first token (slowest stream), without divided by
with; tokens a step with `auto`; the tokens a second of `auto`, divided by those of the best fixed setting (the one that does best
by its median, none at all among them), and what each of them does beside none. Above 1 the guesses pay.

    python closed_loop_table.py /path/to/serval serval-nano "--speculation-model serval-nano-draft" --fixed ngram:8 draft:2 draft:4
"""

import argparse
import pathlib
import statistics
import threading
import time

from speculation_table import HERE, Daemon, prompts


def asked(setting):
    """What a request says of `off`, `auto` or DRAFTER:DEPTH."""
    method, _, depth = setting.partition(":")
    return {"method": method} | ({"depth": int(depth)} if depth else {})


def together(daemon, texts, streams, setting, args):
    """Tokens a second of all, seconds a token of the median stream, of the slowest to its first token; tokens a step."""
    told = [None] * streams
    gate = threading.Barrier(streams + 1)

    def one(i):
        kind, text = texts[i % len(texts)]
        gate.wait()
        told[i] = daemon.ask(kind, text, asked(setting), args.tokens, args.temperature, seed=i, counts_steps=False)

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


def cell(daemon, texts, streams, settings, args):
    """A row of the table, behind its names."""
    for setting in settings:
        together(daemon, texts, streams, setting, args)  # warms
    turns = []
    for turn in range(args.turns):
        # Whoever comes first or behind a certain one does so once in a while only.
        order = settings[turn % len(settings):] + settings[:turn % len(settings)]
        turns.append({setting: together(daemon, texts, streams, setting, args) for setting in (order if turn % 2 == 0 else order[::-1])})
    beside = lambda a, b: sorted(t[a][0] / t[b][0] for t in turns)
    rates = beside("auto", "off")
    of_token, first = (statistics.median(t["off"][i] / t["auto"][i] for t in turns) for i in (1, 2))
    fixed = {setting: statistics.median(beside(setting, "off")) for setting in settings if setting not in ("off", "auto")}
    best = max({"off": 1, **fixed}.items(), key=lambda one: one[1])[0]
    return (f"{statistics.median(rates):.2f} ({rates[0]:.2f} to {rates[-1]:.2f}) | {of_token:.2f} | {first:.2f} | "
            f"{statistics.median(t['auto'][3] for t in turns):.2f} | {statistics.median(beside('auto', best)):.2f}: {best} | "
            + ", ".join(f"{setting} {rate:.2f}" for setting, rate in fixed.items()) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary")
    parser.add_argument("model")
    parser.add_argument("options", nargs="?", default="", help="of the daemon, beside --speculation auto")
    parser.add_argument("--data", type=pathlib.Path, default=HERE.parents[2] / "shared" / "data")
    parser.add_argument("--streams", default="1,2,4,8,16,32")
    parser.add_argument("--texts", default="", help="kinds, as chat,copy; all")
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--temperature", type=float, default=0)
    parser.add_argument("--fixed", nargs="*", default=[], help="DRAFTER:DEPTH, as many as there are")
    args = parser.parse_args()
    texts = prompts(args.data)
    daemon = Daemon(args.binary, args.model, ["--max-num-seqs", "32", "--speculation", "auto", *args.options.split()])
    try:
        print("| streams | text | tokens/s | of a token | to the first | tokens a step | beside the best fixed | fixed |", flush=True)
        for streams in map(int, args.streams.split(",")):
            for name in args.texts.split(",") if args.texts else texts:
                print(f"| {streams} | {name} |", cell(daemon, texts[name], streams, ["off", "auto", *args.fixed], args), flush=True)
    finally:
        daemon.end()


if __name__ == "__main__":
    main()
