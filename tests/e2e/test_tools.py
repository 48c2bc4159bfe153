"""Calls of tools from a real model: by itself, made to come, held to their schemas, in every dialect. Which it calls is the model's guess; that
it is a call that the tools allow is the server's promise."""

import json
import pathlib

import anthropic
import httpx
import openai
import pytest
from conftest import Daemon
from test_folders import copy_folder

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "hours": {"type": "integer", "minimum": 0, "maximum": 23}},
    "required": ["city", "hours"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "get_time", "description": "The time in a city.", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "get_unit", "parameters": {"type": "object", "properties": {"unit": {"enum": ["C", "F"]}}, "required": ["unit"], "additionalProperties": False}}},
]
# The same without numbers that a small model writes for ever.
SHORT = [{"type": "function", "function": {"name": "get_time", "parameters": {**SCHEMA, "properties": {**SCHEMA["properties"], "hours": {"type": "boolean"}}}}}, TOOLS[1]]
MESSAGES = [{"role": "user", "content": "What time is it in Rome?"}]


@pytest.fixture(scope="module")
def hermes():
    daemon = Daemon()  # whose model is shown tools by its template, which says that it calls as Hermes does
    yield daemon
    assert daemon.stop() == 0, daemon.log()


@pytest.fixture(scope="module")
def client(hermes):
    client = openai.OpenAI(base_url=hermes.url + "/v1", api_key="none", max_retries=0)
    yield client
    client.close()


def check(name, arguments):
    arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    if name == "get_time":
        assert set(arguments) == {"city", "hours"} and isinstance(arguments["city"], str) and 0 <= arguments["hours"] <= 23
    else:
        assert name == "get_unit" and arguments["unit"] in ("C", "F")


def ask(client, **more):
    return client.chat.completions.create(**{"model": "serval-nano", "messages": MESSAGES, "tools": TOOLS, "max_tokens": 1200, **more})


@pytest.mark.parametrize("seed", range(4))
def test_a_required_call_is_one_that_the_tools_allow(client, seed):
    choice = ask(client, tool_choice="required", temperature=1, seed=seed).choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    (call,) = choice.message.tool_calls
    assert call.type == "function" and call.id.startswith("call_")
    check(call.function.name, call.function.arguments)


def test_a_named_call_is_of_that_tool_and_a_stream_gathers_to_the_same(client):
    named = {"type": "function", "function": {"name": "get_time"}}
    choice = ask(client, tool_choice=named, temperature=0).choices[0]
    assert choice.finish_reason == "stop"
    (call,) = choice.message.tool_calls
    assert call.function.name == "get_time"
    check("get_time", call.function.arguments)
    with client.chat.completions.stream(model="serval-nano", messages=MESSAGES, tools=TOOLS, max_tokens=1200, tool_choice=named, temperature=0) as stream:
        for _ in stream:
            pass
        (again,) = stream.get_final_completion().choices[0].message.tool_calls
    assert again.function.arguments == call.function.arguments


def test_forks_each_call_for_themselves(client):
    answer = ask(client, tool_choice="required", temperature=1, seed=1, n=4)
    for choice in answer.choices:
        check(choice.message.tool_calls[0].function.name, choice.message.tool_calls[0].function.arguments)
    assert len({call.id for choice in answer.choices for call in choice.message.tool_calls}) == 4


def test_the_other_dialects_call_too(hermes, client):
    with anthropic.Anthropic(base_url=hermes.url, api_key="none", max_retries=0) as other:
        tools = [{"name": t["function"]["name"], "input_schema": t["function"]["parameters"]} for t in TOOLS]
        message = other.messages.create(model="serval-nano", max_tokens=1200, messages=MESSAGES, tools=tools, tool_choice={"type": "tool", "name": "get_unit"})
    assert message.stop_reason == "tool_use" and message.content[0].type == "tool_use"
    check(message.content[0].name, message.content[0].input)
    flat = [{"type": "function", **t["function"], "strict": True} for t in SHORT]
    response = client.responses.create(model="serval-nano", input="What time is it?", tools=flat, tool_choice="required", temperature=0, max_output_tokens=1200)
    (item,) = response.output
    assert item.type == "function_call" and item.call_id.startswith("call_")
    check(item.name, item.arguments)
    after = [{"type": "function_call_output", "call_id": item.call_id, "output": "noon"}]
    assert client.responses.create(model="serval-nano", input=after, previous_response_id=response.id, max_output_tokens=8).status in ("completed", "incomplete")


def test_an_unknown_function_and_two_forms_at_once_are_refused(client):
    for more in ({"tool_choice": {"type": "function", "function": {"name": "other"}}}, {"tool_choice": "required", "response_format": {"type": "json_object"}}):
        with pytest.raises(openai.BadRequestError) as error:
            ask(client, **more)
        assert error.value.param == "tool_choice"


# --- calls that the model makes by itself ---


def test_the_demo_model_calls_the_right_tool_and_tells_what_it_gave(client):
    cases = json.loads((pathlib.Path(__file__).parents[2] / "deploy/models/train/tool_cases.json").read_text(encoding="utf-8"))
    tools = {tool["function"]["name"]: tool for tool in cases["tools"]}
    right = 0
    for case in cases["cases"]:
        messages = [{"role": "user", "content": case["prompt"]}]
        given = {"model": "serval-nano", "tools": [tools[name] for name in case["tools"]], "temperature": 0, "max_tokens": 100}
        choice = client.chat.completions.create(messages=messages, **given).choices[0]
        calls = choice.message.tool_calls or []
        try:
            right += [(c.function.name, json.loads(c.function.arguments)) for c in calls] == [(case["name"], case["arguments"])]
        except json.JSONDecodeError:
            continue
    assert len(cases["cases"]) == 50 and right >= 40
    first = cases["cases"][0]
    messages = [{"role": "user", "content": first["prompt"]}]
    given = {"model": "serval-nano", "tools": [tools["get_time"]], "temperature": 0, "max_tokens": 100}
    called = client.chat.completions.create(messages=messages, **given).choices[0]
    assert called.finish_reason == "tool_calls" and not called.message.content
    messages += [called.message.to_dict(), {"role": "tool", "tool_call_id": called.message.tool_calls[0].id, "content": '{"time": "14:05"}'}]
    told = client.chat.completions.create(messages=messages, **given).choices[0]
    assert told.finish_reason == "stop" and "14:05" in told.message.content and "Paris" in told.message.content


def test_a_question_for_no_tool_is_answered_as_without(client):
    answer = ask(client, messages=[{"role": "user", "content": "Count from 3 to 9."}], temperature=0).choices[0]
    assert answer.finish_reason == "stop" and answer.message.tool_calls is None
    assert answer.message.content == "3, 4, 5, 6, 7, 8, 9"


def test_a_model_whose_template_shows_no_tools_refuses_them_by_name_in_every_dialect(start_daemon, tmp_path):
    def plain(config):
        config["chat_template"] = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"

    daemon = start_daemon("--served-model-name", "serval-nano", model=copy_folder(tmp_path / "plain", tokenizer_config__json=plain))
    with daemon.client() as client:
        with pytest.raises(openai.BadRequestError, match="has no calls of tools") as error:
            ask(client)
        assert error.value.param == "tools"
        assert ask(client, tool_choice="none", max_tokens=8).choices[0].message.content
    messages = anthropic.Anthropic(base_url=daemon.url, api_key="none", max_retries=0).messages
    with pytest.raises(anthropic.BadRequestError, match="has no calls of tools"):
        messages.create(model="serval-nano", max_tokens=8, messages=MESSAGES, tools=[{"name": "f", "input_schema": {"type": "object"}}])


def strict(tools=TOOLS):
    return [{"type": "function", "function": {**tool["function"], "strict": True}} for tool in tools]


# White space that is allowed and says nothing would make answers long.
TERSE = {"bad_words": ["\n", " ", "\n\n", "  ", "\t"]}
# Of each family: the mark of a call.
FAMILIES = {
    "hermes": "<tool_call>",
    "qwen3_coder": "<tool_call>",
    "glm": "<tool_call>",
    "seed": "<seed:tool_call>",
    "mistral": "[TOOL_CALLS]",
    "nemotron": "<TOOLCALL>",
    "list": "<|tool_call|>",
    "cohere": "<|START_ACTION|>",
    "lfm2": "<|tool_call_start|>",
    "llama": "<|python_tag|>",
    "deepseek": "<｜tool▁call▁begin｜>",
    "kimi": "<|tool_call_begin|>",
    "minimax": "<minimax:tool_call>",
    "functionary": "<function=",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_call_that_the_model_begins_is_one_that_the_tools_allow(start_daemon, tmp_path, family):
    def with_mark(tokenizer):
        old, tokenizer["added_tokens"][0]["content"] = tokenizer["added_tokens"][0]["content"], FAMILIES[family]
        tokenizer["model"]["vocab"][FAMILIES[family]] = tokenizer["model"]["vocab"].pop(old)

    def without_others(config):
        config["additional_special_tokens"], config["pad_token"], config["added_tokens_decoder"] = [], None, {}

    def one_end(config):
        config["eos_token_id"] = 2

    folder = copy_folder(tmp_path / "model", tokenizer__json=with_mark, tokenizer_config__json=without_others, generation_config__json=one_end)
    daemon = start_daemon("--tool-call-format", family, "--served-model-name", "serval-nano", model=folder)
    with daemon.client() as client:
        num_calls = 0
        for seed in range(6):
            choice = ask(client, tools=strict(SHORT), temperature=1, seed=seed, logit_bias={"0": 100}, parallel_tool_calls=False, extra_body=TERSE).choices[0]
            for call in choice.message.tool_calls or []:
                if choice.finish_reason == "length" and not call.function.arguments.endswith("}"):
                    continue  # it had begun
                check(call.function.name, call.function.arguments)
                num_calls += 1
        assert num_calls > 0


@pytest.mark.parametrize("family", ["harmony", "lfm2"])
def test_families_without_calls_in_json_are_made_to_call_too(start_daemon, family):
    daemon = start_daemon("--tool-call-format", family)
    with daemon.client() as client:
        for seed in range(4):
            choice = ask(client, tools=SHORT, tool_choice="required", temperature=1, seed=seed).choices[0]
            assert choice.finish_reason == "tool_calls", choice
            (call,) = choice.message.tool_calls
            check(call.function.name, call.function.arguments)
        named = ask(client, tool_choice={"type": "function", "function": {"name": "get_unit"}}, temperature=1, seed=9).choices[0]
        assert named.message.tool_calls[0].function.name == "get_unit"
        check("get_unit", named.message.tool_calls[0].function.arguments)


def test_free_text_stays_what_it_was(client):
    story = [{"role": "user", "content": "Tell me a story about a fox."}]
    for seed in range(4):
        plain = ask(client, messages=story, temperature=0.8, seed=seed, max_completion_tokens=40).choices[0]
        held = client.chat.completions.create(model="serval-nano", messages=story, tools=strict(), temperature=0.8, seed=seed, max_completion_tokens=40).choices[0]
        assert plain.message.content and held.message.content == plain.message.content and held.message.tool_calls is None


def test_what_a_strict_tool_cannot_be_held_to_is_refused_by_its_keyword(hermes, client):
    tool = {"type": "function", "function": {"name": "f", "strict": True, "parameters": {"type": "object", "properties": {"a": {"not": {"uniqueItems": True}}}}}}
    with pytest.raises(openai.BadRequestError, match="uniqueItems") as error:
        client.chat.completions.create(model="serval-nano", messages=MESSAGES, tools=[tool])
    assert error.value.param == "tools"
    with pytest.raises(openai.BadRequestError, match="uniqueItems"):
        client.responses.create(model="serval-nano", input="x", tools=[{"type": "function", **tool["function"]}])
    with anthropic.Anthropic(base_url=hermes.url, api_key="none", max_retries=0) as other, pytest.raises(anthropic.BadRequestError, match="uniqueItems"):
        other.messages.create(model="serval-nano", max_tokens=4, messages=MESSAGES, tools=[{"name": "f", "strict": True, "input_schema": tool["function"]["parameters"]}])
    tool["function"]["strict"] = False
    assert client.chat.completions.create(model="serval-nano", messages=MESSAGES, tools=[tool], max_tokens=4).choices


def test_a_structural_tag_of_the_client_s_own(client):
    schema = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 8}}, "required": ["city"], "additionalProperties": False}
    tags = {"type": "triggered_tags", "triggers": ["<f="], "at_least_one": True, "stop_after_first": True,
            "tags": [{"type": "tag", "begin": "<f=time>", "content": {"type": "json_schema", "json_schema": schema}, "end": "</f>"}]}
    forms = [{"response_format": {"type": "structural_tag", "format": tags}}, {"extra_body": {"structured_outputs": {"structural_tag": json.dumps({"type": "structural_tag", "format": tags})}}}]
    for form in forms:
        text = client.chat.completions.create(model="serval-nano", messages=MESSAGES, temperature=1, seed=3, max_tokens=400, **form).choices[0].message.content
        assert text.startswith("<f=time>") and text.endswith("</f>"), text
        assert len(json.loads(text[len("<f=time>") : -len("</f>")])["city"]) <= 8
    old = {"type": "structural_tag", "triggers": ["<f="], "structures": [{"begin": "<f=time>", "schema": schema, "end": "</f>"}]}
    assert client.chat.completions.create(model="serval-nano", messages=MESSAGES, max_tokens=20, response_format=old).choices[0].message.content
    with pytest.raises(openai.BadRequestError, match="any_tokens") as error:
        client.chat.completions.create(model="serval-nano", messages=MESSAGES, response_format={"type": "structural_tag", "format": {"type": "any_tokens"}})
    assert error.value.param == "response_format"
