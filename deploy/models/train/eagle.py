"""Trains an EAGLE head for a demo model on the CPU: the first form (Li et al. 2024) or, with --third, that of EAGLE-3 (Li
et al. 2025). The model stays as it is.

The head reads at position t what the model made of t and the token at t + 1, and says what the model would draw at t + 2. It
is trained as it is used: behind the model's own rows it reads rows that it made itself (the "training-time test" of
EAGLE-3, section 3.2; --passes of them), against the model's whole distribution. The folder has the names of the published
checkpoints:

 - first form: fc, layers.0 (a Llama layer without a norm before attention); embedding and output head are the model's
 - third form: fc over what the model's layers 2, n / 2 and n - 3 read, midlayer (attention reads the normalised embedding
   beside the normalised row), norm, lm_head over the tokens that are drawn most often; d2t (what is added to such an id
   to have the model's), t2d (which of the model's ids it has)

    python eagle.py ../serval-nano ../serval-nano-eagle
    python eagle.py ../serval-nano ../serval-nano-eagle3 --third
"""

import json

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from medusa import argument_parser, batches, begin_training, report


class Norm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


class Attention(nn.Module):
    """Of rows that follow each other, and behind each of them of a chain of guesses: pass k stands k positions on."""

    def __init__(self, c, width):
        super().__init__()
        self.heads, self.kv_heads, self.dim, self.theta = c.num_attention_heads, c.num_key_value_heads, c.head_dim, 10000.0
        self.q_proj = nn.Linear(width, self.heads * self.dim, bias=False)
        self.k_proj = nn.Linear(width, self.kv_heads * self.dim, bias=False)
        self.v_proj = nn.Linear(width, self.kv_heads * self.dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.dim, c.hidden_size, bias=False)

    def rotate(self, x, first):
        positions = torch.arange(first, first + x.shape[2], dtype=torch.float32)
        angles = positions[:, None] * self.theta ** (-torch.arange(0, self.dim, 2) / self.dim)
        cos, sin = angles.cos(), angles.sin()
        a, b = x.chunk(2, dim=-1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)

    def forward(self, x, kept):
        rows, length, _ = x.shape
        split = lambda y, heads: y.view(rows, length, heads, self.dim).transpose(1, 2)
        q = self.rotate(split(self.q_proj(x), self.heads), len(kept))
        k = self.rotate(split(self.k_proj(x), self.kv_heads), len(kept))
        v = split(self.v_proj(x), self.kv_heads)
        share = lambda y: y.repeat_interleave(self.heads // self.kv_heads, dim=1)
        kept.append((share(k), share(v)))
        cut = lambda y: y[:, :, :length]  # later passes have fewer rows
        scores = q @ cut(kept[0][0]).transpose(2, 3)
        scores = scores.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), float("-inf"))
        own = [(q * cut(key)).sum(-1, keepdim=True) for key, _ in kept[1:]]
        weights = (torch.cat([scores, *own], dim=-1) / self.dim**0.5).softmax(-1)
        out = weights[..., :length] @ cut(kept[0][1])
        for i, (_, value) in enumerate(kept[1:]):
            out = out + weights[..., length + i : length + i + 1] * cut(value)
        return self.o_proj(out.transpose(1, 2).reshape(rows, length, -1))


class Mlp(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.up_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.down_proj = nn.Linear(c.intermediate_size, c.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, c, third):
        super().__init__()
        self.self_attn = Attention(c, c.hidden_size * (2 if third else 1))
        self.mlp = Mlp(c)
        self.post_attention_layernorm = Norm(c.hidden_size, c.rms_norm_eps)
        if third:
            self.input_layernorm = Norm(c.hidden_size, c.rms_norm_eps)
            self.hidden_norm = Norm(c.hidden_size, c.rms_norm_eps)

    def forward(self, row, read, kept):
        x = row + self.self_attn(read, kept)
        return x + self.mlp(self.post_attention_layernorm(x))


def begin_as_it_is(fc, layer):
    """At the start what it makes of a row is the row that it read last."""
    nn.init.zeros_(layer.self_attn.o_proj.weight)
    nn.init.zeros_(layer.mlp.down_proj.weight)
    with torch.no_grad():
        fc.weight *= 0.3
        fc.weight[:, -fc.out_features :] += torch.eye(fc.out_features)


class First(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.fc = nn.Linear(2 * c.hidden_size, c.hidden_size, bias=False)
        self.layers = nn.ModuleList([Layer(c, False)])
        begin_as_it_is(self.fc, self.layers[0])

    def begin(self, states):
        return states[-1]

    def forward(self, embedded, row, kept):
        x = self.fc(torch.cat((embedded, row), dim=-1))
        return self.layers[0](x, x, kept)

    def logits(self, row, model_head):
        return F.linear(row, model_head)


class Third(nn.Module):
    def __init__(self, c, layers, most_drawn, model_head):
        super().__init__()
        self.fc = nn.Linear(len(layers) * c.hidden_size, c.hidden_size, bias=False)
        self.midlayer = Layer(c, True)
        self.norm = Norm(c.hidden_size, c.rms_norm_eps)
        self.lm_head = nn.Linear(c.hidden_size, len(most_drawn), bias=False)
        self.lm_head.weight.data.copy_(model_head[most_drawn])
        begin_as_it_is(self.fc, self.midlayer)
        self.read_layers, self.most_drawn = layers, most_drawn

    def begin(self, states):
        return self.fc(torch.cat([states[l] for l in self.read_layers], dim=-1))

    def forward(self, embedded, row, kept):
        read = torch.cat((self.midlayer.input_layernorm(embedded), self.midlayer.hidden_norm(row)), dim=-1)
        return self.midlayer(row, read, kept)

    def logits(self, row, _):
        return self.lm_head(self.norm(row))


def main():
    parser = argument_parser(__doc__, steps=4000, rate=3e-3)
    parser.add_argument("--third", action="store_true")
    parser.add_argument("--passes", type=int, default=4)
    parser.add_argument("--draft-vocab", type=int, default=1024)
    args = parser.parse_args()
    model, ids, labels, starts = begin_training(args)
    c, model_head, table = model.config, model.get_output_embeddings().weight, model.get_input_embeddings().weight
    n = c.num_hidden_layers
    most_drawn = torch.arange(c.vocab_size)
    stored = load_file(args.again / "model.safetensors") if args.again else {}
    if "d2t" in stored:
        most_drawn = most_drawn[: len(stored["d2t"])] + stored["d2t"]
    elif args.third:
        counts = np.bincount(labels[labels >= 0], minlength=c.vocab_size)
        most_drawn = torch.from_numpy(np.sort(np.argsort(-counts, kind="stable")[: args.draft_vocab]))
        print("of the tokens drawn it has", counts[most_drawn.numpy()].sum() / counts.sum())
    head = Third(c, (2, n // 2, n - 3), most_drawn, model_head) if args.third else First(c)
    if stored:
        head.load_state_dict({name: stored[name].float() for name in head.state_dict()})
    optimizer = torch.optim.AdamW(head.parameters(), lr=args.rate, weight_decay=0, betas=(0.9, 0.95))
    for done, begin, batch, trained in batches(args, optimizer, ids, labels, starts, warm_up=20, fall=0.6):
        with torch.no_grad():
            out = model.model(batch, output_hidden_states=True)
            states = [*out.hidden_states[:n], out.last_hidden_state]  # what each layer reads, and what the head reads
            wanted = F.linear(states[-1], model_head[most_drawn]).softmax(-1)  # wanted[t] stands at t + 1
            whole = F.linear(states[-1], model_head).argmax(-1)
        embedded = table[batch]
        row, kept, loss, right = head.begin(states), [], 0, []
        for k in range(args.passes):
            size = batch.shape[1] - 2 - k  # row i stands at i + k, reads the token at i + k + 1, says that at i + k + 2
            row = head(embedded[:, k + 1 : k + 1 + size], row[:, :size], kept)
            keep = trained[:, k + 2 : k + 2 + size]
            logits = head.logits(row[keep], model_head)
            loss = loss + 0.8**k * F.cross_entropy(logits, wanted[:, k + 1 : k + 1 + size][keep])
            if not args.third:
                loss = loss + 0.8**k * F.smooth_l1_loss(row[keep], states[-1][:, k + 1 : k + 1 + size][keep])
            right.append((most_drawn[logits.argmax(-1)] == whole[:, k + 1 : k + 1 + size][keep]).float().mean().item())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        report(done, begin, loss, right)
    tensors = {name: value.bfloat16().contiguous() for name, value in head.state_dict().items()}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": c.hidden_size,
        "intermediate_size": c.intermediate_size,
        "num_hidden_layers": 1,
        "num_attention_heads": c.num_attention_heads,
        "num_key_value_heads": c.num_key_value_heads,
        "head_dim": c.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": c.rms_norm_eps,
        "rope_theta": 10000.0,
        "max_position_embeddings": c.max_position_embeddings,
        "vocab_size": c.vocab_size,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    if args.third:
        config["draft_vocab_size"] = len(most_drawn)
        tensors["d2t"] = most_drawn - torch.arange(len(most_drawn))
        tensors["t2d"] = torch.zeros(c.vocab_size, dtype=torch.bool).index_fill(0, most_drawn, True)
    else:
        config["bias"] = False
        tensors["embed_tokens.weight"] = table.bfloat16().contiguous()
    args.folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, args.folder / "model.safetensors", metadata={"format": "pt"})
    (args.folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
