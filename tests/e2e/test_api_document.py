"""What is said of requests: docs/api.md, /openapi.json, and the fields of OpenAI's own document."""

import subprocess

import httpx
import pytest
from conftest import BINARY, ROOT

OPENAI = ROOT.parent / "shared" / "data" / "openapi-openai" / "openapi.yaml"


def test_the_documents_table_is_the_program_s():
    shown = subprocess.run([str(BINARY), "api", "--markdown"], capture_output=True, text=True, check=True).stdout
    assert shown in (ROOT / "docs" / "api.md").read_text(), "serval api --markdown says otherwise than docs/api.md"


def test_the_server_shows_its_document(daemon):
    document = httpx.get(daemon.url + "/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    served = {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/embeddings", "/v1/rerank", "/tokenize", "/v1/models"}
    assert served <= set(document["paths"])
    # Every address of it is there, and answers nothing that it does not say.
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            kinds = operation.get("requestBody", {}).get("content", {})
            body = {"json": {}} if "application/json" in kinds else {"files": {"file": b"x"}} if kinds else {}
            answer = httpx.request(method, daemon.url + path.replace("{id}", "none"), **body)
            expected = [501] if "501" in operation["responses"] else [404] if "{id}" in path else [200, 400]
            assert answer.status_code in expected, f"{method} {path}: {answer.status_code} {answer.text[:200]}"


@pytest.mark.parametrize("theirs, ours", [("CreateChatCompletionRequest", "ChatRequest"), ("CreateCompletionRequest", "CompletionRequest"),
                                          ("CreateResponse", "ResponsesRequest"), ("CreateEmbeddingRequest", "EmbeddingRequest")])
def test_every_field_of_openai_s_document_is_in_the_table(daemon, theirs, ours):
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    if not OPENAI.exists():
        pytest.skip(f"{OPENAI} is not there")
    schemas = yaml.load(OPENAI.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["components"]["schemas"]

    def properties(schema):
        if "$ref" in schema:
            schema = schemas[schema["$ref"].rsplit("/", 1)[1]]
        names = set(schema.get("properties", {}))
        return names.union(*(properties(part) for part in schema.get("allOf", [])))

    known = httpx.get(daemon.url + "/openapi.json").json()["components"]["schemas"][ours]["properties"]
    missing = properties({"$ref": "#/" + theirs}) - set(known)
    assert not missing
