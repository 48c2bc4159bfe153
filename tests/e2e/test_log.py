"""One line of the log for each request that was read."""

import re
import time

import httpx
import openai
import pytest


def request_lines(daemon, num, last="", timeout=10):
    """The lines of requests, once there are so many, the last of a path that ends so."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        lines = [line for line in daemon.log().splitlines() if re.search(r" request method=", line)]
        if len(lines) >= num and f"{last} " in lines[-1]:
            break
        time.sleep(0.02)
    return [dict(pair.split("=", 1) for pair in line.split(" request ")[1].split(" ")) for line in lines]


def test_each_request_has_a_line_with_its_tokens_times_and_key(start_daemon):
    daemon = start_daemon("--api-keys", "not-to-be-seen,nor-this")
    client = daemon.client(api_key="nor-this")
    answer = client.completions.create(model="serval-nano", prompt="Once", max_tokens=5, extra_body={"ignore_eos": True}, extra_headers={"x-request-id": "whole"})
    for _ in client.completions.create(model="serval-nano", prompt="Once", max_tokens=5, stream=True, extra_body={"ignore_eos": True}, extra_headers={"x-request-id": "streamed"}):
        pass
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model="serval-nano", prompt="Once", temperature=9, extra_headers={"x-request-id": "refused"})
    httpx.get(daemon.url + "/nowhere?secret=x", headers={"x-request-id": "a\\x0ab"})
    with httpx.stream(
        "POST", daemon.url + "/v1/completions", headers={"authorization": "Bearer nor-this", "x-request-id": "left"},
        json={"prompt": "Once", "max_tokens": 1500, "ignore_eos": True, "stream": True},
    ) as stream:  # fmt: skip
        next(stream.iter_lines())
    lines = request_lines(daemon, 5)
    assert [list(line) for line in lines] == [
        ["method", "path", "status", "code", "finish", "prompt_tokens", "output_tokens", "drafted", "accepted", "queue_ms", "first_ms", "total_ms", "key", "id"]
    ] * 5
    by_id = {line["id"]: line for line in lines}
    for name in ("whole", "streamed"):
        line = by_id[name]
        assert (line["method"], line["path"], line["status"], line["code"], line["finish"]) == ("POST", "/v1/completions", "200", "-", "length")
        assert (line["prompt_tokens"], line["output_tokens"], line["key"]) == (str(answer.usage.prompt_tokens), "5", "2")
        assert 0 <= float(line["queue_ms"]) <= float(line["first_ms"]) <= float(line["total_ms"])
    assert (by_id["refused"]["status"], by_id["refused"]["code"], by_id["refused"]["finish"]) == ("400", "value_out_of_range", "-")
    assert by_id["left"]["finish"] == "disconnect" and int(by_id["left"]["output_tokens"]) < 1500
    (unknown,) = [line for line in lines if line["status"] == "404"]
    assert unknown["path"] == "/nowhere" and unknown["key"] == "-"
    for secret in ("not-to-be-seen", "nor-this", "secret"):
        assert secret not in daemon.log()


def test_probes_are_lines_of_debug_only(start_daemon):
    quiet, loud = start_daemon(), start_daemon("--log-level", "debug")
    for daemon in (quiet, loud):
        for path in ("/live", "/health", "/metrics", "/version"):
            assert httpx.get(daemon.url + path).status_code == 200
    assert [line["path"] for line in request_lines(quiet, 1)] == ["/version"]
    assert {"/live", "/health", "/metrics", "/version"} <= {line["path"] for line in request_lines(loud, 4, last="/version")}
