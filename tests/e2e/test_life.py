"""Start, drain and end: what an operator does to the daemon."""

import os
import signal
import subprocess
import threading
import time

import httpx
import openai
import pytest
from conftest import BINARY, MODEL

LONG = dict(model="serval-nano", prompt="Once upon a time", max_tokens=400, extra_body={"ignore_eos": True})


def test_sigterm_lets_running_streams_end_and_refuses_new_ones(start_daemon):
    daemon = start_daemon()
    stream = daemon.client(timeout=60).completions.create(stream=True, **LONG)
    pieces = [next(iter(stream))]
    daemon.process.send_signal(signal.SIGTERM)
    end = time.monotonic() + 5
    while httpx.get(daemon.url + "/ready").status_code == 200 and time.monotonic() < end:
        time.sleep(0.01)
    with pytest.raises((openai.InternalServerError, openai.APIConnectionError)):
        daemon.client().completions.create(**LONG)
    pieces += list(stream)
    assert pieces[-1].choices[0].finish_reason == "length"
    assert daemon.process.wait(30) == 0, daemon.log()


def test_a_drain_that_runs_out_of_time_says_so_in_the_stream(start_daemon):
    daemon = start_daemon("--drain-timeout-s", 0)
    stream = daemon.client(timeout=60).completions.create(stream=True, **{**LONG, "max_tokens": 1900})
    next(iter(stream))
    daemon.process.send_signal(signal.SIGTERM)
    with pytest.raises(openai.APIError):
        list(stream)
    assert daemon.process.wait(30) == 0, daemon.log()


def test_a_second_signal_ends_at_once(start_daemon):
    daemon = start_daemon("--drain-timeout-s", 600)
    stream = daemon.client(timeout=60).completions.create(stream=True, **{**LONG, "max_tokens": 1900, "n": 8})
    next(iter(stream))
    daemon.process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    daemon.process.send_signal(signal.SIGINT)
    assert daemon.process.wait(15) == 0, daemon.log()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["serve"], "MODEL"),
        (["serve", "/no/such/folder"], "/no/such/folder"),
        (["serve", str(MODEL), "--max-num-seqs", "0"], "max_num_seqs"),
        (["serve", str(MODEL), "--no-such-option", "1"], "--no-such-option"),
        (["serve", str(MODEL), "--host", "0.0.0.0"], "api_keys"),
        (["serve", str(MODEL), "--isa", "mmx"], "isa"),
        (["fly"], "fly"),
    ],
)
def test_a_start_that_cannot_work_is_one_sentence(arguments, words):
    ended = subprocess.run([str(BINARY), *arguments], capture_output=True, text=True, timeout=60)
    assert ended.returncode not in (0, -6, -11)
    assert words in ended.stderr
    assert len(ended.stderr.strip().splitlines()) <= 3, ended.stderr


def test_a_taken_port_is_one_sentence(daemon):
    ended = subprocess.run([str(BINARY), "serve", str(MODEL), "--port", str(daemon.port)], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1 and str(daemon.port) in ended.stderr


def test_the_plan_is_what_the_server_then_holds(start_daemon):
    plan = subprocess.run([str(BINARY), "plan", str(MODEL)], capture_output=True, text=True, timeout=60, check=True).stdout
    planned = int(next(line.split()[1] for line in plan.splitlines() if line.startswith("total")))
    daemon = start_daemon()
    with open(f"/proc/{daemon.process.pid}/status", encoding="ascii") as status:
        resident = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))
    assert abs(resident - planned) <= 0.05 * planned, f"planned {planned}, resident {resident}\n{plan}"


def test_a_thousand_short_requests_leave_no_file_open(start_daemon):
    daemon = start_daemon("--io-threads", 2)
    descriptors = lambda: len(os.listdir(f"/proc/{daemon.process.pid}/fd"))  # noqa: E731
    httpx.get(daemon.url + "/ready")
    time.sleep(0.2)
    before = descriptors()

    def work():
        with httpx.Client(timeout=60) as http:
            for _ in range(125):
                assert http.post(daemon.url + "/v1/completions", json={"prompt": "The", "max_tokens": 1}).status_code == 200

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    daemon.wait_idle()
    time.sleep(0.5)
    assert descriptors() <= before + 2
    assert daemon.metric("serval:request_success_total", finished_reason="length") + daemon.metric(
        "serval:request_success_total", finished_reason="stop"
    ) == 1000


def test_health_routes_follow_the_life_of_the_daemon(start_daemon):
    daemon = start_daemon(wait_ready=False)
    assert httpx.get(daemon.url + "/live").status_code == 200  # at once, while the model loads
    daemon.wait_ready()
    assert httpx.get(daemon.url + "/health").status_code == 200
    assert httpx.get(daemon.url + "/version").json()["version"]
