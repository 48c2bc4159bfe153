"""Clients that nobody here wrote, each where it is installed: pip install instructor 'pydantic-ai-slim[openai]' langchain-openai schemathesis (last run with
1.17.0, 2.38.0, 1.7.4 and 4.32.5)."""

import shutil
import subprocess
import sys

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


def test_schemathesis_finds_no_answer_above_499(daemon):
    installed("schemathesis")
    command = shutil.which("schemathesis", path=str(sys.executable.rsplit("/", 1)[0])) or shutil.which("schemathesis")
    run = subprocess.run([command, "run", daemon.url + "/openapi.json", "--checks", "not_a_server_error", "--max-examples", "20", "--phases", "fuzzing", "--request-timeout", "20"],
                         capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-1000:]
