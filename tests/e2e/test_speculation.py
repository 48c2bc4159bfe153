"""Guesses change the number of steps and nothing that a client sees."""

import json
import re
import subprocess

import openai
import pytest

from conftest import BINARY, MODEL

LIST = "".join(f"The cat number {i} sat on the mat and looked at the dog. " for i in range(12))
STORY = "Once upon a time there was a little girl who lived near the sea."


def requests():
    for prompt in (LIST, STORY):
        for temperature in (0, 0.7, 1.0):
            common = dict(model="serval-nano", prompt=prompt, max_tokens=96, temperature=temperature, seed=5)
            yield dict(common, logprobs=3)
            yield dict(common, n=3, frequency_penalty=0.3, extra_body={"min_tokens": 40, "repetition_penalty": 1.1})
            yield dict(common, stop=["girl", "cat", " th"], extra_body={"ignore_eos": True})
            yield dict(common, max_tokens=7, logit_bias={"260": 5, "270": 5}, extra_body={"top_k": 20})
            yield dict(common, n=2, logprobs=1, extra_body={"guided_regex": r"(The (cat|dog|girl) (number [0-9]{1,2} )?(sat|looked|lived)[a-z ]{4,24}\. ?){1,4}"})
            yield dict(common, extra_body={"allowed_token_ids": list(range(250, 700)), "bad_words": ["the", "and the"]})


def told(answer):
    return [(c.text, c.finish_reason, c.logprobs and c.logprobs.model_dump()) for c in answer.choices], answer.usage.completion_tokens


DRAFT = ("--speculation", "draft", "--speculation-model", MODEL.parent / "serval-nano-draft")


EAGLE = ("--speculation", "eagle", "--speculation-model", MODEL.parent / "serval-nano-eagle")
EAGLE3 = ("--speculation", "eagle", "--speculation-model", MODEL.parent / "serval-nano-eagle3", "--draft-width", "3", "--num-draft-tokens", "12")


MEDUSA = ("--speculation", "medusa", "--speculation-model", MODEL.parent / "serval-nano-medusa")


HYDRA = ("--speculation", "hydra", "--speculation-model", MODEL.parent / "serval-nano-hydra")


DFLASH = ("--speculation", "dflash", "--speculation-model", MODEL.parent / "serval-nano-dflash", "--num-draft-tokens", "7")


@pytest.mark.parametrize("options", [("--speculation", "ngram"), DRAFT, (*DRAFT, "--draft-width", "2"), (*DRAFT, "--draft-speculation", "ngram"), ("--speculation", "self"), MEDUSA, HYDRA, EAGLE, EAGLE3, DFLASH], ids=["ngram", "draft", "tree", "staged", "self", "medusa", "hydra", "eagle", "eagle3", "dflash"])
def test_answers_are_the_same_with_and_without_guesses(start_daemon, options):
    plain, guessing = start_daemon(), start_daemon(*options)
    for arguments in requests():
        expected, given = (told(d.client().completions.create(**arguments)) for d in (plain, guessing))
        assert given == expected, arguments
    accepted = guessing.metric("vllm:spec_decode_num_accepted_tokens_total")
    assert accepted > 50
    assert guessing.metric("serval:spec_decode_num_draft_tokens_total") > accepted
    assert guessing.metric("serval:engine_steps_total") < plain.metric("serval:engine_steps_total") - 50
    assert plain.metric("serval:spec_decode_num_draft_tokens_total") == 0
    guessing.wait_idle()


def test_what_a_form_forces_takes_fewer_steps(start_daemon):
    daemon = start_daemon("--speculation", "grammar")
    form = r'\{"preferred_contact_language": "(english|portuguese)_language", "average_waiting_time_seconds": [1-9][0-9]{0,2}, "number_of_previous_requests": [0-9]\}'
    steps = {}
    for method in ("off", "auto"):
        before = daemon.metric("serval:engine_steps_total")
        steps[method] = [told(daemon.client().completions.create(model="serval-nano", prompt="A form in JSON:", max_tokens=200, temperature=temperature, seed=3, logprobs=2,
                                                                 extra_body={"guided_regex": form, "speculation": {"method": method}}))
                         for temperature in (0, 0.7)]
        steps[method, "num"] = daemon.metric("serval:engine_steps_total") - before
    assert steps["auto"] == steps["off"] and len(json.loads(steps["off"][0][0][0][0])) == 3
    assert steps["auto", "num"] < 0.7 * steps["off", "num"], steps
    drafted, accepted = (daemon.metric(f"serval:spec_{what}_tokens_total", drafter="grammar") for what in ("draft", "accepted"))
    assert accepted > 10 and accepted > 0.5 * drafted


def test_a_prediction_is_tried_first_and_counted(start_daemon):
    daemon = start_daemon("--speculation", "ngram")
    common = dict(model="serval-nano", prompt=STORY, max_tokens=60, temperature=0)
    plain = daemon.client().completions.create(**common, extra_body={"speculation": {"method": "off"}})
    assert daemon.metric("serval:spec_decode_num_draft_tokens_total") == 0, "this request wants none"
    assert plain.usage.completion_tokens_details.accepted_prediction_tokens is None
    text = plain.choices[0].text
    for content, least, most in (
        (text, 45, 60),
        ([{"type": "text", "text": text[: len(text) // 2]}, {"type": "text", "text": text[len(text) // 2 :]}], 40, 60),
        ("Something else " + text, 30, 60),
        ("No.", 0, 3),
    ):
        body = {"prediction": {"type": "content", "content": content}, "speculation": {"method": "prediction", "depth": 6}}
        answer = daemon.client().completions.create(**common, extra_body=body)
        assert answer.choices[0].text == text
        details = answer.usage.completion_tokens_details
        assert least <= details.accepted_prediction_tokens <= most, content
        assert details.rejected_prediction_tokens >= 0
    accepted = daemon.metric("serval:spec_accepted_tokens_total", drafter="prediction", position="0")
    assert accepted > 10 and daemon.metric("serval:spec_accepted_tokens_total", drafter="ngram") == 0
    assert daemon.metric("vllm:spec_decode_num_accepted_tokens_per_pos_total", position="0") == accepted
    with pytest.raises(openai.BadRequestError) as refused:
        daemon.client().completions.create(**common, extra_body={"speculation": {"method": "medusa"}})
    assert refused.value.param == "speculation.method"


def test_a_drafter_and_a_depth_by_name_are_what_is_asked(start_daemon):
    daemon = start_daemon("--speculation", "auto", *DRAFT[2:])
    drafted = lambda name: [daemon.metric("serval:spec_draft_tokens_total", drafter=name, position=str(place)) for place in (0, 7)]
    for method, other, least in (("draft", "ngram", 1.0), ("ngram", "draft", 0.2)):  # n-grams are as many as match
        before, others, steps = drafted(method), drafted(other), daemon.metric("serval:engine_steps_total")
        daemon.client().completions.create(model="serval-nano", prompt=LIST, max_tokens=60, temperature=0,
                                           extra_body={"ignore_eos": True, "speculation": {"method": method, "depth": 8}})
        steps = daemon.metric("serval:engine_steps_total") - steps - 12  # the prompt's, and those with no room for eight
        tried = [after - b for after, b in zip(drafted(method), before)]
        assert tried[0] >= least * steps and (method == "ngram" or tried[1] >= steps), f"{method}: {tried} of {steps} steps"
        assert drafted(other) == others
    daemon.wait_idle()


def test_what_others_wrote_is_guessed_from_a_datastore(start_daemon, tmp_path):
    plain = start_daemon()
    common = dict(model="serval-nano", max_tokens=60, temperature=0)
    answers = [plain.client().completions.create(prompt=p, **common).choices[0].text for p in (LIST, STORY)]
    texts, store = tmp_path / "texts", tmp_path / "store"
    texts.write_text("\n\n".join(p + a.replace("\n\n", "\n") for p, a in zip((LIST, STORY), answers)))
    made = subprocess.run([BINARY, "datastore", "--model", MODEL, "--texts", texts, "--out", store], capture_output=True, text=True)
    assert made.returncode == 0 and made.stdout.startswith("2 texts, "), made
    daemon = start_daemon("--speculation", "ngram+datastore", "--speculation-datastore", store, "--draft-width", "2")
    assert [daemon.client().completions.create(prompt=p, **common).choices[0].text for p in (LIST, STORY)] == answers
    assert daemon.metric("serval:spec_accepted_tokens_total", drafter="datastore", position="0") > 5
    daemon.wait_idle()


def test_guesses_are_taken_as_a_request_asks(start_daemon):
    plain, daemon = start_daemon(), start_daemon(*DRAFT, "--speculation-acceptance", "rejection")
    common = dict(model="serval-nano", prompt=STORY, max_tokens=60, seed=5, extra_body={"ignore_eos": True})
    ask = lambda d, **more: d.client().completions.create(**(common | more)).choices[0].text
    expected = ask(plain, temperature=1)
    assert ask(plain, temperature=0) == ask(daemon, temperature=0)
    assert ask(daemon, temperature=1) != expected
    assert ask(daemon, temperature=1, extra_body={"ignore_eos": True, "speculation": {"acceptance": "exact"}}) == expected
    for acceptance in ("typical", "rejection"):
        assert ask(daemon, temperature=1, extra_body={"ignore_eos": True, "speculation": {"acceptance": acceptance}})
    with pytest.raises(openai.BadRequestError) as refused:
        ask(daemon, extra_body={"speculation": {"acceptance": "always"}})
    assert refused.value.param == "speculation.acceptance"
    daemon.wait_idle()


def test_what_the_first_layers_are_sure_of_is_taken_as_a_request_asks(start_daemon):
    plain, daemon = start_daemon(), start_daemon("--speculation", "self", "--num-draft-layers", "3")
    common = dict(model="serval-nano", prompt=STORY, max_tokens=60, temperature=0)
    ask = lambda d, speculation, **more: d.client().completions.create(**common, extra_body={"ignore_eos": True, "speculation": speculation, **more}).choices[0].text
    expected = ask(plain, {})
    assert ask(daemon, {}) == expected == ask(daemon, {"acceptance": "exit", "threshold": 1})
    before = [daemon.metric(f"serval:spec_decode_num_{what}_tokens_total") for what in ("draft", "accepted")]
    assert ask(daemon, {"acceptance": "exit", "threshold": 0.2}) != expected
    drafted, accepted = (daemon.metric(f"serval:spec_decode_num_{what}_tokens_total") - b for what, b in zip(("draft", "accepted"), before))
    assert drafted == accepted > 5
    assert ask(daemon, {}) == expected, "what was taken unverified is nobody else's"
    for of, speculation, param in [
        (plain, {"acceptance": "exit", "threshold": 0.5}, "acceptance"),
        (daemon, {"acceptance": "exit"}, "threshold"),
        (daemon, {"acceptance": "exit", "threshold": 2}, "threshold"),
        (daemon, {"threshold": 0.5}, "threshold"),
        (daemon, {"method": "prediction", "acceptance": "exit", "threshold": 0.5}, "method"),
    ]:
        with pytest.raises(openai.BadRequestError) as refused:
            ask(of, speculation)
        assert refused.value.param == f"speculation.{param}"
    with pytest.raises(openai.BadRequestError) as refused:
        ask(daemon, {"acceptance": "exit", "threshold": 0.5}, repetition_penalty=1.1)
    assert refused.value.param == "repetition_penalty"
    daemon.wait_idle()


def test_what_the_first_layers_are_sure_of_keeps_forms_stop_strings_and_the_tokens_of_a_request(start_daemon):
    daemon = start_daemon("--speculation", "self", "--num-draft-layers", "3")
    form = r"(The (cat|dog|girl) (sat|looked|lived)[a-z ]{4,24}\. ?){1,4}"

    def ask(**body):
        extra = {"speculation": {"acceptance": "exit", "threshold": 0}} | body.pop("extra", {})
        return daemon.client().completions.create(**dict(model="serval-nano", prompt=STORY, max_tokens=96, seed=5, temperature=0.7) | body, extra_body=extra).choices

    for choice in ask(n=3, logprobs=2, extra={"guided_regex": form}):
        assert re.fullmatch(form, choice.text) if choice.finish_reason == "stop" else choice.text.startswith("The ")
        assert "".join(choice.logprobs.tokens).startswith(choice.text)
    (free,) = ask(extra={"ignore_eos": True})
    word = free.text[40:44]
    (stopped,) = ask(stop=[word], extra={"ignore_eos": True})
    assert (stopped.finish_reason, stopped.text) == ("stop", free.text[: free.text.index(word)])
    (allowed,) = ask(extra={"ignore_eos": True, "return_token_ids": True, "allowed_token_ids": list(range(250, 700)), "bad_words": ["and"]})
    assert all(250 <= token < 700 for token in allowed.token_ids) and "and" not in allowed.text
    assert daemon.metric("serval:spec_accepted_tokens_total", drafter="self", position="0") > 10
    daemon.wait_idle()


def test_what_is_computed_is_traced_for_training(start_daemon, tmp_path):
    trace = tmp_path / "trace"
    daemon = start_daemon("--speculation-trace", trace)
    daemon.client().completions.create(model="serval-nano", prompt=STORY, max_tokens=20, temperature=0)
    daemon.wait_idle()
    daemon.stop()
    assert trace.read_bytes().startswith(b"svtrace1") and trace.stat().st_size > 20 * 512
