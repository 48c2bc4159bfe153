"""The daemon on a CUDA device, emulated where there is none: the whole way from HTTP to kernels, one step ahead of the device."""

import concurrent.futures

import pytest
from conftest import BINARY, MODEL, Daemon

EMULATED = BINARY.parent.parent / "tests" / "kernels" / "cuda" / "serval_emulated"


@pytest.fixture(scope="module")
def emulated():
    if not EMULATED.exists():
        pytest.skip(f"{EMULATED.name} was not built beside {BINARY.name}")
    daemon = Daemon("--device", "cuda", "--max-model-len", 256, "--max-num-seqs", 8, "--max-num-batched-tokens", 64, binary=EMULATED)
    yield daemon
    assert daemon.stop() == 0, daemon.log()


def ask(daemon, prompt, **options):
    choice = daemon.client(timeout=120).completions.create(model=MODEL.name, prompt=prompt, **options).choices[0]
    return choice.text, choice.finish_reason, choice.logprobs and choice.logprobs.token_logprobs


def test_greedy_text_is_the_cpus_where_no_two_tokens_are_close(emulated, daemon):
    for prompt in ("Once upon a time, there was a", "What are you?"):
        theirs = ask(daemon, prompt, max_tokens=12, temperature=0, logprobs=2)
        ours = ask(emulated, prompt, max_tokens=12, temperature=0, logprobs=2)
        same = next((i for i, (a, b) in enumerate(zip(ours[2], theirs[2])) if abs(a - b) > 0.2), 12)
        assert same >= 6, (ours, theirs)  # bf16 activations may part from f32 ones, but not soon


def test_requests_side_by_side_get_what_each_gets_alone(emulated):
    asks = [dict(prompt=f"Tell me about number {i}.", max_tokens=6 + 3 * i, temperature=0.8 * (i % 2), seed=i, logprobs=3, frequency_penalty=0.3 * (i % 3)) for i in range(5)]
    alone = [ask(emulated, **a) for a in asks]
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        together = list(pool.map(lambda a: ask(emulated, **a), asks))
    assert together == alone


def test_streams_and_ends_by_a_stop_string_one_step_late_without_a_token_too_many(emulated):
    text, _, _ = ask(emulated, "Once upon a time", max_tokens=24, temperature=0)
    stop = text[len(text) // 2 :][:3]
    cut, reason, _ = ask(emulated, "Once upon a time", max_tokens=24, temperature=0, stop=[stop])
    assert reason == "stop" and cut == text[: text.index(stop)]


def test_vectors_are_the_cpus_and_a_text_has_its_own_in_company(emulated, daemon):
    texts = ["Once upon a time, there was a little girl.", "What are you?", " ".join(["water"] * 90)]
    theirs, ours = ([row.embedding for row in of.client(timeout=120).embeddings.create(model=MODEL.name, input=texts).data] for of in (daemon, emulated))
    assert all(sum(a * b for a, b in zip(x, y)) > 0.999 for x, y in zip(ours, theirs))
    assert sum(a * b for a, b in zip(ours[0], ours[1])) < 0.999
    assert [emulated.client(timeout=120).embeddings.create(model=MODEL.name, input=text).data[0].embedding for text in texts] == ours
