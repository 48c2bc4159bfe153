"""The contract to the letter: frames byte by byte, one validator behind two doors, equal text whatever is combined, and clients
that mean no good."""

import concurrent.futures
import json
import os
import random
import signal
import socket
import struct
import time

import httpx
import pytest

COMPLETIONS, CHATS = "/v1/completions", "/v1/chat/completions"
REFERENCE = {"prompt": "Once upon a time", "max_tokens": 32, "temperature": 0, "ignore_eos": True, "logprobs": 5}


def raw_request(port, data, timeout=30):
    """All bytes that come back until the other side closes, or falls silent."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        connection.sendall(data)
        try:
            while piece := connection.recv(1 << 16):
                received += piece
        except (TimeoutError, ConnectionError):
            pass
    return received


def raw_post(path, body, *headers):
    data = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {len(data)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def unchunked(rest):
    data = b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        assert rest[length : length + 2] == b"\r\n"
        data, rest = data + rest[:length], rest[length + 2 :]
        if length == 0:
            assert rest == b""
            return data


def stream_events(daemon, path, body):
    """The JSON of every event; each is exactly `data: ` + one line of UTF-8 + an empty line, and the last one is [DONE]."""
    answer = raw_request(daemon.port, raw_post(path, {**body, "stream": True}, "X-Request-Id: mine", "Connection: close"))
    head, _, rest = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    assert status.startswith("HTTP/1.1 200"), answer
    assert headers["content-type"].startswith("text/event-stream")
    assert (headers["cache-control"], headers["x-accel-buffering"], headers["x-request-id"]) == ("no-cache", "no", "mine")
    data = unchunked(rest)
    assert data.endswith(b"data: [DONE]\n\n") and b"\r" not in data
    events = data[:-2].split(b"\n\n")[:-1]
    assert all(event.startswith(b"data: {") and b"\n" not in event for event in events)
    return [json.loads(event[len(b"data: ") :].decode("utf-8")) for event in events]


def joined(events, chat):
    """The choices that a client would put together, checking the rules of chunks on the way."""
    assert len({(e["id"], e["created"], e["model"], e["object"]) for e in events}) == 1
    assert events[0]["object"] == ("chat.completion.chunk" if chat else "text_completion")
    choices = {}
    for event in events:
        (piece,) = event["choices"]
        index = piece["index"]
        if index not in choices:
            assert index == len(choices), "choices first appear in order"
            choices[index] = {"text": "", "token_ids": [], "logprobs": None, "finish_reason": None}
            if chat:
                assert piece["delta"] == {"role": "assistant", "content": ""}
        elif chat:
            assert "role" not in piece["delta"]
        choice = choices[index]
        assert choice["finish_reason"] is None, "nothing follows the finish"
        choice["text"] += piece["delta"].get("content", "") if chat else piece["text"]
        choice["token_ids"] += piece.get("token_ids", [])
        choice["finish_reason"] = piece["finish_reason"]
        for name, values in (piece["logprobs"] or {}).items():
            choice["logprobs"] = choice["logprobs"] or {}
            choice["logprobs"].setdefault(name, [] if values is not None else None)
            if values is not None:
                choice["logprobs"][name] += values
    return choices


def combined_requests(count):
    """Random combinations of everything that can be asked for; a seed makes the draws repeatable."""
    rng = random.Random(22)
    prompts = ["Once upon a time", "Émile 😀 said: “naïve”", "<|im_start|>user\nHi<|im_end|>\n"]
    fields = {
        "n": [None, 3], "presence_penalty": [None, 1.5], "frequency_penalty": [None, -0.7], "repetition_penalty": [None, 1.3],
        "stop": [None, ["e t", "and"], "."], "temperature": [0, 0.9], "logit_bias": [None, {"5": -100, "300": 4}],
        "min_tokens": [None, 2], "max_tokens": [2, 24], "ignore_eos": [None, True], "prompt_logprobs": [None, 2],
        "include_stop_str_in_output": [None, True], "return_token_ids": [None, True], "cache_salt": [None, "cold"],
        "stream_options": [None, {"include_usage": True}],
    }  # fmt: skip
    for i in range(count):
        body = {name: chosen for name, values in fields.items() if (chosen := rng.choice(values)) is not None}
        body["seed"] = i
        if "cache_salt" in body:
            body["cache_salt"] += str(i)
        chat, prompt, logprobs = rng.random() < 0.5, rng.choice(prompts), rng.choice([None, 0, 3])
        if chat:
            body["messages"] = [{"role": "user", "content": prompt}]
            if logprobs is not None:
                body |= {"logprobs": True, "top_logprobs": logprobs}
        else:
            body["prompt"] = prompt
            if logprobs is not None:
                body["logprobs"] = logprobs
            if rng.random() < 0.5:
                body["echo"] = True
        yield (CHATS if chat else COMPLETIONS), body


def test_whatever_is_combined_streams_what_the_serial_run_answers(daemon):
    requests = list(combined_requests(120))
    with httpx.Client(base_url=daemon.url, timeout=60) as http:
        whole = []
        for path, body in requests:
            answer = http.post(path, json={name: value for name, value in body.items() if name != "stream_options"})
            assert answer.status_code == 200, (body, answer.text)
            whole.append(answer.json())

    def check(path, body, expected):
        chat = path == CHATS
        if "cache_salt" in body:
            body = {**body, "cache_salt": body["cache_salt"] + "again"}  # misses where the serial run missed
        events = stream_events(daemon, path, body)
        if "stream_options" in body:
            usage = events.pop()
            assert usage["choices"] == []
            counts = ("prompt_tokens", "completion_tokens", "total_tokens")
            assert [usage["usage"][c] for c in counts] == [expected["usage"][c] for c in counts]
            assert usage["usage"]["prompt_tokens_details"]["cached_tokens"] >= 0
            assert all(event["usage"] is None for event in events)
        else:
            assert all("usage" not in event for event in events)
        choices = joined(events, chat)
        assert len(choices) == len(expected["choices"])
        for choice in expected["choices"]:
            streamed = choices[choice["index"]]
            assert streamed["text"] == (choice["message"]["content"] if chat else choice["text"]), body
            assert streamed["finish_reason"] == choice["finish_reason"]
            assert streamed["token_ids"] == choice.get("token_ids", [])
            assert streamed["logprobs"] == choice["logprobs"], body

    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        for done in [pool.submit(check, *request, expected) for request, expected in zip(requests, whole)]:
            done.result()


def test_a_hundred_requests_of_one_id_are_a_hundred_requests(daemon):
    with httpx.Client(base_url=daemon.url, timeout=60, limits=httpx.Limits(max_connections=100)) as http:
        ask = lambda i, **more: http.post(COMPLETIONS, json={"prompt": f"Count {i % 10}", "max_tokens": 8, "seed": i}, **more)  # noqa: E731
        serial = [ask(i).json()["choices"] for i in range(100)]
        with concurrent.futures.ThreadPoolExecutor(100) as pool:
            answers = list(pool.map(lambda i: ask(i, headers={"X-Request-Id": "same"}), range(100)))
    assert [answer.json()["choices"] for answer in answers] == serial
    assert {answer.headers["x-request-id"] for answer in answers} == {"same"}
    assert len({answer.json()["id"] for answer in answers}) == 100


def test_extreme_neighbours_change_no_bit_of_others(daemon):
    extreme = [
        {"temperature": 2, "logit_bias": {str(i): 100 if i % 2 else -100 for i in range(1024)}, "repetition_penalty": 10},
        {"temperature": 1e-45, "top_p": 1e-45, "repetition_penalty": 1e-45},
        {"temperature": 1, "repetition_penalty": 5e-324, "presence_penalty": -2, "frequency_penalty": -2},
    ]
    normal = [
        {**REFERENCE, "prompt": f"My dear friend number {i},", "temperature": [0, 0.8][i % 2], "seed": i} for i in range(29)
    ]
    with httpx.Client(base_url=daemon.url, timeout=60, limits=httpx.Limits(max_connections=64)) as http:
        alone = [http.post(COMPLETIONS, json=body).json()["choices"] for body in normal]
        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            hostile = [pool.submit(http.post, COMPLETIONS, json={"prompt": "Evil", "max_tokens": 48, **body}) for body in extreme]
            beside = list(pool.map(lambda body: http.post(COMPLETIONS, json=body).json()["choices"], normal))
            assert [answer.result().status_code for answer in hostile] == [200, 200, 200]
    assert beside == alone  # log-probabilities are among what is equal


def test_clients_that_leave_at_any_moment_leave_nothing_behind(start_daemon):
    daemon = start_daemon()
    before = httpx.post(daemon.url + COMPLETIONS, json=REFERENCE).json()["choices"]

    def leave(number):
        rng = random.Random(number)
        body = {
            "prompt": rng.choice(["Once ", "A " * rng.randrange(1, 900)]), "max_tokens": rng.choice([1, 50, 900]), "n": rng.choice([1, 4]),
            "stream": rng.random() < 0.7, "ignore_eos": True, "cache_salt": str(number % 7),
        }  # fmt: skip
        request = raw_post(COMPLETIONS, body)
        with socket.create_connection(("127.0.0.1", daemon.port)) as connection:
            if rng.random() < 0.2:
                connection.sendall(request[: rng.randrange(len(request))])
                return
            connection.sendall(request)
            if rng.random() < 0.3:  # RST instead of FIN
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.settimeout(rng.uniform(0.001, 0.15))
            try:
                connection.recv(rng.randrange(1, 5000))
            except TimeoutError:
                pass

    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        list(pool.map(leave, range(240)))
    daemon.wait_idle(60)
    assert httpx.post(daemon.url + COMPLETIONS, json=REFERENCE).json()["choices"] == before


def test_garbage_at_both_ports_is_turned_away(daemon):
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    settings = preface + b"\0\0\0\4\0\0\0\0\0"
    garbage = [
        b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03" + bytes(190),  # a TLS hello
        settings, preface + bytes(4000), settings + b"\0\0\x08\x06\0\0\0\0\0abcdefgh" * 2000, bytes(3000), b"\r\n" * 5000,
    ]  # fmt: skip
    rng = random.Random(3)
    garbage += [start + rng.randbytes(2000) for start in (b"", settings, b"POST /v1/completions HTTP/1.1\r\n") for _ in range(5)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda data: raw_request(daemon.port, data, timeout=0.5), garbage))
        list(pool.map(lambda data: raw_request(daemon.grpc_port, data, timeout=0.5), garbage))
    assert not [answer for answer in answers if answer and not answer.startswith(b"HTTP/1.1 4")]
    assert httpx.get(daemon.url + "/ready").status_code == 200


@pytest.mark.parametrize(
    "path, change, wanted",
    [
        (COMPLETIONS, {"temperature": "NaN"}, (400, "invalid_type", "temperature")),
        (COMPLETIONS, {"n": True}, (400, "invalid_type", "n")),
        (COMPLETIONS, {"seed": 2**63}, (400, "value_out_of_range", "seed")),
        (COMPLETIONS, {"seed": -(2**63)}, (200, None, None)),
        (COMPLETIONS, {"max_tokens": 0, "echo": True}, (200, None, None)),
        (COMPLETIONS, {"max_tokens": 0}, (200, None, None)),
        (CHATS, {"max_tokens": 0}, (400, "value_out_of_range", "max_tokens")),
        (COMPLETIONS, {"temperature": 0, "top_k": -1, "min_p": 0, "presence_penalty": -0.0, "top_p": 0, "seed": -1, "n": None}, (200, None, None)),
        (COMPLETIONS, {"max_tokens": None, "top_k": 10**6}, (200, None, None)),
        (CHATS, {"max_tokens": -1, "stop": "."}, (200, None, None)),
        (COMPLETIONS, {"logprobs": 6}, (400, "value_out_of_range", "logprobs")),
        (COMPLETIONS, {"prompt": [1, "a"]}, (400, "invalid_prompt", "prompt")),
        (COMPLETIONS, {"prompt": ["Hi"] * 64, "n": 16}, (400, "value_out_of_range", "n")),  # never fits: not "later"
        (COMPLETIONS, {"model": "é" * 200}, (404, "model_not_found", "model")),
        (CHATS, {"messages": [{"role": "user", "content": None}]}, (400, "invalid_messages", "messages")),
        (CHATS, {"tool_choice": "required"}, (400, "invalid_value", "tool_choice")),
        (CHATS, {"tools": [{"type": "function"}]}, (400, "invalid_value", "tools[0].function")),
        (CHATS, {"tools": [{"type": "function"}], "tool_choice": "none"}, (200, None, None)),
        (CHATS, {"tools": []}, (200, None, None)),
        (CHATS, {"messages": [{"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}, {"role": "user", "content": "Hi"}]}, (200, None, None)),
        (CHATS, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]}, (400, "not_supported", "messages")),
        (CHATS, {"stream_options": {"include_usage": True}}, (400, "invalid_value", "stream_options")),
        (CHATS, {"top_logprobs": 1}, (400, "invalid_value", "top_logprobs")),
        (CHATS, {"priority": 1}, (403, "priority_not_allowed", "priority")),
        (CHATS, {"reasoning": {"effort": "low"}, "chat_id": "x", "metadata": {"a": "b"}, "stop": None}, (200, None, None)),
    ],
)
def test_each_row_has_its_exact_answer(daemon, path, change, wanted):
    base = {"prompt": "Hi"} if path == COMPLETIONS else {"messages": [{"role": "user", "content": "Hi"}]}
    answer = httpx.post(daemon.url + path, json={**base, "max_tokens": 2, **change})
    error = answer.json().get("error")
    assert error is None or set(error) == {"message", "type", "param", "code"}
    assert (answer.status_code, error and error["code"], error and error["param"]) == wanted, answer.text


def test_ids_of_a_text_give_back_the_text(daemon):
    rng = random.Random(4)
    planes = [(1, 0x7F), (0x80, 0x7FF), (0x800, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x10FFFF)]
    texts = ["Émile 😀👩‍👩‍👧 naïve", " a  b\t\r\n c ", "<|im_start|>user\n", "e\u0301 \u00e9 \ufb01", "\u0000\u200b\ufeff"]
    texts += ["".join(chr(rng.randint(*rng.choice(planes))) for _ in range(200)) for _ in range(20)]
    with httpx.Client(base_url=daemon.url) as http:
        for text in texts:
            answer = http.post("/tokenize", json={"prompt": text, "return_token_strs": True}).json()
            assert answer["count"] == len(answer["tokens"]) == len(answer["token_strs"])
            assert http.post("/detokenize", json={"tokens": answer["tokens"]}).json() == {"prompt": text}


def test_an_empty_text_has_no_tokens(daemon):
    answer = httpx.post(daemon.url + "/tokenize", json={"prompt": ""})
    assert answer.status_code == 200, answer.text
    assert (answer.json()["count"], answer.json()["tokens"]) == (0, [])


@pytest.mark.parametrize("path, param", [(COMPLETIONS, "prompt"), (CHATS, "messages")])
def test_a_prompt_of_megabytes_is_refused_for_its_size(daemon, path, param):
    flood = "word " * 400_000
    body = {"prompt": flood} if path == COMPLETIONS else {"messages": [{"role": "user", "content": flood}]}
    error = httpx.post(daemon.url + path, json={**body, "max_tokens": 1}, timeout=60).json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", param)
    assert "at least" in error["message"]


def test_a_rendered_chat_is_what_is_fed(daemon):
    chat = {"messages": [{"role": "user", "content": "Hi 😀"}]}
    rendered = httpx.post(daemon.url + CHATS + "/render", json=chat).json()
    answer = httpx.post(daemon.url + CHATS, json={**chat, "max_tokens": 1, "return_token_ids": True}).json()
    assert set(rendered) == {"prompt", "prompt_token_ids"} and "Hi 😀" in rendered["prompt"]
    assert rendered["prompt_token_ids"] == answer["prompt_token_ids"]
    assert httpx.post(daemon.url + "/tokenize", json=chat).json()["tokens"] == rendered["prompt_token_ids"]


def test_preempted_requests_answer_as_alone(start_daemon):
    daemon = start_daemon("--kv-cache-mib", 4, "--max-num-seqs", 32)
    bodies = [
        {**REFERENCE, "prompt": f"Tale {i} " + "so " * (20 * (i % 5)), "max_tokens": 200, "temperature": [0, 0.9][i % 2], "seed": i}
        for i in range(16)
    ]
    with httpx.Client(base_url=daemon.url, timeout=120) as http:
        alone = [http.post(COMPLETIONS, json=body).json()["choices"] for body in bodies]
        assert daemon.metric("vllm:num_preemptions_total") == 0
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            together = list(pool.map(lambda body: http.post(COMPLETIONS, json=body).json()["choices"], bodies))
    assert together == alone
    assert daemon.metric("vllm:num_preemptions_total") > 0
    daemon.wait_idle()


def test_a_daemon_that_was_suspended_goes_on(start_daemon):
    daemon = start_daemon()
    body = {**REFERENCE, "max_tokens": 400, "logprobs": None}
    expected = httpx.post(daemon.url + COMPLETIONS, json=body, timeout=60).json()["choices"][0]["text"]
    text = ""
    with httpx.stream("POST", daemon.url + COMPLETIONS, json={**body, "stream": True}, timeout=60) as answer:
        for number, line in enumerate(line for line in answer.iter_lines() if line.startswith("data: {")):
            text += json.loads(line[len("data: ") :])["choices"][0]["text"]
            if number == 5:
                os.kill(daemon.process.pid, signal.SIGSTOP)
                time.sleep(1)
                os.kill(daemon.process.pid, signal.SIGCONT)
                assert httpx.get(daemon.url + "/live").status_code == 200
    assert text == expected
