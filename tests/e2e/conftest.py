"""Starts real daemons on loopback for the tests in this folder. Every daemon is one we started and one we end."""

import os
import pathlib
import re
import signal
import subprocess
import threading
import time

import httpx
import openai
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "deploy" / "models" / "serval-nano"
BINARY = pathlib.Path(os.environ.get("SERVAL_BINARY", ROOT / "build" / "release" / "server" / "serval"))
# To the daemons these would be settings; the tests' are their own.
for name in [name for name in os.environ if name.startswith("SERVAL_")]:
    del os.environ[name]


def pytest_configure(config):
    config.addinivalue_line("markers", "long: takes minutes; only tests/run --all runs it")


class Daemon:
    """One `serval serve` process; its ports are free ones it chose itself and printed."""

    def __init__(self, *options, model=MODEL, wait_ready=True, binary=BINARY, before=()):
        """before: a command that runs the daemon as its last arguments."""
        self.process = subprocess.Popen(
            [*before, str(binary), "serve", str(model), "--port", "0", "--grpc-port", "0", *map(str, options)],
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines = []
        self.port = self.grpc_port = None
        self._announced = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._announced.wait(30), "the daemon did not say where it listens:\n" + self.log()
        if self.port is None:  # its last line was read, its end may be a moment away
            self.process.wait(30)
        if wait_ready:
            self.wait_ready()

    def _read(self):
        for line in self.process.stderr:
            self.lines.append(line)
            found = re.search(r"listening.* http_port=(\d+) grpc_port=(\d+)", line)
            if found:
                self.port, self.grpc_port = int(found.group(1)), int(found.group(2))
                self._announced.set()
        self._announced.set()

    def log(self):
        return "".join(self.lines)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def wait_ready(self, timeout=60):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            assert self.process.poll() is None, "the daemon ended:\n" + self.log()
            try:
                if httpx.get(self.url + "/ready", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError("the daemon was not ready in time:\n" + self.log())

    def client(self, **options):
        options.setdefault("max_retries", 0)
        options.setdefault("timeout", 120)  # the client's own is 600 s, which a daemon that hangs would cost each test
        return openai.OpenAI(base_url=self.url + "/v1", api_key=options.pop("api_key", "none"), **options)

    def async_client(self, **options):
        options.setdefault("max_retries", 0)
        options.setdefault("timeout", 120)
        return openai.AsyncOpenAI(base_url=self.url + "/v1", api_key="none", **options)

    def metric(self, name, **labels):
        """The value of one series, 0 when it is not there; labels must be among the series' own."""
        for line in httpx.get(self.url + "/metrics").text.splitlines():
            if not line.startswith(name + "{"):
                continue
            head, value = line.rsplit(" ", 1)
            if all(f'{key}="{wanted}"' in head for key, wanted in labels.items()):
                return float(value)
        return 0.0

    def wait_idle(self, timeout=20):
        """Until no sequence runs or waits; then every KV block is free or only cached."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self.metric("serval:num_requests_running") == 0 and self.metric("serval:num_requests_waiting") == 0:
                assert self.metric("serval:kv_cache_usage_perc") == 0, "blocks are held though nothing runs"
                return
            time.sleep(0.02)
        raise AssertionError("requests are still running")

    def stop(self, timeout=60):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@pytest.fixture
def start_daemon():
    """A function that starts a daemon with options; all are ended after the test."""
    daemons = []

    def start(*options, **keywords):
        daemons.append(Daemon(*options, **keywords))
        return daemons[-1]

    yield start
    for daemon in daemons:
        daemon.kill()


@pytest.fixture(scope="session")
def daemon():
    """One daemon shared by the tests that only ask; it must end with exit code 0."""
    shared = Daemon("--max-num-seqs", 64)
    yield shared
    assert shared.stop() == 0, shared.log()


@pytest.fixture
def client(daemon):
    return daemon.client()
