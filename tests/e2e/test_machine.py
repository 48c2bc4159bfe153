"""What the daemon makes of the machine's limits: descriptors, and the time that a control group leaves."""

import contextlib
import re
import socket
import subprocess

import pytest


def descriptor_limits(soft, hard):
    return ["prlimit", f"--nofile={soft}:{hard}"]


def answers(daemon):
    with socket.create_connection(("127.0.0.1", daemon.port), timeout=20) as client:
        client.sendall(b"GET /live HTTP/1.1\r\nHost: a\r\n\r\n")
        return client.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_more_connections_than_the_soft_limit_of_descriptors_are_answered(start_daemon):
    daemon = start_daemon("--max-connections", 2000, before=descriptor_limits(128, 4096))
    with contextlib.ExitStack() as idle:
        for _ in range(300):
            idle.enter_context(socket.create_connection(("127.0.0.1", daemon.port), timeout=20))
        assert answers(daemon)
    assert "descriptors" not in daemon.log()


@pytest.mark.parametrize("missing", [0, 1])
def test_a_hard_limit_of_descriptors_below_what_connections_need_is_warned_of(start_daemon, missing):
    needed = 500 + 300 + 256
    daemon = start_daemon(
        *("--max-connections", 500, "--grpc-max-connections", 300),
        before=descriptor_limits(128, needed - missing),
    )
    assert answers(daemon)
    warning = "the hard limit of open descriptors is too low for max_connections"
    found = re.search(rf"{warning}.* limit={needed - missing} needed={needed}", daemon.log())
    assert bool(found) == bool(missing), daemon.log()


def test_the_number_of_computing_threads_is_logged_with_its_reason(start_daemon):
    daemon = start_daemon()
    assert re.search(r"computing threads.* threads=[1-9]\d* .*reason=.*cores among \d+ allowed CPUs", daemon.log())


def test_a_quota_of_one_cpu_gives_one_computing_thread(start_daemon, tmp_path):
    """A mount namespace of its own, whose control group says what a container's would."""
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    seen = f"mount --bind '{tmp_path}' /sys/fs/cgroup"
    namespace = ["unshare", "--mount", "sh", "-c", seen + ' && exec "$@"', "sh"]
    tried = subprocess.run([*namespace, "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        pytest.skip("no mount namespace here: " + tried.stderr.strip())
    daemon = start_daemon(before=namespace)
    assert re.search(r"computing threads.* threads=1 .*quota of 1.00 CPUs", daemon.log()), daemon.log()
    assert daemon.client().completions.create(model="serval-nano", prompt="Once", max_tokens=4).choices[0].text
