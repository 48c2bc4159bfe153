"""Hours of use in minutes: requests of mixed lengths, many of them left in the middle, and what the daemon then holds."""

import asyncio
import random
import re
import subprocess

import httpx
import pytest
from conftest import BINARY, MODEL

SECONDS = 150
CLIENTS = 48
WORDS = "once upon a time there was a little fox who lived in the big green wood and every day it went to see".split()


def resident_bytes(daemon):
    with open(f"/proc/{daemon.process.pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))


async def use(url, seed, until):
    """One client: texts of 1 to 1,400 words, answers of 1 to 400 tokens, streamed or whole; every fifth is left early."""
    draw = random.Random(seed)
    now = asyncio.get_running_loop().time
    ended = 0
    async with httpx.AsyncClient(base_url=url, timeout=120) as http:
        while now() < until:
            length = int(1400 ** draw.random())
            body = {
                "model": "serval-nano",
                "prompt": " ".join(draw.choice(WORDS) for _ in range(length)),
                "max_tokens": int(400 ** draw.random()),
                "n": draw.choice([1, 1, 1, 3]),
                "ignore_eos": True,
                "stream": True,
            }
            leaves_after = draw.randrange(8) if draw.random() < 0.2 else None
            async with http.stream("POST", "/v1/completions", json=body) as answer:
                if answer.status_code == 429:  # the line is full, as it may be
                    await asyncio.sleep(0.1)
                    continue
                assert answer.status_code == 200, await answer.aread()
                pieces = 0
                async for _ in answer.aiter_lines():
                    pieces += 1
                    if leaves_after is not None and pieces > leaves_after:
                        break
                else:
                    ended += 1
    return ended


@pytest.mark.long
def test_after_a_long_mixed_use_the_daemon_holds_what_its_plan_says(start_daemon):
    options = ["--max-num-seqs", "32", "--kv-cache-mib", "96"]
    command = [str(BINARY), "plan", str(MODEL), *options]
    plan = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    planned = int(re.search(r"^total +(\d+)", plan, re.MULTILINE)[1])
    daemon = start_daemon(*options)
    at_start = resident_bytes(daemon)

    async def everybody():
        until = asyncio.get_running_loop().time() + SECONDS
        return await asyncio.gather(*(use(daemon.url, seed, until) for seed in range(CLIENTS)))

    ended = sum(asyncio.run(everybody()))
    daemon.wait_idle()
    after = resident_bytes(daemon)
    told = f"{ended} answers; planned {planned}, resident at the start {at_start}, after {after}\n{plan}"
    print(told)
    assert ended > 4 * CLIENTS, told
    assert abs(after - planned) <= 0.05 * planned, told
