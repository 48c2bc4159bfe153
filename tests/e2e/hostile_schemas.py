#!/usr/bin/env python3
"""What hostile schemas, one a second, cost those beside them:

    build/venv/bin/python tests/e2e/hostile_schemas.py [--binary PATH] [--model FOLDER] [--turns 12] [--seconds 5]

One daemon, some streams of plain text that never pause, and in every other turn of so many seconds a request a second whose schema takes all the
steps that compiling may take, or asks for masks of which none is kept. Prints the tokens of the streams in each turn and the ratio of the sums with
and without, of the first turn in each order alike (A B B A …), so that what else the machine does falls on both."""

import argparse
import itertools
import json
import statistics
import threading
import time

import httpx
from conftest import BINARY, MODEL, Daemon


def too_complex(i):
    """Is refused when all its steps are spent."""
    return {"title": f"{i}", "allOf": [{"anyOf": [{"properties": {f"p{k}{j}": {"const": 1}}, "required": [f"p{k}{j}"]} for k in range(40)]} for j in range(4)]}


def wide(i):
    """Compiles, and is another for every text that it holds."""
    return {"title": f"{i}", "type": "array", "uniqueItems": True, "items": {"type": "string", "maxLength": 60}, "minItems": 9}


def stream(daemon, counts, stopping):
    while not stopping.is_set():
        body = {"prompt": "Once upon a time", "max_tokens": 1800, "ignore_eos": True, "stream": True, "temperature": 0.8, "seed": len(counts)}
        with httpx.stream("POST", daemon.url + "/v1/completions", json=body, timeout=None) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    counts.append(time.monotonic())
                if stopping.is_set():
                    return


def attack(daemon, numbers, seconds):
    end = time.monotonic() + seconds
    told = []

    def send(schema):
        body = {"prompt": "x", "max_tokens": 8, "guided_json": schema, "ignore_eos": False}
        told.append(httpx.post(daemon.url + "/v1/completions", json=body, timeout=60).status_code)

    threads = []
    for second in itertools.count():
        at = end - seconds + second
        if at >= end:
            break
        time.sleep(max(0, at - time.monotonic()))
        i = next(numbers)
        threads.append(threading.Thread(target=send, args=((too_complex, wide)[i % 2](i),)))
        threads[-1].start()
    return threads, told


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", default=BINARY)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("options", nargs="*", help="of the daemon, behind --")
    asked = parser.parse_args()
    daemon = Daemon(*asked.options, model=asked.model, binary=asked.binary)
    stopping, numbers = threading.Event(), itertools.count()
    counts = [[] for _ in range(asked.streams)]
    streams = [threading.Thread(target=stream, args=(daemon, of, stopping)) for of in counts]
    for thread in streams:
        thread.start()
    time.sleep(2)
    sums, statuses = {False: [], True: []}, []
    for turn in range(asked.turns):
        hostile = turn % 4 in (1, 2)
        begin = time.monotonic()
        threads, told = attack(daemon, numbers, asked.seconds) if hostile else ([], [])
        time.sleep(max(0, begin + asked.seconds - time.monotonic()))
        end = time.monotonic()
        tokens = sum(begin <= at < end for of in counts for at in of)
        sums[hostile].append(tokens / (end - begin))
        print(f"{'hostile' if hostile else 'alone':8} {sums[hostile][-1]:8.1f} tokens/s")
        for thread in threads:
            thread.join()
        statuses += told
    stopping.set()
    for thread in streams:
        thread.join()
    assert daemon.stop() == 0
    print("statuses", json.dumps({str(status): statuses.count(status) for status in sorted(set(statuses))}))
    print(f"ratio of the medians {statistics.median(sums[True]) / statistics.median(sums[False]):.3f}, of the sums {sum(sums[True]) / sum(sums[False]):.3f}")


if __name__ == "__main__":
    main()
