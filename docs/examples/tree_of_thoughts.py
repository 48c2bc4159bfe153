"""Tree of Thoughts (Yao et al. 2023), breadth first: thoughts are drawn step by step, the best few are gone on with.

A thought's prompt is all that led to it. Siblings are the choices of one request, and a child begins with its parent's text, so that a
prefix cache has everything but the newest step: a level costs its new tokens alone. The scores of a level are one answer of one
token each, of which the log-probability is the score.
"""

import math

import openai


class Tree:
    def __init__(self, client, task, *, branching=4, beam=2, step_tokens=48, end="\n", temperature=0.9, seed=0):
        """end: what ends a thought. branching: thoughts drawn from one; beam: those of a level that are gone on with."""
        self.client, self.task = client, task
        self.branching, self.beam, self.step_tokens = branching, beam, step_tokens
        self.end, self.temperature, self.seed = end, temperature, seed
        self.prompt_tokens = self.cached_tokens = 0

    def _complete(self, prompt, **fields):
        answer = self.client.completions.create(model="", prompt=prompt, **fields)
        self.prompt_tokens += answer.usage.prompt_tokens
        self.cached_tokens += answer.usage.prompt_tokens_details.cached_tokens
        return answer.choices

    def propose(self, so_far):
        """Different next steps, each of at least one character."""
        choices = self._complete(self.task + so_far, n=self.branching, stop=[self.end], max_tokens=self.step_tokens,
                                 temperature=self.temperature, seed=self.seed)
        return list(dict.fromkeys(choice.text for choice in choices if choice.text.strip()))

    def score(self, thoughts, question="\nIs this right? Answer yes or no: "):
        """The probability of "yes" against "no", for each, by one token of the model's own."""
        prompts = [self.task + thought + question for thought in thoughts]
        choices = self._complete(prompts, max_tokens=1, temperature=0, logprobs=1, extra_body={"guided_choice": ["yes", "no"]})
        return [math.exp(choice.logprobs.token_logprobs[0]) * (1 if choice.text.strip().startswith("y") else -1) for choice in choices]

    def search(self, depth, score=None):
        """The best path's text and score after `depth` steps."""
        level = [("", 0.0)]
        for _ in range(depth):
            thoughts = [parent + step + self.end for parent, _ in level for step in self.propose(parent)]
            if not thoughts:
                break
            scores = (score or self.score)(thoughts)
            level = sorted(zip(thoughts, scores), key=lambda pair: -pair[1])[: self.beam]
        return level[0]


if __name__ == "__main__":
    served = openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
    tree = Tree(served, "Use 4, 6, 8 and 3 once each to make 24, one step a line.\n")
    print(tree.search(depth=3))
    print(f"{tree.cached_tokens} of {tree.prompt_tokens} prompt tokens came from the prefix cache")
