"""Many clients at once: their texts are those of the serial run, and the batch was really a batch."""

import asyncio

import httpx

NUM_STREAMS = 64


def requests(salt):
    """Mixed lengths, temperatures and seeds; the salt keeps one run's prefix cache from serving another."""
    openings = ["Once upon a time", "The king said to his", "In the garden there was a small", "Count: one, two,", "My dear friend,"]
    for i in range(NUM_STREAMS):
        prompt = " ".join([openings[i % len(openings)]] * (1 + i % 7 * 4))
        yield dict(
            model="serval-nano", prompt=prompt, max_tokens=32 + i % 5 * 16, temperature=[0, 0.7, 1.0][i % 3], seed=i,
            extra_body={"ignore_eos": True, "cache_salt": salt + str(i % 4)},
        )


async def stream_text(client, arguments):
    text = ""
    async for chunk in await client.completions.create(stream=True, **arguments):
        text += chunk.choices[0].text if chunk.choices else ""
    return text


def test_64_streams_at_once_equal_the_serial_run(start_daemon):
    daemon = start_daemon("--max-num-seqs", NUM_STREAMS)
    serial = [daemon.client().completions.create(**r).choices[0].text for r in requests("serial")]

    async def together():
        async with daemon.async_client() as client:
            return await asyncio.gather(*(stream_text(client, r) for r in requests("together")))

    assert asyncio.run(together()) == serial
    assert daemon.metric("serval:engine_step_max_mixed_seqs") >= 32
    daemon.wait_idle()


def test_clients_that_leave_stop_costing(start_daemon):
    daemon = start_daemon()
    arguments = dict(model="serval-nano", prompt="Once upon a time", max_tokens=1500, stream=True, extra_body={"ignore_eos": True})
    streams = [daemon.client().completions.create(**arguments) for _ in range(16)]
    for stream in streams:
        next(iter(stream))
    assert daemon.metric("serval:num_requests_running") == 16
    for stream in streams:
        stream.close()
    daemon.wait_idle()
    assert daemon.metric("serval:generation_tokens_total") < 16 * 1500
    assert daemon.metric("serval:request_success_total", finished_reason="abort") == 16


def test_a_full_queue_answers_429_with_a_time_to_come_back(start_daemon):
    daemon = start_daemon("--max-num-seqs", 1, "--max-waiting", 2)
    body = {"prompt": "Once", "max_tokens": 1900, "ignore_eos": True}

    async def flood():
        async with httpx.AsyncClient(timeout=60) as http:
            return await asyncio.gather(*(http.post(daemon.url + "/v1/completions", json=body) for _ in range(8)))

    answers = asyncio.run(flood())
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(refused) == 5  # one runs, two wait
    for answer in refused:
        assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["code"] == "queue_full"
    assert daemon.metric("serval:requests_rejected_total", code="queue_full") == 5
    daemon.wait_idle()


def test_a_reader_that_stops_reading_does_not_slow_others(start_daemon):
    import socket

    daemon = start_daemon("--write-stall-timeout-ms", 2000, "--stream-buffer-bytes", 4096)
    lazy = socket.create_connection(("127.0.0.1", daemon.port))
    lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    body = b'{"prompt":"Once","max_tokens":1900,"ignore_eos":true,"stream":true,"n":8,"logprobs":5}'
    lazy.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    for _ in range(10):
        answer = daemon.client(timeout=30).completions.create(model="serval-nano", prompt="The", max_tokens=16)
        assert answer.usage.completion_tokens >= 1
    daemon.wait_idle(60)  # the lazy one was cut off
    lazy.close()

