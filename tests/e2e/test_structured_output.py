"""Output of a form, by the official client: at temperature 2 an independent validator accepts all of it."""

import concurrent.futures
import json
import re
import time

import httpx
import jsonschema
import openai
import pydantic
import pytest
from test_folders import copy_folder

CHAT = [{"role": "user", "content": "Tell me about yourself."}]
SCHEMAS = {
    "person": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "mail": {"type": "string", "format": "date"},
            "tags": {"type": "array", "items": {"enum": ["a", "b", "c"]}, "uniqueItems": True, "maxItems": 3},
        },
        "required": ["name", "age"],
        "additionalProperties": False,
    },
    "choice": {
        "oneOf": [
            {"type": "object", "properties": {"kind": {"const": "x"}, "v": {"type": "number", "multipleOf": 0.5, "minimum": -9, "maximum": 9}}, "required": ["kind", "v"], "additionalProperties": False},
            {"type": "object", "properties": {"kind": {"const": "y"}, "w": {"type": "boolean"}}, "required": ["w", "kind"], "maxProperties": 2, "additionalProperties": False},
        ]
    },
    "tree": {
        "$defs": {"t": {"type": "object", "properties": {"v": {"enum": [1, 2]}, "c": {"type": "array", "items": {"$ref": "#/$defs/t"}, "maxItems": 1}}, "required": ["v"], "additionalProperties": False}},
        "$ref": "#/$defs/t",
    },
    "strings": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]{1,3}(-[0-9]{2})?$"}, "minItems": 2, "maxItems": 3},
}


def ask(client, temperature=2, max_tokens=700, **options):
    return client.chat.completions.create(model="serval-nano", messages=CHAT, max_tokens=max_tokens, temperature=temperature, **options)


def as_format(schema):
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


def check_choices(answer, validator):
    ended = 0
    for choice in answer.choices:
        if choice.finish_reason != "stop":
            continue
        ended += 1
        value = json.loads(choice.message.content)
        validator.validate(value)
    return ended


@pytest.mark.parametrize("name", SCHEMAS)
def test_an_independent_validator_accepts_all_that_is_drawn_at_temperature_2(client, name):
    validator = jsonschema.Draft202012Validator(SCHEMAS[name])
    ended = 0
    for seed in range(4):
        ended += check_choices(ask(client, response_format=as_format(SCHEMAS[name]), n=4, seed=seed), validator)
    assert ended >= 8, "half of them end before max_tokens"


def test_parse_gives_the_clients_own_type(client):
    class Colour(pydantic.BaseModel):
        red: bool
        name: str = pydantic.Field(max_length=8)

    for seed in range(3):
        answer = client.chat.completions.parse(model="serval-nano", messages=CHAT, max_tokens=400, temperature=2, seed=seed, response_format=Colour)
        assert isinstance(answer.choices[0].message.parsed, Colour)


def test_responses_have_a_form_too(client):
    for seed in range(3):
        answer = client.responses.create(
            model="serval-nano", input="Hello", max_output_tokens=400, temperature=2,
            text={"format": {"type": "json_schema", "name": "person", "strict": True, "schema": SCHEMAS["person"]}},
        )
        if answer.status == "completed":
            jsonschema.Draft202012Validator(SCHEMAS["person"]).validate(json.loads(answer.output_text))


def test_the_other_forms(client):
    for seed in range(3):
        assert re.fullmatch(r"[a-f]{3}-\d{2,4}", ask(client, seed=seed, extra_body={"guided_regex": r"[a-f]{3}-\d{2,4}"}).choices[0].message.content)
        assert ask(client, seed=seed, extra_body={"structured_outputs": {"choice": ["yes", "no"]}}).choices[0].message.content in ("yes", "no")
        assert re.fullmatch(r"\(*[xy]\)*", ask(client, seed=seed, extra_body={"guided_grammar": 'root ::= "(" root ")" | [xy]'}).choices[0].message.content)
        assert re.fullmatch(r"a{2,3}b", ask(client, seed=seed, extra_body={"structured_outputs": {"grammar": 'start: "a"~2..3 "b"'}}).choices[0].message.content)
        answer = ask(client, seed=seed, max_tokens=120, response_format={"type": "json_object"}).choices[0]
        assert answer.message.content.lstrip().startswith("{")


def test_streams_and_neighbours_are_those_of_a_request_alone(daemon, client):
    formats = [as_format(SCHEMAS[name]) for name in SCHEMAS]

    def text(i):
        stream = ask(daemon.client(), response_format=formats[i % len(formats)], seed=i, max_tokens=120, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)

    alone = [text(i) for i in range(12)]
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        assert list(pool.map(text, range(12))) == alone
    daemon.wait_idle()
    assert daemon.metric("serval:grammar_mask_seconds_count") > 100


@pytest.mark.parametrize(
    ("body", "param", "word"),
    [
        ({"response_format": as_format({"type": "string", "pattern": "(a)\\1"})}, "response_format", "pattern"),
        ({"response_format": as_format({"$ref": "https://example.com/x"})}, "response_format", "$ref"),
        ({"response_format": as_format({"type": "string", "minLength": 3, "maxLength": 2})}, "response_format", "false for every value"),
        ({"guided_regex": "(a|b)*a(a|b){60}"}, "guided_regex", "too large"),
        ({"guided_grammar": 'root ::= root "a" | "b"'}, "guided_grammar", "left"),
        ({"guided_choice": ["a"], "ignore_eos": True}, "ignore_eos", "guided_choice"),
        ({"response_format": {"type": "json_object"}, "tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "response_format"),
        ({"structured_outputs": {"json": {"type": "text"}}}, "structured_outputs", "type"),
    ],
)
def test_what_cannot_be_enforced_is_a_400_that_names_field_and_keyword(client, body, param, word):
    with pytest.raises(openai.BadRequestError) as error:
        ask(client, extra_body=body)
    assert error.value.param == param
    assert word in error.value.message


def test_hostile_schemas_leave_the_others_alone(daemon):
    hostile = {"allOf": [{"anyOf": [{"properties": {f"p{i}{j}": {"const": 1}}, "required": [f"p{i}{j}"]} for i in range(40)]} for j in range(4)]}

    def attack(i):
        body = {"model": "serval-nano", "messages": CHAT, "max_tokens": 4, "response_format": as_format({**hostile, "title": str(i)})}
        return httpx.post(daemon.url + "/v1/chat/completions", json=body, timeout=60).status_code

    def plain():
        begin = time.monotonic()
        ask(daemon.client(), max_tokens=8, temperature=0)
        return time.monotonic() - begin

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        attacks = [pool.submit(attack, i) for i in range(8)]
        slowest = max(plain() for _ in range(4))
        assert {a.result() for a in attacks} <= {400, 429}
    assert slowest < 20
    assert daemon.process.poll() is None


def test_giving_way_and_coming_back_changes_nothing(start_daemon):
    small = start_daemon("--kv-cache-mib", 1, "--max-model-len", 512, "--max-num-seqs", 12)

    def text(i):
        answer = ask(small.client(), response_format=as_format({"type": "array", "items": {"type": "string", "minLength": 9, "maxLength": 9}, "minItems": 30, "maxItems": 30}), seed=i, max_tokens=400)
        return answer.choices[0].message.content

    alone = [text(i) for i in range(10)]
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        assert list(pool.map(text, range(10))) == alone
    assert small.metric("serval:preemptions_total") > 0


# Roles in words; the two marks are tokens, and the word that ends reasoning stands in the template, as in those of models that reason.
THINKING = """{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}assistant:
{%- if think == 'open' %}<think>
{% elif think == 'closed' %}<think>

</think>

{% endif %}"""


def named_marks(tokenizer):
    for token, name in zip(tokenizer["added_tokens"], ["</think>", "<think>"]):
        old, token["content"] = token["content"], name
        tokenizer["model"]["vocab"][name] = tokenizer["model"]["vocab"].pop(old)


def thinking_template(config):
    config["chat_template"] = THINKING
    config["additional_special_tokens"], config["pad_token"], config["added_tokens_decoder"] = [], None, {}


def one_end(config):
    config["eos_token_id"] = 2


@pytest.fixture(scope="module")
def thinker(tmp_path_factory):
    from conftest import Daemon

    folder = copy_folder(tmp_path_factory.mktemp("models") / "thinker", tokenizer__json=named_marks, tokenizer_config__json=thinking_template, generation_config__json=one_end)
    daemon = Daemon(model=folder)
    yield daemon.client()
    daemon.kill()


@pytest.mark.parametrize("think", ["open", "by itself", "closed"])
def test_the_form_begins_behind_the_reasoning(thinker, think):
    bias = {"0": 9, "1": 9} if think == "by itself" else {"0": 9}
    ended = thought = 0
    for seed in range(3):
        answer = thinker.chat.completions.create(
            model="thinker", messages=CHAT, n=4, max_tokens=300, temperature=1.5, seed=seed, logit_bias=bias, response_format=as_format({"enum": ["yes", "no"]}),
            extra_body={"chat_template_kwargs": {"think": think}})
        for choice in answer.choices:
            thought += bool(getattr(choice.message, "reasoning_content", None))
            if choice.finish_reason == "stop":
                ended += 1
                assert json.loads(choice.message.content) in ("yes", "no")
    assert ended >= 6
    assert thought == 0 if think == "closed" else thought >= 4


def test_what_never_ends_its_reasoning_is_cut_and_has_no_content(thinker):
    answer = thinker.chat.completions.create(
        model="thinker", messages=CHAT, max_tokens=40, temperature=1, seed=1, logit_bias={"0": -100}, response_format=as_format({"enum": ["yes", "no"]}),
        extra_body={"chat_template_kwargs": {"think": "open"}})
    assert answer.choices[0].finish_reason == "length"
    assert getattr(answer.choices[0].message, "reasoning_content", None) and not answer.choices[0].message.content
