"""/v1/files and /v1/batches as the openai client asks them, over a folder of the test's own."""

import io
import json
import re
import time

import httpx
import openai
import pytest


def lines(count, url="/v1/completions", **body):
    return "".join(
        json.dumps({"custom_id": f"request-{i}", "method": "POST", "url": url, "body": {"model": "serval-nano", "prompt": f"{i} and", "max_tokens": 1 + i % 5, "temperature": 0, **body}}) + "\n"
        for i in range(count)
    )


def upload(client, text, name="in.jsonl", **more):
    return client.files.create(file=(name, io.BytesIO(text.encode())), purpose="batch", **more)


def ended(client, batch, timeout=60):
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        batch = client.batches.retrieve(batch.id)
        if batch.status in ("completed", "failed", "cancelled", "expired"):
            return batch
        time.sleep(0.05)
    raise AssertionError(f"the batch is {batch.status} after {timeout} s")


def answers(client, file_id):
    return [json.loads(line) for line in client.files.content(file_id).text.splitlines()]


def test_a_batch_from_its_file_to_its_answers(start_daemon, tmp_path):
    daemon = start_daemon("--files-folder", tmp_path / "files")
    client = daemon.client()
    bad = {"custom_id": "bad", "method": "POST", "url": "/v1/completions", "body": {"prompt": "x", "temperature": 9}}
    other = {"custom_id": "other", "method": "POST", "url": "/v1/embeddings", "body": {"input": "x"}}
    file = upload(client, lines(25) + json.dumps(bad) + "\nno json\n" + json.dumps(other) + "\n")
    assert (file.object, file.purpose, file.filename, file.status) == ("file", "batch", "in.jsonl", "processed")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/completions", completion_window="24h", metadata={"a": "b"})
    assert batch.object == "batch" and batch.id.startswith("batch_")
    batch = ended(client, batch)
    assert batch.status == "completed" and batch.metadata == {"a": "b"} and batch.completed_at >= batch.created_at
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (28, 25, 3)
    good = answers(client, batch.output_file_id)
    assert [answer["custom_id"] for answer in good] == [f"request-{i}" for i in range(25)]
    for i in (0, 7, 24):  # what a batch is told is what anybody is told
        alone = client.completions.create(model="serval-nano", prompt=f"{i} and", max_tokens=1 + i % 5, temperature=0)
        told = good[i]["response"]
        assert told["status_code"] == 200 and told["request_id"] and told["body"]["choices"][0]["text"] == alone.choices[0].text
    # Each has its line of the log, and its part in what is counted.
    logged = {fields["id"]: fields for fields in (dict(re.findall(r"(\w+)=(\S+)", line)) for line in daemon.log().splitlines() if " request method=" in line)}
    for i in (0, 7, 24):
        line = logged[good[i]["response"]["request_id"]]
        assert (line["path"], line["status"], line["output_tokens"], line["finish"]) == ("/v1/completions", "200", str(1 + i % 5), "length")
    wrong = answers(client, batch.error_file_id)
    assert logged[wrong[0]["response"]["request_id"]]["code"] == wrong[0]["response"]["body"]["error"]["code"]
    assert wrong[0]["response"]["status_code"] == 400 and wrong[0]["response"]["body"]["error"]["param"] == "temperature"
    assert [answer["error"] and answer["error"]["code"] for answer in wrong] == [None, "invalid_json", "mismatched_endpoint"]
    # Lists, pages and deletion.
    assert {each.id for each in client.files.list()} == {file.id, batch.output_file_id, batch.error_file_id}
    assert [each.id for each in client.files.list(purpose="batch", order="asc", limit=1)] == [file.id]
    assert [each.id for each in client.batches.list(limit=1)] == [batch.id]
    assert client.files.retrieve(file.id).bytes == len(client.files.content(file.id).content)
    assert client.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


def test_chats_responses_and_vectors(start_daemon, tmp_path):
    client = start_daemon("--files-folder", tmp_path).client()
    for url, body in (("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}), ("/v1/responses", {"input": "Hi", "max_output_tokens": 3}),
                      ("/v1/embeddings", {"input": "Hi"}), ("/v1/completions", {"prompt": "Hi", "max_tokens": 3, "stream": True})):
        file = upload(client, json.dumps({"custom_id": "a", "method": "POST", "url": url, "body": body}) + "\n")
        batch = ended(client, client.batches.create(input_file_id=file.id, endpoint=url, completion_window="24h"))
        assert batch.status == "completed" and batch.request_counts.completed == 1, batch
        assert answers(client, batch.output_file_id)[0]["response"]["body"]


def test_a_cancelled_batch_keeps_what_it_has(start_daemon, tmp_path):
    daemon = start_daemon("--files-folder", tmp_path, "--batch-concurrency", 1)
    client = daemon.client()
    file = upload(client, lines(3) + lines(400, max_tokens=500, ignore_eos=True))
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/completions", completion_window="24h")
    waiting = client.batches.create(input_file_id=file.id, endpoint="/v1/completions", completion_window="1h")
    while client.batches.retrieve(batch.id).request_counts.completed < 3:
        time.sleep(0.02)
    assert client.batches.cancel(waiting.id).status == "cancelling"
    assert client.batches.cancel(batch.id).status in ("cancelling", "cancelled")
    batch, waiting = ended(client, batch), ended(client, waiting)
    assert batch.status == "cancelled" and batch.cancelled_at and 3 <= batch.request_counts.completed < 403
    assert len(answers(client, batch.output_file_id)) == batch.request_counts.completed
    assert waiting.status == "cancelled" and waiting.output_file_id is None
    daemon.wait_idle()  # what was cancelled holds nothing
    with pytest.raises(openai.BadRequestError, match="cancelled"):
        client.batches.cancel(batch.id)


@pytest.mark.parametrize("gently", [True, False])
def test_the_next_server_goes_on(start_daemon, tmp_path, gently):
    first = start_daemon("--files-folder", tmp_path, "--batch-concurrency", 2)
    client = first.client()
    text = lines(60, max_tokens=60, ignore_eos=True)
    batch = client.batches.create(input_file_id=upload(client, text).id, endpoint="/v1/completions", completion_window="24h")
    while client.batches.retrieve(batch.id).request_counts.completed < 5:
        time.sleep(0.02)
    first.stop() if gently else first.kill()
    gathered = tmp_path / f"{batch.id}.answers"
    before = gathered.read_text()
    assert 5 <= before.count("\n") < 60
    gathered.write_text(before + '+{"id": "half a li')  # as a power cut may leave it
    second = start_daemon("--files-folder", tmp_path)
    client = second.client()
    batch = ended(client, batch)
    assert batch.status == "completed" and batch.request_counts.completed == 60
    told = answers(client, batch.output_file_id)
    assert [answer["custom_id"] for answer in told] == [f"request-{i}" for i in range(60)]
    assert before.splitlines()[0][1:] == json.dumps(told[0], separators=(",", ":"))
    assert not gathered.exists()


def test_a_key_sees_its_own(start_daemon, tmp_path):
    daemon = start_daemon("--files-folder", tmp_path, "--api-keys", "one,two")
    one, two = daemon.client(api_key="one"), daemon.client(api_key="two")
    file = upload(one, lines(2))
    batch = ended(one, one.batches.create(input_file_id=file.id, endpoint="/v1/completions", completion_window="24h"))
    assert batch.status == "completed"
    assert not list(two.files.list()) and not list(two.batches.list())
    for ask in (lambda: two.files.content(file.id), lambda: two.files.delete(file.id), lambda: two.batches.retrieve(batch.id), lambda: two.batches.cancel(batch.id)):
        with pytest.raises(openai.NotFoundError):
            ask()
    with pytest.raises(openai.BadRequestError, match="input_file_id"):
        two.batches.create(input_file_id=file.id, endpoint="/v1/completions", completion_window="24h")
    with pytest.raises(openai.AuthenticationError):
        upload(daemon.client(api_key="three"), "x")
    assert b"one" not in b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.name.endswith(".json") and path.name.startswith("file-"))


def test_what_does_not_fit_and_what_is_wrong(start_daemon, tmp_path):
    daemon = start_daemon("--files-folder", tmp_path, "--max-files-bytes", 60_000, "--max-body-bytes", 50_000)
    client = daemon.client()
    with pytest.raises(openai.APIStatusError) as refused:
        upload(client, "x" * 60_000)
    assert refused.value.status_code == 413
    first = upload(client, "x" * 40_000)
    with pytest.raises(openai.BadRequestError, match="max_files_bytes"):
        upload(client, "x" * 30_000)
    client.files.delete(first.id)
    file = upload(client, lines(40, logprobs=5, max_tokens=20))  # whose answers are longer than what is left
    batch = ended(client, client.batches.create(input_file_id=file.id, endpoint="/v1/completions", completion_window="24h"))
    assert batch.status == "failed" and batch.errors.data[0].code == "files_full"
    upload(client, "x" * (60_000 - 4096 - file.bytes))  # what it had gathered is free again
    for arguments, param in (({"endpoint": "/v1/files"}, "endpoint"), ({"completion_window": "soon"}, "completion_window"), ({"input_file_id": "../../etc/passwd"}, "input_file_id"),
                             ({"metadata": {"a": 1}}, "metadata")):
        with pytest.raises(openai.BadRequestError) as wrong:
            client.batches.create(**{"input_file_id": file.id, "endpoint": "/v1/completions", "completion_window": "24h", **arguments})
        assert wrong.value.param == param
    for path in ("/v1/files/..%2f..%2fetc%2fpasswd", "/v1/files/../lock", "/v1/files/lock/content", "/v1/batches/x"):
        assert httpx.get(daemon.url + path).status_code == 404
    head = {"content-type": "multipart/form-data; boundary=b"}
    for body in (b"--b--", b"--b\r\n\r\nx\r\n--b--", b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nx", b"junk", b"--b\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--b--"):
        assert httpx.post(daemon.url + "/v1/files", content=body, headers=head).status_code == 400, body
    assert httpx.post(daemon.url + "/v1/files", content=b"{}", headers={"content-type": "application/json"}).status_code == 415


def test_a_file_that_expires(start_daemon, tmp_path):
    client = start_daemon("--files-folder", tmp_path).client()
    file = upload(client, lines(1), expires_after={"anchor": "created_at", "seconds": 3600})
    assert file.expires_at - file.created_at == 3600
    about = tmp_path / f"{file.id}.json"
    assert json.loads(about.read_text())["expires_at"] == file.expires_at
    with pytest.raises(openai.BadRequestError, match="expires_after"):
        upload(client, lines(1), expires_after={"anchor": "created_at", "seconds": 1})
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/completions", completion_window="24h", extra_body={"output_expires_after": {"anchor": "created_at", "seconds": 7200}})
    output = client.files.retrieve(ended(client, batch).output_file_id)
    assert output.expires_at - output.created_at == 7200


def test_two_servers_do_not_share_a_folder(start_daemon, tmp_path):
    start_daemon("--files-folder", tmp_path)
    with pytest.raises(AssertionError, match="another server uses"):
        start_daemon("--files-folder", tmp_path)


def test_without_a_folder_the_setting_is_named(daemon):
    for method, path in (("GET", "/v1/files"), ("GET", "/v1/batches"), ("GET", "/v1/files/x"), ("DELETE", "/v1/files/x"), ("POST", "/v1/batches/x/cancel")):
        answer = httpx.request(method, daemon.url + path)
        assert answer.status_code == 501 and "files_folder" in answer.json()["error"]["message"]
    with pytest.raises(openai.APIStatusError, match="files_folder"):
        upload(daemon.client(), "x")
