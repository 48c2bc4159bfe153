"""Vectors and scores of texts, against what the reference makes of them (tests/golden/make_pooling_golden.py)."""

import base64
import json
import math
import shutil
import struct
import subprocess

import httpx
import openai
import pytest

from conftest import BINARY, ROOT

FIXTURES = ROOT / "tests" / "fixtures" / "pooling"


def golden(name):
    return json.loads((FIXTURES / name / "golden.json").read_text())


def close(a, b, tolerance=2e-4):
    return len(a) == len(b) and all(abs(x - y) <= tolerance for x, y in zip(a, b))


@pytest.fixture(scope="module")
def daemon_of():
    """A daemon for each folder, started once; each must end with exit code 0."""
    from conftest import Daemon

    daemons = {}

    def start(name, *options):
        if name not in daemons:
            daemons[name] = Daemon("--max-num-seqs", 4, *options, model=FIXTURES / name)
        return daemons[name]

    yield start
    for daemon in daemons.values():
        assert daemon.stop() == 0, daemon.log()


def post(daemon, path, **body):
    return httpx.post(daemon.url + path, json=body, timeout=60)


def test_vectors_of_the_last_token(daemon_of):
    daemon = daemon_of("qwen3-embedding")
    cases = golden("qwen3-embedding")
    client = daemon.client()
    whole = client.embeddings.create(model="qwen3-embedding", input=[case["text"] for case in cases])  # base64, as the client likes
    plain = client.embeddings.create(model="", input=[case["text"] for case in cases], encoding_format="float")
    ids = client.embeddings.create(model="", input=[case["ids"] for case in cases])
    for i, case in enumerate(cases):
        assert close(whole.data[i].embedding, case["numbers"])
        assert whole.data[i].index == i
        # The same numbers as digits, by ids, and alone.
        assert plain.data[i].embedding == pytest.approx(whole.data[i].embedding, abs=1e-7)
        assert ids.data[i].embedding == whole.data[i].embedding
        assert client.embeddings.create(model="", input=case["text"]).data[0].embedding == whole.data[i].embedding
        assert not close(whole.data[i].embedding, cases[i - 1]["numbers"], 0.01)
    assert whole.usage.prompt_tokens == whole.usage.total_tokens == sum(len(case["ids"]) for case in cases)
    short = client.embeddings.create(model="", input=cases[0]["text"], dimensions=8).data[0].embedding
    assert len(short) == 8 and math.isclose(sum(x * x for x in short), 1, abs_tol=1e-5)
    scale = math.sqrt(sum(x * x for x in cases[0]["numbers"][:8]))
    assert close(short, [x / scale for x in cases[0]["numbers"][:8]])
    raw = base64.b64decode(post(daemon, "/v1/embeddings", input=cases[0]["text"], encoding_format="base64").json()["data"][0]["embedding"])
    assert list(struct.unpack(f"<{len(raw) // 4}f", raw)) == whole.data[0].embedding


def test_means_go_through_the_dense_layers(daemon_of):
    daemon = daemon_of("mistral-mean", "--max-prefill-chunk", 16)
    for case in golden("mistral-mean"):
        answer = post(daemon, "/v1/embeddings", input=case["text"]).json()
        assert close(answer["data"][0]["embedding"], case["numbers"])
        unit = post(daemon, "/pooling", input=case["text"], normalize=True).json()["data"][0]["data"]
        assert math.isclose(sum(x * x for x in unit), 1, abs_tol=1e-5)


@pytest.mark.parametrize("mode", ["max_tokens", "weightedmean_tokens", "mean_sqrt_len_tokens"])
def test_other_ways_to_pool_and_prompts(mode, tmp_path):
    from conftest import Daemon

    folder = tmp_path / "model"
    shutil.copytree(FIXTURES / "mistral-mean", folder)
    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text())
    pooling |= {"pooling_mode_mean_tokens": False, "pooling_mode_" + mode: True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    prompts = {"query": "Instruct: find it\nQuery: ", "document": "Passage: ", "none": ""}
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts, "default_prompt_name": "document"}))
    daemon = Daemon("--max-num-seqs", 4, "--max-prefill-chunk", 16, model=folder)
    try:
        cases = [case for case in json.loads((FIXTURES / "mistral-mean" / "other_modes.json").read_text()) if case["mode"] == mode]
        given = [post(daemon, "/v1/embeddings", input=case["text"], prompt_name=case["prompt_name"]).json()["data"][0]["embedding"] for case in cases]
        for case, vector in zip(cases, given, strict=True):
            assert close(vector, case["numbers"]), case["prompt_name"]
        assert not close(given[0], given[1], 1e-3) and not close(given[0], given[2], 1e-3), "a prompt changes the vector"
        assert post(daemon, "/pooling", input=cases[0]["text"], prompt_name="").json()["data"][0]["data"] == given[0]
        unknown = post(daemon, "/v1/embeddings", input="x", prompt_name="passage")
        assert unknown.status_code == 400 and unknown.json()["error"]["param"] == "prompt_name" and "'query'" in unknown.json()["error"]["message"]
        assert post(daemon, "/v1/embeddings", input=[1, 2], prompt_name="query").json()["error"]["param"] == "prompt_name"
        assert post(daemon, "/v1/embeddings", input=[1, 2]).status_code == 200
    finally:
        assert daemon.stop() == 0, daemon.log()


def test_a_reranker_as_it_is_published_is_told_by_its_folder(tmp_path):
    from conftest import Daemon

    folder = tmp_path / "models--Qwen--Qwen3-Reranker-0.6B"
    shutil.copytree(FIXTURES / "qwen3-reranker", folder)
    (folder / "modules.json").unlink()
    shutil.rmtree(folder / "1_LogitScore")
    (folder / "chat_template.jinja").write_text("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    for id, name in ((257, "yes"), (258, "no")):
        tokenizer["added_tokens"].append({"id": id, "content": name, "single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    cases = json.loads((FIXTURES / "qwen3-reranker" / "as_published.json").read_text())
    daemon = Daemon("--max-num-seqs", 4, model=folder)
    scored = post(daemon, "/v1/score", text_1=cases[0]["query"], text_2=[case["document"] for case in cases]).json()["data"]
    assert close([entry["score"] for entry in scored], [case["score"] for case in cases])
    assert post(daemon, "/v1/completions", prompt="Q", max_tokens=3).status_code == 200
    assert daemon.stop() == 0, daemon.log()


def test_more_texts_than_the_queue_holds_are_one_request(daemon_of):
    daemon = daemon_of("qwen3-embedding")
    case = golden("qwen3-embedding")[0]
    answer = daemon.client().embeddings.create(model="", input=[case["text"]] * 2048)
    assert len(answer.data) == 2048 and all(entry.embedding == answer.data[0].embedding for entry in answer.data)
    with pytest.raises(openai.BadRequestError, match="1 to 2048") as refused:
        daemon.client().embeddings.create(model="", input=["x"] * 2049)
    assert refused.value.param == "input"
    daemon.wait_idle()


def test_similarity_where_the_model_scores_nothing(daemon_of):
    daemon = daemon_of("qwen3-embedding")
    texts = [case["text"] for case in golden("qwen3-embedding")]
    vectors = [case["numbers"] for case in golden("qwen3-embedding")]
    expected = [sum(a * b for a, b in zip(vectors[0], vector)) for vector in vectors]
    answer = post(daemon, "/v1/score", text_1=texts[0], text_2=texts).json()
    assert [entry["index"] for entry in answer["data"]] == [0, 1, 2]
    assert close([entry["score"] for entry in answer["data"]], expected)
    pairs = post(daemon, "/v1/score", text_1=texts, text_2=texts).json()
    assert close([entry["score"] for entry in pairs["data"]], [1, 1, 1])
    ranked = post(daemon, "/v1/rerank", query=texts[0], documents=texts, top_n=2).json()["results"]
    assert [entry["index"] for entry in ranked] == sorted(range(3), key=lambda i: -expected[i])[:2]
    assert ranked[0]["document"]["text"] == texts[0] and math.isclose(ranked[0]["relevance_score"], 1, abs_tol=1e-5)


def test_scores_of_the_head_s_words(daemon_of):
    daemon = daemon_of("qwen3-reranker")
    cases = golden("qwen3-reranker")
    documents = [case["document"] for case in cases]
    ranked = post(daemon, "/rerank", query=cases[0]["query"], documents=[documents[1], {"text": documents[0]}]).json()["results"]
    assert [entry["index"] for entry in ranked] == [1, 0]
    assert close([entry["relevance_score"] for entry in ranked], [case["score"] for case in cases])
    scored = post(daemon, "/v1/score", text_1=cases[0]["query"], text_2=documents).json()["data"]
    assert close([entry["score"] for entry in scored], [case["score"] for case in cases])
    # It writes text all the same.
    assert post(daemon, "/v1/completions", prompt="Q", max_tokens=3).status_code == 200


def test_classes(daemon_of):
    daemon = daemon_of("llama-classifier")
    cases = golden("llama-classifier")
    answer = post(daemon, "/classify", input=[case["text"] for case in cases]).json()
    for entry, case in zip(answer["data"], cases):
        assert close(entry["probs"], case["probs"]) and entry["label"] == case["label"] and entry["num_classes"] == 3


@pytest.mark.parametrize("name", ["bert-cls", "xlm-roberta-mean"])
def test_vectors_of_an_encoder(daemon_of, name):
    daemon = daemon_of(name)
    cases = golden(name)
    texts = [case["text"] for case in cases]
    # The reference cuts what is longer than the context, within what its tokenizer puts around a text.
    together = post(daemon, "/v1/embeddings", input=texts, truncate_prompt_tokens=-1).json()
    assert together["usage"]["prompt_tokens"] == sum(min(len(case["ids"]), 96) for case in cases)
    for i, case in enumerate(cases):
        vector = together["data"][i]["embedding"]
        assert close(vector, case["numbers"])
        assert not close(vector, cases[i - 1]["numbers"], 0.01)
        ids = case["ids"][:95] + case["ids"][-1:]
        assert post(daemon, "/v1/embeddings", input=[ids if len(case["ids"]) > 96 else case["ids"]]).json()["data"][0]["embedding"] == vector
    # The same digits whoever stands beside it in a step, and whatever a step has room for.
    many = post(daemon, "/v1/embeddings", input=(texts * 40)[:100], truncate_prompt_tokens=-1).json()["data"]
    assert all(entry["embedding"] == together["data"][i % 3]["embedding"] for i, entry in enumerate(many))


@pytest.mark.parametrize("name, i", [("bert-cls", 0), ("bert-cls", 1), ("xlm-roberta-mean", 0), ("xlm-roberta-mean", 1)])
def test_how_long_a_text_may_be_and_its_case_are_what_the_library_says(name, i, tmp_path):
    from conftest import Daemon

    case = json.loads((FIXTURES / name / "sentence_configs.json").read_text())[i]
    folder = tmp_path / "model"
    shutil.copytree(FIXTURES / name, folder)
    for file, fields in case["files"].items():
        before = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
        (folder / file).write_text(json.dumps(before | fields))
    most = case["max_seq_length"]
    daemon = Daemon("--max-num-seqs", 4, model=folder)
    try:
        assert httpx.get(daemon.url + "/v1/models").json()["data"][0]["max_model_len"] == most
        for entry in case["texts"]:
            cut = post(daemon, "/v1/embeddings", input=entry["text"], truncate_prompt_tokens=-1).json()
            assert close(cut["data"][0]["embedding"], entry["numbers"]), entry["text"]
        long = case["texts"][2]["text"]
        assert post(daemon, "/v1/embeddings", input=long, truncate_prompt_tokens=-1).json()["usage"]["prompt_tokens"] == most
        refused = post(daemon, "/v1/embeddings", input=long)
        assert refused.status_code == 400 and str(most) in refused.json()["error"]["message"]
    finally:
        assert daemon.stop() == 0, daemon.log()
    if i == 0:  # it is a habit, and not what the model was made for
        longer = Daemon("--max-num-seqs", 4, "--max-model-len", 96, model=folder)
        assert post(longer, "/v1/embeddings", input="x " * 40).status_code == 200
        assert longer.stop() == 0, longer.log()


def test_two_kinds_of_text_need_a_model_of_two(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(FIXTURES / "xlm-roberta-reranker", folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["post_processor"] = {"type": "BertProcessing", "cls": ["<s>", 0], "sep": ["</s>", 2]}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    refused = subprocess.run([BINARY, "plan", str(folder)], capture_output=True, text=True, timeout=60)
    assert refused.returncode != 0 and "type_vocab_size is 1" in refused.stderr


def test_an_older_folder_has_its_vocabulary_alone(tmp_path):
    from conftest import Daemon

    folder = tmp_path / "model"
    shutil.copytree(FIXTURES / "bert-reranker", folder)
    vocab = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    (folder / "vocab.txt").write_text("".join(name + "\n" for name in sorted(vocab, key=vocab.get)))
    daemon = Daemon("--max-num-seqs", 4, model=folder)
    try:
        for case in golden("bert-reranker"):
            scored = post(daemon, "/v1/score", text_1=case["query"], text_2=case["document"]).json()
            assert close([entry["score"] for entry in scored["data"]], [case["score"]]) and scored["usage"]["prompt_tokens"] == len(case["ids"])
    finally:
        assert daemon.stop() == 0, daemon.log()


def test_an_encoder_writes_nothing(daemon_of):
    daemon = daemon_of("bert-cls")
    for path, body in (("/v1/completions", {"prompt": "x"}), ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]})):
        answer = post(daemon, path, **body)
        assert answer.status_code == 400, answer.text
    assert "makes vectors" in post(daemon, "/v1/completions", prompt="x").json()["error"]["message"]
    assert post(daemon, "/v1/embeddings", input="x " * 95).status_code == 400, "97 tokens with what stands around them"
    full = post(daemon, "/v1/embeddings", input="x " * 94)
    assert full.status_code == 200 and full.json()["usage"]["prompt_tokens"] == 96


def test_an_encoder_says_what_a_step_must_hold():
    command = [BINARY, "serve", str(FIXTURES / "bert-cls"), "--max-num-batched-tokens", "64", "--max-num-seqs", "4", "--port", "0"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert refused.returncode != 0 and "at least max_model_len + max_num_seqs, 100" in refused.stderr


@pytest.mark.parametrize("name, options", [("bert-reranker", ()), ("xlm-roberta-reranker", ("--max-prefill-chunk", 16)), ("modernbert-reranker", ("--max-prefill-chunk", 16, "--block-size", 8))])
def test_scores_of_a_cross_encoder(daemon_of, name, options):
    daemon = daemon_of(name, *options)
    cases = golden(name)
    documents = [case["document"] for case in cases]
    scored = post(daemon, "/v1/score", text_1=cases[0]["query"], text_2=documents).json()
    assert close([entry["score"] for entry in scored["data"]], [case["score"] for case in cases])
    assert scored["usage"]["prompt_tokens"] == sum(len(case["ids"]) for case in cases)
    ranked = post(daemon, "/v1/rerank", query=cases[0]["query"], documents=documents).json()["results"]
    assert [entry["index"] for entry in ranked] == sorted(range(2), key=lambda i: -cases[i]["score"])
    assert [entry["relevance_score"] for entry in ranked] == sorted((entry["score"] for entry in scored["data"]), reverse=True)
    # The other way round it is another question.
    turned = post(daemon, "/v1/score", text_1=documents[0], text_2=cases[0]["query"]).json()["data"][0]["score"]
    assert abs(turned - cases[0]["score"]) > 1e-3
    raw = post(daemon, "/v1/score", text_1=cases[0]["query"], text_2=documents[0], use_activation=False).json()["data"][0]["score"]
    assert math.isclose(cases[0]["score"], raw if name == "bert-reranker" else 1 / (1 + math.exp(-raw)), abs_tol=2e-4)
    # Much more than a step usually has, and than a window of its layers sees.
    long = post(daemon, "/v1/score", text_1="a " * 44, text_2="b " * 44, truncate_prompt_tokens=-1)
    assert long.status_code == 200 and long.json()["usage"]["prompt_tokens"] > 80
    if name == "bert-reranker":  # the same ids as one text: the second's kind is missing
        assert abs(post(daemon, "/classify", input=[cases[0]["ids"]]).json()["data"][0]["probs"][0] - cases[0]["score"]) > 1e-3


@pytest.mark.parametrize("name", ["bert-classifier", "distilbert-classifier"])
def test_classes_of_an_encoder(daemon_of, name):
    daemon = daemon_of(name)
    cases = golden(name)
    answer = post(daemon, "/classify", input=[case["text"] for case in cases]).json()
    for entry, case in zip(answer["data"], cases, strict=True):
        assert close(entry["probs"], case["probs"]) and entry["label"] == case["label"] and entry["num_classes"] == 3


@pytest.mark.parametrize("path, body, param, word", [
    ("/v1/embeddings", {}, "input", "must be a string"),
    ("/v1/embeddings", {"input": []}, "input", "1 to 2048"),
    ("/v1/embeddings", {"input": [1, "x"]}, "input", "must be a string"),
    ("/v1/embeddings", {"input": [264]}, "input", "264"),
    ("/v1/embeddings", {"input": [-1]}, "input", "-1"),
    ("/v1/embeddings", {"input": "x", "dimensions": 0}, "dimensions", "between 1 and 24"),
    ("/v1/embeddings", {"input": "x", "dimensions": 25}, "dimensions", "between 1 and 24"),
    ("/v1/embeddings", {"input": "x", "encoding_format": "int8"}, "encoding_format", "base64"),
    ("/v1/embeddings", {"input": "x" * 513}, "input", "context"),
    ("/v1/embeddings", {"input": "x", "truncate_prompt_tokens": 513}, "truncate_prompt_tokens", "512"),
    ("/v1/embeddings", {"input": "x", "truncate_prompt_tokens": 0}, "truncate_prompt_tokens", "512"),
    ("/v1/embeddings", {"input": "x", "model": "other"}, "model", "other"),
    ("/v1/rerank", {"query": "x"}, "documents", "missing"),
    ("/v1/rerank", {"query": "x", "documents": [3]}, "documents", "string"),
    ("/v1/rerank", {"query": "x", "documents": ["y"], "top_n": -1}, "top_n", "at least 0"),
    ("/v1/rerank", {"query": "x", "documents": ["y"], "instruction": "z"}, "instruction", "instruction"),
    ("/v1/score", {"text_1": ["x", "y"], "text_2": ["x", "y", "z"]}, "text_1", "as many"),
    ("/classify", {"input": "x"}, "model", "no head that scores"),
    ("/v1/completions", {"prompt": "x"}, "model", "writes no text"),
])
def test_what_is_wrong_is_named(daemon_of, path, body, param, word):
    answer = post(daemon_of("qwen3-embedding"), path, **body)
    error = answer.json()["error"]
    assert answer.status_code == (404 if body.get("model") else 400) and error["param"] == param and word in error["message"], error


def test_a_text_that_fills_the_context(daemon_of):
    daemon = daemon_of("qwen3-embedding")
    full = post(daemon, "/v1/embeddings", input="x" * 511)  # and its end
    assert full.status_code == 200 and full.json()["usage"]["prompt_tokens"] == 512
    cut = post(daemon, "/v1/embeddings", input="x" * 5000, truncate_prompt_tokens=-1)
    assert cut.json()["usage"]["prompt_tokens"] == 512
    first = post(daemon, "/v1/embeddings", input="abc", truncate_prompt_tokens=1).json()["data"]
    assert first == post(daemon, "/v1/embeddings", input=[97]).json()["data"]


def test_vectors_of_a_chat_model(daemon):
    """Every decoder makes some."""
    answer = daemon.client().embeddings.create(model="", input=["hello", "world"])
    assert math.isclose(sum(x * x for x in answer.data[0].embedding), 1, abs_tol=1e-4)
