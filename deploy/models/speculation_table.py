"""How much faster one stream is with each drafter than without, by kind of text.

For each drafter a daemon of its own; each request is made without guesses and with them, in turns, so that whatever else runs on
the machine slows both. Printed: the time of a token without guesses, divided by that with them (medians over the turns), and
tokens a step. With --only-steps more texts are asked once each, to their ends, greedily and at temperature 1, and only tokens a step
are printed: no time is in them, so other work may run beside it.

    python speculation_table.py /path/to/serval /tmp/nano-1b --data ../../../shared/data \\
        "medusa --speculation-model /tmp/nano-1b-medusa --num-draft-tokens 4" "ngram --num-draft-tokens 8"
"""

import argparse
import json
import pathlib
import re
import statistics
import subprocess
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
LIST = "".join(f"The cat number {i} sat on the mat and looked at the dog. " for i in range(12))
CODE = "".join(f"def get_{n}(self):\n    return self.{n}\n\n" for n in ("name", "size", "place", "time", "first", "last"))
STORY = "Once upon a time there was a little girl who lived near the sea."
LETTER = "It was a cold morning, and the old man who kept the light on the hill walked slowly down to the village."


def prompts(data, many=False):
    questions = [json.loads(l)["question"] for f in sorted((data / "corpus-gsm8k-train").rglob("*.jsonl")) for l in f.read_text().splitlines()[:12]]
    chat = (HERE / "train" / "eval_prompts.txt").read_text().splitlines()
    return {
        "chat": [("chat", text) for text in (chat[:40] if many else chat[7:40:11])],
        "maths": [("chat", text) for text in questions[: 12 if many else 3]],
        "code-like": [("text", CODE), ("text", CODE.replace("get", "read").replace("return", "yield"))],
        "copy": [("text", LIST), ("text", LIST.replace("cat", "bird").replace("dog", "boy"))],
        "free prose": [("text", STORY), ("text", LETTER)],
    }


class Daemon:
    def __init__(self, binary, model, options):
        self.process = subprocess.Popen(
            [binary, "serve", model, "--port", "0", "--grpc-port", "0", "--max-num-seqs", "4", "--max-model-len", "1024", *options],
            stderr=subprocess.PIPE, text=True)
        self.port, self.name = None, pathlib.Path(model).name
        for line in self.process.stderr:
            if found := re.search(r"http_port=(\d+)", line):
                self.port = found.group(1)
            if " ready " in line:
                break
        assert self.port, "it did not start"

    def counter(self, name):
        text = urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics").read().decode()
        return float(re.search(rf"^serval:{name}\S* (\S+)", text, re.M).group(1))

    def steps(self):
        return self.counter("engine_steps_total")

    def request(self, kind, text, body, chat={}, plain={}):
        """Path and body; `chat` and `plain` are what one of the two endpoints alone is told."""
        body = body | {"model": self.name} | (chat | {"messages": [{"role": "user", "content": text}]} if kind == "chat" else plain | {"prompt": text})
        return f"/v1/{'chat/completions' if kind == 'chat' else 'completions'}", json.dumps(body).encode()

    def post(self, *request):
        """The answer to a request, to be read."""
        path, body = self.request(*request)
        return urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body, {"Content-Type": "application/json"}))

    def ask(self, kind, text, speculation, tokens, temperature, ignore_eos=True):
        """Seconds of each token behind the first, tokens, steps."""
        body = {"max_tokens": tokens, "temperature": temperature, "seed": 5, "stream": True, "ignore_eos": ignore_eos,
                "speculation": speculation, "stream_options": {"include_usage": True}}
        before, times, count = self.steps(), [], 0
        with self.post(kind, text, body) as answer:
            for line in answer:
                if line.startswith(b"data: {"):
                    part = json.loads(line[6:])
                    if part.get("choices"):
                        times.append(time.monotonic())
                    if part.get("usage"):
                        count = part["usage"]["completion_tokens"]
        return {"of_a_token": (times[-1] - times[0]) / max(1, count - 1), "tokens": count, "steps": self.steps() - before}

    def end(self):
        self.process.kill()
        self.process.wait()


def cell(daemon, texts, args):
    ratios, tokens, steps, plain = [], 0, 0, []
    for _ in range(args.turns):
        for kind, text in texts:
            without = daemon.ask(kind, text, {"method": "off"}, args.tokens, args.temperature)["of_a_token"]
            guessed = daemon.ask(kind, text, {"method": "auto"}, args.tokens, args.temperature)
            ratios.append(without / guessed["of_a_token"])
            plain.append(without)
            steps, tokens = steps + guessed["steps"], tokens + guessed["tokens"]
    return f"{statistics.median(ratios):.2f} ({tokens / steps:.2f}; {statistics.median(plain) * 1e3:.1f} ms)"


def steps_cell(daemon, texts, args):
    rates = []
    for temperature in (0, 1):
        answers = [daemon.ask(kind, text, {"method": "auto"}, args.tokens, temperature, ignore_eos=False) for kind, text in texts]
        rates.append(sum(a["tokens"] for a in answers) / sum(a["steps"] for a in answers))
    return " / ".join(f"{rate:.2f}" for rate in rates)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binary")
    parser.add_argument("model")
    parser.add_argument("drafters", nargs="+", help="the name, and options")
    parser.add_argument("--data", type=pathlib.Path, default=HERE.parents[2] / "shared" / "data")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--temperature", type=float, default=0)
    parser.add_argument("--only-steps", action="store_true")
    args = parser.parse_args()
    texts = prompts(args.data, args.only_steps)
    print("| drafter |", " | ".join(texts), "|", flush=True)
    for drafter in args.drafters:
        name, *options = drafter.split()
        daemon = Daemon(args.binary, args.model, ["--speculation", name, *options])
        try:
            cells = [(steps_cell if args.only_steps else cell)(daemon, of_one, args) for of_one in texts.values()]
        finally:
            daemon.end()
        print("|", drafter, "|", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
