"""The official OpenAI client's responses against the daemon: whole and streamed, kept, gone on with, refused."""

import openai
import pytest

QUESTION = "Hello! What are you?"


def ask(client, **more):
    return client.responses.create(**{"model": "serval-nano", "input": QUESTION, "temperature": 0, "max_output_tokens": 64, **more})


def test_a_response_is_what_the_chat_answers_and_is_kept(client):
    response = ask(client, metadata={"a": "b"})
    chat = client.chat.completions.create(model="serval-nano", messages=[{"role": "user", "content": QUESTION}], temperature=0, max_tokens=64)
    assert response.output_text == chat.choices[0].message.content
    assert (response.status, response.error, response.incomplete_details) == ("completed", None, None)
    assert (response.usage.input_tokens, response.usage.output_tokens) == (chat.usage.prompt_tokens, chat.usage.completion_tokens)
    assert response.metadata == {"a": "b"} and response.tools == [] and response.store is True
    assert client.responses.retrieve(response.id).model_dump() == response.model_dump()
    items = client.responses.input_items.list(response.id).data
    assert items[0].content[0].text == QUESTION
    with pytest.raises(openai.BadRequestError, match="has ended"):
        client.responses.cancel(response.id)
    client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError) as error:
        client.responses.retrieve(response.id)
    assert error.value.code == "response_not_found"


def test_a_stream_gathers_to_the_same_response(client):
    whole = ask(client)
    with client.responses.stream(model="serval-nano", input=QUESTION, temperature=0, max_output_tokens=64) as stream:
        kinds, numbers, text = [], [], ""
        for event in stream:
            kinds.append(event.type)
            numbers.append(event.sequence_number)
            text += event.delta if event.type == "response.output_text.delta" else ""
        last = stream.get_final_response()
    assert text == last.output_text == whole.output_text
    assert numbers == list(range(len(numbers)))
    assert kinds[:4] == ["response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"]
    assert kinds[-4:] == ["response.output_text.done", "response.content_part.done", "response.output_item.done", "response.completed"]
    assert client.responses.retrieve(last.id).output_text == text


def test_it_goes_on_from_a_response_that_is_kept(client):
    first = ask(client, instructions="You are kind.")
    second = ask(client, input="And who made you?", previous_response_id=first.id)
    messages = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "And who made you?"},
    ]
    chat = client.chat.completions.create(model="serval-nano", messages=messages, temperature=0, max_tokens=64)
    assert second.output_text == chat.choices[0].message.content and second.usage.input_tokens == chat.usage.prompt_tokens
    listed = ask(client, input=[messages[0], {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": first.output_text}]}, messages[2]])
    assert listed.output_text == second.output_text
    assert ask(client, store=False).id not in (first.id, second.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(ask(client, store=False).id)


def test_one_that_is_cut_off_says_so(client):
    response = ask(client, max_output_tokens=2)
    assert (response.status, response.incomplete_details.reason, response.usage.output_tokens) == ("incomplete", "max_output_tokens", 2)
    kinds = [event.type for event in ask(client, max_output_tokens=2, stream=True)]
    assert kinds[-1] == "response.incomplete"


@pytest.mark.parametrize(
    "change, param",
    [
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:,"}]}]}, "input[0].content[0].type"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"background": True}, "background"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
    ],
)
def test_what_is_wrong_is_a_400_that_names_it(client, change, param):
    with pytest.raises(openai.BadRequestError) as error:
        ask(client, **change)
    assert error.value.param == param
