"""The limits of HTTP as settings of the daemon: what is exactly at one passes, one more is refused as docs/config.md says."""

import contextlib
import socket
import time

import httpx
import pytest


@contextlib.contextmanager
def connection(daemon):
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=30) as client:
        yield client


def status_of(daemon, request):
    with connection(daemon) as client:
        client.sendall(request)
        return int(client.recv(65536).split()[1])


def head(*lines):
    return "".join(line + "\r\n" for line in [*lines, ""]).encode()


def with_line_bytes(size):
    line = "GET /version? HTTP/1.1"
    return head(line.replace("?", "?" + "a" * (size - len(line))), "Host: a")


def with_header_bytes(size):
    padding = size - len(head("Host: a", "X-A: "))
    return head("GET /version HTTP/1.1", "Host: a", "X-A: " + "a" * padding)


def with_fields(count):
    return head("GET /version HTTP/1.1", "Host: a", *(f"X-{i}: a" for i in range(count - 1)))


def with_body_bytes(size):
    body = b'{"prompt": "' + b"a" * (size - 14) + b'"}'
    assert len(body) == size
    return head("POST /tokenize HTTP/1.1", "Host: a", "Content-Type: application/json", f"Content-Length: {size}") + body


@pytest.fixture(scope="module")
def strict():
    from conftest import Daemon

    # What one connection may send is more than all together may hold, so that each limit is met alone.
    daemon = Daemon(
        *("--max-request-line-bytes", 100, "--max-header-bytes", 300, "--max-header-fields", 5),
        *("--max-total-body-bytes", 1024, "--body-total-timeout-ms", 300, "--linger-timeout-ms", 10),
    )
    yield daemon
    assert daemon.stop() == 0, daemon.log()


@pytest.mark.parametrize(
    "request_of, limit, refusal",
    [(with_line_bytes, 100, 414), (with_header_bytes, 300, 431), (with_fields, 5, 431), (with_body_bytes, 1024, 429)],
)
def test_what_is_at_a_limit_passes_and_one_more_is_refused(strict, request_of, limit, refusal):
    assert status_of(strict, request_of(limit)) == 200
    assert status_of(strict, request_of(limit + 1)) == refusal


def test_a_body_that_drips_ends_at_its_total_time(strict):
    with connection(strict) as client:
        client.sendall(head("POST /tokenize HTTP/1.1", "Host: a", "Content-Type: application/json", "Content-Length: 1000"))
        client.settimeout(0.02)
        answer = b""
        for _ in range(500):
            with contextlib.suppress(TimeoutError):
                answer = client.recv(65536)
                break
            client.sendall(b" ")
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_client_that_does_not_close_after_its_last_answer_is_closed(strict):
    with connection(strict) as client:
        client.sendall(head("GET /version HTTP/1.1", "Host: a", "Connection: close"))
        while client.recv(65536):
            pass
        # Its answer was read to the end; a socket that is gone answers what comes after with a reset.
        with pytest.raises(ConnectionError):
            for _ in range(500):
                client.sendall(b"x")
                time.sleep(0.02)


def test_probes_answer_whatever_one_client_holds_open(start_daemon):
    daemon = start_daemon("--max-connections", 8)
    ways = [b"", head("GET /version HTTP/1.1", "Host: a"), b"GET /ver", with_body_bytes(1024)[:-1]]
    for way in ways:
        with contextlib.ExitStack() as held:
            for _ in range(60):  # all connections, and the reserve several times over
                held.enter_context(connection(daemon)).sendall(way)
            for probe in ["/live", "/ready", "/health", "/ping", "/metrics"]:
                assert status_of(daemon, head(f"GET {probe} HTTP/1.1", "Host: a")) == 200, (way, probe)


def test_an_address_with_its_share_of_busy_connections_gets_no_more(start_daemon):
    daemon = start_daemon("--max-connections-per-address", 2)
    with contextlib.ExitStack() as held:
        for _ in range(2):
            held.enter_context(connection(daemon)).sendall(with_body_bytes(1024)[:-1])
        assert daemon.metric("serval:num_requests_running") == 0  # a probe; whatever was sent before it has arrived
        assert status_of(daemon, head("GET /version HTTP/1.1", "Host: a")) == 503
        assert status_of(daemon, head("GET /live HTTP/1.1", "Host: a")) == 200
    for _ in range(500):  # once the server has seen them go
        if status_of(daemon, head("GET /version HTTP/1.1", "Host: a")) == 200:
            return
        time.sleep(0.02)
    raise AssertionError("their places stay taken")


def test_an_answer_is_refused_by_its_price_before_it_is_computed(start_daemon):
    request = {"prompt": [[65] * 10, [66] * 10], "n": 2, "prompt_logprobs": 3, "max_tokens": 1, "stream": True}
    price = 2 * 10 * (3 + 1) * 64 * 2  # docs/api.md
    for most, status in [(price, 200), (price - 1, 400)]:
        daemon = start_daemon("--max-answer-bytes", most)
        answer = httpx.post(daemon.url + "/v1/completions", json=request)
        assert answer.status_code == status, answer.text
        if status == 400:
            error = answer.json()["error"]
            assert (error["param"], error["code"]) == ("prompt_logprobs", "answer_too_large")
            assert daemon.metric("serval:prompt_tokens_total") == 0
        else:
            assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
