"""The command line: every command's page, what it refuses, and the exit codes."""

import contextlib
import json
import os
import pty
import re
import subprocess

import pytest
from conftest import BINARY, MODEL

USAGE, WRONG_VALUE = 2, 3


def run(*arguments):
    return subprocess.run([str(BINARY), *map(str, arguments)], capture_output=True, text=True, timeout=120)


def page(*arguments):
    shown = run(*arguments)
    assert shown.returncode == 0 and shown.stderr == "", shown.stderr
    return shown.stdout


def output_of(*arguments):
    shown = run(*arguments)
    assert shown.returncode == 0, shown.stderr
    return shown.stdout


COMMANDS = ["serve", "plan", "quantize", "config", "api", "models", "bench", "bench peers", "bench --compare", "bench kernels", "bench engine", "bench grammar", "bench overhead", "simulate", "run-batch", "grammar", "datastore", "version", "help"]


def test_the_front_page_lists_the_commands_and_has_three_names():
    front = page("--help")
    assert front == page("-h") == page("help") == page()
    assert all(re.search(rf"^  {command} ", front, re.MULTILINE) for command in COMMANDS), front
    assert "--max-num-seqs" not in front


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_page_of_its_own_under_three_names(command):
    own = page(*command.split(), "--help")
    assert own == page(*command.split(), "-h") == page("help", *command.split())
    assert own.startswith(f"usage: serval {command}")
    assert ("--max-num-seqs " in own and "--port" in own) == (command in ("serve", "plan", "config"))
    assert ("--url URL " in own.split("\n\n", 1)[1]) == (command in ("bench", "bench peers", "run-batch"))


def test_help_is_found_behind_other_arguments():
    assert page("serve", MODEL, "--port", 1, "-h") == page("help", "serve")


def test_a_page_lists_only_what_its_command_takes():
    peers, simulate, bench = (set(re.findall(r"^  (--[a-z-]+)", page("help", *name), re.MULTILINE)) for name in (["bench", "peers"], ["simulate"], ["bench"]))
    assert "--rounds" in peers and not peers & {"--json", "--html", "--record", "--search", "--slo-ttft", "--keep-text"}
    assert "--html" in simulate and not simulate & {"--api-key", "--record", "--search", "--warmup", "--url"}
    assert {"--search", "--record", "--html"} < bench and "--rounds" not in bench


def test_the_models_are_listed_for_people_and_for_programs():
    listed = json.loads(page("models", "--json"))
    assert all(row.keys() == {"models", "architecture", "model_type", "devices", "goldens"} for row in listed)
    assert {row["architecture"] for row in listed} >= {"LlamaForCausalLM", "Qwen3ForCausalLM"}
    lines = page("models").splitlines()
    assert len(lines) == 1 + len(listed) and all(row["architecture"] in line for row, line in zip(listed, lines[1:]))


def test_the_version_has_three_names():
    # The instruction sets and the driver are asked anew each time; the answer is the same.
    assert page("-v") == page("--version") == page("version")


@pytest.mark.parametrize(
    "line, words",
    [
        ("servee m", "unknown command 'servee' (did you mean serve?)"),
        ("fly", "unknown command 'fly'; serval --help lists the commands"),
        ("--hepl", "unknown option '--hepl' (did you mean --help?)"),
        ("help servee", "did you mean serve?"),
        ("serve m --prot 1", "unknown option --prot (did you mean --port?)"),
        ("serve m --confg f", "unknown option --confg (did you mean --config?)"),
        ("serve -x", "unknown option -x"),
        ("config now", "serval config cannot use 'now'"),
        ("bench", "serval bench takes --url URL [options], peers, --compare, kernels, engine, grammar, overhead"),
        ("bench kernel", "not 'kernel' (did you mean kernels?)"),
        ("bench --rate 1", "serval bench needs --url"),
        ("bench --ulr x", "unknown option --ulr (did you mean --url?)"),
        ("bench --url http://h/v1 --rounds 2", "--rounds does not go with serval bench"),
        ("bench --url http://h/v1 --url http://h/v1", "takes one --url"),
        ("bench --url http://h/v1 --search --rate 1 --slo-ttft 1 --concurrency 2", "--concurrency does not go with serval bench --search"),
        ("bench --url http://h/v1 --search --rate 1", "--search needs --slo-ttft or --slo-tpot"),
        ("bench --url http://h/v1 --compare a b", "--compare sends nothing and stands alone"),
        ("bench --compare a b --html=c", "--html does not go with serval bench --compare"),
        ("bench --compare a", "takes two reports"),
        ("bench peers --url http://h/v1 --url http://h/v1 --json f", "--json does not go with serval bench peers"),
        ("bench peers --url http://h/v1 --url http://h/v1 --html f", "--html does not go with serval bench peers"),
        ("bench peers --url http://h/v1 --url http://h/v1 --record f", "--record does not go with serval bench peers"),
        ("bench peers --url http://h/v1", "--url at least twice"),
        ("simulate", "serval simulate needs --cost FILE"),
        ("simulate --cots f", "unknown option --cots (did you mean --cost?)"),
        ("simulate --cost f --record f", "--record does not go with serval simulate"),
        ("simulate --cost f --fit m --rate 1", "--rate does not go with serval simulate --fit"),
        ("simulate --cost f --find-replicas 2 --replicas 2", "they exclude each other"),
    ],
)
def test_a_line_that_cannot_be_understood_exits_2_and_says_what_was_meant(line, words):
    ended = run(*line.split())
    assert ended.returncode == USAGE, (ended.returncode, ended.stderr)
    assert words in ended.stderr and ended.stderr.count("\n") == 1 and ended.stdout == ""


@pytest.mark.parametrize(
    "line, words",
    [
        ("bench --url http://h/v1 --requests 0", "--requests is '0'"),
        ("bench --url ftp://h", "must begin with http:// or grpc://"),
        ("simulate --cost /no/such/file", "/no/such/file"),
        ("simulate --cost f --replicas 0", "--replicas is '0'"),
        ("bench --compare /no/a /no/b", "cannot open /no/a"),
        ("bench engine --shape 3b", "--shape is '3b'; it must be one of 110m, 1b, 8b"),
        ("bench engine --streams 1,x", "--streams is '1,x'; it must be whole numbers from 1 to 4096 with commas between"),
        ("serve acme/tiny", "huggingface-cli download acme/tiny"),
        ("bench --url http://127.0.0.1:1", "most servers answer below /v1: http://127.0.0.1:1/v1"),
    ],
)
def test_a_value_that_cannot_be_used_exits_3(line, words):
    ended = run(*line.split())
    assert ended.returncode == WRONG_VALUE, (ended.returncode, ended.stderr)
    assert words in ended.stderr and ended.stderr.count("\n") == 1


def test_the_engine_is_measured_format_by_format():
    sizes = ["--streams", "2,1", "--prompt", 5, "--output", 64, "--prefill", 7, "--turns", 2]
    report = json.loads(output_of("bench", "engine", "--model", MODEL, "--format", "off,int8", "--json", *sizes))
    assert set(report["load_s"]) == {"off", "int8"}
    assert [(row["what"], row["streams"], row["prompt"]) for row in report["rows"]] == [("decode", 2, 5), ("decode", 1, 5), ("prefill", 1, 7)]
    for row in report["rows"]:
        assert [measured["format"] for measured in row["formats"]] == ["off", "int8"]
        assert all(len(measured["tokens_per_s"]) == 2 and measured["median"] > 0 for measured in row["formats"])


def test_a_search_reports_only_a_rate_that_was_served(daemon, tmp_path):
    files = {kind: tmp_path / f"best.{kind}" for kind in ("json", "html", "record")}
    options = [option for kind, file in files.items() for option in (f"--{kind}", file)]
    # 60 requests at thousands a second are all in the queue before one can be late.
    done = run("bench", "--url", daemon.url + "/v1", "--requests", 60, "--output-tokens", 8, "--rate", 100, "--search", "--slo-ttft", 60000, *options)
    assert done.returncode == 0, done.stderr
    assert ": not held" in done.stdout, done.stdout
    best, offered, served = map(float, re.search(r"SLOs: ([\d.]+) requests/s \(([\d.]+) offered, ([\d.]+) served\)", done.stdout).groups())
    assert served >= 0.89 * offered
    report = json.loads(files["json"].read_text())
    assert abs(report["offered_per_s"] - offered) < 0.01 and abs(report["served_per_s"] - served) < 0.01
    assert report["requests"] == 60 and report["goodput"]["share"] == 1
    assert "<svg" in files["html"].read_text() and len(files["record"].read_text().splitlines()) == 60
    assert f"{best:8.2f} requests/s: " in done.stdout


def test_a_search_that_finds_no_rate_says_so_and_writes_nothing(daemon, tmp_path):
    options = ["--requests", 2, "--rate", 1000000, "--search", "--slo-ttft", 0.001, "--json", tmp_path / "none.json"]
    done = run("bench", "--url", daemon.url + "/v1", *options)
    assert done.returncode == 1 and "no rate that was tried met the SLOs" in done.stdout
    assert not (tmp_path / "none.json").exists()


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_failure_shows_what_the_server_said(daemon, tmp_path, scheme):
    url = daemon.url + "/v1" if scheme == "http" else f"grpc://127.0.0.1:{daemon.grpc_port}"
    kind = "status 400" if scheme == "http" else "status INVALID_ARGUMENT"
    done = run("bench", "--url", url, "--requests", 3, "--input-tokens", 100000, "--token-ids", "--json", tmp_path / "run.json")
    assert done.returncode == 1, done.stderr
    said = re.search(rf"failed: 3 x {kind}: (.+)\n", done.stdout).group(1)
    assert "100000" in said
    report = json.loads((tmp_path / "run.json").read_text())
    assert report["errors"] == {kind: 3} and report["error_messages"] == {kind: said}
    assert "\r" not in done.stderr and done.stderr == ""


def test_progress_is_for_a_terminal(daemon):
    ours, theirs = pty.openpty()
    command = [str(BINARY), "bench", "--url", daemon.url + "/v1", "--requests", "5", "--output-tokens", "2"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, timeout=60, check=True)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # there is nothing more, and nobody to write it
        while piece := os.read(ours, 65536):
            shown += piece
    os.close(ours)
    assert b"\r5 of 5 sent, 5 done, 0 failed" in shown and b"\r" not in done.stdout


def test_a_simulation_writes_its_report_without_what_it_does_not_know(tmp_path):
    step = {"step_ms": 1, "row_ms": 0.01, "seq_ms": 0.01, "context_ms_per_1000": 0.01, "residuals": []}
    cost = tmp_path / "cost.json"
    cost.write_text(json.dumps({"decode": step, "prompt": step, **{f"{name}_ms": [] for name in ("arrival_idle", "arrival_busy", "first_token", "last_token")}}))
    files = ["--json", tmp_path / "run.json", "--html", tmp_path / "run.html"]
    done = run("simulate", "--cost", cost, "--requests", 20, "--rate=50", *files)
    assert done.returncode == 0, done.stderr
    report, html = json.loads((tmp_path / "run.json").read_text()), (tmp_path / "run.html").read_text()
    assert report["ttft_ms"]["p50"] > 0 and "itl_ms" not in report and "itl_ms" not in done.stdout
    assert "Time to first token" in html and "Inter-token" not in html and "batch" not in html
