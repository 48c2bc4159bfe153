"""Model folders as the world has them: what does not fit is left out or refused in a sentence, and no text and no folder ends or
corrupts what is served."""

import concurrent.futures
import json
import os
import re
import resource
import resource
import signal
import socket
import subprocess
import time

import httpx
import pytest
from conftest import BINARY, MODEL, Daemon
from test_cuda import EMULATED
from test_life import blocks_signals

CANNOT_START = 3
ROWS = 2048  # of serval-nano


def copy_folder(to, model=MODEL, **changed):
    """A demo model with files replaced: name=bytes, or name=function of the parsed JSON. A dot is spelled __."""
    to.mkdir(exist_ok=True)
    changed = {name.replace("__", "."): change for name, change in changed.items()}
    for part in model.iterdir():
        data, change = part.read_bytes(), changed.pop(part.name, None)
        if callable(change):
            value = json.loads(data)
            change(value)
            data = json.dumps(value).encode()
        elif change is not None:
            data = change
        (to / part.name).write_bytes(data)
    for name, data in changed.items():
        (to / name).write_bytes(data)
    return to


def run(*arguments, timeout=120, **options):
    return subprocess.run([str(BINARY), *map(str, arguments)], capture_output=True, text=True, timeout=timeout, check=False, **options)


def refused(folder, *options):
    """The one sentence with which both commands refuse a folder."""
    sentences = []
    for command in (["serve", folder, "--port", "0", "--grpc-port", "0"], ["plan", folder]):
        ended = run(*command, *options)
        assert ended.returncode == CANNOT_START, (command, ended.stderr)
        sentences.append(ended.stderr.strip().splitlines()[-1])
    assert sentences[0] == sentences[1]
    return sentences[0]


def add_pad_token(tokenizer):
    tokenizer["added_tokens"].append(
        {"id": ROWS, "content": "[PAD]", "special": True, "normalized": False, "lstrip": False, "rstrip": False, "single_word": False}
    )


def name_ids_beyond(defaults):
    own = defaults["eos_token_id"]
    defaults["eos_token_id"] = [*(own if isinstance(own, list) else [own]), *range(ROWS, ROWS + 40), 4_000_000]
    defaults["pad_token_id"] = ROWS


@pytest.fixture(scope="module")
def folder_with_ids_beyond(tmp_path_factory):
    """What a fine-tune leaves that adds a pad token without enlarging the model."""
    return copy_folder(tmp_path_factory.mktemp("models") / "padded", tokenizer__json=add_pad_token, generation_config__json=name_ids_beyond)


DEVICES = {
    "cpu": dict(binary=BINARY, options=[]),
    "cuda": dict(binary=EMULATED, options=["--device", "cuda", "--max-model-len", 256, "--max-num-seqs", 8, "--max-num-batched-tokens", 64]),
}


@pytest.fixture(scope="module", params=DEVICES)
def padded(request, folder_with_ids_beyond):
    device = DEVICES[request.param]
    if not device["binary"].exists():
        pytest.skip(f"{device['binary'].name} was not built beside {BINARY.name}")
    daemon = Daemon(*device["options"], model=folder_with_ids_beyond, binary=device["binary"])
    yield daemon
    assert daemon.stop() == 0, daemon.log()


def test_a_text_that_names_an_id_beyond_the_model_is_text(padded):
    client = padded.client(timeout=120)
    prompt = "Once [PAD] upon"
    answer = client.completions.create(model="padded", prompt=prompt, max_tokens=4, temperature=0, extra_body={"return_token_ids": True})
    assert answer.usage.completion_tokens > 0
    chat = client.chat.completions.create(model="padded", messages=[{"role": "user", "content": prompt}], max_tokens=4)
    assert chat.usage.prompt_tokens > 0
    ids = httpx.post(padded.url + "/tokenize", json={"prompt": prompt}).json()["tokens"]
    assert ids and max(ids) < ROWS
    refusal = httpx.post(padded.url + "/v1/completions", json={"prompt": [1, ROWS], "max_tokens": 2})
    assert refusal.status_code == 400 and str(ROWS) in refusal.json()["error"]["message"]
    assert len([line for line in padded.log().splitlines() if "[PAD]" in line]) == 1, padded.log()


def test_ends_beyond_the_model_change_no_neighbours_answer(padded):
    def ask(prompt, **options):
        body = dict(model="padded", prompt=prompt, max_tokens=12, temperature=0, **options)
        return padded.client(timeout=120).completions.create(**body, logprobs=1).choices[0]

    alone = ask("Once upon a time")
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        neighbours = [pool.submit(ask, f"Number {i}", extra_body={"min_tokens": 12}) for i in range(4)]
        beside = ask("Once upon a time")
        assert all(len(n.result().logprobs.tokens) == 12 for n in neighbours)
    assert beside.text == alone.text and beside.logprobs.token_logprobs == alone.logprobs.token_logprobs
    assert "left out" in padded.log()


def test_an_ordinary_token_beyond_the_model_is_refused_by_both_commands(tmp_path):
    def rename_last(tokenizer):
        vocab = tokenizer["model"]["vocab"]
        vocab[next(name for name, id_ in vocab.items() if id_ == max(vocab.values()))] = ROWS

    assert "rows for 2048 tokens only" in refused(copy_folder(tmp_path / "m", tokenizer__json=rename_last))


def test_a_draft_that_means_other_tokens_is_refused_by_both_commands(tmp_path):
    def swap_two(tokenizer):
        vocab = tokenizer["model"]["vocab"]
        a, b = [name for name, id_ in vocab.items() if id_ in (700, 701)]
        vocab[a], vocab[b] = vocab[b], vocab[a]

    draft = copy_folder(tmp_path / "draft", tokenizer__json=swap_two, model=MODEL.parent / "serval-nano-draft")
    sentence = refused(MODEL, "--speculation", "draft", "--speculation-model", draft)
    assert "has another tokenizer than the model: its token 700 is" in sentence


def test_a_default_out_of_range_is_moved_and_said_and_does_not_refuse_requests(tmp_path, start_daemon):
    def set_defaults(defaults):
        defaults.update(temperature=5, repetition_penalty=50, top_k=-1, top_p=0.0)

    daemon = start_daemon(model=copy_folder(tmp_path / "hot", generation_config__json=set_defaults))
    for field in ("temperature", "repetition_penalty"):
        assert any("WARN" in line and field in line and "generation_config.json" in line for line in daemon.log().splitlines()), daemon.log()
    texts = {daemon.client().completions.create(model="hot", prompt="Once", max_tokens=8, seed=seed).choices[0].text for seed in range(4)}
    assert len(texts) == 1, "top_p 0 is the most likely token, whatever the seed"


FILES_READ = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "model.safetensors"]


@pytest.mark.parametrize("kind", ["fifo", "device", "socket", "folder"])
@pytest.mark.parametrize("name", FILES_READ)
def test_only_regular_files_are_read(tmp_path, name, kind):
    folder = copy_folder(tmp_path / "m")
    path = folder / name
    path.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(str(path))
    else:
        path.mkdir()
    sentence = refused(folder)
    assert name in sentence and "not a regular file" in sentence


@pytest.mark.parametrize("path", ["fifo", "/dev/zero", "folder"])
@pytest.mark.parametrize("option", ["--config", "--record"])
def test_settings_that_name_files_take_regular_ones_only(tmp_path, option, path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    where = tmp_path / path
    ended = run("serve", MODEL, "--port", "0", "--grpc-port", "0", option, where)
    assert ended.returncode == CANNOT_START and str(where) in ended.stderr and "regular file" in ended.stderr, ended.stderr


def test_names_of_files_reach_the_terminal_escaped_and_cut(tmp_path):
    name = "evil\n\x1b[31m\u202e" + 5000 * "x"

    def set_field(field):
        return lambda config: config.update({field: name})

    changes = [
        dict(config__json=set_field("hidden_act")),
        dict(config__json=lambda config: config.update(architectures=[name])),
        dict(config__json=lambda config: config.update(architectures=None, model_type=name)),
        dict(tokenizer__json=lambda tokenizer: tokenizer["model"].update(type=name)),
        dict(tokenizer__json=lambda tokenizer: tokenizer.update(pre_tokenizer={"type": name})),
        dict(tokenizer__json=lambda tokenizer: tokenizer["model"]["vocab"].update({name: 10**6})),
        dict(config__json=lambda config: config.update(quantization_config={"quant_method": name})),
    ]
    for i, change in enumerate(changes):
        ended = run("plan", copy_folder(tmp_path / str(i), **change))
        assert ended.returncode == CANNOT_START, ended.stderr
        assert len(ended.stderr.splitlines()) == 1 and len(ended.stderr) < 2100, (i, len(ended.stderr))
        assert ended.stderr.strip().isprintable() and "evil" in ended.stderr, (i, ended.stderr)


def test_both_commands_refuse_the_weights_that_cannot_be_served(tmp_path):
    whole = (MODEL / "model.safetensors").read_bytes()
    assert "model.safetensors" in refused(copy_folder(tmp_path / "cut", model__safetensors=whole[: len(whole) // 2]))
    wider = copy_folder(tmp_path / "wider", config__json=lambda config: config.update(intermediate_size=config["intermediate_size"] * 2))
    assert "the configuration asks for" in refused(wider)
    without = copy_folder(tmp_path / "without")
    (without / "model.safetensors").rename(without / "pytorch_model.bin")
    assert "pytorch_model.bin is a PyTorch file" in refused(without)
    only = tmp_path / "only"
    only.mkdir()
    (only / "m.gguf").write_bytes(b"GGUF")
    for path in (only, only / "m.gguf"):
        assert "m.gguf is too short to be a GGUF file" in refused(path)
    awq = {"quant_method": "awq", "bits": 3}
    assert "AWQ, 3 bit" in refused(copy_folder(tmp_path / "awq", config__json=lambda config: config.update(quantization_config=awq)))


def test_a_signal_ends_a_start_at_once_whatever_it_is_busy_with(tmp_path):
    def add_many(tokenizer):  # none fits the model, and all have to be read
        add_pad_token(tokenizer)
        tokenizer["added_tokens"] += [{**tokenizer["added_tokens"][-1], "id": ROWS + i, "content": f"<extra-{i}>"} for i in range(1, 150_000)]

    folder = copy_folder(tmp_path / "slow", tokenizer__json=add_many)
    process = subprocess.Popen([str(BINARY), "serve", str(folder), "--port", "0", "--grpc-port", "0"], stderr=subprocess.PIPE, text=True)
    while not blocks_signals(process):
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 0 and "stopped before it was ready" in log, log
    assert "listening" not in log and "are read as text" not in log, "the start went on: " + log


def test_a_recording_on_a_full_disk_ends_with_a_line_and_requests_go_on(tmp_path, start_daemon):
    daemon = start_daemon("--record", tmp_path / "day")
    resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (2000, 2000))
    for _ in range(3):
        assert daemon.client().completions.create(model="serval-nano", prompt="Once", max_tokens=30, extra_body={"ignore_eos": True}).usage.completion_tokens == 30
    assert (tmp_path / "day").stat().st_size == 2000
    assert daemon.log().count("the recording ends here") == 1, daemon.log()
    assert daemon.metric("serval:recording_lost_total") > 30
    assert daemon.stop() == 0


def test_the_plan_says_what_fits():
    text = run("plan", MODEL, "--max-model-len", 1024, "--max-num-seqs", 7).stdout
    assert re.search(r"^weights .* GiB  packed for cpu-\w+ as bf16$", text, re.MULTILINE), text
    rounded = run("plan", MODEL, "--quantize", "int8").stdout
    weights = [int(re.search(r"^weights +(\d+) bytes", t, re.MULTILINE).group(1)) for t in (text, rounded)]
    assert " as int8\n" in rounded and weights[1] < 0.6 * weights[0]
    assert "It fits: " in text and "GiB stay free" in text
    assert "The KV cache holds 7 sequences of max_model_len 1024 at once; max_num_seqs is 7." in text
    assert "The largest max_model_len that fits is 2048, all that the model was made for." in text
    too_small = run("plan", MODEL, "--kv-cache-mib", 1)
    assert too_small.returncode == CANNOT_START
    fits = re.search(r"max_model_len (\d+) would fit", too_small.stderr).group(1)
    assert f"holds 1 sequences of max_model_len {fits} " in run("plan", MODEL, "--kv-cache-mib", 1, "--max-model-len", fits).stdout
    beyond = run("serve", MODEL, "--port", "0", "--grpc-port", "0", "--kv-cache-mib", 1)
    assert beyond.stderr.splitlines()[-1] == too_small.stderr.splitlines()[-1]


def test_scales_may_be_chosen_by_a_text(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("Once upon a time there was a little boat that could not swim. " * 20)
    for out, more in (("plain", []), ("weighed", ["--text", text])):
        made = run("quantize", MODEL, tmp_path / out, *more)
        assert made.returncode == 0, made.stderr
        assert " as int4\n" in run("plan", tmp_path / out).stdout
    plain, weighed = ((tmp_path / out / "model.safetensors").read_bytes() for out in ("plain", "weighed"))
    assert len(plain) == len(weighed) and plain != weighed
    text.write_text("")
    refused = run("quantize", MODEL, tmp_path / "none", "--text", text)
    assert refused.returncode == CANNOT_START and refused.stderr.splitlines()[-1].endswith("has no text")


def test_a_folder_without_architectures_is_served(tmp_path, start_daemon):
    daemon = start_daemon(model=copy_folder(tmp_path / "plain", config__json=lambda config: config.pop("architectures")))
    assert daemon.client().completions.create(model="plain", prompt="Once", max_tokens=3).usage.completion_tokens == 3
