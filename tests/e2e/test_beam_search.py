"""Beam search against the same search done by a client, token by token, from the server's log-probabilities."""

import httpx
import openai
import pytest
from conftest import Daemon


@pytest.fixture(scope="module")
def daemon():
    started = Daemon("--max-completion-logprobs", 20)
    yield started
    assert started.stop() == 0, started.log()


PROMPTS = ["The capital of France is", "Once upon a time there was a little", "Question: What is water?\nAnswer:", "1, 2, 3,"]


def ids_of(daemon, text):
    return httpx.post(daemon.url + "/tokenize", json={"prompt": text}).json()["tokens"]


def best_next(client, prompt, count):
    answer = client.completions.create(model="serval-nano", prompt=prompt, max_tokens=1, temperature=0, logprobs=count, extra_body={"return_tokens_as_token_ids": True, "ignore_eos": True})
    top = answer.choices[0].logprobs.top_logprobs[0]
    return sorted(((int(name.split(":")[1]), value) for name, value in top.items()), key=lambda pair: -pair[1])[:count]


def search(client, prompt, width, max_tokens, ends, penalty):
    """As transformers has it, with early_stopping false: (score, tokens), best first."""
    beams, done = [(0.0, [])], []
    for length in range(1, max_tokens + 1):
        continuations = [(total + value, tokens + [token]) for total, tokens in beams for token, value in best_next(client, prompt + tokens, 2 * width)]
        continuations = sorted(continuations, key=lambda pair: -pair[0])[: 2 * width]
        beams = []
        for rank, (total, tokens) in enumerate(continuations):
            if tokens[-1] in ends:
                if rank < width:
                    done = sorted([*done, (total / length**penalty, tokens)], key=lambda pair: -pair[0])[:width]
            else:
                beams.append((total, tokens))
            if len(beams) == width:
                break
        if len(done) == width and done[-1][0] >= continuations[0][0] / length**penalty:
            return done
    return sorted([*done, *((total / max_tokens**penalty, tokens) for total, tokens in beams)], key=lambda pair: -pair[0])[:width]


@pytest.mark.parametrize("width, n, penalty", [(1, 1, 1.0), (3, 3, 1.0), (4, 2, 0.0), (4, 4, 2.0)])
def test_the_search_is_that_of_a_client(daemon, client, width, n, penalty):
    for text in PROMPTS:
        prompt = ids_of(daemon, text)
        expected = search(client, prompt, width, 12, {0, 2}, penalty)
        answer = client.completions.create(model="serval-nano", prompt=text, max_tokens=12, n=n, best_of=width,
                                           extra_body={"use_beam_search": True, "length_penalty": penalty, "return_token_ids": True})
        assert [choice.token_ids for choice in answer.choices] == [tokens for _, tokens in expected[:n]], text
        assert [choice.finish_reason for choice in answer.choices] == ["stop" if tokens[-1] in {0, 2} else "length" for _, tokens in expected[:n]]
        assert answer.usage.prompt_tokens == len(prompt) and answer.usage.completion_tokens == sum(len(tokens) for _, tokens in expected[:n])
    assert width > 1 or answer.choices[0].text == client.completions.create(model="serval-nano", prompt=text, max_tokens=12, temperature=0).choices[0].text


def test_streams_and_company_change_nothing(daemon, client):
    ask = {"model": "serval-nano", "prompt": PROMPTS[1], "max_tokens": 10, "n": 2, "extra_body": {"use_beam_search": True}}
    whole = client.completions.create(**ask)
    running = client.completions.create(model="serval-nano", prompt="x", max_tokens=400, n=8, temperature=1, stream=True, extra_body={"ignore_eos": True})
    texts = {0: "", 1: ""}
    for chunk in client.completions.create(**ask, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    running.close()
    assert [texts[0], texts[1]] == [choice.text for choice in whole.choices]
    daemon.wait_idle()


def test_a_client_that_leaves_ends_the_search(daemon):
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(daemon.url + "/v1/completions", json={"prompt": "x", "max_tokens": 1500, "n": 10, "best_of": 10, "use_beam_search": True, "ignore_eos": True}, timeout=0.3)
    daemon.wait_idle()


@pytest.mark.parametrize("more, param", [({"logprobs": 2}, "logprobs"), ({"stop": ["a"]}, "stop"), ({"best_of": 11}, "best_of"), ({"n": 3, "best_of": 2}, "best_of"), ({"presence_penalty": 1}, "presence_penalty"),
                                         ({"prompt": ["a", "b"]}, "prompt"), ({"max_tokens": 5000}, "max_tokens"), ({"extra_body": {"use_beam_search": True, "guided_regex": "a"}}, "guided_regex")])
def test_what_a_search_cannot_do_is_refused_by_name(client, more, param):
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(**{"model": "serval-nano", "prompt": "x", "max_tokens": 4, "extra_body": {"use_beam_search": True}, **more})
    assert refused.value.param == param
