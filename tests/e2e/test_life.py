"""Start, drain and end: what an operator does to the daemon."""

import os
import re
import signal
import subprocess
import threading
import time

import httpx
import openai
import pytest
from conftest import BINARY, MODEL, ROOT

LONG = dict(model="serval-nano", prompt="Once upon a time", max_tokens=400, extra_body={"ignore_eos": True})


def test_sigterm_lets_running_streams_end_and_refuses_new_ones(start_daemon):
    daemon = start_daemon()
    stream = daemon.client(timeout=60).completions.create(stream=True, **{**LONG, "max_tokens": 1900, "n": 2})  # outlasts a few requests
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


def test_a_hangup_changes_nothing(start_daemon):
    daemon = start_daemon("--drain-timeout-s", 600)
    stream = daemon.client(timeout=60).completions.create(stream=True, **LONG)
    pieces = [next(iter(stream))]
    daemon.process.send_signal(signal.SIGHUP)
    pieces += list(stream)
    assert pieces[-1].choices[0].finish_reason == "length"
    assert "SIGHUP changes nothing" in daemon.log()
    stream = daemon.client(timeout=60).completions.create(stream=True, **LONG)
    pieces = [next(iter(stream))]
    daemon.process.send_signal(signal.SIGTERM)
    daemon.process.send_signal(signal.SIGHUP)  # no second signal
    pieces += list(stream)
    assert pieces[-1].choices[0].finish_reason == "length"
    assert daemon.process.wait(30) == 0, daemon.log()


USAGE, CANNOT_START = 2, 3
ANY_PORT = ["--port", "0", "--grpc-port", "0"]


def run(*arguments, environment=None):
    return subprocess.run(
        [str(BINARY), *map(str, arguments)], env={**os.environ, **(environment or {})}, capture_output=True, text=True, timeout=60
    )


def settings(*arguments, **environment):
    printed = run("config", *arguments, environment=environment)
    assert printed.returncode == 0, printed.stderr
    return dict(line.split(": ", 1) for line in printed.stdout.splitlines()), printed.stderr


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path):
    file = tmp_path / "serval.yaml"
    file.write_text("port: 1\ngrpc_port: 1\nmax_num_seqs: 1\n")
    found, complaints = settings("--config", file, "--port", "3", SERVAL_PORT="2", SERVAL_GRPC_PORT="2", SERVAL_API_KEYS="a,b", SERVAL_GRPC="false")
    assert (found["port"], found["grpc_port"], found["max_num_seqs"], found["grpc"]) == ("3", "2", "1", "false")
    assert found["api_keys"] == "[(hidden), (hidden)]" and complaints == ""


def test_a_variable_that_is_no_setting_is_a_warning_with_the_nearest_name():
    found, complaints = settings(SERVAL_MAX_NUM_SEQ="1", SERVAL_WHATEVER="1", SERVAL_HOST="", SERVICE="1")
    assert found["host"] == '"127.0.0.1"'
    assert len(complaints.splitlines()) == 2 and all("WARN" in line for line in complaints.splitlines()), complaints
    assert "SERVAL_MAX_NUM_SEQ is no setting (did you mean SERVAL_MAX_NUM_SEQS?)" in complaints
    assert "SERVAL_WHATEVER is no setting\n" in complaints
    ended = run("config", environment={"SERVAL_PORT": "many"})
    assert ended.returncode == CANNOT_START and "environment variable SERVAL_PORT: port is 'many'" in ended.stderr


def test_what_kubernetes_says_of_a_service_called_serval_is_no_setting():
    found, complaints = settings(
        SERVAL_PORT="tcp://10.0.0.7:8000", SERVAL_SERVICE_HOST="10.0.0.7", SERVAL_SERVICE_PORT="8000", SERVAL_SERVICE_PORT_HTTP="8000",
        SERVAL_PORT_8000_TCP="tcp://10.0.0.7:8000", SERVAL_PORT_8000_TCP_PROTO="tcp", SERVAL_PORT_8000_TCP_ADDR="10.0.0.7",
        SERVAL_GRPC_PORT="tcp://10.0.0.8:8001", SERVAL_GRPC_SERVICE_HOST="10.0.0.8", SERVAL_GRPC_PORT_8001_TCP="tcp://10.0.0.8:8001",
    )  # fmt: skip
    assert (found["port"], found["grpc_port"], complaints) == ("8000", "8001", "")


def test_the_image_keeps_its_network_when_its_arguments_are_replaced():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    environment = dict(pair.split("=", 1) for line in lines if line.startswith("ENV ") for pair in line.split()[1:])
    found, complaints = settings(**environment)
    assert (found["host"], found["grpc_host"], found["insecure"]) == ('"0.0.0.0"', '"0.0.0.0"', "true") and complaints == ""
    assert 'CMD ["/models/serval-nano"]' in lines


@pytest.mark.parametrize(
    "arguments, exit_code, words",
    [
        (["serve"], USAGE, "MODEL"),
        (["fly"], USAGE, "fly"),
        (["bench", "wind"], USAGE, "wind"),
        (["serve", MODEL, "--no-such-option", "1"], USAGE, "--no-such-option"),
        (["serve", MODEL, "--port"], USAGE, "--port"),
        (["serve", MODEL, "--config"], USAGE, "--config"),
        (["serve", MODEL, "--config", "/no/such/file"], CANNOT_START, "/no/such/file"),
        (["serve", MODEL, "--max-num-seqs", "0"], CANNOT_START, "--max-num-seqs is 0; it must be between 1 and 4096"),
        (["serve", MODEL, "--host", "0.0.0.0"], CANNOT_START, "api_keys"),
        (["serve", MODEL, "--isa", "mmx"], CANNOT_START, "isa"),
        (["serve", MODEL, *ANY_PORT, "--kv-cache-mib", "1"], CANNOT_START, "kv_cache_mib"),
        (["serve", MODEL, *ANY_PORT, "--kv-cache-mib", "16777216"], CANNOT_START, "kv_cache_mib"),
        (["serve", MODEL, "--record", "/no/such/folder/day"], CANNOT_START, "/no/such/folder/day"),
        (["serve", "/no/such/folder"], CANNOT_START, "/no/such/folder"),
        (["plan", "/no/such/folder"], CANNOT_START, "/no/such/folder"),
    ],
)
def test_a_start_that_cannot_work_is_one_sentence_and_says_whose_mistake_it_is(arguments, exit_code, words):
    ended = run(*arguments)
    assert ended.returncode == exit_code, ended.stderr
    assert words in ended.stderr
    assert [line for line in ended.stderr.splitlines() if line.startswith("serval: ")] == ended.stderr.splitlines()[-1:]


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_broken_model_file_is_one_sentence_that_names_it(tmp_path, file):
    for part in MODEL.iterdir():
        (tmp_path / part.name).write_bytes(b"{ not it" if part.name == file else part.read_bytes())
    ended = run("serve", tmp_path, *ANY_PORT)
    assert ended.returncode == CANNOT_START, ended.stderr
    assert file in ended.stderr.splitlines()[-1]


def test_a_taken_port_is_one_sentence(daemon):
    ended = run("serve", MODEL, "--port", daemon.port)
    assert ended.returncode == CANNOT_START and str(daemon.port) in ended.stderr


def test_the_version_says_how_the_binary_was_built():
    text = run("--version").stdout
    assert re.match(r"serval \d+\.\d+\.\d+\n", text)
    for fact in ("compiler: ", "instruction sets that run here: generic"):
        assert fact in text
    assert run("version").stdout == text


def cuda_problem():
    """Why this binary cannot use a CUDA device here, in its own words; "ready" when it can."""
    lines = subprocess.run([BINARY, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()
    return next(line for line in lines if line.startswith("CUDA: ")).removeprefix("CUDA: ")


def test_without_a_gpu_the_same_binary_says_so_and_serves_on_the_cpu(start_daemon):
    if cuda_problem() == "ready":
        pytest.skip("this machine has a CUDA device")
    daemon = start_daemon("--device", "auto")
    assert daemon.client().completions.create(model="serval-nano", prompt="Once", max_tokens=3).usage.completion_tokens == 3
    assert "serving on the CPU" in daemon.log() and cuda_problem() in daemon.log()
    refused = subprocess.run([BINARY, "serve", MODEL, "--port", "0", "--device", "cuda"], capture_output=True, text=True, timeout=30, check=False)
    assert refused.returncode == 3 and cuda_problem() in refused.stderr, refused.stderr


def test_on_a_gpu_the_daemon_says_what_the_cpu_says(start_daemon):
    if cuda_problem() != "ready":
        pytest.skip(f"no GPU: {cuda_problem()}")
    ask = dict(model="serval-nano", prompt="Once upon a time", max_tokens=8, temperature=0)
    texts = [start_daemon("--device", device).client().completions.create(**ask).choices[0].text for device in ("cuda", "cpu")]
    assert texts[0] == texts[1]


def blocks_signals(process):
    """Whether the main thread has come as far as to look after signals."""
    with open(f"/proc/{process.pid}/status", encoding="ascii") as status:
        mask = next(int(line.split()[1], 16) for line in status if line.startswith("SigBlk"))
    return mask >> (signal.SIGTERM - 1) & 1


def test_a_signal_that_comes_before_the_server_is_ready_ends_it_in_order():
    process = subprocess.Popen(
        [str(BINARY), "serve", str(MODEL), *ANY_PORT], stderr=subprocess.PIPE, text=True
    )

    while not blocks_signals(process):  # the dynamic linker's time: there is nobody yet who could answer
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log
    assert "ready" not in log.replace("before it was ready", ""), log


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
