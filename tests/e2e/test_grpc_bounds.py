"""What clients of gRPC can make the daemon hold, in frames made by hand: none of it needs a key, and none of it may grow the process."""

import datetime
import os
import signal
import socket
import struct
import subprocess
import time

import grpc
import httpx
import pytest
from conftest import BINARY, MODEL
from grpc_health.v1 import health_pb2, health_pb2_grpc

MIB = 1 << 20
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, RST_STREAM, SETTINGS = 1, 3, 4
ACK, END_HEADERS = 1, 4


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def head(stream, path=b"/serval.v1.Inference/Generate"):
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"a"), (b"content-type", b"application/grpc")]
    block = b"".join(b"\0" + bytes([len(n)]) + n + bytes([len(v)]) + v for n, v in fields)
    return frame(HEADERS, END_HEADERS, stream, block)


def connect(port):
    opened = socket.create_connection(("127.0.0.1", port), timeout=30)
    opened.sendall(PREFACE + frame(SETTINGS, 0, 0))
    return opened


def send_all(opened, burst):
    """Sends while reading, so that neither side waits for the other; true when the server closed the connection."""
    opened.setblocking(False)
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            if burst:
                burst = burst[opened.send(burst) :]
        except BlockingIOError:
            pass
        except OSError:
            return True
        try:
            if opened.recv(1 << 16) == b"":
                return True
        except BlockingIOError:
            time.sleep(0.001)
        except OSError:
            return True
    return False


def peak_bytes(daemon):
    for line in open(f"/proc/{daemon.process.pid}/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10


@pytest.mark.parametrize("acknowledged", [False, True])
def test_bursts_of_calls_and_resets_do_not_grow_the_process(start_daemon, acknowledged):
    daemon = start_daemon()
    before = peak_bytes(daemon)
    with connect(daemon.grpc_port) as opened:
        if acknowledged:
            opened.recv(1 << 16)
            opened.sendall(frame(SETTINGS, ACK, 0))
        calls = [head(2 * i + 1) + (frame(RST_STREAM, 0, 2 * i + 1, struct.pack(">I", 8)) if acknowledged else b"") for i in range(20_000)]
        assert send_all(opened, b"".join(calls)), "the connection goes on"
    assert peak_bytes(daemon) - before < 16 * MIB
    assert daemon.metric("serval:requests_aborted_total", reason="flood") == 1
    with grpc.insecure_channel(f"127.0.0.1:{daemon.grpc_port}") as channel:
        assert health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING


def test_gzip_is_refused_without_unpacking(start_daemon):
    daemon = start_daemon()
    before = peak_bytes(daemon)
    with grpc.insecure_channel(f"127.0.0.1:{daemon.grpc_port}") as channel:
        call = channel.unary_unary("/serval.v1.Inference/Generate")
        with pytest.raises(grpc.RpcError) as error:
            call(b"\0" * (256 * MIB), compression=grpc.Compression.Gzip)
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert peak_bytes(daemon) - before < 16 * MIB


def test_idle_connections_leave_the_descriptors_to_http(start_daemon):
    daemon = start_daemon("--grpc-max-connections", 20)
    held = [connect(daemon.grpc_port) for _ in range(100)]
    with grpc.insecure_channel(f"127.0.0.1:{daemon.grpc_port}") as channel:  # behind them in the listen queue
        assert health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
    assert len(os.listdir(f"/proc/{daemon.process.pid}/fd")) < 100
    assert httpx.get(daemon.url + "/live").status_code == 200
    for opened in held:
        opened.close()


def test_a_full_pipe_on_stderr_stops_neither_calls_nor_the_end():
    reader, writer = os.pipe()
    process = subprocess.Popen([str(BINARY), "serve", str(MODEL), "--port", "0", "--grpc-port", "0"], stderr=writer)
    try:
        os.close(writer)
        said = b""
        while b" ready " not in said:
            chunk = os.read(reader, 4096)
            assert chunk, said
            said += chunk
        fields = dict(part.split(b"=", 1) for part in said.split() if b"=" in part)
        http, port = int(fields[b"http_port"]), int(fields[b"grpc_port"])
        # From here on nobody reads. Each request has a line, and these have more than one.
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary("/serval.v1.Inference/Generate")
            for _ in range(3000):
                with pytest.raises(grpc.RpcError) as error:
                    call(b"\x12\x02\xff\xfe", timeout=30)
                assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        metrics = httpx.get(f"http://127.0.0.1:{http}/metrics", timeout=30).text
        dropped = [line for line in metrics.splitlines() if line.startswith("serval:log_lines_dropped_total")]
        assert float(dropped[0].rsplit(" ", 1)[1]) > 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(reader)


def test_lines_have_the_wall_clock(start_daemon):
    daemon = start_daemon()
    assert daemon.stop() == 0
    lines = [line for line in daemon.lines if " ready " in line or " ended" in line]
    assert len(lines) == 2
    for line in lines:
        said = datetime.datetime.strptime(line.split()[0], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=datetime.timezone.utc)
        assert abs(datetime.datetime.now(datetime.timezone.utc) - said) < datetime.timedelta(hours=1)
