"""The daemon through Ollama's own client, and the addresses of llama.cpp and vLLM that say what is served."""

import json

import httpx
import ollama
import pytest

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
OPTIONS = {"temperature": 0, "num_predict": 24}


@pytest.fixture
def client_of(daemon):
    return ollama.Client(host=daemon.url)


def test_a_chat_whole_and_in_pieces_is_the_openai_one(daemon, client_of):
    other = daemon.client().chat.completions.create(model="", messages=QUESTION, temperature=0, max_tokens=24)
    whole = client_of.chat(model="serval-nano:latest", messages=QUESTION, options=OPTIONS)
    assert whole.message.content == other.choices[0].message.content
    assert whole.done and whole.done_reason == ("length" if other.choices[0].finish_reason == "length" else "stop")
    assert whole.prompt_eval_count == other.usage.prompt_tokens and whole.eval_count == other.usage.completion_tokens
    pieces = list(client_of.chat(model="serval-nano", messages=QUESTION, options=OPTIONS, stream=True))
    assert "".join(piece.message.content for piece in pieces) == whole.message.content
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True] and len(pieces) > 2
    assert pieces[-1].total_duration >= pieces[-1].prompt_eval_duration > 0


def test_generate_uses_the_template_unless_raw(daemon, client_of):
    chat = client_of.chat(model="serval-nano", messages=[{"role": "system", "content": "Be brief."}, *QUESTION], options=OPTIONS)
    made = client_of.generate(model="serval-nano", prompt=QUESTION[0]["content"], system="Be brief.", options=OPTIONS)
    assert made.response == chat.message.content
    raw = client_of.generate(model="serval-nano", prompt="The capital of", raw=True, options=OPTIONS)
    other = daemon.client().completions.create(model="", prompt="The capital of", temperature=0, max_tokens=24)
    assert raw.response == other.choices[0].text
    streamed = "".join(piece.response for piece in client_of.generate(model="serval-nano", prompt="The capital of", raw=True, options=OPTIONS, stream=True))
    assert streamed == raw.response
    assert client_of.generate(model="serval-nano", prompt="").done_reason == "load"


def test_a_form_is_kept(client_of):
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    answer = client_of.chat(model="serval-nano", messages=QUESTION, format=schema, options={"temperature": 1, "seed": 3, "num_predict": 60})
    assert json.loads(answer.message.content)["n"] in (1, 2)


def test_vectors(daemon, client_of):
    texts = ["hello", "world"]
    theirs = daemon.client().embeddings.create(model="", input=texts)
    ours = client_of.embed(model="serval-nano", input=texts)
    for a, b in zip(ours.embeddings, theirs.data):
        assert a == pytest.approx(b.embedding, abs=1e-6)
    assert list(client_of.embeddings(model="serval-nano", prompt="hello").embedding) == pytest.approx(theirs.data[0].embedding, abs=1e-6)


def test_what_is_served(daemon, client_of):
    assert client_of.list().models[0].model == "serval-nano" and client_of.ps().models
    shown = client_of.show("serval-nano")
    assert "completion" in shown.capabilities and "embedding" in shown.capabilities and shown.template
    with pytest.raises(ollama.ResponseError, match="does not exist"):
        client_of.show("another")
    with pytest.raises(ollama.ResponseError, match="images"):
        client_of.generate(model="serval-nano", prompt="x", images=["aGk="])
    assert httpx.get(daemon.url + "/api/version").json()["version"]
    props = httpx.get(daemon.url + "/props").json()
    assert props["total_slots"] == 64 and props["chat_template"] == shown.template
    slots = httpx.get(daemon.url + "/slots").json()
    assert len(slots) == 64 and not slots[63]["is_processing"]
    tokenizer = httpx.get(daemon.url + "/tokenizer_info").json()
    assert tokenizer["eos_token"] == props["eos_token"] != "" and tokenizer["vocab_size"] > 100
