"""Self-consistency (Wang et al. 2022): draws several answers to one prompt and gives the one that most of them come to.

    python docs/examples/vote.py "What is 17 + 25? Think, then end with: Answer: NUMBER"
"""

import collections
import re
import sys

import openai


def last_answer(text):
    """What stands behind the last "Answer:", or the whole text."""
    found = re.findall(r"[Aa]nswer:\s*(.+)", text)
    return (found[-1] if found else text).strip().rstrip(".").lower()


def vote(client, messages, n=8, answer_of=last_answer, **fields):
    """(answer, share of the votes, Counter of all). The n choices are one request: they share the prompt's keys and values, which
    are computed once. answer_of: what is counted of a text; None: that one has no vote."""
    fields = {"model": "", "temperature": 0.8, "max_tokens": 512, **fields}
    choices = client.chat.completions.create(messages=messages, n=n, **fields).choices
    votes = collections.Counter(answer for choice in choices if (answer := answer_of(choice.message.content or "")))
    if not votes:
        return None, 0.0, votes
    answer, count = votes.most_common(1)[0]
    return answer, count / n, votes


if __name__ == "__main__":
    served = openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
    print(vote(served, [{"role": "user", "content": sys.argv[1]}]))
