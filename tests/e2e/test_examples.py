"""The clients of docs/examples, on the small model: what they do, not how well it thinks."""

import importlib.util

from conftest import ROOT


def example(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_most_of_the_votes_win(client):
    vote = example("vote")
    question = [{"role": "user", "content": "What is the capital of France?"}]
    word = lambda text: "paris" if "Paris" in text else None
    answer, share, votes = vote.vote(client, question, n=8, answer_of=word, temperature=0.3, seed=4, max_tokens=40)
    assert sum(votes.values()) <= 8 and (answer == "paris") == (share > 0)
    assert vote.vote(client, question, n=8, answer_of=word, temperature=0.3, seed=4, max_tokens=40) == (answer, share, votes)
    assert vote.last_answer("so\nAnswer: 42.\n") == "42"


def test_a_tree_shares_its_prefixes(client):
    tree = example("tree_of_thoughts").Tree(client, "Once upon a time there was a little cat. " * 4, branching=3, beam=2, step_tokens=12, end=".")
    text, score = tree.search(depth=3)
    assert text.count(".") >= 3 and -1 <= score <= 1
    assert tree.cached_tokens > tree.prompt_tokens / 2
    assert tree.search(depth=3) == (text, score)
    # A score of one's own.
    longest, length = tree.search(depth=2, score=lambda thoughts: [len(thought) for thought in thoughts])
    assert len(longest) == length
