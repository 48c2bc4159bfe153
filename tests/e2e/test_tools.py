"""Calls of tools from a real model: made to come, held to their schemas, in every dialect. Which it calls is the model's guess; that
it is a call that the tools allow is the server's promise."""

import json

import anthropic
import openai
import pytest
from conftest import Daemon

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
MESSAGES = [{"role": "user", "content": "What time is it in Rome?"}]


@pytest.fixture(scope="module")
def hermes():
    daemon = Daemon("--tool-call-format", "hermes")
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
    return client.chat.completions.create(model="serval-nano", messages=MESSAGES, tools=TOOLS, max_tokens=1200, **more)


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
    flat = [{"type": "function", **t["function"], "strict": True} for t in TOOLS]
    response = client.responses.create(model="serval-nano", input="What time is it?", tools=flat, tool_choice="required", max_output_tokens=1200)
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
