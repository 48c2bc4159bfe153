"""Clients that nobody here wrote, each where it is installed: pip install instructor 'pydantic-ai-slim[openai]' langchain-openai schemathesis litellm
llama-index-llms-openai-like openai-agents (last run with 1.17.0, 2.38.0, 1.7.4, 4.32.5, 1.110.2, 0.8.1 and 0.20.0)."""

import json
import shutil
import subprocess
import sys
from typing import Literal

import openai
import pytest

pytestmark = pytest.mark.long
# White space between tokens of JSON is allowed and says nothing: without it no answer needs luck to end.
TERSE = {"bad_words": ["\n", " ", "\n\n", "  ", "\t"]}
QUESTION = "What is the capital of France?"


def installed(name):
    return pytest.importorskip(name, reason=f"{name} is not installed")


@pytest.fixture(scope="module")
def daemon():
    """Whose model calls tools as Hermes does; its context has room for white space where a schema allows it."""
    from conftest import Daemon

    started = Daemon("--tool-call-format", "hermes")
    yield started
    assert started.stop() == 0, started.log()


def size_model():
    pydantic = installed("pydantic")

    class Size(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="forbid")  # or there may be many more members

        width: int = pydantic.Field(ge=1, le=9)
        unit: str = pydantic.Field(pattern="^(mm|cm)$")

    return Size


def test_instructor_by_schema_and_by_tool(daemon):
    instructor = installed("instructor")
    Size = size_model()
    for mode in (instructor.Mode.JSON_SCHEMA, instructor.Mode.TOOLS):
        client = instructor.from_openai(daemon.client(), mode=mode)
        made = client.chat.completions.create(model="serval-nano", response_model=Size, max_retries=0, max_tokens=1200, temperature=1, seed=2, extra_body=TERSE,
                                              messages=[{"role": "user", "content": QUESTION}])
        assert isinstance(made, Size) and 1 <= made.width <= 9 and made.unit in ("mm", "cm")


def test_pydantic_ai_by_schema_and_by_tool(daemon):
    pydantic_ai = installed("pydantic_ai")
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    Size = size_model()
    model = OpenAIChatModel("serval-nano", provider=OpenAIProvider(base_url=daemon.url + "/v1", api_key="none"))
    for output in (pydantic_ai.NativeOutput(Size), Size):
        agent = pydantic_ai.Agent(model, output_type=output, model_settings={"max_tokens": 1200, "temperature": 1, "seed": 2, "extra_body": TERSE})
        assert isinstance(agent.run_sync(QUESTION).output, Size)
    assert pydantic_ai.Agent(model, model_settings={"max_tokens": 20}).run_sync(QUESTION).output


def test_langchain_structured_output_and_vectors(daemon):
    langchain_openai = installed("langchain_openai")
    Size = size_model()
    chat = langchain_openai.ChatOpenAI(model="serval-nano", base_url=daemon.url + "/v1", api_key="none", max_retries=0, max_tokens=1200, temperature=1, seed=2, extra_body=TERSE)
    for method in ("json_schema", "function_calling"):
        assert isinstance(chat.with_structured_output(Size, method=method).invoke(QUESTION), Size)
    vectors = langchain_openai.OpenAIEmbeddings(model="serval-nano", base_url=daemon.url + "/v1", api_key="none", check_embedding_ctx_length=False)
    expected = daemon.client().embeddings.create(model="", input=["hello", "world"])
    assert vectors.embed_documents(["hello", "world"]) == [pytest.approx(entry.embedding, abs=1e-6) for entry in expected.data]
    # Ids of OpenAI's tokenizer say what to do.
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length"):
        daemon.client().embeddings.create(model="", input=[100_000])


TOOL = {"type": "function", "function": {"name": "measure", "description": "Takes a measure.", "parameters": {
    "type": "object", "properties": {"width": {"type": "integer", "minimum": 1, "maximum": 9}, "unit": {"enum": ["mm", "cm"]}}, "required": ["width", "unit"], "additionalProperties": False}}}


def check_measure(arguments):
    assert set(arguments) == {"width", "unit"} and 1 <= arguments["width"] <= 9 and arguments["unit"] in ("mm", "cm")


def test_litellm_calls_streams_embeds_and_knows_an_overflow(daemon):
    litellm = installed("litellm")
    asked = {"model": "openai/serval-nano", "api_base": daemon.url + "/v1", "api_key": "none", "max_tokens": 1200, "temperature": 1, "seed": 2, "num_retries": 0}
    messages = [{"role": "user", "content": QUESTION}]
    call = litellm.completion(**asked, messages=messages, tools=[TOOL], tool_choice="required", extra_body=TERSE).choices[0].message.tool_calls[0]
    assert call.function.name == "measure"
    check_measure(json.loads(call.function.arguments))
    Size = size_model()
    answer = litellm.completion(**asked, messages=messages, response_format=Size, extra_body=TERSE).choices[0].message.content
    assert Size.model_validate_json(answer)
    whole = litellm.completion(**asked, messages=messages).choices[0].message.content
    pieces = litellm.completion(**asked, messages=messages, stream=True)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == whole
    vector = litellm.embedding(model="openai/serval-nano", input=["hello"], api_base=daemon.url + "/v1", api_key="none", encoding_format="float").data[0]["embedding"]
    assert len(vector) > 0
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion(**asked, messages=[{"role": "user", "content": "word " * 4000}])


def test_llama_index_chats_streams_and_calls(daemon):
    installed("llama_index.llms.openai_like")
    from llama_index.core.llms import ChatMessage
    from llama_index.core.tools import FunctionTool
    from llama_index.llms.openai_like import OpenAILike

    model = OpenAILike(model="serval-nano", api_base=daemon.url + "/v1", api_key="none", is_chat_model=True, is_function_calling_model=True, max_tokens=1200, temperature=1, max_retries=0,
                       context_window=2048, additional_kwargs={"seed": 2, "extra_body": TERSE})
    whole = model.chat([ChatMessage(role="user", content=QUESTION)]).message.content
    assert "".join(piece.delta or "" for piece in model.stream_chat([ChatMessage(role="user", content=QUESTION)])) == whole
    measured = []

    def measure(width: int, unit: Literal["mm", "cm"]) -> str:
        """Takes a measure."""
        measured.append((width, unit))
        return "done"

    calls = model.get_tool_calls_from_response(model.chat_with_tools([FunctionTool.from_defaults(measure)], user_msg=QUESTION, tool_required=True))
    assert calls[0].tool_name == "measure" and isinstance(calls[0].tool_kwargs["width"], int) and calls[0].tool_kwargs["unit"] in ("mm", "cm")
    completing = OpenAILike(model="serval-nano", api_base=daemon.url + "/v1", api_key="none", is_chat_model=False, max_tokens=8, context_window=2048)
    assert completing.complete("The capital of").text


@pytest.mark.parametrize("dialect", ["chat", "responses"])
def test_openai_agents_call_their_tools(daemon, dialect):
    agents = installed("agents")
    agents.set_tracing_disabled(True)
    measured = []

    @agents.function_tool
    def measure(width: int, unit: Literal["mm", "cm"]) -> str:
        """Takes a measure."""
        measured.append((width, unit))
        return "done"

    kind = agents.OpenAIChatCompletionsModel if dialect == "chat" else agents.OpenAIResponsesModel
    model = kind(model="serval-nano", openai_client=daemon.async_client())
    settings = agents.ModelSettings(tool_choice="required", max_tokens=1500, temperature=1, extra_body={"seed": 2, **TERSE} if dialect == "chat" else None)
    agent = agents.Agent(name="Measurer", instructions="Measure.", model=model, tools=[measure], model_settings=settings, tool_use_behavior="stop_on_first_tool")
    result = agents.Runner.run_sync(agent, QUESTION, max_turns=2)
    assert result.final_output == "done" and isinstance(measured[0][0], int) and measured[0][1] in ("mm", "cm")
    plain = agents.Agent(name="Talker", model=model, model_settings=agents.ModelSettings(max_tokens=20))
    assert agents.Runner.run_sync(plain, QUESTION).final_output


def test_schemathesis_finds_no_answer_above_499(start_daemon, tmp_path):
    installed("schemathesis")
    daemon = start_daemon("--files-folder", tmp_path / "files")
    command = shutil.which("schemathesis", path=str(sys.executable.rsplit("/", 1)[0])) or shutil.which("schemathesis")
    run = subprocess.run([command, "run", daemon.url + "/openapi.json", "--checks", "not_a_server_error", "--max-examples", "20", "--phases", "fuzzing", "--request-timeout", "20"],
                         capture_output=True, text=True, timeout=600, cwd=tmp_path)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-1000:]
