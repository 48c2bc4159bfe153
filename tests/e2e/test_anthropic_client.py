"""The official Anthropic client against the daemon: whole and streamed, counted, refused."""

import anthropic
import pytest

MESSAGES = [{"role": "user", "content": "Hello! What are you?"}]
TOOL = {"name": "get_time", "description": "The time in a city.", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}


@pytest.fixture(scope="module")
def messages(daemon):
    client = anthropic.Anthropic(base_url=daemon.url, api_key="none", max_retries=0)
    yield client.messages
    client.close()


def ask(**more):
    return {"model": "serval-nano", "max_tokens": 64, "messages": MESSAGES, "extra_body": {"temperature": 0}, **more}


def test_a_message_is_what_the_other_dialect_answers(messages, client):
    answer = messages.create(**ask())
    other = client.chat.completions.create(model="serval-nano", messages=MESSAGES, max_tokens=64, temperature=0)
    assert answer.type == "message" and answer.role == "assistant" and answer.id.startswith("msg_")
    assert [block.type for block in answer.content] == ["text"]
    assert answer.content[0].text == other.choices[0].message.content
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
    read = answer.usage.input_tokens + answer.usage.cache_read_input_tokens
    assert (read, answer.usage.output_tokens) == (other.usage.prompt_tokens, other.usage.completion_tokens)


def test_a_stream_gathers_to_the_same_message(messages):
    whole = messages.create(**ask())
    with messages.stream(**ask()) as stream:
        text = "".join(stream.text_stream)
        last = stream.get_final_message()
    assert text == last.content[0].text == whole.content[0].text
    assert (last.stop_reason, last.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)
    kinds = [event.type for event in messages.create(**ask(), stream=True)]
    assert kinds[:2] == ["message_start", "content_block_start"] and kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}


def test_it_ends_at_a_limit_and_at_a_sequence(messages):
    short = messages.create(**ask(max_tokens=2))
    assert (short.stop_reason, short.usage.output_tokens) == ("max_tokens", 2)
    word = messages.create(**ask()).content[0].text.split()[2]
    stopped = messages.create(**ask(stop_sequences=[word]))
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", word)
    assert word not in stopped.content[0].text


def test_system_blocks_and_a_begun_answer_reach_the_template(daemon, messages, client):
    system = [{"type": "text", "text": "You are kind.", "cache_control": {"type": "ephemeral"}}]
    blocks = [{"role": "user", "content": [{"type": "text", "text": "Count"}, {"type": "text", "text": "to five."}]}]
    counted = messages.count_tokens(model="serval-nano", system=system, messages=blocks).input_tokens
    chat = [{"role": "system", "content": "You are kind."}, {"role": "user", "content": "Count\nto five."}]
    other = client.chat.completions.create(model="serval-nano", messages=chat, max_tokens=1)
    assert counted == other.usage.prompt_tokens
    begun = messages.create(**ask(messages=[*MESSAGES, {"role": "assistant", "content": "I am"}]))
    assert not begun.content[0].text.startswith("I am")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"extra_body": {"max_tokens": None}}, "max_tokens"),
        ({"extra_body": {"temperature": 3}}, "temperature"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, r"messages\[0\].content\[0\].type"),
        ({"messages": [{"role": "tool", "content": "x"}]}, r"messages\[0\].role"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, "tool_use_id is missing"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, r"tools\[0\].type"),
        ({"tools": [{"name": "f"}]}, r"tools\[0\].input_schema is missing"),
        ({"extra_body": {"output_config": {"format": {"type": "json_schema"}}}}, "output_config.format"),
    ],
)
def test_what_is_wrong_is_a_400_in_its_own_form(messages, change, words):
    with pytest.raises(anthropic.BadRequestError, match=words) as error:
        messages.create(**{**ask(), **change})
    assert error.value.body["type"] == "error" and error.value.body["error"]["type"] == "invalid_request_error"


def test_an_unknown_model_is_a_404(messages):
    with pytest.raises(anthropic.NotFoundError):
        messages.create(**ask(model="claude"))


def test_results_of_tools_are_messages_of_their_own(messages, daemon):
    turns = [
        *MESSAGES,
        {"role": "assistant", "content": [{"type": "text", "text": "Let me see."}, {"type": "tool_use", "id": "toolu_1", "name": "get_time", "input": {"city": "Rome"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "noon"}]}, {"type": "text", "text": "And?"}]},
    ]
    answer = messages.create(**ask(messages=turns, tools=[TOOL], tool_choice={"type": "none"}))
    assert answer.stop_reason in ("end_turn", "max_tokens")
