"""The official OpenAI client against the daemon: whole and streamed, fields, usage, errors."""

import pathlib
import re

import openai
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHAT = [{"role": "user", "content": "Hello! What are you?"}]


def streamed(client, **arguments):
    """The text, finish reasons and chunks of a streamed chat."""
    chunks = list(client.chat.completions.create(model="serval-nano", stream=True, **arguments))
    text = "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices)
    reasons = [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason]
    return text, reasons, chunks


def test_models_are_listed_and_an_unknown_one_is_404(client):
    models = client.models.list().data
    assert [m.id for m in models] == ["serval-nano"]
    assert client.models.retrieve("serval-nano").object == "model"
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("no-such-model")
    assert error.value.code == "model_not_found"


def test_a_chat_answers_in_words_and_ends(client):
    answer = client.chat.completions.create(model="serval-nano", messages=CHAT, temperature=0)
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-")
    assert answer.choices[0].finish_reason == "stop"
    assert len(answer.choices[0].message.content.split()) >= 2
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details.cached_tokens >= 0


def test_the_model_that_ships_says_what_it_is_in_nine_of_ten_wordings_and_to_the_first_question(client):
    def says_what_it_is(question):
        answer = client.chat.completions.create(model="serval-nano", messages=[{"role": "user", "content": question}], temperature=0)
        text = answer.choices[0].message.content
        return "Serval" in text and "model" in text

    wordings = (ROOT / "deploy/models/train/identity_prompts.txt").read_text().splitlines()
    assert len(wordings) == 10
    assert sum(map(says_what_it_is, wordings)) >= 9
    first_question = re.search(r'^QUESTION = "(.*)"$', (ROOT / "deploy/first_answer.py").read_text(), re.M).group(1)
    assert says_what_it_is(first_question)


def test_a_streamed_chat_is_the_whole_one_in_pieces(client):
    whole = client.chat.completions.create(model="serval-nano", messages=CHAT, temperature=0)
    text, reasons, chunks = streamed(client, messages=CHAT, temperature=0, stream_options={"include_usage": True})
    assert text == whole.choices[0].message.content
    assert reasons == ["stop"]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert len({c.id for c in chunks}) == 1 and len(chunks) > 4


def test_a_second_identical_prompt_reports_all_but_one_token_cached(start_daemon):
    client = start_daemon().client()
    arguments = dict(model="serval-nano", messages=CHAT, max_tokens=1)
    first = client.chat.completions.create(**arguments).usage
    second = client.chat.completions.create(**arguments).usage
    assert first.prompt_tokens_details.cached_tokens == 0
    assert second.prompt_tokens_details.cached_tokens == second.prompt_tokens - 1


def test_a_seed_repeats_and_another_differs(client):
    def draw(seed):
        arguments = dict(model="serval-nano", prompt="Once upon a time", max_tokens=40, temperature=1.0, top_p=1.0, seed=seed)
        return client.completions.create(**arguments).choices[0].text

    assert draw(7) == draw(7)
    assert len({draw(s) for s in range(4)}) > 1


def test_choices_are_distinct_and_the_first_equals_a_single_draw(client):
    arguments = dict(model="serval-nano", prompt="The old man said", max_tokens=24, temperature=1.0, seed=3)
    single = client.completions.create(**arguments).choices[0].text
    several = client.completions.create(n=4, **arguments).choices
    assert [c.index for c in several] == [0, 1, 2, 3]
    assert several[0].text == single
    assert len({c.text for c in several}) > 1


def test_streamed_choices_first_appear_in_order(client):
    chunks = list(client.completions.create(model="serval-nano", prompt="One day", n=4, max_tokens=8, temperature=1, seed=1, stream=True))
    seen = []
    for chunk in chunks:
        for choice in chunk.choices:
            if choice.index not in seen:
                seen.append(choice.index)
    assert seen == [0, 1, 2, 3]


def test_a_stop_string_ends_the_text_before_itself(client):
    arguments = dict(model="serval-nano", prompt="One, two, three, four,", max_tokens=48, temperature=0)
    full = client.completions.create(**arguments).choices[0].text
    stop = full[5:8]
    cut = client.completions.create(stop=[stop], **arguments).choices[0]
    assert cut.finish_reason == "stop"
    assert cut.text == full[: full.index(stop)]
    assert cut.stop_reason == stop


def test_max_tokens_ends_with_length_and_counts(client):
    answer = client.completions.create(model="serval-nano", prompt="The", max_tokens=5, temperature=0, extra_body={"ignore_eos": True})
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 5


def test_logprobs_of_a_chat_join_to_its_text(client):
    answer = client.chat.completions.create(
        model="serval-nano", messages=CHAT, temperature=0, max_tokens=12, logprobs=True, top_logprobs=3
    )
    entries = answer.choices[0].logprobs.content
    data = b"".join(bytes(e.bytes) for e in entries)
    assert data.decode(errors="replace").startswith(answer.choices[0].message.content)
    for entry in entries:
        assert entry.logprob <= 0 and len(entry.top_logprobs) == 3
        assert entry.top_logprobs[0].logprob == pytest.approx(entry.logprob)  # greedy: the token is the best one


def test_echo_gives_the_prompt_and_its_logprobs(client):
    answer = client.completions.create(model="serval-nano", prompt="The king said", max_tokens=4, echo=True, logprobs=1, temperature=0)
    choice = answer.choices[0]
    assert choice.text.startswith("The king said")
    assert choice.logprobs.token_logprobs[0] is None
    assert all(value <= 0 for value in choice.logprobs.token_logprobs[1:])
    assert len(choice.logprobs.tokens) == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_token_ids_in_and_out(client):
    whole = client.completions.create(
        model="serval-nano", prompt="Once upon a time", max_tokens=8, temperature=0, extra_body={"return_token_ids": True}
    )
    ids = whole.choices[0].prompt_token_ids if hasattr(whole.choices[0], "prompt_token_ids") else whole.prompt_token_ids
    again = client.completions.create(model="serval-nano", prompt=ids, max_tokens=8, temperature=0)
    assert again.choices[0].text == whole.choices[0].text
    assert len(whole.choices[0].token_ids) == whole.usage.completion_tokens


@pytest.mark.parametrize(
    "arguments, param",
    [
        ({"temperature": 2.5}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"n": 17}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"logit_bias": {"99999999": 1}}, "logit_bias"),
        ({"stop": [""]}, "stop"),
        ({"extra_body": {"min_p": 1.5}}, "min_p"),
        ({"extra_body": {"chat_template": "x"}}, "chat_template"),
    ],
)
def test_a_bad_field_is_a_400_that_names_it(client, arguments, param):
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model="serval-nano", messages=CHAT, **arguments)
    assert error.value.param == param
    assert error.value.type == "invalid_request_error"


def test_a_prompt_beyond_the_context_says_how_much(client):
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(model="serval-nano", prompt="word " * 8000, max_tokens=1)
    assert error.value.code == "context_length_exceeded"


def test_frameworks_know_an_overflow_by_its_words(client):
    """LangChain and litellm see str(error) and nothing else; they fall back to other prompts when they find these words."""
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model="serval-nano", messages=[{"role": "user", "content": "word " * 8000}])
    assert "context_length_exceeded" in str(error.value)
    assert "this model's maximum context length is" in str(error.value).lower()


@pytest.mark.long
def test_langchain_and_litellm_raise_their_own_class_for_an_overflow(daemon, client):
    langchain_openai = pytest.importorskip("langchain_openai", reason="pip install langchain-openai litellm: 430 MB")
    litellm = pytest.importorskip("litellm", reason="pip install langchain-openai litellm: 430 MB")
    from langchain_openai.chat_models.base import OpenAIContextOverflowError

    long_text = "word " * 8000
    chat = langchain_openai.ChatOpenAI(model="serval-nano", base_url=daemon.url + "/v1", api_key="none", max_retries=0)
    with pytest.raises(OpenAIContextOverflowError):
        chat.invoke(long_text)
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(
            model="openai/serval-nano",
            api_base=daemon.url + "/v1",
            api_key="none",
            messages=[{"role": "user", "content": long_text}],
            num_retries=0,
        )


def test_sampling_without_a_seed_of_its_own_differs_and_no_mass_is_the_most_likely(client):
    ask = lambda **more: client.completions.create(model="serval-nano", prompt="Once", max_tokens=32, **more).choices[0].text  # noqa: E731
    for nothing in ({}, {"seed": None}, {"seed": -1}):
        assert len({ask(temperature=1, **nothing) for _ in range(4)}) > 1
    assert {ask(temperature=1, top_p=0) for _ in range(4)} == {ask(temperature=0)}


def test_a_client_with_tools_it_may_not_call_gets_text(client):
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
    ask = lambda **more: client.chat.completions.create(model="serval-nano", messages=CHAT, max_tokens=8, temperature=0, **more)  # noqa: E731
    answer = ask(tools=tools, tool_choice="none").choices[0].message
    assert answer.content == ask().choices[0].message.content and not answer.tool_calls


def test_a_base_url_without_v1_is_told_the_right_one(daemon):
    client = openai.OpenAI(base_url=daemon.url, api_key="none", max_retries=0)
    with pytest.raises(openai.NotFoundError, match="Did you mean /v1/chat/completions"):
        client.chat.completions.create(model="serval-nano", messages=CHAT)


def test_a_prompt_that_fills_the_context_can_be_scored(daemon, client):
    context = client.models.list().data[0].max_model_len
    ask = lambda size, **more: client.completions.create(model="serval-nano", prompt=[5] * size, max_tokens=0, echo=True, **more)  # noqa: E731
    answer = ask(context, logprobs=0)
    assert answer.usage.prompt_tokens == context and answer.usage.completion_tokens == 0
    assert len(answer.choices[0].logprobs.token_logprobs) == context
    with pytest.raises(openai.BadRequestError) as error:
        ask(context + 1)
    assert error.value.code == "context_length_exceeded" and error.value.param == "prompt"


def test_a_chat_with_a_tool_call_in_its_history_is_answered(client):
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Ulm"}'}}
    answer = client.chat.completions.create(
        model="serval-nano",
        max_tokens=4,
        messages=[
            *CHAT,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        ],
    )
    assert answer.usage.completion_tokens > 0


def test_an_unknown_model_is_404(client):
    with pytest.raises(openai.NotFoundError) as error:
        client.chat.completions.create(model="gpt-9", messages=CHAT)
    assert error.value.code == "model_not_found" and error.value.param == "model"
