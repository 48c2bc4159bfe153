"""Whether the closed loop ever loses: one daemon with `--speculation auto`, asked without guesses, with those that it decides on
and with fixed drafters and depths, in turns, so that whatever else runs on the machine slows all; by how many streams decode
together, and by kind of text.

A stream makes its next request when one is over (or all of them together one each --every seconds), each with a prompt that the
prefix cache does not know; a turn is over when there is none left for a stream. Printed for each cell, above 1 where the guesses
pay, the median over the turns with the error that
their spread leaves it: the tokens a second of all streams with `auto` beside those without guesses; the same of the time of a token
(median request); tokens a step with `auto`; its tokens a second beside those of the best fixed setting, none at all among them; and
what each of them does beside none. The best of a cell is chosen by the turns of even number for those of odd number and by those
for these, because the best of several noisy medians is better than it is. At last, of each number of streams, the slowest percent
and the median of the times to the first token of a turn, those without guesses divided by those with `auto`, over all cells.

    python closed_loop_table.py /path/to/serval serval-nano "--speculation-model serval-nano-draft" --fixed ngram:8 draft:2 draft:4
"""

import argparse
import itertools
import pathlib
import re
import selectors
import socket
import statistics
import time

from speculation_table import HERE, Daemon, prompts

SALTS = itertools.count()


def asked(setting):
    """What a request says of `off`, `auto` or DRAFTER:DEPTH."""
    method, _, depth = setting.partition(":")
    return {"method": method} | ({"depth": int(depth)} if depth else {})


class Stream:
    """Takes requests from those that are left. Times are taken when bytes come and nothing is read of them before the end: the daemon
    has the processor's cores but for that."""

    def __init__(self, daemon, requests, selector):
        self.daemon, self.requests, self.selector, self.answers = daemon, requests, selector, []
        self.begin()

    def begin(self):
        path, body = self.daemon.request(*self.requests.pop())
        self.socket = socket.create_connection(("127.0.0.1", int(self.daemon.port)))
        self.parts, self.times, self.asked = [], [], time.monotonic()
        self.socket.sendall(b"POST %s HTTP/1.1\r\nHost: serval\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                            % (path.encode(), len(body), body))
        self.selector.register(self.socket, selectors.EVENT_READ, self)

    def read(self):
        """True: an answer is over."""
        if part := self.socket.recv(1 << 16):
            self.times.append(time.monotonic())
            self.parts.append(part)
            return False
        self.selector.unregister(self.socket)
        self.socket.close()
        text = b"".join(self.parts)
        assert b" 200 OK\r\n" in text and b"[DONE]" in text, text[:500]
        count = int(re.search(rb'"completion_tokens":(\d+)', text).group(1))
        self.answers.append((self.times[0] - self.asked, (self.times[-1] - self.times[0]) / max(1, count - 1)))
        return True


def together(daemon, texts, streams, turn, setting, args):
    """Tokens a second of all, seconds of a token of the median request, tokens a step, all times to the first token."""
    def request(i):
        kind, text = texts[(i + turn) % len(texts)]
        tokens = args.tokens // 2 + 37 * (i + turn) % (args.tokens + 1)  # else all prompts come together as long as nobody guesses
        return kind, text, {"max_tokens": tokens, "temperature": args.temperature, "seed": i, "stream": True, "ignore_eos": True,
                            "cache_salt": str(next(SALTS)), "speculation": asked(setting), "stream_options": {"include_usage": True}}

    selector = selectors.DefaultSelector()
    requests = [request(i) for i in reversed(range(streams * args.requests))]
    tokens, steps, begin, told = daemon.counter("generation_tokens_total"), daemon.steps(), time.monotonic(), None
    all_streams, to_begin = [], len(requests) if args.every else streams
    while to_begin or selector.get_map():
        while to_begin and time.monotonic() >= begin + len(all_streams) * args.every:
            all_streams.append(Stream(daemon, requests, selector))
            to_begin -= 1
        for key, _ in selector.select(0.001 if to_begin else None):
            if not key.data.read():
                continue
            if requests and not args.every:
                key.data.begin()
            elif told is None and not requests:
                took = time.monotonic() - begin
                told = daemon.counter("generation_tokens_total") - tokens
                steps = daemon.steps() - steps
    firsts, of_token = zip(*(answer for stream in all_streams for answer in stream.answers))
    return told / took, statistics.median(of_token), told / steps, firsts


def median(values):
    """With its error, of values that may have outliers."""
    values = sorted(values)
    quarter = len(values) // 4
    spread = values[-1 - quarter] - values[quarter]
    return f"{statistics.median(values):.2f} ±{1.25 * spread / 1.35 / len(values) ** 0.5:.2f}"


def beside(turns, a, b):
    return [t[a][0] / t[b][0] for t in turns]


def best_fixed(turns, settings):
    return max((s for s in settings if s != "auto"), key=lambda s: statistics.median(beside(turns, s, "off")))


def cell(daemon, texts, streams, settings, args):
    """A row of the table, behind its names; of each turn the times to the first token without guesses, divided by those with the loop's."""
    for setting in settings:
        together(daemon, texts, streams, 0, setting, args)  # warms
    turns = []
    for turn in range(args.turns):
        # Whoever comes first or behind a certain one does so once in a while only.
        order = settings[turn % len(settings):] + settings[:turn % len(settings)]
        turns.append({s: together(daemon, texts, streams, turn, s, args) for s in (order if turn % 2 == 0 else order[::-1])})
    halves = [(turns[0::2], turns[1::2]), (turns[1::2], turns[0::2])]
    to_best = [ratio for chosen_by, judged in halves for ratio in beside(judged, "auto", best_fixed(chosen_by or judged, settings))]
    row = (f"{median(beside(turns, 'auto', 'off'))} | {median(t['off'][1] / t['auto'][1] for t in turns)} | "
           f"{statistics.median(t['auto'][2] for t in turns):.2f} | {median(to_best)}: {best_fixed(turns, settings)} | "
           + ", ".join(f"{s} {statistics.median(beside(turns, s, 'off')):.2f}" for s in settings if s not in ("off", "auto")) + " |")
    return row, [tuple(of(t["off"][3]) / of(t["auto"][3]) for of in (slowest_percent, statistics.median)) for t in turns]


def slowest_percent(times):
    return sorted(times)[-1 - len(times) // 100]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary")
    parser.add_argument("model")
    parser.add_argument("options", nargs="?", default="", help="of the daemon, beside --speculation auto")
    parser.add_argument("--data", type=pathlib.Path, default=HERE.parents[2] / "shared" / "data")
    parser.add_argument("--streams", default="1,2,4,8,16,32")
    parser.add_argument("--texts", default="", help="kinds, as chat,copy; all")
    parser.add_argument("--tokens", type=int, default=96, help="of an answer: half of it to one and a half")
    parser.add_argument("--requests", type=int, default=8, help="of a stream, in a turn")
    parser.add_argument("--every", type=float, default=0, help="seconds between two requests, whoever has an answer; 0: behind an answer")
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--temperature", type=float, default=0)
    parser.add_argument("--fixed", nargs="*", default=[], help="DRAFTER:DEPTH, as many as there are")
    args = parser.parse_args()
    texts = prompts(args.data)
    daemon = Daemon(args.binary, args.model, ["--max-num-seqs", "32", "--speculation", "auto", *args.options.split()])
    try:
        print("| streams | text | tokens/s | of a token | tokens a step | beside the best fixed | fixed |", flush=True)
        for streams in map(int, args.streams.split(",")):
            firsts = []
            for name in args.texts.split(",") if args.texts else texts:
                row, of_cell = cell(daemon, texts[name], streams, ["off", "auto", *args.fixed], args)
                print(f"| {streams} | {name} |", row, flush=True)
                firsts += of_cell
            slowest, middle = map(median, zip(*firsts))
            print(f"| {streams} | to the first token | slowest percent {slowest}, median {middle} |", flush=True)
    finally:
        daemon.end()


if __name__ == "__main__":
    main()
