"""`serval grammar` against an independent validator, on random schemas and instances that nearly fit them."""

import json
import random
import subprocess

import jsonschema
import pytest
from conftest import BINARY

KEYS = ["a", "b", "ab", "x1"]
SCALARS = [None, True, False, 0, 1, -1, 2, 3, 10, 0.5, 1.5, -2.25, "", "a", "ab", "abc", "é", "x1", "1"]


def run(tmp_path, option, text, lines):
    (tmp_path / "grammar").write_text(text)
    (tmp_path / "lines").write_text("".join(line + "\n" for line in lines))
    return subprocess.run([str(BINARY), "grammar", option, str(tmp_path / "grammar"), "--instances", str(tmp_path / "lines")], capture_output=True, text=True, timeout=60)


def schema(r, depth):
    """Any schema of the subset that both sides know, a few keywords at a time."""
    if r.random() < 0.08:
        return r.random() < 0.7
    out = {}
    inner = lambda: schema(r, depth - 1) if depth > 0 else r.choice([True, {"type": "integer"}, {"const": r.choice(SCALARS)}])
    keywords = [
        lambda: out.update(type=r.choice(["string", "number", "integer", "object", "array", "boolean", "null"])),
        lambda: out.update(type=r.sample(["string", "number", "integer", "object", "array", "boolean", "null"], 2)),
        lambda: out.update(enum=r.sample(SCALARS, 4)),
        lambda: out.update(const=r.choice(SCALARS)),
        lambda: out.update(minimum=r.choice([-1, 0, 0.5, 2])),
        lambda: out.update(exclusiveMaximum=r.choice([1, 2.5, 10])),
        lambda: out.update(multipleOf=r.choice([0.5, 1, 2, 0.25])),
        lambda: out.update(minLength=r.randint(0, 2)),
        lambda: out.update(maxLength=r.randint(0, 3)),
        lambda: out.update(pattern=r.choice(["^a", "b$", "[0-9]", "^(a|x).?$", "^(?!ab)"])),
        lambda: out.update(properties={key: inner() for key in r.sample(KEYS, r.randint(1, 3))}),
        lambda: out.update(patternProperties={r.choice(["^a", "b$", "1"]): inner()}),
        lambda: out.update(additionalProperties=inner()),
        lambda: out.update(propertyNames=r.choice([{"maxLength": 1}, {"pattern": "^[ab]"}, inner()])),
        lambda: out.update(required=r.sample(KEYS, r.randint(0, 2))),
        lambda: out.update(minProperties=r.randint(0, 2)),
        lambda: out.update(maxProperties=r.randint(0, 3)),
        lambda: out.update(dependentRequired={r.choice(KEYS): [r.choice(KEYS)]}),
        lambda: out.update(dependentSchemas={r.choice(KEYS): inner()}),
        lambda: out.update(items=inner()),
        lambda: out.update(prefixItems=[inner() for _ in range(r.randint(1, 2))]),
        lambda: out.update(minItems=r.randint(0, 2)),
        lambda: out.update(maxItems=r.randint(0, 3)),
        lambda: out.update(uniqueItems=True),
        lambda: out.update(contains=inner()),
        lambda: out.update(contains=inner(), minContains=r.randint(0, 2), maxContains=r.randint(1, 2)),
        lambda: out.update(allOf=[inner(), inner()]),
        lambda: out.update(anyOf=[inner() for _ in range(r.randint(1, 3))]),
        lambda: out.update(oneOf=[inner() for _ in range(r.randint(1, 3))]),
        lambda: out.update({"not": inner()}),
        lambda: out.update({"if": inner(), "then": inner(), "else": inner()}),
        lambda: out.update(unevaluatedProperties=r.choice([False, inner()])),
        lambda: out.update(unevaluatedItems=r.choice([False, inner()])),
    ]
    for keyword in r.sample(keywords, r.randint(1, 3)):
        keyword()
    return out


def value(r, depth):
    kind = r.random()
    if depth == 0 or kind < 0.4:
        return r.choice(SCALARS)
    if kind < 0.75:
        return {key: value(r, depth - 1) for key in r.sample(KEYS, r.randint(0, 3))}
    return [value(r, depth - 1) for _ in range(r.randint(0, 3))]


# Refusals that the page of the grammar has (docs/grammar.md).
MAY_REFUSE = {"not", "uniqueItems", "unevaluatedItems", "contains", "minContains", "oneOf", "anyOf", "if", "size", "dependentSchemas"}


@pytest.mark.parametrize("seed", [0, 1, 2, 122])
def test_decisions_are_those_of_another_validator(tmp_path, seed):
    r = random.Random(seed)
    accepted = rejected = refused = 0
    for _ in range(60):
        tried = schema(r, 2)
        validator = jsonschema.Draft202012Validator(tried)
        instances = [value(r, 2) for _ in range(40)]
        answer = run(tmp_path, "--schema", json.dumps(tried), [json.dumps(instance, ensure_ascii=r.random() < 0.5) for instance in instances])
        if answer.returncode == 1:
            assert answer.stdout.removeprefix("refused: ").strip() in MAY_REFUSE, (tried, answer.stdout, answer.stderr)
            refused += 1
            continue
        assert answer.returncode == 0, (tried, answer.stderr)
        for instance, decision in zip(instances, answer.stdout.split(), strict=True):
            valid = validator.is_valid(instance)
            assert decision == ("accepted" if valid else "rejected"), (tried, instance)
            accepted += valid
            rejected += not valid
    assert accepted > 200 and rejected > 200 and refused < 12, (accepted, rejected, refused)


def test_expressions_and_grammars_are_asked_by_file(tmp_path):
    assert run(tmp_path, "--regex", "[a-z]+\n", ["abc", '"abc"', '"a1"', "A"]).stdout.split() == ["accepted", "accepted", "rejected", "rejected"]
    assert run(tmp_path, "--ebnf", 'root ::= "(" root ")" | "x"\n', ["((x))", "((x)", '"x"']).stdout.split() == ["accepted", "rejected", "accepted"]
    refused = run(tmp_path, "--regex", "(a)\\1", ["aa"])
    assert (refused.returncode, refused.stdout) == (1, "refused: pattern\n")
