"""Trains a block drafter in the manner of DFlash (Chen et al. 2026) for a demo model on the CPU. The model stays as it is.

It reads a block: the embeddings of the token drawn last and of masks behind it, which all see each other and, as further keys
and values in each of its layers, what some of the model's layers made of the positions before (fc over those side by side, then
hidden_norm). So one forward says a whole block: at the mask j positions behind the last token what stands there. It is trained
at many places of a conversation at once, against the model's whole distribution there, the first masks counting most. Embedding
and output head are the model's. The folder has the names of the published checkpoints (z-lab/*-DFlash-*): fc, hidden_norm,
layers.K as Qwen3's, norm; the mask is a token of the model's that conversations lack.

    python dflash.py ../serval-nano ../serval-nano-dflash
"""

import json

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from eagle import Mlp, Norm
from medusa import argument_parser, batches, begin_training, report


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.kv_heads, self.dim, self.theta = c.num_attention_heads, c.num_key_value_heads, c.head_dim, 10000.0
        self.q_proj = nn.Linear(c.hidden_size, self.heads * self.dim, bias=False)
        self.k_proj = nn.Linear(c.hidden_size, self.kv_heads * self.dim, bias=False)
        self.v_proj = nn.Linear(c.hidden_size, self.kv_heads * self.dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.dim, c.hidden_size, bias=False)
        self.q_norm, self.k_norm = Norm(self.dim, c.rms_norm_eps), Norm(self.dim, c.rms_norm_eps)

    def rotate(self, x, positions):
        angles = positions[:, None, :, None] * self.theta ** (-torch.arange(0, self.dim, 2) / self.dim)
        cos, sin = angles.cos(), angles.sin()
        a, b = x.chunk(2, dim=-1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)

    def forward(self, block, context, positions, context_positions, mask):
        split = lambda y, heads: y.view(*y.shape[:2], heads, self.dim)
        both = torch.cat((context, block), dim=1)
        q = self.rotate(self.q_norm(split(self.q_proj(block), self.heads)).transpose(1, 2), positions)
        k = self.rotate(self.k_norm(split(self.k_proj(both), self.kv_heads)).transpose(1, 2),
                        torch.cat((context_positions, positions), dim=1))
        v = split(self.v_proj(both), self.kv_heads).transpose(1, 2)
        share = lambda y: y.repeat_interleave(self.heads // self.kv_heads, dim=1)
        out = F.scaled_dot_product_attention(q, share(k), share(v), attn_mask=mask)
        return self.o_proj(out.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.self_attn, self.mlp = Attention(c), Mlp(c)
        self.input_layernorm = Norm(c.hidden_size, c.rms_norm_eps)
        self.post_attention_layernorm = Norm(c.hidden_size, c.rms_norm_eps)

    def forward(self, x, *others):
        x = x + self.self_attn(self.input_layernorm(x), *others)
        return x + self.mlp(self.post_attention_layernorm(x))


class Drafter(nn.Module):
    def __init__(self, c, num_layers, num_read):
        super().__init__()
        self.fc = nn.Linear(num_read * c.hidden_size, c.hidden_size, bias=False)
        self.hidden_norm, self.norm = Norm(c.hidden_size, c.rms_norm_eps), Norm(c.hidden_size, c.rms_norm_eps)
        self.layers = nn.ModuleList(Layer(c) for _ in range(num_layers))

    def forward(self, x, read, *others):
        context = self.hidden_norm(self.fc(read))
        for layer in self.layers:
            x = layer(x, context, *others)
        return self.norm(x)


class Optimizers:
    """Muon for the matrices, AdamW for the norms, as one."""

    def __init__(self, module, rate):
        matrices = [p for p in module.parameters() if p.ndim == 2]
        norms = [p for p in module.parameters() if p.ndim != 2]
        self.all = [torch.optim.Muon(matrices, lr=rate, momentum=0.95, weight_decay=0.0), torch.optim.AdamW(norms, lr=rate, weight_decay=0.0)]
        self.param_groups = [group for one in self.all for group in one.param_groups]

    def zero_grad(self):
        for one in self.all:
            one.zero_grad()

    def step(self):
        for one in self.all:
            one.step()


def choose_places(trained, blocks, size):
    """[rows, blocks]: where blocks begin, so that what stands behind is trained."""
    fits = trained[:, 1 : trained.shape[1] - size + 1].float() + 1e-6
    return torch.multinomial(fits, blocks)


def main():
    parser = argument_parser(__doc__, steps=4000, rate=0.02)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--block", type=int, default=8)
    parser.add_argument("--blocks", type=int, default=16, help="of a row of 256 tokens")
    parser.add_argument("--mask", type=int, default=0, help="the token that stands for one that is not known")
    args = parser.parse_args()
    model, ids, labels, starts = begin_training(args)
    c, model_head, table = model.config, model.get_output_embeddings().weight, model.get_input_embeddings().weight
    n, block = c.num_hidden_layers, args.block
    read_layers = [1, n // 2, n - 2]  # what they make
    drafter = Drafter(c, args.layers, len(read_layers))
    if args.again:
        drafter.load_state_dict({name: t.float() for name, t in load_file(args.again / "model.safetensors").items()})
    optimizer = Optimizers(drafter, args.rate)
    ahead = torch.arange(block)
    counts = torch.exp(-(ahead[1:] - 1) / (block / 2))
    for done, begin, batch, trained in batches(args, optimizer, ids, labels, starts, warm_up=20, fall=0.6):
        with torch.no_grad():
            out = model.model(batch, output_hidden_states=True)
            read = torch.cat([out.hidden_states[l + 1] for l in read_layers], dim=-1)
        rows, length = batch.shape
        places = choose_places(trained, args.blocks, block)
        positions = (places[..., None] + ahead).flatten(1)  # [rows, blocks * block]
        tokens = torch.full((rows, args.blocks, block), args.mask)
        tokens[..., 0] = batch.gather(1, places)
        sees_before = torch.arange(length) < places.repeat_interleave(block, dim=1)[..., None]
        number = torch.arange(args.blocks).repeat_interleave(block)
        sees_own = (number[:, None] == number).expand(rows, -1, -1)
        mask = torch.cat((sees_before, sees_own), dim=-1)[:, None]
        made = drafter(table[tokens.flatten(1)], read, positions.float(), torch.arange(length).float().expand(rows, -1), mask)
        made = made.view(rows, args.blocks, block, -1)[:, :, 1:]
        behind = positions.view(rows, args.blocks, block)[:, :, 1:] - 1  # the model's row that says the same
        with torch.no_grad():
            row = out.last_hidden_state.gather(1, behind.flatten(1)[..., None].expand(-1, -1, c.hidden_size)).view_as(made)
            wanted = F.linear(row, model_head)
        logits = F.linear(made, model_head)
        each = F.cross_entropy(logits.flatten(0, 2), wanted.softmax(-1).flatten(0, 2), reduction="none").view(rows, args.blocks, -1)
        weight = counts * trained.gather(1, (behind + 1).flatten(1)).view_as(each)
        loss = (each * weight).sum() / weight.sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(drafter.parameters(), 1.0)
        optimizer.step()
        right = (logits.argmax(-1) == wanted.argmax(-1)).float()
        report(done, begin, loss, right.mean((0, 1)).tolist())
    args.folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.bfloat16().contiguous() for name, value in drafter.state_dict().items()}
    save_file(tensors, args.folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["DFlashDraftModel"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "block_size": block,
        "dflash_config": {"mask_token_id": args.mask, "target_layer_ids": read_layers},
        "dtype": "bfloat16",
        "head_dim": c.head_dim,
        "hidden_act": "silu",
        "hidden_size": c.hidden_size,
        "intermediate_size": c.intermediate_size,
        "layer_types": ["full_attention"] * args.layers,
        "max_position_embeddings": c.max_position_embeddings,
        "model_type": "qwen3",
        "num_attention_heads": c.num_attention_heads,
        "num_hidden_layers": args.layers,
        "num_key_value_heads": c.num_key_value_heads,
        "num_target_layers": n,
        "rms_norm_eps": c.rms_norm_eps,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "vocab_size": c.vocab_size,
    }
    (args.folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
