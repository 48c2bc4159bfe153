"""`serval bench` and `serval simulate` against real daemons."""

import collections
import json
import re
import shutil
import subprocess

import httpx
import pytest
from conftest import BINARY, MODEL, ROOT

MOONCAKE = ROOT.parent / "shared" / "data" / "trace-mooncake-synthetic" / "synthetic_trace.jsonl"


def serval(*arguments):
    """Runs the program to its end; what it printed."""
    command = [str(BINARY), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def report_of(path, *arguments):
    serval("bench", *arguments, "--json", path)
    return json.loads(path.read_text())


def test_grpc_and_http_see_the_same_answers(daemon, tmp_path):
    load = ["--requests", 64, "--concurrency", 16, "--input-tokens", 40, "--output-tokens", 12, "--token-ids", "--keep-text"]
    http = report_of(tmp_path / "http.json", "--url", daemon.url + "/v1", *load)
    grpc = report_of(tmp_path / "grpc.json", "--url", f"grpc://127.0.0.1:{daemon.grpc_port}", *load)
    assert grpc["succeeded"] == 64 and grpc["model"] == http["model"]
    assert grpc["by_request"]["text"] == http["by_request"]["text"]
    assert grpc["output_tokens"] == http["output_tokens"] == 64 * 12
    assert grpc["prompt_tokens"] == http["prompt_tokens"] == 64 * 40
    assert grpc["ttft_ms"]["p50"] > 0 and grpc["itl_ms"]["max"] > 0


def test_thousands_of_grpc_streams_at_once(start_daemon, tmp_path):
    daemon = start_daemon("--max-waiting", 3000)
    load = ["--requests", 2500, "--concurrency", 2500, "--input-tokens", 4, "--output-tokens", 2]
    report = report_of(tmp_path / "run.json", "--url", f"grpc://127.0.0.1:{daemon.grpc_port}", *load)
    assert report["succeeded"] == 2500, report["errors"]


def test_grpc_failures_are_counted_by_kind(start_daemon, tmp_path):
    daemon = start_daemon("--max-waiting", 1, "--max-num-seqs", 1)
    target = f"grpc://127.0.0.1:{daemon.grpc_port}"
    command = [BINARY, "bench", "--url", target, "--requests", "50", "--concurrency", "50", "--json", tmp_path / "run.json"]
    assert subprocess.run(list(map(str, command)), capture_output=True, timeout=60).returncode == 1
    report = json.loads((tmp_path / "run.json").read_text())
    assert report["errors"].keys() == {"status RESOURCE_EXHAUSTED"}
    assert report["succeeded"] + report["errors"]["status RESOURCE_EXHAUSTED"] == 50


def test_peers_are_measured_in_turns(daemon):
    urls = ["--url", daemon.url + "/v1", "--url", f"grpc://127.0.0.1:{daemon.grpc_port}"]
    lines = serval("bench", "peers", *urls, "--rounds", 3, "--requests", 16, "--output-tokens", 4).splitlines()
    order = [line.split(":")[0] for line in lines[1:7]]
    assert order == ["http", "grpc", "grpc", "http", "http", "grpc"]
    assert [line.split()[:1] for line in lines[7:]] == [["median"], ["median"]]


def test_a_recorded_run_is_fitted_and_simulated(start_daemon, tmp_path):
    recording, report, cost = tmp_path / "engine.rec", tmp_path / "run.json", tmp_path / "cost.json"
    daemon = start_daemon("--record", recording)
    load = ["--requests", 80, "--rate", 60, "--input-tokens", 60, "--output-tokens", 20, "--length-jitter", 0.8, "--token-ids"]
    report_of(report, "--url", daemon.url + "/v1", "--warmup", 5, *load)
    assert daemon.stop() == 0
    fitted = serval("simulate", "--fit-recording", recording, "--fit-report", report, "--cost", cost)
    assert "decode steps" in fitted and "first token back" in fitted
    told = serval("simulate", "--cost", cost, *load, "--against", report)
    ratio = {line.split()[0]: float(line.split()[3]) for line in told.splitlines() if re.match(r"(ttft|tpot)_ms\.p", line)}
    # No timing is asserted, only that both have every figure.
    assert ratio.keys() == {"ttft_ms.p50", "ttft_ms.p90", "tpot_ms.p50", "tpot_ms.p90"}
    assert all(value > 0 for value in ratio.values()), ratio


# --- the prefix cache on a published trace, through the daemon ---

BLOCK = 32  # tokens that a hash id of the trace stands for, after its lengths are divided by 16


def ideal_lru(requests, blocks):
    """Share of the prompt tokens that a cache of so many blocks with perfect LRU order finds."""
    cache, found, total = collections.OrderedDict(), 0, 0
    for request in requests:
        tokens = max(1, round(request["input_length"] / 16))
        ids = request["hash_ids"][: tokens // BLOCK]
        hits = next((i for i, block in enumerate(ids) if block not in cache), len(ids))
        found += min(hits * BLOCK, tokens - 1)  # the last token is always computed
        total += tokens
        for block in reversed(ids):  # a prefix is newer than what follows it
            cache[block] = True
            cache.move_to_end(block)
        while len(cache) > blocks:
            cache.popitem(last=False)
    return found / total


@pytest.fixture(scope="module")
def conversations(tmp_path_factory):
    """Every request of one conversation in thirty (94 requests, 115,000 prompt tokens), and a model they fit."""
    if not MOONCAKE.exists():
        pytest.skip("../shared/data/trace-mooncake-synthetic is absent")
    folder = tmp_path_factory.mktemp("mooncake")
    model = folder / "serval-nano"
    shutil.copytree(MODEL, model)
    config = json.loads((model / "config.json").read_text())
    config["max_position_embeddings"] = 16384
    (model / "config.json").write_text(json.dumps(config))
    requests = [json.loads(line) for line in MOONCAKE.read_text().splitlines()]
    chosen = [r for r in requests if len(r["hash_ids"]) > 1 and r["hash_ids"][1] % 30 == 1]
    trace = folder / "trace.jsonl"
    trace.write_text("".join(json.dumps(r) + "\n" for r in chosen))
    return model, trace, chosen


def run_conversations(start_daemon, conversations, report, *options):
    model, trace, chosen = conversations
    longest = max(r["input_length"] + r["output_length"] for r in chosen) // 16 + BLOCK
    shape = ["--block-size", BLOCK, "--max-num-seqs", 1, "--kv-dtype", "bf16", "--max-model-len", longest]
    daemon = start_daemon(*shape, *options, model=model)
    load = ["--trace", trace, "--scale-lengths", 1 / 16, "--concurrency", 1, "--requests", len(chosen), "--keep-text"]
    seen = report_of(report, "--url", daemon.url + "/v1", *load)
    assert seen["succeeded"] == len(chosen), seen["errors"]
    metrics = httpx.get(daemon.url + "/metrics").text
    return seen, int(re.search(r'num_gpu_blocks="(\d+)"', metrics).group(1))


@pytest.mark.long
def test_the_prefix_cache_finds_what_an_ideal_lru_finds(start_daemon, conversations, tmp_path):
    chosen = conversations[2]
    cold, _ = run_conversations(start_daemon, conversations, tmp_path / "cold.json", "--no-prefix-cache")
    assert cold["cached_tokens"] == 0
    for mib in (17, 28, 55):  # of 57,344 bytes a block: about 310, 510 and 1,000
        warm, blocks = run_conversations(start_daemon, conversations, tmp_path / "warm.json", "--kv-cache-mib", mib)
        share, ideal = warm["cached_tokens"] / warm["prompt_tokens"], ideal_lru(chosen, blocks)
        print(f"{blocks} blocks: {share:.3f} of the prompt tokens cached, ideal {ideal:.3f}")
        assert abs(share - ideal) < 0.02, (blocks, share, ideal)
        assert warm["by_request"]["text"] == cold["by_request"]["text"]
