"""Makes golden-streaming.json and golden-self_extend.json beside a checkpoint of tests/fixtures/models: what it answers when its
attention is stretched beyond its context.

Run by hand, never by the tests, with the environment of make_model_golden.py, whose checkpoints it reads:
    VENV/bin/python tests/golden/make_long_golden.py

Both are written here as their papers define them, in float32 over the model that transformers builds: StreamingLLM (Xiao et al. 2023,
section 3.2) row by row, with a cache of the first tokens and the last and positions counted inside that cache; Self-Extend (Jin et al.
2024, section 3.2 and appendix) with two whole matrices of scores of which a mask chooses.
"""

import json
import pathlib

import torch
import transformers
from model_golden import ROOT, greedy, log_probs
from transformers.models.qwen3 import modeling_qwen3

NAME = "qwen3"
SINKS, STREAM_WINDOW = 4, 20
NEIGHBOURS, GROUP = 16, 4


def rotated(x, positions, theta):
    """x [heads, rows, dim], one position for each row."""
    half = x.shape[-1] // 2
    frequencies = theta ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = positions.double()[:, None] * frequencies
    cos, sin = angles.cos().float(), angles.sin().float()
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def streaming(q, k, v, scale, theta):
    rows = []
    for p in range(q.shape[1]):
        cached = [j for j in range(p + 1) if j < SINKS or j > p - STREAM_WINDOW]
        inside = torch.arange(len(cached))
        query = rotated(q[:, p:p + 1], inside[-1:], theta)
        keys = rotated(k[:, cached], inside, theta)
        rows.append(torch.softmax(query @ keys.transpose(1, 2) * scale, dim=-1) @ v[:, cached])
    return torch.cat(rows, dim=1)


def self_extend(q, k, v, scale, theta):
    length = q.shape[1]
    position = torch.arange(length)
    near = rotated(q, position, theta) @ rotated(k, position, theta).transpose(1, 2)
    group = position // GROUP
    far = rotated(q, group + NEIGHBOURS - NEIGHBOURS // GROUP, theta) @ rotated(k, group, theta).transpose(1, 2)
    distance = position[:, None] - position[None, :]
    scores = torch.where(distance < NEIGHBOURS, near, far) * scale
    return torch.softmax(scores.masked_fill(distance < 0, float("-inf")), dim=-1) @ v


def attention_by(attend):
    def forward(self, hidden_states, position_embeddings, attention_mask, past_key_values=None, **kwargs):
        rows = hidden_states.shape[1]
        shape = (rows, -1, self.head_dim)
        q = self.q_norm(self.q_proj(hidden_states)[0].view(shape)).transpose(0, 1)
        k = self.k_norm(self.k_proj(hidden_states)[0].view(shape)).transpose(0, 1).repeat_interleave(self.num_key_value_groups, dim=0)
        v = self.v_proj(hidden_states)[0].view(shape).transpose(0, 1).repeat_interleave(self.num_key_value_groups, dim=0)
        out = attend(q, k, v, self.scaling, self.config.rope_parameters["rope_theta"])
        return self.o_proj(out.transpose(0, 1).reshape(1, rows, -1)), None

    return forward


def main():
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    folder = pathlib.Path(ROOT) / NAME
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    plain = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    for kind, attend in {"streaming": streaming, "self_extend": self_extend}.items():
        modeling_qwen3.Qwen3Attention.forward = attention_by(attend)
        cases = []
        for case in plain["cases"]:
            continuation, margins = greedy(model, case["prompt"])
            vectors = log_probs(model, case["prompt"] + continuation)
            cases.append({"prompt": case["prompt"], "greedy": continuation, "margins": [round(m, 5) for m in margins],
                          "positions": case["positions"],
                          "log_probs": [[round(x, 6) for x in vectors[p].tolist()] for p in case["positions"]]})
        reference = f"torch {torch.__version__.split('+')[0]}, float32, {kind} as its paper defines it"
        golden = {"reference": reference, "seed": plain["seed"], "cases": cases}
        (folder / f"golden-{kind}.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n", encoding="utf-8")
        print(f"{kind}: smallest margin {min(min(c['margins']) for c in cases):.4f}", flush=True)


if __name__ == "__main__":
    main()
