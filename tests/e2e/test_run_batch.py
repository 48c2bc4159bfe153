"""serval run-batch: a file of requests, answered by a running server."""

import json
import subprocess

from conftest import BINARY


def run(daemon, tmp_path, lines, *options):
    (tmp_path / "in.jsonl").write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    done = subprocess.run([str(BINARY), "run-batch", "--url", daemon.url, "--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl"), *options],
                          capture_output=True, text=True, timeout=120)
    return done, [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]


def request(number, url="/v1/completions", **body):
    return {"custom_id": f"request-{number}", "method": "POST", "url": url, "body": {"model": "serval-nano", **body}}


def test_every_request_is_answered_in_its_place(daemon, tmp_path):
    lines = [request(i, prompt="The capital of", max_tokens=1 + i % 7, temperature=0) for i in range(40)]
    lines.append(request(40, "/v1/chat/completions", messages=[{"role": "user", "content": "Hi"}], max_tokens=5))
    lines.append(request(41, "/v1/embeddings", input="hello"))
    done, answers = run(daemon, tmp_path, lines, "--concurrency", "9")
    assert done.returncode == 0 and "42 of 42" in done.stdout, done.stdout + done.stderr
    assert [answer["custom_id"] for answer in answers] == [f"request-{i}" for i in range(42)]
    texts = {answer["response"]["body"]["choices"][0]["text"] for answer in answers[:40:7]}
    assert len(texts) == 1 and all(answer["error"] is None and answer["response"]["request_id"] for answer in answers)
    assert answers[41]["response"]["body"]["data"][0]["embedding"]


def test_what_is_wrong_stays_on_its_line(daemon, tmp_path):
    lines = [request(0, prompt="x", max_tokens=1), "no json\n", request(2, prompt="x", temperature=9), {"custom_id": "y", "url": "relative", "body": {}},
             request(4, "/v1/nothing", prompt="x"), "\n", request(5, prompt="x", max_tokens=1)]
    done, answers = run(daemon, tmp_path, lines)
    assert done.returncode == 1 and "2 of 6" in done.stdout
    assert [answer["response"] and answer["response"]["status_code"] for answer in answers] == [200, None, 400, None, 404, 200]
    assert answers[1]["error"]["code"] == "invalid_json" and answers[3]["error"]["code"] == "invalid_request"
    assert answers[2]["response"]["body"]["error"]["param"] == "temperature"


def test_a_server_that_is_not_there(tmp_path):
    (tmp_path / "in.jsonl").write_text(json.dumps(request(0, prompt="x")) + "\n")
    done = subprocess.run([str(BINARY), "run-batch", "--url", "http://127.0.0.1:1", "--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert json.loads((tmp_path / "out.jsonl").read_text())["error"]["code"] == "connection_error"
