"""Fields of requests that change what is drawn, or which of it is told."""

import json
import shutil

import httpx
import pytest
from conftest import ROOT, Daemon


def post(daemon, path="/v1/completions", **body):
    return httpx.post(daemon.url + path, json=body, timeout=60)


def ids_of(daemon, text):
    return post(daemon, "/tokenize", prompt=text, add_special_tokens=False).json()["tokens"]


def test_no_other_tokens_than_those_allowed(daemon):
    allowed = sorted({*ids_of(daemon, "the capital of France"), *ids_of(daemon, " is")})
    answer = post(daemon, prompt="It", allowed_token_ids=allowed, max_tokens=20, n=3, temperature=2, seed=1, return_token_ids=True).json()
    drawn = [id for choice in answer["choices"] for id in choice["token_ids"]]
    assert len(drawn) == 60 and set(drawn) <= set(allowed) and len(set(drawn)) > 2
    alone = post(daemon, prompt="It", allowed_token_ids=allowed[:1], max_tokens=3, return_token_ids=True).json()
    assert alone["choices"][0]["token_ids"] == allowed[:1] * 3
    # No penalty of neighbours: the same as without the field, where all are allowed.
    vocab = httpx.get(daemon.url + "/tokenizer_info").json()["vocab_size"]
    whole = post(daemon, prompt="The capital", allowed_token_ids=list(range(vocab)), max_tokens=8, temperature=0).json()
    assert whole["choices"][0]["text"] == post(daemon, prompt="The capital", max_tokens=8, temperature=0).json()["choices"][0]["text"]


def test_bad_words_are_never_written(daemon):
    plain = post(daemon, prompt="The capital of France is", max_tokens=12, temperature=0, return_token_ids=True).json()["choices"][0]
    first = post(daemon, "/detokenize", tokens=plain["token_ids"][:1]).json()["prompt"]
    without = post(daemon, prompt="The capital of France is", max_tokens=12, temperature=0, bad_words=[first], return_token_ids=True).json()["choices"][0]
    assert without["token_ids"][0] != plain["token_ids"][0] and plain["token_ids"][0] not in without["token_ids"]
    # Of several tokens: the last is not drawn behind the others.
    pair = post(daemon, "/detokenize", tokens=plain["token_ids"][1:4]).json()["prompt"]
    tokens = ids_of(daemon, pair)
    if tokens == plain["token_ids"][1:4]:
        without = post(daemon, prompt="The capital of France is", max_tokens=12, temperature=0, bad_words=[pair], return_token_ids=True).json()["choices"][0]
        assert without["token_ids"][:3] == plain["token_ids"][:3] and without["token_ids"][3] != plain["token_ids"][3]


def test_a_form_and_lists_hold_together_or_say_that_they_cannot(daemon):
    (a,), (b,) = ids_of(daemon, "a"), ids_of(daemon, "b")
    both = post(daemon, prompt="x", guided_regex="[ab]{4}", allowed_token_ids=[a], max_tokens=9)
    # Nothing may end it: the end is no token of the list.
    assert both.status_code == 400 and both.json()["error"]["code"] == "no_token_allowed"
    never = post(daemon, prompt="x", guided_choice=["a"], allowed_token_ids=[b])
    assert never.status_code == 400 and never.json()["error"]["code"] == "no_token_allowed"
    held = post(daemon, prompt="x", guided_regex="[ab]{4}", bad_words=["b"], max_tokens=9).json()["choices"][0]
    assert held["text"] == "aaaa" and held["finish_reason"] == "stop"
    streamed = post(daemon, prompt="x", guided_regex="a{2}", allowed_token_ids=[a], max_tokens=9, stream=True)
    # In the stream, or instead of it when it comes before the first text was sent.
    if streamed.status_code == 400:
        assert streamed.json()["error"]["code"] == "no_token_allowed"
    else:
        events = [line.removeprefix("data: ") for line in streamed.text.splitlines() if line.startswith("data: ")]
        assert events[-1] == "[DONE]" and json.loads(events[-2])["error"]["code"] == "no_token_allowed"


@pytest.mark.parametrize("body, param", [
    ({"bad_words": ["x"] * 129}, "bad_words"), ({"bad_words": [""]}, "bad_words"), ({"bad_words": ["x" * 257]}, "bad_words"),
    ({"allowed_token_ids": [-1]}, "allowed_token_ids"), ({"allowed_token_ids": [10**9]}, "allowed_token_ids"),
    ({"allowed_token_ids": "x"}, "allowed_token_ids"), ({"suffix": "end"}, "suffix"), ({"best_of": 1, "n": 2}, "best_of"),
    ({"best_of": 2, "stream": True}, "best_of"), ({"best_of": 17}, "best_of"), ({"best_of": 0}, "best_of"),
])
def test_bounds(daemon, body, param):
    answer = post(daemon, prompt="x", **body)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == param, answer.text


def test_what_is_just_within_the_bounds(daemon):
    assert post(daemon, prompt="x", bad_words=["x" * 256] * 128, max_tokens=1).status_code == 200
    assert post(daemon, prompt="x", best_of=16, max_tokens=1).status_code == 200


def test_the_best_of_several(daemon):
    body = {"prompt": ["Once", "The capital"], "max_tokens": 10, "temperature": 1.5, "seed": 7}
    drawn = post(daemon, **body, n=4, logprobs=0).json()["choices"]
    best = post(daemon, **body, n=2, best_of=4).json()
    expected = []
    for prompt in range(2):
        own = drawn[4 * prompt : 4 * prompt + 4]
        mean = lambda choice: sum(choice["logprobs"]["token_logprobs"]) / len(choice["logprobs"]["token_logprobs"])
        expected += [choice["text"] for choice in sorted(own, key=mean, reverse=True)[:2]]
    assert [choice["text"] for choice in best["choices"]] == expected
    assert [choice["index"] for choice in best["choices"]] == [0, 1, 2, 3]
    assert all(choice["logprobs"] is None for choice in best["choices"])


def test_filling_in(tmp_path):
    folder = tmp_path / "fills"
    shutil.copytree(ROOT / "tests" / "fixtures" / "pooling" / "qwen3-reranker", folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    marks = {"<|fim_prefix|>": 257, "<|fim_middle|>": 258, "<|fim_suffix|>": 259}
    for name, id in marks.items():
        tokenizer["added_tokens"].append({"id": id, "content": name, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    filling = Daemon(model=folder)
    rendered = post(filling, "/v1/completions/render", prompt="ab", suffix="c<|fim_middle|>").json()
    expected = [257, *b"ab", 259, *b"c<|fim_middle|>", 258]
    assert rendered["prompt_token_ids"] == expected
    given = post(filling, prompt=expected, max_tokens=5, temperature=0).json()["choices"][0]["text"]
    assert post(filling, prompt="ab", suffix="c<|fim_middle|>", max_tokens=5, temperature=0).json()["choices"][0]["text"] == given
    assert post(filling, prompt=[1, 2], suffix="c").json()["error"]["param"] == "suffix"
    assert post(filling, prompt="ab", suffix="c", echo=True).json()["error"]["param"] == "suffix"
    assert filling.stop() == 0
