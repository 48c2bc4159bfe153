"""A client generated from the proto, over a real channel."""

import json
import re
import sys
import time

import grpc
import httpx
import pytest
from conftest import ROOT
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_tools import protoc

SERVAL_CALLS = 'method="serval.v1.Inference/ListModels",'


@pytest.fixture(scope="session")
def generated(tmp_path_factory):
    out = tmp_path_factory.mktemp("proto")
    source = ROOT / "proto" / "serval" / "v1" / "inference.proto"
    arguments = ["protoc", f"-I{ROOT / 'proto'}", f"--python_out={out}", f"--grpc_python_out={out}", str(source)]
    assert protoc.main(arguments) == 0
    sys.path.insert(0, str(out))
    from serval.v1 import inference_pb2, inference_pb2_grpc

    return inference_pb2, inference_pb2_grpc


@pytest.fixture(scope="session")
def channel(daemon):
    with grpc.insecure_channel(f"127.0.0.1:{daemon.grpc_port}") as opened:
        yield opened


def test_text_in_text_out_equals_http(daemon, generated, channel):
    pb, stubs = generated
    request = pb.GenerateRequest(
        text="Once upon a time", sampling=pb.SamplingParams(max_tokens=24, temperature=0), return_prompt_token_ids=True
    )
    messages = list(stubs.InferenceStub(channel).Generate(request))
    text = "".join(m.text for m in messages)
    http = daemon.client().completions.create(
        model="serval-nano", prompt="Once upon a time", max_tokens=24, temperature=0, extra_body={"add_special_tokens": False}
    )
    assert text == http.choices[0].text
    assert messages[-1].usage.completion_tokens == http.usage.completion_tokens
    assert messages[-1].usage.prompt_tokens == len(messages[0].prompt_token_ids)

    again = pb.GenerateRequest(token_ids=pb.TokenIds(ids=messages[0].prompt_token_ids), sampling=request.sampling)
    assert "".join(m.text for m in stubs.InferenceStub(channel).Generate(again)) == text


def test_a_chat_equals_http(daemon, generated, channel):
    pb, stubs = generated
    said = [("system", "You are brief."), ("user", "Who are you?"), ("assistant", "A cat."), ("user", "Tell me a story.")]
    for temperature in (0, 1):
        request = pb.GenerateRequest(
            chat=pb.Chat(messages=[pb.ChatMessage(role=role, content=content) for role, content in said]),
            sampling=pb.SamplingParams(max_tokens=24, temperature=temperature, seed=7),
            return_prompt_token_ids=True,
            n=2,
        )
        messages = list(stubs.InferenceStub(channel).Generate(request))
        http = daemon.client().chat.completions.create(
            model="serval-nano",
            messages=[dict(role=role, content=content) for role, content in said],
            max_tokens=24,
            temperature=temperature,
            seed=7,
            n=2,
            extra_body={"return_token_ids": True},
        )
        for choice in http.choices:
            assert "".join(m.text for m in messages if not m.HasField("usage") and m.index == choice.index) == choice.message.content
        assert list(messages[0].prompt_token_ids) == http.prompt_token_ids
        assert messages[-1].usage.completion_tokens == http.usage.completion_tokens

    open_ended = pb.GenerateRequest(
        chat=pb.Chat(messages=[pb.ChatMessage(role="user", content="x")], add_generation_prompt=False),
        sampling=pb.SamplingParams(max_tokens=1),
        return_prompt_token_ids=True,
    )
    closed = pb.GenerateRequest()
    closed.CopyFrom(open_ended)
    closed.chat.add_generation_prompt = True
    lengths = [len(list(stubs.InferenceStub(channel).Generate(r))[0].prompt_token_ids) for r in (open_ended, closed)]
    assert lengths[0] < lengths[1]


@pytest.mark.parametrize(
    "chat, code",
    [
        (dict(), "invalid_messages"),
        (dict(messages=[dict(role="Wizard", content="x")]), "invalid_messages"),
        (dict(messages=[dict(role="user")]), "invalid_messages"),
        (dict(messages=[dict(role="user", content="x")], template_variables=dict(messages=dict(text="y"))), "not_allowed"),
    ],
)
def test_a_bad_chat_is_refused_as_over_http(generated, channel, chat, code):
    pb, stubs = generated
    with pytest.raises(grpc.RpcError) as error:
        list(stubs.InferenceStub(channel).Generate(pb.GenerateRequest(chat=chat, sampling=dict(max_tokens=1))))
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert dict(error.value.trailing_metadata())["serval-code"] == code


def test_models_health_and_reflection(daemon, generated, channel):
    pb, stubs = generated
    assert [m.id for m in stubs.InferenceStub(channel).ListModels(pb.ListModelsRequest()).models] == ["serval-nano"]
    health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    database = ProtoReflectionDescriptorDatabase(channel)
    services = database.get_services()
    assert {"serval.v1.Inference", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"} <= set(services)
    for name in services:
        check = health_pb2.HealthCheckRequest(service=name)
        assert health_pb2_grpc.HealthStub(channel).Check(check).status == health_pb2.HealthCheckResponse.SERVING
        assert descriptor_pool.DescriptorPool(database).FindServiceByName(name).methods
    with pytest.raises(grpc.RpcError) as error:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="serval.v1.Nothing"))
    assert error.value.code() == grpc.StatusCode.NOT_FOUND
    assert SERVAL_CALLS in httpx.get(daemon.url + "/metrics").text


def test_reflection_v1_answers_as_v1alpha_does(channel):
    ask = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
    request = reflection_pb2.ServerReflectionRequest(file_containing_symbol="grpc.health.v1.Health").SerializeToString()
    (answer,) = ask(iter([request]))
    assert reflection_pb2.ServerReflectionResponse.FromString(answer).file_descriptor_response.file_descriptor_proto


@pytest.mark.parametrize(
    "fields, param",
    [
        (dict(text="x", sampling=dict(temperature=3)), "temperature"),
        (dict(text="x", n=17), "n"),
        (dict(token_ids=dict(ids=[10**6])), "prompt"),
        (dict(), "prompt"),
        (dict(text="x", sampling=dict(max_tokens=10**6)), "max_tokens"),
    ],
)
def test_the_same_validator_answers_invalid_argument(generated, channel, fields, param):
    pb, stubs = generated
    with pytest.raises(grpc.RpcError) as error:
        list(stubs.InferenceStub(channel).Generate(pb.GenerateRequest(**fields)))
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert ("serval-param", param) in error.value.trailing_metadata()


def test_a_prompt_of_megabytes_is_the_same_error(generated, channel):
    pb, stubs = generated
    with pytest.raises(grpc.RpcError) as error:
        list(stubs.InferenceStub(channel).Generate(pb.GenerateRequest(text="word " * 400_000)))
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    metadata = error.value.trailing_metadata()
    assert ("serval-code", "context_length_exceeded") in metadata and ("serval-param", "prompt") in metadata


def test_refusals_of_both_doors_and_ignored_fields_are_counted(start_daemon, generated):
    pb, stubs = generated
    daemon = start_daemon()
    with grpc.insecure_channel(f"127.0.0.1:{daemon.grpc_port}") as channel, pytest.raises(grpc.RpcError):
        list(stubs.InferenceStub(channel).Generate(pb.GenerateRequest(text="x", sampling=pb.SamplingParams(temperature=3))))
    post = lambda **fields: httpx.post(daemon.url + "/v1/completions", json={"prompt": "x", "max_tokens": 1, **fields})  # noqa: E731
    assert post(temperature=3).status_code == 400
    assert post(temperature="x").status_code == 400
    assert post(temprature=3, **{"x" * 1000: 1}).status_code == 200
    assert daemon.metric("serval:requests_rejected_total", code="value_out_of_range") == 2
    assert daemon.metric("serval:requests_rejected_total", code="invalid_type") == 1
    assert daemon.metric("serval:request_fields_ignored_total") == 2
    assert "xxx" not in httpx.get(daemon.url + "/metrics").text


def endless(pb):
    return pb.GenerateRequest(text="Once", sampling=pb.SamplingParams(max_tokens=1900, ignore_eos=True))


def test_cancellation_frees_what_the_call_held(start_daemon, generated):
    pb, stubs = generated
    daemon = start_daemon()
    with grpc.insecure_channel(f"127.0.0.1:{daemon.grpc_port}") as channel:
        calls = [stubs.InferenceStub(channel).Generate(endless(pb)) for _ in range(4)]
        for call in calls:
            next(call)
        assert daemon.metric("serval:num_requests_running") == 4
        for call in calls:
            call.cancel()
        daemon.wait_idle()
    assert daemon.metric("serval:generation_tokens_total") < 4 * 1900


def test_a_deadline_reaches_the_scheduler(start_daemon, generated):
    pb, stubs = generated
    daemon = start_daemon("--max-num-seqs", 4)
    with grpc.insecure_channel(f"127.0.0.1:{daemon.grpc_port}") as channel:
        started = time.monotonic()
        with pytest.raises(grpc.RpcError) as error:
            for _ in stubs.InferenceStub(channel).Generate(
                pb.GenerateRequest(text="Once", n=4, sampling=pb.SamplingParams(max_tokens=1900, ignore_eos=True)), timeout=0.5
            ):
                pass
        assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - started < 30
        daemon.wait_idle()


def test_a_key_finds_in_the_cache_what_it_asked_itself(start_daemon, generated):
    pb, stubs = generated
    daemon = start_daemon("--api-keys", "mine,yours")
    prompt = "Once upon a time there was a prompt that nobody else was to know of"

    def over_http(key):
        answer = daemon.client(api_key=key).completions.create(model="serval-nano", prompt=prompt, max_tokens=1)
        return answer.usage.prompt_tokens_details.cached_tokens

    def over_grpc(key):
        with grpc.insecure_channel(f"127.0.0.1:{daemon.grpc_port}") as channel:
            request = pb.GenerateRequest(text=prompt, add_special_tokens=True, sampling=pb.SamplingParams(max_tokens=1))
            call = stubs.InferenceStub(channel).Generate(request, metadata=[("authorization", f"Bearer {key}")])
            return list(call)[-1].usage.cached_tokens

    assert over_http("mine") == 0
    assert over_http("yours") == 0
    whole = over_http("mine")
    assert whole > 10
    assert over_grpc("mine") == whole and over_grpc("yours") == whole  # the same key, whichever way it comes
    daemon = start_daemon("--api-keys", "mine,yours", "--share-prefix-cache")
    assert over_grpc("mine") == 0
    assert over_grpc("yours") == whole and over_http("yours") == whole


def test_vectors_equal_http(daemon, generated, channel):
    pb, stubs = generated
    http = daemon.client().embeddings.create(model="", input=["hello", "world"], dimensions=5)
    answer = stubs.InferenceStub(channel).Embed(pb.EmbedRequest(inputs=[{"text": "hello"}, {"text": "world"}], dimensions=5))
    assert [list(vector.values) for vector in answer.vectors] == [entry.embedding for entry in http.data]
    assert answer.usage.prompt_tokens == http.usage.prompt_tokens
    for fields, param in [
        ({"inputs": []}, "inputs"),
        ({"inputs": [{"text": "x"}], "dimensions": 0}, "dimensions"),
        ({"inputs": [{"token_ids": {"ids": [-1]}}]}, "inputs"),
    ]:
        with pytest.raises(grpc.RpcError) as refused:
            stubs.InferenceStub(channel).Embed(pb.EmbedRequest(**fields))
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert dict(refused.value.trailing_metadata())["serval-param"] == param


def test_only_the_listed_tokens_are_drawn_and_bad_words_never(generated, channel):
    pb, stubs = generated
    stub = stubs.InferenceStub(channel)
    (a,), (b,) = (stub.Tokenize(pb.TokenizeRequest(text=text)).token_ids for text in "ab")

    def ids(**sampling):
        messages = stub.Generate(pb.GenerateRequest(text="x", sampling=pb.SamplingParams(max_tokens=30, temperature=2, seed=5, **sampling)))
        return {token for m in messages for token in m.token_ids}

    assert ids(allowed_token_ids=[a, b]) == {a, b}
    assert ids(allowed_token_ids=[a, b], bad_words=["a"]) == {b}


FORMS = {
    "object": (dict(json_object=True), lambda text: isinstance(json.loads(text), dict)),
    "schema": (dict(json_schema='{"enum": ["yes", "no"]}'), lambda text: json.loads(text) in ("yes", "no")),
    "regex": (dict(regex="[0-9]{3}-[a-f]{2}"), lambda text: re.fullmatch("[0-9]{3}-[a-f]{2}", text)),
    "choice": (dict(choice=dict(texts=["red", "green"])), lambda text: text in ("red", "green")),
    "grammar": (dict(grammar='root ::= ("ab" | "cd")+ "."'), lambda text: re.fullmatch(r"(ab|cd)+\.", text)),
}


@pytest.mark.parametrize("form", FORMS)
def test_an_answer_has_the_form_that_was_asked_for(generated, channel, form):
    pb, stubs = generated
    asked, is_right = FORMS[form]
    ended = 0
    for seed in range(6):
        request = pb.GenerateRequest(
            chat=pb.Chat(messages=[pb.ChatMessage(role="user", content="x")]),
            sampling=pb.SamplingParams(max_tokens=700, temperature=1.5, seed=seed),
            output_format=pb.OutputFormat(**asked),
        )
        messages = list(stubs.InferenceStub(channel).Generate(request))
        if messages[-2].finish_reason == pb.FINISH_REASON_STOP:
            ended += 1
            assert is_right("".join(m.text for m in messages))
    assert ended >= 1


@pytest.mark.parametrize("asked", [dict(json_schema="{"), dict(json_schema='{"type": "strin"}'), dict(regex="(a"), dict(grammar="x y"), dict(choice=dict(texts=[]))])
def test_a_form_that_is_none_is_refused_by_the_name_of_its_field(generated, channel, asked):
    pb, stubs = generated
    with pytest.raises(grpc.RpcError) as error:
        list(stubs.InferenceStub(channel).Generate(pb.GenerateRequest(text="x", output_format=pb.OutputFormat(**asked))))
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert dict(error.value.trailing_metadata())["serval-param"] == "output_format"


def test_ids_of_texts_and_chats_are_those_of_http_and_go_back(daemon, generated, channel):
    pb, stubs = generated
    stub = stubs.InferenceStub(channel)
    text = "Once upon a time,\n there \u00e9 <|im_end|>"
    ids = list(stub.Tokenize(pb.TokenizeRequest(text=text)).token_ids)
    assert ids == httpx.post(daemon.url + "/tokenize", json={"prompt": text, "add_special_tokens": False}).json()["tokens"]
    assert stub.Detokenize(pb.DetokenizeRequest(token_ids=ids)).text == text
    chat = pb.Chat(messages=[pb.ChatMessage(role="user", content=text)])
    expected = httpx.post(daemon.url + "/tokenize", json={"messages": [{"role": "user", "content": text}]}).json()["tokens"]
    assert list(stub.Tokenize(pb.TokenizeRequest(chat=chat)).token_ids) == expected
    for call in (lambda: stub.Detokenize(pb.DetokenizeRequest(token_ids=[1 << 40])), lambda: stub.Tokenize(pb.TokenizeRequest(chat=pb.Chat()))):
        with pytest.raises(grpc.RpcError) as error:
            call()
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    for call in (stub.Tokenize, stub.Detokenize):
        request = pb.TokenizeRequest if call is stub.Tokenize else pb.DetokenizeRequest
        with pytest.raises(grpc.RpcError) as error:
            call(request(model="nobody"))
        assert error.value.code() == grpc.StatusCode.NOT_FOUND
